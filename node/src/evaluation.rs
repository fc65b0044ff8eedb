//! The loss of a state on held-out text: for whoever watches a run, never for anything that is agreed.

use covey_proto::run::Model;
use covey_trainer::cpu::CpuBackend;
use covey_trainer::data::Dataset;
use covey_trainer::evaluate::evaluate;
use covey_trainer::{Backend, BackendError, BatchError};
use std::sync::Arc;

/// Sequences of a batch: more only takes memory.
const BATCH: usize = 8;

/// Why a state has no loss.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The device refuses, or the loss is not finite.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data is not the model's.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// Evaluates states of one model on one data set.
pub struct Evaluator {
    backend: CpuBackend,
    data: Arc<Dataset>,
    model: Model,
}

impl Evaluator {
    /// For this model and data.
    pub fn new(data: Arc<Dataset>, model: &Model) -> Evaluator {
        Evaluator { backend: CpuBackend::new(model), data, model: model.clone() }
    }

    /// Mean nats a token over at most `sequences` held-out sequences, spread evenly over all of them.
    ///
    /// # Errors
    /// The device refuses, or the loss is not finite.
    pub fn loss(&mut self, state: &[f32], sequences: u64) -> Result<f64, EvaluationError> {
        let all = self.data.heldout_samples(self.model.sequence);
        let count = sequences.min(all);
        let indices: Vec<u64> = (0..count).map(|i| i * all / count).collect();
        let mut batches = Vec::with_capacity(indices.len().div_ceil(BATCH));
        for indices in indices.chunks(BATCH) {
            batches.push(self.data.heldout_batch(&self.model, indices.iter().copied())?);
        }
        self.backend.load(state)?;
        Ok(evaluate(&mut self.backend, &batches)?.loss)
    }
}
