//! The seam between training and the device it runs on.
//!
//! A [`Backend`] owns parameters and optimizer moments, so that a GPU can keep them; the caller hands it batches and
//! copies states in and out. What the batches are and when to stop is decided by [`crate::inner`].

use covey_proto::run::{Inner, Model};

/// Sequences to learn from or to be judged by: `[sequences, sequence + 1]` tokens, all below the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    sequence: usize,
    vocabulary: usize,
}

impl Batch {
    /// A batch of whole rows of `model.sequence + 1` tokens.
    ///
    /// # Errors
    /// No row, a part of a row, or a token beyond the vocabulary.
    pub fn new(model: &Model, tokens: Vec<u32>) -> Result<Batch, BatchError> {
        let (sequence, vocabulary) = (model.sequence as usize, model.vocabulary as usize);
        if tokens.is_empty() || !tokens.len().is_multiple_of(sequence + 1) {
            return Err(BatchError::Length { got: tokens.len(), row: sequence + 1 });
        }
        match tokens.iter().position(|token| *token as usize >= vocabulary) {
            Some(at) => Err(BatchError::Token { token: tokens[at], at, vocabulary }),
            None => Ok(Batch { tokens, sequence, vocabulary }),
        }
    }

    /// All tokens, row after row of `sequence + 1`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.tokens.len() / (self.sequence + 1)
    }
    /// Predictions a sequence; a row has one token more.
    pub fn sequence(&self) -> usize {
        self.sequence
    }
    /// The vocabulary that the tokens were checked against.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }
    /// Tokens to predict: sequences × sequence.
    pub fn predictions(&self) -> u64 {
        (self.sequences() * self.sequence) as u64
    }
}

/// Why tokens are no batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Not whole rows.
    #[error("{got} tokens are no whole rows of {row} (the model's sequence and one)")]
    Length {
        /// Tokens that came.
        got: usize,
        /// Tokens of a row.
        row: usize,
    },
    /// A token that the model has no embedding for.
    #[error(
        "token {token} at position {at}: the vocabulary has {vocabulary}; was the data made with another tokenizer?"
    )]
    Token {
        /// The token.
        token: u32,
        /// Its position among all.
        at: usize,
        /// The model's vocabulary.
        vocabulary: usize,
    },
}

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

/// Why a backend did not do what was asked. Parameters and moments are then as before the call.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BackendError {
    /// A state of another model.
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
    /// The device failed.
    #[error("{device}: {message}")]
    Device {
        /// Which device.
        device: String,
        /// What it said.
        message: String,
    },
}

/// A device that holds one model's parameters and AdamW moments.
///
/// Parameters are flat f32 in the order of [`covey_proto::layout::Layout`]. The same binary on the same machine gives the
/// same bits for the same calls.
pub trait Backend: Send {
    /// What it runs on, for people.
    fn name(&self) -> &'static str;

    /// Replaces the parameters, bit for bit. Moments stay.
    ///
    /// # Errors
    /// A state of another model.
    fn load(&mut self, parameters: &[f32]) -> Result<(), BackendError>;

    /// Copies the parameters out, bit for bit.
    ///
    /// # Errors
    /// Room for another model's.
    fn parameters(&self, out: &mut [f32]) -> Result<(), BackendError>;

    /// Forward, backward, clip, AdamW.
    ///
    /// # Errors
    /// Another model's batch, or a loss or gradient that is not finite; then nothing has changed.
    fn step(&mut self, batch: &Batch, hyper: &StepHyper) -> Result<StepStats, BackendError>;

    /// Mean loss and its gradient, flat, unclipped.
    ///
    /// # Errors
    /// Another model's batch, or a loss that is not finite.
    fn gradient(&mut self, batch: &Batch) -> Result<(f64, Vec<f32>), BackendError>;

    /// Mean nats a token, forward only.
    ///
    /// # Errors
    /// As [`Backend::gradient`].
    fn loss(&mut self, batch: &Batch) -> Result<f64, BackendError>;

    /// Logits `[tokens, vocabulary]` of one sequence of 1 to `sequence` tokens.
    ///
    /// # Errors
    /// Too many tokens, none, or one beyond the vocabulary.
    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BackendError>;

    /// A copy of the optimizer's moments.
    fn moments(&self) -> Moments;

    /// Steps since the moments were reset: what `moments().steps` is, without the copy.
    fn steps(&self) -> u64;

    /// Replaces the moments.
    ///
    /// # Errors
    /// Another model's moments.
    fn set_moments(&mut self, moments: Moments) -> Result<(), BackendError>;

    /// Zeroes the moments and their count of steps.
    fn reset_moments(&mut self);
}

/// AdamW's moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient, in the parameters' order.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
    /// Steps since both were zero.
    pub steps: u64,
}

/// Kind and version of persisted moments.
const MOMENTS: &[u8; 8] = b"CVYMOM01";
/// Kind, steps, elements; the hash stands at the end.
const MOMENTS_HEAD: usize = 24;

/// Why bytes are no moments.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MomentsError {
    /// Another length than this model's moments have.
    #[error("{got} bytes; moments of {elements} elements have {expected}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Elements of the model.
        elements: usize,
        /// Bytes that they take.
        expected: usize,
    },
    /// Another kind of file, or another model's.
    #[error("does not start with CVYMOM01 and {elements} elements")]
    Kind {
        /// Elements of the model.
        elements: usize,
    },
    /// A torn write or a bad disk.
    #[error("the hash at the end does not match: the file is torn; reset the moments")]
    Hash,
}

impl Moments {
    /// Moments before the first step.
    pub fn zero(elements: usize) -> Moments {
        Moments { first: vec![0.0; elements], second: vec![0.0; elements], steps: 0 }
    }

    /// Canonical bytes: `CVYMOM01`, steps u64, elements u64, first and second moments f32 (all little-endian), BLAKE3 of
    /// all before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MOMENTS_HEAD + 8 * self.first.len() + 32);
        bytes.extend_from_slice(MOMENTS);
        bytes.extend_from_slice(&self.steps.to_le_bytes());
        bytes.extend_from_slice(&(self.first.len() as u64).to_le_bytes());
        for values in [&self.first, &self.second] {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads what [`Moments::to_bytes`] gives for a model of `elements` parameters.
    ///
    /// # Errors
    /// Any other bytes.
    pub fn from_bytes(bytes: &[u8], elements: usize) -> Result<Moments, MomentsError> {
        let expected = MOMENTS_HEAD + 8 * elements + 32;
        if bytes.len() != expected {
            return Err(MomentsError::Length { got: bytes.len(), elements, expected });
        }
        let (body, hash) = bytes.split_at(expected - 32);
        let (head, values) = body.split_at(MOMENTS_HEAD);
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        if head[..8] != MOMENTS[..] || number(16) != elements as u64 {
            return Err(MomentsError::Kind { elements });
        }
        if blake3::hash(body).as_bytes()[..] != *hash {
            return Err(MomentsError::Hash);
        }
        let (words, _) = values.as_chunks::<4>();
        let (first, second) = words.split_at(elements);
        let floats = |words: &[[u8; 4]]| words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Ok(Moments { first: floats(first), second: floats(second), steps: number(8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;

    #[test]
    fn moments_survive_their_bytes_and_torn_ones_do_not_pass() {
        let moments = Moments { first: vec![1.5, -2.0, 0.0], second: vec![0.25, 3.0, 1e-30], steps: 7 };
        let bytes = moments.to_bytes();
        assert_eq!(Moments::from_bytes(&bytes, 3), Ok(moments));
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(Moments::from_bytes(&torn, 3).is_err(), "byte {at} flipped");
            assert!(Moments::from_bytes(&bytes[..at], 3).is_err(), "cut at {at}");
        }
        assert!(matches!(Moments::from_bytes(&bytes, 4), Err(MomentsError::Length { .. })));
    }

    #[test]
    fn a_batch_has_whole_rows_of_known_tokens() {
        let model = Model { sequence: 3, vocabulary: 5, ..small_model() };
        let batch = Batch::new(&model, vec![0, 1, 2, 3, 4, 3, 2, 1]).unwrap();
        assert_eq!((batch.sequences(), batch.predictions()), (2, 6));
        assert_eq!(Batch::new(&model, vec![]), Err(BatchError::Length { got: 0, row: 4 }));
        assert_eq!(Batch::new(&model, vec![1; 7]), Err(BatchError::Length { got: 7, row: 4 }));
        let far = Batch::new(&model, vec![0, 0, 5, 0]);
        assert_eq!(far, Err(BatchError::Token { token: 5, at: 2, vocabulary: 5 }));
    }
}
