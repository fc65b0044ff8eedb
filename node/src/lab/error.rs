//! Why an experiment has no curve: numbers that cannot be, or a step of its rounds that failed.

use crate::evaluation::EvaluationError;
use covey_sparseloco::{CodecError, StepError};
use covey_trainer::genesis::NotDrawn;
use covey_trainer::inner::TrainError;
use covey_trainer::{BackendError, BatchError, LoadError, SaveError};

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Numbers that cannot be.
    #[error("{what} is {got}; it must be {need}")]
    Number {
        /// Which.
        what: &'static str,
        /// What it is.
        got: u64,
        /// What it may be.
        need: &'static str,
    },
    /// Not even one training sequence.
    #[error("the data set has no sequence of {sequence} tokens; give it more text")]
    Short {
        /// The model's.
        sequence: u32,
    },
    /// The state that the run begins with is not computed, but given.
    #[error(transparent)]
    NotDrawn(#[from] NotDrawn),
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError<BatchError>),
    /// A state or error feedback that cannot be given to the device.
    #[error("onto the device: {0}")]
    Load(#[from] LoadError),
    /// A state or error feedback that cannot be taken from the device.
    #[error("from the device: {0}")]
    Save(#[from] SaveError),
    /// What a miner encoded is not what the codec reads: a bug.
    #[error("a miner's own shard does not decode: {0}")]
    Codec(#[from] CodecError),
    /// The outer step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A state has no loss.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}
