//! How the values that a chunk sends are rounded: to signs and one scale, or to signs and one of two magnitudes; or, for
//! comparison, as Templar rounds a tensor's.
//!
//! Rounding replaces each value by what the decoder will give, so that error feedback and codec cannot disagree. How the
//! rounded values become bytes is the codec's business. A magnitude is a bfloat16 of 2⁻⁶⁰ to 2²⁰: larger ones
//! saturate; a chunk whose magnitudes are all smaller sends nothing at all. Means are f64 sums by rising index.

use covey_proto::run::Quantiser;

/// The smallest magnitude as a bfloat16: 2⁻⁶⁰.
pub const MAGNITUDE_MIN: u16 = (127 - 60) << 7;
/// The largest magnitude as a bfloat16: 2²⁰.
pub const MAGNITUDE_MAX: u16 = (127 + 20) << 7;
/// Refinements of the threshold between two magnitudes. On Gaussian and Student-t3 noise four come within 0.5 % of the
/// least squared error at 64 of 4,096 and within 4 % at 1,024; none at all, within 16 % and 77 %.
const LLOYD_STEPS: usize = 4;

/// `value` as the nearest bfloat16 (the upper half of an f32's bits), ties to even. `value` must be finite.
pub fn bf16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    // Half of the last place kept, less one if that place is even: exactly a tie is carried up only to an even result.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The f32 with these upper bits: exact.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds a chunk's chosen values (by rising index, finite) to what the decoder will give; for [`Quantiser::Templar`] those of
/// a tensor, chunk by chunk. Returns false, leaving the values as they were, if nothing is sent: there are no values, or
/// all round below 2⁻⁶⁰.
#[must_use]
pub fn quantise(quantiser: Quantiser, values: &mut [f32]) -> bool {
    match quantiser {
        Quantiser::Sign => to_sign(values),
        Quantiser::TwoMagnitudes => to_two_magnitudes(values),
        Quantiser::Templar => to_four_values(values),
    }
}

/// ±mean |v|: least squares for one magnitude.
fn to_sign(values: &mut [f32]) -> bool {
    let (mean, _) = means(values, f64::INFINITY);
    let magnitude = magnitude(mean);
    if magnitude == 0 {
        return false;
    }
    let magnitude = bf16_to_f32(magnitude);
    for value in values {
        *value = with_sign_of(magnitude, *value);
    }
    true
}

/// ±lo or ±hi, parted at a threshold: the midpoint of the extremes, then four times that of the two means (Lloyd).
fn to_two_magnitudes(values: &mut [f32]) -> bool {
    let (least, most) = values
        .iter()
        .map(|value| value.abs())
        .fold((f32::MAX, 0.0), |(least, most): (f32, f32), v| (least.min(v), most.max(v)));
    let mut threshold = (f64::from(least) + f64::from(most)) / 2.0;
    for _ in 0..LLOYD_STEPS {
        let (low, high) = means(values, threshold);
        threshold = (low + high) / 2.0;
    }
    let (low, high) = means(values, threshold);
    let high = magnitude(high);
    if high == 0 {
        return false;
    }
    // A low magnitude too small to send becomes the smallest: a sent value is never zero.
    let low = bf16_to_f32(magnitude(low).max(MAGNITUDE_MIN));
    let high = bf16_to_f32(high);
    for value in values {
        let above = f64::from(value.abs()) > threshold;
        *value = with_sign_of(if above { high } else { low }, *value);
    }
    true
}

/// Templar's: bins of 1.5 σ around the mean, each value becoming the mean of its bin. With c = v − mean(v), σ² =
/// Σc²/(n − 1), q = clamp(⌊c/(1.5 σ) + 2⌉, 0, 3), ties to even: v becomes mean(c where q is the same) + mean(v). Source:
/// tplr, `_quantize_values` with 4 bins and range 6.
fn to_four_values(values: &mut [f32]) -> bool {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let centred = |value: f32| f64::from(value) - mean;
    let variance = values.iter().map(|&value| centred(value) * centred(value)).sum::<f64>() / (count - 1.0);
    let width = match 1.5 * variance.sqrt() {
        width if width > 0.0 && width.is_finite() => width,
        _ => 1.0,
    };
    let bin = |value: f32| (centred(value) / width + 2.0).round_ties_even().clamp(0.0, 3.0) as usize;
    let (mut sums, mut counts) = ([0.0; 4], [0.0; 4]);
    for &value in values.iter() {
        let bin = bin(value);
        sums[bin] += centred(value);
        counts[bin] += 1.0;
    }
    let sent: [f32; 4] = std::array::from_fn(|bin| sendable(sums[bin] / f64::max(counts[bin], 1.0) + mean));
    if (0..4).all(|bin| counts[bin] == 0.0 || sent[bin] == 0.0) {
        return false;
    }
    for value in values {
        *value = sent[bin(*value)];
    }
    true
}

/// As an f32, saturated at ±2²⁰; +0 below 2⁻⁶⁰.
fn sendable(value: f64) -> f32 {
    let most = f64::from(bf16_to_f32(MAGNITUDE_MAX));
    let value = value.clamp(-most, most) as f32;
    if value.abs() < bf16_to_f32(MAGNITUDE_MIN) { 0.0 } else { value }
}

/// The means of the magnitudes up to `threshold` and above it; a side without values has the other's mean.
fn means(values: &[f32], threshold: f64) -> (f64, f64) {
    let (mut low, mut high, mut below) = (0.0, 0.0, 0u32);
    for value in values {
        let value = f64::from(value.abs());
        let is_low = value <= threshold;
        // Adding +0 to what is not negative changes no bit, and spares a branch that cannot be foreseen.
        low += if is_low { value } else { 0.0 };
        high += if is_low { 0.0 } else { value };
        below += u32::from(is_low);
    }
    let above = values.len() as u32 - below;
    let (low, high) = (low / f64::from(below.max(1)), high / f64::from(above.max(1)));
    match (below, above) {
        (0, _) => (high, high),
        (_, 0) => (low, low),
        _ => (low, high),
    }
}

/// The bfloat16 that is sent for a mean: 0 below the smallest, saturated at the largest.
fn magnitude(mean: f64) -> u16 {
    match bf16_from_f32(mean.min(f64::from(bf16_to_f32(MAGNITUDE_MAX))) as f32) {
        small if small < MAGNITUDE_MIN => 0,
        sent => sent,
    }
}

/// Zero counts as positive: its sign is no information.
fn with_sign_of(magnitude: f32, value: f32) -> f32 {
    if value < 0.0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finite() -> impl Strategy<Value = f32> {
        any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #[test]
        fn bfloat16_is_the_nearest_and_even_on_ties(value in finite()) {
            let bits = bf16_from_f32(value);
            prop_assume!(bits & 0x7fff < 0x7f80);
            let error = |bits: u16| (f64::from(bf16_to_f32(bits)) - f64::from(value)).abs();
            for other in [bits.wrapping_sub(1), bits.wrapping_add(1)] {
                if bf16_to_f32(other).is_finite() {
                    prop_assert!(error(bits) < error(other) || error(bits) == error(other) && bits.is_multiple_of(2));
                }
            }
        }

        #[test]
        fn every_rounded_value_is_in_range(values in proptest::collection::vec(finite(), 1..100), two: bool) {
            let quantiser = if two { Quantiser::TwoMagnitudes } else { Quantiser::Sign };
            let mut rounded = values.clone();
            if quantise(quantiser, &mut rounded) {
                for (was, is) in values.iter().zip(&rounded) {
                    prop_assert!((2f32.powi(-60)..=2f32.powi(20)).contains(&is.abs()));
                    prop_assert_eq!(*is < 0.0, *was < 0.0);
                }
            } else {
                prop_assert_eq!(values, rounded);
            }
        }
    }

    /// The right-hand sides come from the same formula written in PyTorch, in f32.
    #[test]
    fn four_values_are_templars() {
        let mut values = [0.9, -1.1, 1.3, -0.7, 2.9, -3.3, 0.8, 1.0];
        assert!(quantise(Quantiser::Templar, &mut values));
        let expected = [0.366_667, 0.366_667, 0.366_667, 0.366_667, 2.9, -3.3, 0.366_667, 0.366_667];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{values:?}");
        }
        let mut values = [4.176, 0.267, -2.232, -0.355, 0.391, -0.263, -0.164, -0.965, 1.557, -2.072, 1.212, -0.288];
        assert!(quantise(Quantiser::Templar, &mut values));
        let bins: std::collections::BTreeSet<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bins.len(), 3, "the lowest bin begins at -2.25 sigma: {values:?}");
        assert!(!quantise(Quantiser::Templar, &mut []) && !quantise(Quantiser::Templar, &mut [0.0; 9]));
        let mut alone = [0.25];
        assert!(quantise(Quantiser::Templar, &mut alone) && alone == [0.25]);
    }

    #[test]
    fn two_magnitudes_find_two_clusters() {
        let mut values = [1.0, -1.0, 4.0, -1.0, 4.0, 1.0];
        assert!(quantise(Quantiser::TwoMagnitudes, &mut values));
        assert_eq!(values, [1.0, -1.0, 4.0, -1.0, 4.0, 1.0]);
    }

    #[test]
    fn one_magnitude_is_the_mean() {
        let mut values = [1.0, -3.0, 0.0, -0.0];
        assert!(quantise(Quantiser::Sign, &mut values));
        assert_eq!(values, [1.0, -1.0, 1.0, 1.0]);
    }

    #[test]
    fn tiny_values_are_not_sent_and_huge_ones_saturate() {
        for quantiser in [Quantiser::Sign, Quantiser::TwoMagnitudes] {
            assert!(!quantise(quantiser, &mut [1e-19, -1e-19]));
            assert!(!quantise(quantiser, &mut [0.0, -0.0]));
            assert!(!quantise(quantiser, &mut []));
            let mut huge = [f32::MAX, -f32::MAX];
            assert!(quantise(quantiser, &mut huge));
            assert_eq!(huge, [1048576.0, -1048576.0]);
        }
        let mut mixed = [0.0, 1.0, 1.0];
        assert!(quantise(Quantiser::TwoMagnitudes, &mut mixed));
        assert_eq!(mixed, [2f32.powi(-60), 1.0, 1.0]);
    }
}
