//! A small model, a state of it and random numbers, for the tests of this folder.

use covey_proto::layout::Layout;
use covey_proto::run::Model;

/// A model for tests; every number differs where it can, so that no mix-up of sizes goes unseen.
pub(crate) fn small_model(tied: bool) -> Model {
    Model {
        vocabulary: 23,
        width: 24,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        feed_forward: 10,
        sequence: 7,
        rope_theta: 100.0,
        norm_epsilon: 1e-3,
        tied,
        seed: Some(5),
        head: None,
        rope_scaling: None,
    }
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Draw(blake3::OutputReader);

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        Draw(covey_proto::derive("covey/test/draw", &[&seed.to_le_bytes()]))
    }
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % u64::from(limit)) as u32
    }
    /// Uniform in -1 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.below(2_000_001)) / 1e6 - 1.0
    }
}

/// A state whose every tensor matters: matrices of order 0.3, norms around 1.
pub(crate) fn lively_state(model: &Model, seed: u64) -> Vec<f64> {
    let mut draw = Draw::new(seed);
    let layout = Layout::of(model);
    let centre = |norm: bool| if norm { 1.0 } else { 0.0 };
    let tensors = layout.tensors().iter();
    // Rounded to f32, so that both sides start from the same numbers.
    tensors
        .flat_map(|tensor| std::iter::repeat_n(tensor.shape.len() == 1, tensor.elements()))
        .map(|norm| f64::from((centre(norm) + 0.3 * draw.unit()) as f32))
        .collect()
}
