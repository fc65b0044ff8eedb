//! What a device may answer instead of doing what it was asked, and what is then left of parameters and moments.

use covey_sparseloco::{CodecError, CompressError, StepError};
use std::io;

/// Why a backend did not do what was asked. Parameters, moments and feedback are then as before the call, unless the call
/// says otherwise.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BackendError {
    /// A model whose numbers do not fit together; a checked [`Run`](covey_proto::run::Run) has none such.
    #[error("a model cannot have {what}")]
    Model {
        /// What it has.
        what: &'static str,
    },
    /// Nothing was loaded yet, the last load failed, or a contribution took the parameters' memory.
    #[error("no parameters are loaded")]
    NotLoaded,
    /// A base of another model.
    #[error("{got} elements; the model has {expected}")]
    Elements {
        /// Elements that came.
        got: usize,
        /// Elements of the model.
        expected: usize,
    },
    /// A batch made for another model.
    #[error(
        "a batch of sequences of {sequence} over {vocabulary} tokens; the model has {model_sequence} over {model_vocabulary}"
    )]
    OtherModel {
        /// The batch's sequence.
        sequence: usize,
        /// The batch's vocabulary.
        vocabulary: usize,
        /// The model's sequence.
        model_sequence: usize,
        /// The model's vocabulary.
        model_vocabulary: usize,
    },
    /// Too many tokens, or none.
    #[error("{got} tokens; a sequence has 1 to {max}")]
    Length {
        /// Tokens that came.
        got: usize,
        /// The model's sequence.
        max: usize,
    },
    /// A token beyond the vocabulary.
    #[error("token {token}; the vocabulary has {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// The model's vocabulary.
        vocabulary: usize,
    },
    /// Training has diverged, or the state was not finite to begin with.
    #[error("the {what} is {value}: lower the learning rate, or load a state that is finite")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// What was learned cannot be sent.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The device failed.
    #[error("{device}: {message}")]
    Device {
        /// Which device.
        device: String,
        /// What it said.
        message: String,
    },
}

/// Why a contribution could not be tried. The parameters have the bits of before.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TryError {
    /// A shard does not decode: its author's fault.
    #[error("shard {shard} does not decode: {error}")]
    Codec {
        /// Its number.
        shard: usize,
        /// What is wrong.
        error: CodecError,
    },
    /// The shards are not all of this layout's, or a parameter would not be finite.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Nothing is loaded, or the device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why bytes did not become parameters, feedback or moments. What they were meant for is then as if it had never been
/// loaded: the parameters are not there, feedback and moments are zero.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The reader failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Fewer or more bytes than this model's.
    #[error("{got} bytes; {elements} elements have {expected}")]
    Length {
        /// Bytes that came; of those that are too many, one is counted.
        got: u64,
        /// Elements of the model.
        elements: usize,
        /// Bytes that they take.
        expected: u64,
    },
    /// An element that feedback must not have.
    #[error("element {index} is not finite")]
    NotFinite {
        /// The element.
        index: usize,
    },
    /// Another kind of file, another optimizer's, or another model's.
    #[error("does not start with {magic} and {elements} elements: moments of another optimizer or model")]
    Kind {
        /// What files of this optimizer start with.
        magic: &'static str,
        /// Elements of the model.
        elements: usize,
    },
    /// A torn write or a bad disk.
    #[error("the hash at the end does not match: the file is torn; reset the moments")]
    Hash,
    /// The device failed.
    #[error("{device}: {message}")]
    Device {
        /// Which device.
        device: String,
        /// What it said.
        message: String,
    },
}

/// Why parameters, feedback or moments were not written. Nothing has changed on the device.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The writer failed; some bytes may have been written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing is loaded, or the device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
