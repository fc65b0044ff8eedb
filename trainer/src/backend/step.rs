//! What one optimizer step is told and what it tells. Which learning rate a step has, [`crate::inner`] decides.

use covey_proto::run::Inner;

/// The numbers of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepHyper {
    /// Learning rate η.
    pub rate: f64,
    /// Learning rate of what has one of its own: embedding and output matrix, with Muon all but the layers' matrices.
    pub embed_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay λ, on all parameters.
    pub weight_decay: f64,
    /// The gradient is scaled down to this global norm if it is longer.
    pub clip: f64,
    /// Decay of Muon's momentum; AdamW has none and does not look at it.
    pub momentum: f64,
}

impl StepHyper {
    /// A run's numbers at these learning rates.
    pub fn of(inner: &Inner, rates: Rates) -> StepHyper {
        StepHyper {
            rate: rates.rate,
            embed_rate: rates.embed_rate,
            beta1: inner.beta1,
            beta2: inner.beta2,
            epsilon: inner.epsilon,
            weight_decay: inner.weight_decay,
            clip: inner.clip,
            momentum: inner.momentum.unwrap_or(0.0),
        }
    }
}

/// The learning rates of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of all that has none of its own.
    pub rate: f64,
    /// Of what has: see [`StepHyper::embed_rate`].
    pub embed_rate: f64,
}

/// What one step saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean nats a token before the step.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Tokens predicted.
    pub tokens: u64,
}
