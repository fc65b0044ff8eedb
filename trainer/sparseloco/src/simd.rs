//! The only `unsafe` of this crate: loops compiled once for each level of vector instructions, chosen at run time.
//!
//! The bodies are plain Rust, the same for every level: f32 operations in a given order, nothing fused, so that the level
//! changes no bit. What the loops are for is decided by their callers.

#![allow(unsafe_code)]

use crate::codec::lane::{self, Lane};
use std::sync::OnceLock;

/// Lanes of a running sum or maximum: as many as the widest vector has.
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

/// What a pass over elements finds besides: running sums of squares, which overflow to an infinity, and the largest bits
/// of a magnitude, which are at least an infinity's exactly if an element was not finite.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survey {
    /// Of Δ.
    pub(crate) delta: [f32; LANES],
    /// Of a.
    pub(crate) signal: [f32; LANES],
    /// Of a, as bits.
    pub(crate) most: [u32; LANES],
}

/// Adjacent tiles inside a state: `rows` of `width` elements, `stride` apart, of which each tile has `columns`, the last
/// what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

vectorised! {
    /// Decodes groups side by side, to their ends.
    fn run_lanes(lanes: &mut [Lane<'_>]) {
        lane::run(lanes);
    }

    /// a = β·e + Δ for tiles of a state, whose first element `e` and `delta` begin with.
    fn sum_tiles(tiles: &mut [[f32; 4096]], e: &[f32], delta: &[f32], beta: f32, of: Tiles) -> Survey {
        let mut survey = Survey::default();
        for row in 0..of.rows {
            let from = row * of.stride..row * of.stride + of.width;
            let parts = e[from.clone()].chunks(of.columns).zip(delta[from].chunks(of.columns));
            for (tile, (e, delta)) in tiles.iter_mut().zip(parts) {
                let a = &mut tile[row * e.len()..][..e.len()];
                let (a, a_rest) = a.as_chunks_mut::<LANES>();
                let (e, e_rest) = e.as_chunks::<LANES>();
                let (delta, delta_rest) = delta.as_chunks::<LANES>();
                for ((a, e), delta) in a.iter_mut().zip(e).zip(delta) {
                    for lane in 0..LANES {
                        let sum = beta * e[lane] + delta[lane];
                        a[lane] = sum;
                        survey.delta[lane] += delta[lane] * delta[lane];
                        survey.signal[lane] += sum * sum;
                        survey.most[lane] = survey.most[lane].max(sum.to_bits() & MAGNITUDE);
                    }
                }
                for (lane, ((a, e), delta)) in a_rest.iter_mut().zip(e_rest).zip(delta_rest).enumerate() {
                    let sum = beta * e + delta;
                    *a = sum;
                    survey.delta[lane] += delta * delta;
                    survey.signal[lane] += sum * sum;
                    survey.most[lane] = survey.most[lane].max(sum.to_bits() & MAGNITUDE);
                }
            }
        }
        survey
    }

    /// Undoes the cut of [`sum_tiles`]: writes the tiles' elements to `out`. Returns their sums of squares.
    fn write_tiles(tiles: &[[f32; 4096]], out: &mut [f32], of: Tiles) -> [f32; LANES] {
        let mut squares = [0.0; LANES];
        for row in 0..of.rows {
            let out = &mut out[row * of.stride..row * of.stride + of.width];
            for (tile, out) in tiles.iter().zip(out.chunks_mut(of.columns)) {
                let a = &tile[row * out.len()..][..out.len()];
                let (a, a_rest) = a.as_chunks::<LANES>();
                let (out, out_rest) = out.as_chunks_mut::<LANES>();
                for (a, out) in a.iter().zip(out) {
                    *out = *a;
                    for lane in 0..LANES {
                        squares[lane] += a[lane] * a[lane];
                    }
                }
                for (lane, (a, out)) in a_rest.iter().zip(out_rest).enumerate() {
                    *out = *a;
                    squares[lane] += a * a;
                }
            }
        }
        squares
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

    /// The largest.
    fn largest(magnitudes: &[u32]) -> u32 {
        magnitudes.iter().fold(0, |most, &magnitude| most.max(magnitude))
    }

    /// How many reach `least`. All must be below 2³¹: signed compares are what older processors have.
    fn reaching(magnitudes: &[u32], least: u32) -> usize {
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

    /// For each element whether its magnitude reaches `least`: bit i mod 64 of word ⌊i / 64⌋.
    fn marks(dense: &[f32], least: u32, marks: &mut [u64; 64]) {
        for (word, elements) in marks.iter_mut().zip(dense.chunks(64)) {
            let mut bytes = [0u8; 64];
            for (byte, value) in bytes.iter_mut().zip(elements) {
                *byte = u8::from((value.to_bits() & MAGNITUDE) as i32 >= least as i32);
            }
            let (eights, _) = bytes.as_chunks::<8>();
            // Gathers the low bits of eight bytes in the upper byte of the product.
            let gathered = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *word = eights.iter().rev().fold(0, |word, eight| word << 8 | gathered(eight));
        }
    }
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
    fn marks_and_counts_agree_with_their_definitions_at_every_level() {
        at_every_level(|_| marks_and_counts_agree());
    }

    fn marks_and_counts_agree() {
        let dense: Vec<f32> = (0..3001).map(|at| ((at * 7919) % 1013) as f32 - 500.0).collect();
        let mut bits = vec![0; dense.len()];
        magnitudes(&dense, &mut bits);
        for least in [0, 1.0f32.to_bits(), 250.0f32.to_bits(), 499.5f32.to_bits(), f32::MAX.to_bits()] {
            let mut words = [0; 64];
            marks(&dense, least, &mut words);
            let reaches = |value: &f32| value.abs() >= f32::from_bits(least);
            for (at, value) in dense.iter().enumerate() {
                assert_eq!(words[at / 64] >> (at % 64) & 1 == 1, reaches(value), "element {at}, least {least:#x}");
            }
            assert_eq!(reaching(&bits, least), dense.iter().filter(|value| reaches(value)).count());
        }
        assert_eq!(largest(&bits), 512.0f32.to_bits());
    }
}
