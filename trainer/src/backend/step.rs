//! What one optimizer step is told and what it tells. Which learning rate a step has, [`crate::inner`] decides.

use covey_proto::run::Inner;

/// The numbers of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepHyper {
    /// Learning rate η.
    pub rate: f64,
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
}

impl StepHyper {
    /// A run's numbers at learning rate `rate`.
    pub fn of(inner: &Inner, rate: f64) -> StepHyper {
        StepHyper {
            rate,
            beta1: inner.beta1,
            beta2: inner.beta2,
            epsilon: inner.epsilon,
            weight_decay: inner.weight_decay,
            clip: inner.clip,
        }
    }
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
