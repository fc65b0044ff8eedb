//! A model's shapes, as run.toml says them: everything that its parameters' number and places follow from.
//!
//! Which shapes can be is checked with the rest of a run ([`crate::run::Run::checked`]); how parameters lie in the state is
//! [`crate::layout`]'s, what is computed with them the trainer's.

use serde::{Deserialize, Serialize};

/// A LLaMA-style model: RMSNorm, rotary positions, grouped-query attention, SwiGLU; no biases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Tokens.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Layers.
    pub layers: u32,
    /// Query heads; the width divides by them.
    pub heads: u32,
    /// Key and value heads; the query heads divide by them.
    pub kv_heads: u32,
    /// Width of the SwiGLU.
    pub feed_forward: u32,
    /// Tokens of a training sequence.
    pub sequence: u32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// RMSNorm's epsilon.
    pub norm_epsilon: f64,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// Seed of the initial weights.
    pub seed: u64,
}

impl Model {
    /// Elements of a head.
    pub fn head_width(&self) -> u32 {
        self.width / self.heads
    }
}
