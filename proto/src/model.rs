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
    /// Seed of the initial weights. Without one they are not drawn: the run begins with a checkpoint, whose root is
    /// `chain.genesis_state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Elements of a head, where that is not the width divided by the heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<u32>,
    /// How rotary frequencies are stretched, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
}

/// LLaMA 3's stretching of rotary frequencies for longer contexts. A frequency whose wavelength is above
/// `original_sequence / low_frequency_factor` is divided by `factor`, one below `original_sequence / high_frequency_factor`
/// stays, and between the two it is blended
/// (<https://github.com/huggingface/transformers>, `modeling_rope_utils.py`, `_compute_llama3_parameters`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// By how much low frequencies are divided.
    pub factor: f64,
    /// Sets the wavelength above which a frequency is low.
    pub low_frequency_factor: f64,
    /// Sets the wavelength below which a frequency is high; more than `low_frequency_factor`.
    pub high_frequency_factor: f64,
    /// Tokens of a sequence that the model was first trained on.
    pub original_sequence: u32,
}

impl Model {
    /// Elements of a head.
    pub fn head_width(&self) -> u32 {
        self.head.unwrap_or(self.width / self.heads)
    }
    /// Elements of a token's queries over all heads.
    pub fn query_width(&self) -> u32 {
        self.heads * self.head_width()
    }
}
