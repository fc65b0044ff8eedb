//! Sequences as backends take them, checked once: whole rows, known tokens. Where they come from, [`crate::data`] decides.

use covey_proto::run::Model;

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
        let far = Batch::new(&model, vec![0, 0, 5, 0]);
        assert_eq!(far, Err(BatchError::Token { token: 5, at: 2, vocabulary: 5 }));
    }
}
