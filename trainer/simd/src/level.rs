//! Which vector instructions a processor has, and the macro that compiles a function for each answer.

use std::sync::atomic::{AtomicU8, Ordering};

/// Vector instructions that a processor has; more of them is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the target guarantees.
    Portable,
    /// AVX2, FMA, and the bit instructions (BMI1, BMI2, LZCNT, POPCNT) of every processor that has both.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) and all of [`Level::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The levels that there are on this architecture, the least first.
#[cfg(target_arch = "x86_64")]
const LEVELS: &[Level] = &[Level::Portable, Level::Avx2, Level::Avx512];
/// The levels that there are on this architecture, the least first.
#[cfg(not(target_arch = "x86_64"))]
const LEVELS: &[Level] = &[Level::Portable];

/// The level in use, by its place in [`LEVELS`] from 1; 0 before the first question.
static IN_USE: AtomicU8 = AtomicU8::new(0);

/// The level that functions run at: [`best`], unless a test lowered it.
pub fn level() -> Level {
    match IN_USE.load(Ordering::Relaxed) {
        0 => lower_to(best()),
        place => LEVELS.get(usize::from(place) - 1).copied().unwrap_or(Level::Portable),
    }
}

/// Makes all threads of this process run at `wanted`, or at the processor's best level if that is lower; gives which. For
/// tests: whoever needs speed never calls it.
pub fn lower_to(wanted: Level) -> Level {
    let level = wanted.min(best());
    let place = LEVELS.iter().take_while(|other| **other <= level).count();
    IN_USE.store(place as u8, Ordering::Relaxed);
    level
}

/// The levels that this processor has, the least first.
pub fn levels() -> impl Iterator<Item = Level> {
    let best = best();
    LEVELS.iter().copied().filter(move |level| *level <= best)
}

/// The best level of this processor.
#[cfg(target_arch = "x86_64")]
pub fn best() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
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

/// The best level of this processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn best() -> Level {
    Level::Portable
}

/// Compiles each function once for every [`Level`] and calls the one of [`level()`].
///
/// The body may use the constant `FMA`: whether a fused multiply-add is one instruction. What it calls must be
/// `#[inline(always)]`, or it is compiled for the least level only. Two functions of one call of the macro may call each
/// other, at the price of choosing again.
///
/// ```
/// covey_simd::vectorised! {
///     /// Σ a·b.
///     pub fn dot(a: &[f32], b: &[f32]) -> f32 {
///         a.iter().zip(b).map(|(a, b)| a * b).sum()
///     }
/// }
/// assert_eq!(dot(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
/// ```
#[macro_export]
macro_rules! vectorised {
    ($($(#[$meta:meta])* $sight:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $sight fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            #[allow(unused)]
            fn body<const FMA: bool>($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2($($argument: $kind),*) $(-> $result)? {
                body::<true>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn avx512($($argument: $kind),*) $(-> $result)? {
                body::<true>($($argument),*)
            }
            match $crate::level() {
                $crate::Level::Portable => body::<false>($($argument),*),
                // SAFETY: `level` gives this answer only where the processor has every feature named above.
                #[cfg(target_arch = "x86_64")]
                $crate::Level::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Level::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn is_fused(a: f32) -> bool {
            let _ = a;
            FMA
        }
    }

    #[test]
    fn every_level_of_the_processor_can_be_had_and_none_above() {
        assert_eq!(level(), best());
        for wanted in LEVELS.iter().copied() {
            let got = lower_to(wanted);
            assert_eq!((got, level()), (wanted.min(best()), got));
            assert_eq!(is_fused(1.0), got > Level::Portable);
        }
        assert_eq!(levels().last(), Some(best()));
        lower_to(best());
    }
}
