//! Sequences as backends take them, checked once: whole rows, known tokens. Where they come from, [`crate::data`] decides.
//!
//! A token with the bit [`CONTEXT`] is read and not learnt: what a user says to an assistant. It stands in the token, so that
//! a sequence is one list wherever it goes.

use covey_proto::run::Model;

/// Bit of a token that is only read: no loss is taken of its prediction. Vocabularies end far below it.
pub const CONTEXT: u32 = 1 << 31;

/// Sequences to learn from or to be judged by: `[sequences, sequence + 1]` tokens, all below the vocabulary, with or without
/// [`CONTEXT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    sequence: usize,
    vocabulary: usize,
    predictions: u64,
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
        match tokens.iter().position(|token| (*token & !CONTEXT) as usize >= vocabulary) {
            Some(at) => Err(BatchError::Token { token: tokens[at] & !CONTEXT, at, vocabulary }),
            None => {
                let learnt = |row: &[u32]| row[1..].iter().filter(|token| **token & CONTEXT == 0).count() as u64;
                let predictions = tokens.chunks_exact(sequence + 1).map(learnt).sum();
                Ok(Batch { tokens, sequence, vocabulary, predictions })
            }
        }
    }

    /// All tokens, row after row of `sequence + 1`, with their [`CONTEXT`].
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.tokens.len() / (self.sequence + 1)
    }
    /// Tokens that are read of a sequence; a row has one more.
    pub fn sequence(&self) -> usize {
        self.sequence
    }
    /// The vocabulary that the tokens were checked against.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }
    /// Tokens to predict: sequences × sequence, less those that are only read. Losses are means over them; 0 where there are
    /// none.
    pub fn predictions(&self) -> u64 {
        self.predictions
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;

    #[test]
    fn a_batch_has_whole_rows_of_known_tokens() {
        let model = Model { sequence: 3, vocabulary: 5, ..small_model() };
        let batch = Batch::new(&model, vec![0, 1, 2, 3, 4, 3, 2, 1]).unwrap();
        assert_eq!((batch.sequences(), batch.predictions()), (2, 6));
        assert_eq!(Batch::new(&model, vec![]), Err(BatchError::Length { got: 0, row: 4 }));
        assert_eq!(Batch::new(&model, vec![1; 7]), Err(BatchError::Length { got: 7, row: 4 }));
        let read = Batch::new(&model, vec![CONTEXT, 1 | CONTEXT, 2, 3 | CONTEXT, 3, 2, 1, 4]).unwrap();
        assert_eq!(read.predictions(), 4, "of the first row one");
        let far = Batch::new(&model, vec![0, 0, 5 | CONTEXT, 0]);
        assert_eq!(far, Err(BatchError::Token { token: 5, at: 2, vocabulary: 5 }));
    }
}
