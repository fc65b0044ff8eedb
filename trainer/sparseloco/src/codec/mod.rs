//! The shard codec: one sparse shard, one byte string.
//!
//! What follows from the run is not repeated: reader and writer know the layout, the chunks that the shard covers, k and the
//! quantiser. A chunk of n elements sends c = ⌈n·k/4096⌉ values, or none. All integers are little-endian.
//!
//! # Version 1, byte by byte
//! ```text
//! shard := table groups          chunks are taken in groups of 64, the last smaller: each group decodes alone
//! table := u32 a group           that group's bytes; groups follow one another to the end of the shard
//! group := books state words
//! books: sign: for each chunk            u16 m        0, or 0x2180 ≤ m ≤ 0x4980, a bfloat16 (an f32's upper half) of 2⁻⁶⁰ to 2²⁰
//!        two-magnitudes: for each chunk  u16 lo, hi   both 0, or 0x2180 ≤ lo ≤ hi ≤ 0x4980; lo = hi if one would be unused
//!        templar: for each tensor that has chunks in the group
//!                                        u8 u ≤ 4, u × f32 y: rising; +0, or 2⁻⁶⁰ ≤ |y| ≤ 2²⁰; each used in the group
//!        Chunks whose scales are 0, or whose u is, send nothing.
//! state := u64, 2³¹ ≤ state < 2⁶³
//! words := u32 …
//! ```
//! State and words are one rANS stream, which holds the chunks that send something, one after the other. x is the state;
//! *refill* means: if x < 2³¹, x ← x·2³² + the next word. For each such chunk:
//! ```text
//! n ← its elements; k ← c; p ← 0;  v ← sign: 1; two magnitudes: 1 if lo = hi, else 2; templar: 0, 1, 2, 2 for u = 1, 2, 3, 4
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
//!   the value's index is p + g;  b ← bits mod 2^v
//!   it is: sign, two magnitudes: negative if b is odd, hi if b ≥ 2, else lo (or m);  templar: y[b] (b ≥ u: invalid)
//!   p ← p + g + 1;  n ← n − g − 1;  k ← k − 1
//! ```
//! A chunk of lo < hi that never uses one of them is invalid, and so is a tensor's run in the group that never uses one of its
//! y. At the end of the group x = 2³¹ and no byte is left.
//!
//! The table of (n, k): M ← ⌊16·(n+1) / (k+1)⌋; o ← ⌊log₂M⌋; f ← ⌊M / 2^(o−3)⌋ mod 8; D ← (2·(8+f)+1)·2^(o−3);
//! shift ← max(0, o − 7); r ← ⌊(D − 32)·2³² / D⌋, and `shift` times r ← ⌊r² / 2³²⌋. B ← 2³²; for t = 0 … 31:
//! start\[t\] ← ⌊(2³² − B)·(2¹⁵ − 32) / 2³²⌋ + t, then B ← ⌊B·r / 2³²⌋; start\[32\] ← 2¹⁵.
//!
//! # One value, one encoding
//! Indices, scales and signs determine the steps (no gap has two descriptions, no forced value a symbol), steps determine
//! the stream (see `rans`), and the decoder accepts no other: what decodes would encode to the same bytes. Tests re-encode.

mod book;
mod bound;
mod gap;
mod lane;
mod rans;
mod read;
mod write;

pub use bound::max_shard_bytes;
pub use read::decode_shard;
pub(crate) use write::encode_chunks;
pub use write::{EncodeError, encode_shard};

use covey_proto::layout::CHUNK;

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
    /// Values of a tensor that do not rise, or are out of range.
    #[error("the values of chunk {chunk}'s tensor must be at most 4, rising, each 0 or of 2^-60 to 2^20")]
    Values {
        /// The tensor's first chunk in the group.
        chunk: usize,
    },
    /// A magnitude or value that is not used, or one that is not there.
    #[error(
        "chunk {chunk}, or its tensor's others in the group, does not use what its scales name, or uses what they do not"
    )]
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

fn assert_k(k: usize) {
    assert!((1..=CHUNK).contains(&k), "k is {k}; a run has 1 to {CHUNK}");
}

#[cfg(test)]
mod tests;
