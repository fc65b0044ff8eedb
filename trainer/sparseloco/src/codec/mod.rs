//! The shard codec: one sparse shard, one byte string.
//!
//! What follows from the run is not repeated: reader and writer know the layout, the chunks that the shard covers, k and the
//! quantiser. A chunk of n elements sends c = ⌈n·k/4096⌉ values, or none. All integers are little-endian.
//!
//! # Version 1, byte by byte
//! ```text
//! shard := table groups          chunks are taken in groups of 64, the last smaller: each group decodes alone
//! table := u32 a group           that group's bytes; groups follow one another to the end of the shard
//! group := scales state words
//! scales: for each chunk, magnitudes as bfloat16 (the upper 16 bits of an f32)
//!         sign:            u16 m        0, or 0x2180 ≤ m ≤ 0x4980 (2⁻⁶⁰ to 2²⁰)
//!         two-magnitudes:  u16 lo, hi   both 0, or 0x2180 ≤ lo ≤ hi ≤ 0x4980; lo = hi if one of them would be unused
//!         A chunk whose scales are 0 sends nothing.
//! state := u64, 2³¹ ≤ state < 2⁶³
//! words := u32 …
//! ```
//! State and words are one rANS stream, which holds the chunks that send something, one after the other. x is the state;
//! *refill* means: if x < 2³¹, x ← x·2³² + the next word. For each such chunk:
//! ```text
//! n ← its elements; k ← c; p ← 0;  v ← 1 (2 if there are two magnitudes and lo < hi)
//! while k > 0:
//!   if n = k:                               every position left has a value
//!     bits ← x mod 2^v;  x ← ⌊x / 2^v⌋;  refill;  g ← 0
//!   else:
//!     T ← the table of (n, k);  s ← x mod 2¹⁵
//!     t ← the class with start[t] ≤ s < start[t+1];   x ← (start[t+1] − start[t])·⌊x / 2¹⁵⌋ + s − start[t]
//!     if t = 31:                            no value in the next 31·2^shift positions
//!       refill;  d ← 31·2^shift;  n ← n − d (n < k: invalid);  p ← p + d;  continue
//!     w ← shift + v;  bits ← x mod 2^w;  x ← ⌊x / 2^w⌋;  refill
//!     g ← t·2^shift + ⌊bits / 2^v⌋ (g > n − k: invalid)
//!   the value's index is p + g;  bit 0 of bits: negative;  bit 1, if v = 2: hi, else lo
//!   p ← p + g + 1;  n ← n − g − 1;  k ← k − 1
//! ```
//! With v = 2 a chunk that never uses lo, or never hi, is invalid. At the end of the group x = 2³¹ and no byte is left.
//!
//! The table of (n, k): M ← ⌊16·(n+1) / (k+1)⌋; o ← ⌊log₂M⌋; f ← ⌊M / 2^(o−3)⌋ mod 8; D ← (2·(8+f)+1)·2^(o−3);
//! shift ← max(0, o − 7); r ← ⌊(D − 32)·2³² / D⌋, and `shift` times r ← ⌊r² / 2³²⌋. B ← 2³²; for t = 0 … 31:
//! start\[t\] ← ⌊(2³² − B)·(2¹⁵ − 32) / 2³²⌋ + t, then B ← ⌊B·r / 2³²⌋; start\[32\] ← 2¹⁵.
//!
//! # One value, one encoding
//! Indices, scales and signs determine the steps (no gap has two descriptions, no forced value a symbol), steps determine
//! the stream (see `rans`), and the decoder accepts no other: what decodes would encode to the same bytes. Tests re-encode.

mod bound;
mod gap;
mod rans;
mod read;
mod write;

pub use bound::max_shard_bytes;
pub use read::decode_shard;
pub(crate) use write::encode_chunks;
pub use write::{EncodeError, encode_shard};

use crate::quantise::{MAGNITUDE_MAX, MAGNITUDE_MIN};
use covey_proto::layout::CHUNK;
use covey_proto::run::Quantiser;

/// The version of this layout: what a contribution's manifest names as its codec.
pub const CODEC_VERSION: u32 = 1;
/// Chunks of a group. 64 of 64 values share 10 bytes of table and state: 0.02 bits a value.
pub const GROUP_CHUNKS: usize = 64;
/// Bytes of a group's entry in the table.
const ENTRY_BYTES: usize = 4;

/// Why bytes are no shard of this run: their author's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than any shard of these chunks needs.
    #[error("shard is {got} bytes; at most {max} can be needed")]
    TooLong {
        /// Bytes that came.
        got: usize,
        /// Bytes that may.
        max: usize,
    },
    /// The groups' table is cut short, or its sum is not the bytes that follow.
    #[error("the table of {groups} groups does not fit the shard's {got} bytes")]
    Table {
        /// Groups that the shard's chunks make.
        groups: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A group has no room for its scales and state, or its state is out of range.
    #[error("the group of chunk {chunk} has no valid scales and state")]
    Head {
        /// The group's first chunk.
        chunk: usize,
    },
    /// Scales that are out of range or not in order.
    #[error(
        "chunk {chunk} has the scales {low:#06x} and {high:#06x}; they must be 0, or 0x2180 <= low <= high <= 0x4980"
    )]
    Scales {
        /// The chunk.
        chunk: usize,
        /// Its lower scale.
        low: u16,
        /// Its upper scale; with one scale, that one.
        high: u16,
    },
    /// An index past the chunk, or too late for the values that are left.
    #[error("chunk {chunk} has an index past its end")]
    Index {
        /// The chunk.
        chunk: usize,
    },
    /// Two magnitudes, of which one is not used.
    #[error("chunk {chunk} names a magnitude that it does not use")]
    Unused {
        /// The chunk.
        chunk: usize,
    },
    /// The stream ends too soon.
    #[error("chunk {chunk} is cut short")]
    Truncated {
        /// The chunk.
        chunk: usize,
    },
    /// Bytes are left over, or the stream does not end in the state from which encoders start.
    #[error("the group of chunk {chunk} does not end where its encoder began")]
    Ending {
        /// The group's first chunk.
        chunk: usize,
    },
}

/// A chunk's magnitudes; with one, both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scales {
    low: u16,
    high: u16,
}

impl Scales {
    /// Those of a chunk that sends nothing.
    const NONE: Scales = Scales { low: 0, high: 0 };

    fn are_none(self) -> bool {
        self == Scales::NONE
    }
    fn are_valid(self) -> bool {
        self.are_none() || MAGNITUDE_MIN <= self.low && self.low <= self.high && self.high <= MAGNITUDE_MAX
    }
    /// Bits a value besides its index: a sign, and a choice where there is one.
    fn value_bits(self) -> u32 {
        if self.low == self.high { 1 } else { 2 }
    }
}

fn scale_bytes(quantiser: Quantiser) -> usize {
    match quantiser {
        Quantiser::Sign => 2,
        Quantiser::TwoMagnitudes => 4,
    }
}

fn assert_k(k: usize) {
    assert!((1..=CHUNK).contains(&k), "k is {k}; a run has 1 to {CHUNK}");
}

#[cfg(test)]
mod tests;
