//! Which passes a network is built for: it decides what is kept of a forward pass, and so what memory there is to be.

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// Losses and logits: one layer's activations serve all layers.
    Forward,
    /// Gradients, too. Attention's probabilities are kept for the backward pass, or not; `None` decides by their size.
    Both { keep: Option<bool> },
}
