//! Batches in groups of sequences that fit a network's buffers: what is computed together, and in which order sums are
//! taken. The cut follows from the model alone, so that threads change no bit.

use super::kernels::NOTHING;
use super::network::{Group, Network};
use super::shape::Shape;
use crate::backend::{BackendError, Batch, CONTEXT};

/// The batch's tokens, a run of whole rows a group.
pub(super) fn groups<'b>(batch: &'b Batch, network: &Network) -> impl Iterator<Item = &'b [u32]> {
    batch.tokens().chunks(network.sequences_max() * (batch.sequence() + 1))
}

/// Whether a batch was made for this model.
pub(super) fn check(batch: &Batch, shape: &Shape) -> Result<(), BackendError> {
    if batch.sequence() == shape.sequence && batch.vocabulary() == shape.vocabulary {
        return Ok(());
    }
    Err(BackendError::OtherModel {
        sequence: batch.sequence(),
        vocabulary: batch.vocabulary(),
        model_sequence: shape.sequence,
        model_vocabulary: shape.vocabulary,
    })
}

/// Rows parted into what the model reads and what it is to say: room for one group.
#[derive(Default)]
pub(super) struct Parted {
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl Parted {
    /// The group of these rows of `length + 1` tokens.
    pub(super) fn part(&mut self, rows: &[u32], length: usize) -> Group<'_> {
        self.inputs.clear();
        self.targets.clear();
        for row in rows.chunks_exact(length + 1) {
            self.inputs.extend(row[..length].iter().map(|token| token & !CONTEXT));
            self.targets.extend(row[1..].iter().map(|&token| if token & CONTEXT == 0 { token } else { NOTHING }));
        }
        Group { inputs: &self.inputs, targets: &self.targets, length }
    }
}
