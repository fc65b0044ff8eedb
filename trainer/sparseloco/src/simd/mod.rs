//! The only `unsafe` of this crate: loops compiled once for each level of vector instructions, chosen at run time.
//!
//! The bodies are plain Rust, the same for every level: f32 operations in a given order, nothing fused, so that the level
//! changes no bit; only [`pack`] has one in instructions of its own, which computes nothing. What the loops are for is
//! decided by their callers.

#![allow(unsafe_code)]

mod ahead;
mod pack;

pub(crate) use ahead::Ahead;
pub(crate) use pack::{Packed, pack};

use crate::chunk::Scratch;
use crate::codec::book::Book;
use crate::codec::lane::{self, Lane};
use crate::codec::rans::Encoder;
use crate::codec::write;
use crate::select;
use std::sync::OnceLock;

/// Lanes of a running maximum or count: as many as the widest vector has.
pub(crate) const LANES: usize = 16;
/// An f32's bits but for the sign: for finite values they order as the magnitudes do.
pub(crate) const MAGNITUDE: u32 = 0x7fff_ffff;

/// Vector instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What the target guarantees.
    Portable,
    /// AVX2, and the bit instructions of every processor that has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) and what follows.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best level of this processor, asked once; in tests the one that they ask for.
fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::forced() {
        return level;
    }
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Compiles each function once for every [`Level`] and calls the processor's. What its body calls must be
/// `#[inline(always)]`.
macro_rules! vectorised {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        pub(crate) fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2($($argument: $kind),*) $(-> $result)? {
                body($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn avx512($($argument: $kind),*) $(-> $result)? {
                body($($argument),*)
            }
            match level() {
                Level::Portable => body($($argument),*),
                // SAFETY: `level` gives this answer only where the processor has every feature named above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    )*};
}

/// Adjacent chunks inside a state: `rows` of `width` elements, `stride` apart, of which each chunk has `columns`, the last
/// what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

impl Tiles {
    /// Chunks.
    pub(crate) fn count(&self) -> usize {
        self.width.div_ceil(self.columns)
    }

    /// Columns of chunk `tile`.
    pub(crate) fn columns_of(&self, tile: usize) -> usize {
        self.columns.min(self.width - tile * self.columns)
    }

    /// Elements of chunk `tile`.
    pub(crate) fn elements_of(&self, tile: usize) -> usize {
        self.rows * self.columns_of(tile)
    }
}

vectorised! {
    /// Decodes groups side by side, to their ends.
    fn run_lanes(lanes: &mut [Lane<'_>]) {
        lane::run(lanes);
    }

    /// Writes a chunk.
    fn write_chunk(stream: &mut Encoder, indices: &[u16], values: &[f32], elements: u32, book: &Book) {
        write::chunk(stream, indices, values, elements, book);
    }

    /// a = β·e + Δ for chunks of a state, with whose first element `e` and `delta` begin. Puts it where Δ was, and into
    /// `tiles`, chunk by chunk, row-major.
    fn sum_tiles(tiles: &mut [Scratch], e: &[f32], delta: &mut [f32], beta: f32, of: Tiles) {
        for row in 0..of.rows {
            let from = row * of.stride..row * of.stride + of.width;
            let parts = e[from.clone()].chunks(of.columns).zip(delta[from].chunks_mut(of.columns));
            for (tile, (e, delta)) in tiles.iter_mut().zip(parts) {
                let a = &mut tile[row * e.len()..][..e.len()];
                for ((a, e), delta) in a.iter_mut().zip(e).zip(delta) {
                    let sum = beta * e + *delta;
                    (*a, *delta) = (sum, sum);
                }
            }
        }
    }

    /// The largest magnitude's bits of each of as many groups as `maxima` has: element i is of group i mod groups.
    fn group_maxima(dense: &[f32], maxima: &mut [u32]) {
        maxima.fill(0);
        for row in dense.chunks(maxima.len()) {
            for (most, value) in maxima.iter_mut().zip(row) {
                *most = (*most).max(value.to_bits() & MAGNITUDE);
            }
        }
    }

    /// The magnitudes' bits.
    fn magnitudes(dense: &[f32], magnitudes: &mut [u32]) {
        for (magnitude, value) in magnitudes.iter_mut().zip(dense) {
            *magnitude = value.to_bits() & MAGNITUDE;
        }
    }

    /// For each element whether its magnitude reaches `least`: bit i mod 64 of word ⌊i / 64⌋.
    fn marks(dense: &[f32], least: u32, marks: &mut [u64; 64], ahead: &mut Ahead) {
        for (word, elements) in marks.iter_mut().zip(dense.chunks(64)) {
            let mut bytes = [0u8; 64];
            for (byte, value) in bytes.iter_mut().zip(elements) {
                *byte = u8::from((value.to_bits() & MAGNITUDE) as i32 >= least as i32);
            }
            let (eights, _) = bytes.as_chunks::<8>();
            // Gathers the low bits of eight bytes in the upper byte of the product.
            let gathered = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *word = eights.iter().rev().fold(0, |word, eight| word << 8 | gathered(eight));
            ahead.fetch(4);
        }
    }

    /// [`select::pick`].
    fn pick(candidates: &Packed, count: usize, floor: u32, chosen: &mut Vec<u16>, ahead: &mut Ahead) -> u32 {
        select::pick(candidates, count, floor, chosen, ahead)
    }

    /// [`select::threshold`].
    fn threshold(magnitudes: &[u32], count: usize, spare: usize, low: u32) -> u32 {
        select::threshold(magnitudes, count, spare, low)
    }
}

/// The largest.
#[inline(always)]
pub(crate) fn largest(magnitudes: &[u32]) -> u32 {
    magnitudes.iter().fold(0, |most, &magnitude| most.max(magnitude))
}

/// How many reach `least`. All must be below 2³¹: signed compares are what older processors have.
#[inline(always)]
pub(crate) fn reaching(magnitudes: &[u32], least: u32) -> usize {
    let (whole, rest) = magnitudes.as_chunks::<LANES>();
    let mut counts = [0i32; LANES];
    for sixteen in whole {
        for lane in 0..LANES {
            counts[lane] += i32::from(sixteen[lane] as i32 >= least as i32);
        }
    }
    let rest = rest.iter().filter(|&&magnitude| magnitude >= least).count();
    counts.iter().sum::<i32>() as usize + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Levels that this processor has, the best last.
    fn available() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        let levels = [Level::Portable, Level::Avx2, Level::Avx512];
        #[cfg(not(target_arch = "x86_64"))]
        let levels = [Level::Portable];
        let best = levels.iter().position(|level| *level == detect()).expect("it is one of them");
        levels[..=best].to_vec()
    }

    /// The place in [`available`], from 1, of the level that all threads use; 0: the best.
    static FORCED: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn forced() -> Option<Level> {
        let place = FORCED.load(Ordering::Relaxed).checked_sub(1)?;
        available().get(place).copied()
    }

    /// Does `work` at every level that this processor has. Tests beside it meet other levels too, and must not mind.
    fn at_every_level(mut work: impl FnMut(Level)) {
        struct Best;
        impl Drop for Best {
            fn drop(&mut self) {
                FORCED.store(0, Ordering::Relaxed);
            }
        }
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _best = Best;
        for (place, level) in available().into_iter().enumerate() {
            FORCED.store(place + 1, Ordering::Relaxed);
            println!("at {level:?}");
            work(level);
        }
    }

    #[test]
    fn every_level_makes_the_pinned_bits() {
        at_every_level(|asked| {
            assert_eq!(level(), asked);
            crate::pinned::everything_made_is_as_pinned();
        });
    }

    #[test]
    fn packs_and_counts_agree_with_their_definitions_at_every_level() {
        at_every_level(|_| packs_and_counts_agree());
    }

    fn packs_and_counts_agree() {
        let dense: Vec<f32> = (0..3001).map(|at| ((at * 7919) % 1013) as f32 - 500.0).collect();
        let mut bits = vec![0; dense.len()];
        magnitudes(&dense, &mut bits);
        let mut packed = Packed::new();
        for least in [0, 1.0f32.to_bits(), 250.0f32.to_bits(), 499.5f32.to_bits(), f32::MAX.to_bits()] {
            for dense in [&dense[..], &dense[..17], &dense[..16], &dense[..5], &[]] {
                let expected = (0..).zip(dense).map(|(index, value)| (index, value.abs().to_bits()));
                let expected: Vec<(u16, u32)> = expected.filter(|(_, magnitude)| *magnitude >= least).collect();
                pack(dense, least, &mut packed, &mut Ahead::nothing());
                let found = packed.indices().iter().copied().zip(packed.magnitudes().iter().copied());
                assert_eq!(found.collect::<Vec<_>>(), expected, "{} elements, least {least:#x}", dense.len());
                assert_eq!(reaching(&bits[..dense.len()], least), expected.len());
            }
        }
        assert_eq!(largest(&bits), 512.0f32.to_bits());
    }
}
