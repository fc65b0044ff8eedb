//! A small model and tokens for unit tests.

use covey_proto::derive;
use covey_proto::run::Model;

pub(crate) fn small_model() -> Model {
    Model {
        vocabulary: 67,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        feed_forward: 24,
        sequence: 12,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: 1,
    }
}

/// Tokens of a batch of `sequences`, the same for the same seed.
pub(crate) fn tokens(model: &Model, sequences: usize, seed: u64) -> Vec<u32> {
    let mut stream = derive("covey/test/tokens", &[&seed.to_le_bytes()]);
    let mut draw = || {
        let mut bytes = [0; 4];
        stream.fill(&mut bytes);
        u32::from_le_bytes(bytes) % model.vocabulary
    };
    (0..sequences * (model.sequence as usize + 1)).map(|_| draw()).collect()
}
