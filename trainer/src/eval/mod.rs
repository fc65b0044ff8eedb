//! How well a model answers: multiple choice by log-likelihood, and texts by perplexity, as lm-eval does it.
//!
//! [`task`] reads items in the layouts of well-known data sets and says what the model is asked; [`text`] cuts a text into what
//! fits the model's context. Here both become tokens whose log-likelihood [`crate::LanguageModel::text_losses`] takes, and numbers
//! that agree with lm-eval's (EleutherAI, `lm_eval/api/model.py` and `task.py`). Who reads files, and in which order items are
//! asked, others decide.

pub mod task;
pub mod text;

use crate::CONTEXT;
use tokenizers::Tokenizer;

/// Why something cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The tokenizer fails.
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
    /// A line of a task's file is not what it must be.
    #[error("{0}")]
    Item(String),
    /// An answer without tokens.
    #[error("choice {0:?} has no token of its own behind the question")]
    Empty(String),
    /// An answer that does not fit into the model's context.
    #[error("a choice of {tokens} tokens; the model sees {sequence} at once")]
    Long {
        /// Its tokens.
        tokens: usize,
        /// Tokens that are read at once.
        sequence: usize,
    },
    /// Nothing stands before an answer.
    #[error("the question is empty: nothing is there for an answer to follow")]
    NoQuestion,
}

/// The tokens of `text`, begun as the tokenizer's post-processor says.
///
/// # Errors
/// The tokenizer fails.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, EvalError> {
    let encoded = tokenizer.encode(text, true).map_err(|error| EvalError::Tokenizer(error.to_string()))?;
    Ok(encoded.get_ids().to_vec())
}

/// The tokens of a question and one answer, the question's with [`CONTEXT`]; of a long question the last that fit beside the
/// answer into `sequence` + 1 tokens.
///
/// Spaces at the question's end belong to the answer, and both are encoded as one text, as lm-eval's `_encode_pair` does: a
/// token may reach over the seam.
///
/// # Errors
/// The tokenizer fails, or the answer adds no token.
pub fn question(tokenizer: &Tokenizer, context: &str, answer: &str, sequence: usize) -> Result<Vec<u32>, EvalError> {
    let whole = encode(tokenizer, &format!("{context}{answer}"))?;
    let asked = encode(tokenizer, context.trim_end())?.len();
    if whole.len() <= asked {
        return Err(EvalError::Empty(answer.to_owned()));
    }
    let tokens = whole.len() - asked;
    if tokens > sequence {
        return Err(EvalError::Long { tokens, sequence });
    }
    if asked == 0 {
        return Err(EvalError::NoQuestion);
    }
    let marked = whole.iter().enumerate().map(|(at, token)| if at < asked { token | CONTEXT } else { *token });
    Ok(marked.skip(whole.len().saturating_sub(sequence + 1)).collect())
}

/// What came of a multiple-choice item.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Log-likelihood of each choice, in nats.
    pub log_likelihoods: Vec<f64>,
    /// The likeliest.
    pub choice: usize,
    /// The likeliest by log-likelihood ÷ characters, so that short ones have no advantage (lm-eval's `acc_norm`).
    pub choice_norm: usize,
}

impl Answered {
    /// From the log-likelihoods of `choices`.
    pub fn new(choices: &[String], log_likelihoods: Vec<f64>) -> Answered {
        let by_length: Vec<f64> = log_likelihoods
            .iter()
            .zip(choices)
            .map(|(likelihood, choice)| likelihood / choice.chars().count().max(1) as f64)
            .collect();
        Answered { choice: likeliest(&log_likelihoods), choice_norm: likeliest(&by_length), log_likelihoods }
    }
}

/// The first of the largest.
fn likeliest(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

/// A share, and the standard error of its mean as lm-eval gives it: √(p(1 − p) ÷ (n − 1)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The share.
    pub share: f64,
    /// Its standard error; not a number of one item.
    pub error: f64,
}

impl Share {
    /// Of `hits` among `all`.
    pub fn new(hits: usize, all: usize) -> Share {
        let share = hits as f64 / all as f64;
        Share { share, error: (share * (1.0 - share) / (all as f64 - 1.0)).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::data::tokenizer::Words;

    fn tokenizer() -> Tokenizer {
        let documents = synthetic::documents(5, 30_000);
        let mut words = Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        Tokenizer::from_bytes(words.train(&lists, 400, &[]).json).unwrap()
    }

    #[test]
    fn a_question_is_read_and_its_answer_is_judged() {
        let tokenizer = tokenizer();
        let text = |tokens: &[u32]| {
            tokenizer.decode(&tokens.iter().map(|token| token & !CONTEXT).collect::<Vec<_>>(), false).unwrap()
        };
        let part = |tokens: &[u32], read: bool| {
            text(&tokens.iter().copied().filter(|token| (token & CONTEXT != 0) == read).collect::<Vec<_>>())
        };
        let tokens = question(&tokenizer, "Who is it? ", "the peer", 500).unwrap();
        assert_eq!((part(&tokens, true), part(&tokens, false)), ("Who is it?".into(), " the peer".into()));
        let cut = question(&tokenizer, "Who is it?", " the peer", 6).unwrap();
        assert_eq!(cut, tokens[tokens.len() - 7..]);
        assert!(matches!(question(&tokenizer, "Who?", "", 6), Err(EvalError::Empty(_))));
        assert!(matches!(question(&tokenizer, "", " the", 6), Err(EvalError::NoQuestion)));
        assert!(matches!(question(&tokenizer, "Who?", " the peer of all peers", 2), Err(EvalError::Long { .. })));
    }

    #[test]
    fn the_likeliest_wins_and_long_answers_are_weighed() {
        let choices = ["no".to_owned(), "it depends".to_owned(), "yes".to_owned()];
        let answered = Answered::new(&choices, vec![-4.0, -10.0, -4.0]);
        assert_eq!((answered.choice, answered.choice_norm), (0, 1), "of equals the first");
        let share = Share::new(1, 5);
        assert!((share.share - 0.2).abs() < 1e-12 && (share.error - 0.2).abs() < 1e-12);
    }
}
