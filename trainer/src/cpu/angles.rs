//! Rotary angles: which angle each pair of a head's elements is turned by at each position. Attention and a continuation share
//! them.
//!
//! Pair i of n at position p turns by p·f(i), f(i) = theta^(−2i/n) (Su et al., arXiv 2104.09864); LLaMA 3 divides low
//! frequencies by a factor ([`RopeScaling`]).

use super::shape::Shape;
use covey_proto::run::{Model, RopeScaling};

/// Cosines and sines of a model's rotary angles, `[sequence, head/2]`.
#[derive(Clone, Copy)]
pub(super) struct Angles<'a> {
    pub(super) cosines: &'a [f32],
    pub(super) sines: &'a [f32],
}

/// The tables that [`Angles`] look into.
pub(super) struct AngleTables {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl AngleTables {
    /// The angles of `model`, whose shape is `shape`.
    pub(super) fn new(shape: &Shape, model: &Model) -> AngleTables {
        let half = shape.head / 2;
        let angle = |position: usize, pair: usize| {
            let wavelength = model.rope_theta.powf((2 * pair) as f64 / shape.head as f64);
            match &model.rope_scaling {
                None => position as f64 / wavelength,
                Some(scaling) => position as f64 * scaled(1.0 / wavelength, scaling),
            }
        };
        let table = |function: fn(f64) -> f64| {
            (0..shape.sequence * half).map(|at| function(angle(at / half, at % half)) as f32).collect()
        };
        AngleTables { cosines: table(f64::cos), sines: table(f64::sin) }
    }

    /// Elements of both tables.
    pub(super) fn elements(shape: &Shape) -> usize {
        shape.sequence * shape.head
    }

    /// Elements that there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.cosines.len() + self.sines.len()
    }

    /// A look at them.
    pub(super) fn all(&self) -> Angles<'_> {
        Angles { cosines: &self.cosines, sines: &self.sines }
    }
}

/// A frequency as LLaMA 3 stretches it: low ones divided by `factor`, high ones kept, those between blended by how often
/// they turn in the original sequence.
fn scaled(frequency: f64, by: &RopeScaling) -> f64 {
    let turns = f64::from(by.original_sequence) * frequency / std::f64::consts::TAU;
    let RopeScaling { factor, low_frequency_factor: low, high_frequency_factor: high, .. } = *by;
    if turns < low {
        return frequency / factor;
    }
    if turns > high {
        return frequency;
    }
    let kept = (turns - low) / (high - low);
    (1.0 - kept) * frequency / factor + kept * frequency
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LlamaRotaryEmbedding.inv_freq` of transformers 5.24 for these numbers, which computes in f32.
    #[test]
    fn frequencies_are_stretched_as_transformers_does() {
        let by =
            RopeScaling { factor: 8.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_sequence: 256 };
        let expected = [
            1.0,
            0.440_366_625_785_827_64,
            0.193_922_758_102_417,
            0.072_430_036_962_032_32,
            0.010_538_230_650_126_934,
            0.002_070_055_110_380_053_5,
            0.000_911_583_134_438_842_5,
            0.000_401_430_763_304_233_55,
            0.000_176_776_680_746_115_74,
            7.784_655_463_183_299e-5,
            3.428_102_354_519_069e-5,
            1.509_621_779_405_279_2e-5,
            6.647_869_668_086_059e-6,
            2.927_499_735_960_737e-6,
            1.289_173_155_782_919e-6,
            5.677_088_097_399_974e-7,
        ];
        for (pair, expected) in expected.into_iter().enumerate() {
            let ours = scaled(500_000f64.powf(-2.0 * pair as f64 / 32.0), &by);
            assert!((ours / expected - 1.0).abs() < 1e-6, "pair {pair}: {ours}, expected {expected}");
        }
    }
}
