//! Rotary angles, as attention and a continuation share them. Which angles a model has, `attention` decides.

/// Cosines and sines of a model's rotary angles, `[sequence, head/2]`.
#[derive(Clone, Copy)]
pub(super) struct Angles<'a> {
    pub(super) cosines: &'a [f32],
    pub(super) sines: &'a [f32],
}
