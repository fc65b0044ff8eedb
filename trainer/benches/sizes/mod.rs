//! The models that steps are timed on, here and beside PyTorch (`tests/rivals`), and what a step of them counts.

use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_trainer::{Batch, StepHyper};

/// AdamW's numbers in every step.
pub(crate) const HYPER: StepHyper = StepHyper {
    rate: 1e-3,
    embed_rate: 1e-3,
    momentum: 0.0,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    clip: 1.0,
};

/// A model, and how many sequences a step has.
pub(crate) struct Size {
    /// What it is called on the command line and in tables.
    pub(crate) name: &'static str,
    /// Sequences of a step.
    pub(crate) sequences: usize,
    /// Steps that are timed: some seconds in all.
    pub(crate) repetitions: usize,
    /// The model.
    pub(crate) model: Model,
}

impl Size {
    /// A step's tokens, the same every time.
    pub(crate) fn batch(&self) -> Batch {
        let vocabulary = self.model.vocabulary;
        let count = self.sequences * (self.model.sequence as usize + 1);
        let tokens = (0..count).map(|at| ((at * 7919 + at / 13 * 104_729) % 65_521) as u32 % vocabulary);
        Batch::new(&self.model, tokens.collect()).expect("whole rows of known tokens")
    }
}

/// Three models, each several times the one before.
pub(crate) fn sizes() -> [Size; 3] {
    let small = Model {
        vocabulary: 2048,
        width: 128,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        feed_forward: 256,
        sequence: 128,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    };
    let medium = Model { vocabulary: 4096, width: 256, feed_forward: 704, sequence: 256, tied: false, ..small.clone() };
    let large = Model {
        vocabulary: 32_000,
        width: 512,
        layers: 8,
        heads: 8,
        kv_heads: 4,
        feed_forward: 1408,
        sequence: 512,
        ..medium.clone()
    };
    [
        Size { name: "0.85M", sequences: 8, repetitions: 60, model: small },
        Size { name: "5M", sequences: 8, repetitions: 12, model: medium },
        Size { name: "56M", sequences: 4, repetitions: 4, model: large },
    ]
}

/// Floating-point operations of one step: 6 for each weight of a matrix and token, and 12·T/2·width a layer for causal
/// attention over T tokens. Norms, softmax and the optimizer count nothing.
pub(crate) fn operations(model: &Model, tokens: f64) -> f64 {
    let layout = Layout::of(model);
    let matrices = layout.tensors().iter().filter(|tensor| !tensor.name.contains("norm"));
    let weights: usize =
        matrices.filter(|tensor| model.tied || !tensor.name.contains("embed")).map(|tensor| tensor.elements()).sum();
    let attention = 12.0 * f64::from(model.sequence) / 2.0 * f64::from(model.width) * f64::from(model.layers);
    tokens * (6.0 * weights as f64 + attention)
}
