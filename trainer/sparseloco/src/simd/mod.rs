//! Loops over a state's and a chunk's elements, compiled once for each level of vector instructions, chosen at run time
//! ([`covey_simd`]). Loops that only one file needs lie there, compiled in the same way.
//!
//! The bodies are plain Rust, the same for every level: f32 operations in a given order, nothing fused, so that the level
//! changes no bit; only [`pack`] has one in instructions of its own, which computes nothing. What the loops are for is
//! decided by their callers. The only `unsafe` of this crate is in the two files of this folder.

mod ahead;
mod pack;

pub(crate) use ahead::Ahead;
pub(crate) use pack::{Packed, pack};

use crate::chunk::Scratch;
use covey_simd::vectorised;

/// Lanes of a running maximum or count: as many as the widest vector has.
pub(crate) const LANES: usize = 16;
/// An f32's bits but for the sign: for finite values they order as the magnitudes do.
pub(crate) const MAGNITUDE: u32 = 0x7fff_ffff;

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
    /// a = β·e + (base − trained) for chunks of a state, with whose first element all three begin. Puts it where `trained`
    /// was, and into `tiles`, chunk by chunk, row-major.
    pub(crate) fn sum_tiles(
        tiles: &mut [Scratch],
        base: &[f32],
        e: &[f32],
        trained: &mut [f32],
        beta: f32,
        of: Tiles,
    ) {
        for row in 0..of.rows {
            let from = row * of.stride..row * of.stride + of.width;
            let states = base[from.clone()].chunks(of.columns).zip(e[from.clone()].chunks(of.columns));
            let parts = states.zip(trained[from].chunks_mut(of.columns));
            for (tile, ((base, e), trained)) in tiles.iter_mut().zip(parts) {
                let a = &mut tile[row * e.len()..][..e.len()];
                for ((a, trained), (base, e)) in a.iter_mut().zip(trained).zip(base.iter().zip(e)) {
                    let sum = beta * e + (base - *trained);
                    (*a, *trained) = (sum, sum);
                }
            }
        }
    }

    /// The largest magnitude's bits of each of as many groups as `maxima` has: element i is of group i mod groups.
    pub(crate) fn group_maxima(dense: &[f32], maxima: &mut [u32]) {
        maxima.fill(0);
        for row in dense.chunks(maxima.len()) {
            for (most, value) in maxima.iter_mut().zip(row) {
                *most = (*most).max(value.to_bits() & MAGNITUDE);
            }
        }
    }

    /// The magnitudes' bits.
    pub(crate) fn magnitudes(dense: &[f32], magnitudes: &mut [u32]) {
        for (magnitude, value) in magnitudes.iter_mut().zip(dense) {
            *magnitude = value.to_bits() & MAGNITUDE;
        }
    }

    /// For each element whether its magnitude reaches `least`: bit i mod 64 of word ⌊i / 64⌋.
    pub(crate) fn marks(dense: &[f32], least: u32, marks: &mut [u64; 64], ahead: &mut Ahead) {
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
    use covey_simd::{Level, level};
    use std::sync::Mutex;

    /// Does `work` at every level that this processor has. Tests beside it meet other levels too, and must not mind.
    fn at_every_level(mut work: impl FnMut(Level)) {
        struct Best;
        impl Drop for Best {
            fn drop(&mut self) {
                covey_simd::lower_to(covey_simd::best());
            }
        }
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _best = Best;
        for level in covey_simd::levels() {
            covey_simd::lower_to(level);
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
