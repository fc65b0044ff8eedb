//! Answers of runtime calls that are at hand: a call's answer follows from the state and the arguments, and the nodes of
//! a run all ask the same of each block.

use crate::chain::{CallError, State};
use sp_core::H256;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Answers of one generation: a view of 256 members is some 30 KB, so these are at most some tens of MB, and mostly the
/// views of the newest blocks. Two generations are kept.
const ANSWERS_MAX: usize = 256;
/// Bytes of arguments and answers of one generation.
const BYTES_MAX: usize = 16 << 20;

/// What an answer follows from.
type Question = (H256, String, Vec<u8>);
type Answer = Arc<OnceLock<Option<Vec<u8>>>>;

/// Answers, each computed once however many ask at the same time.
#[derive(Default)]
pub(super) struct Views(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    new: HashMap<Question, Answer>,
    old: HashMap<Question, Answer>,
    size: usize,
}

impl Views {
    /// As [`State::call`].
    pub(super) fn call(&self, state: &State, method: &str, args: &[u8]) -> Result<Vec<u8>, CallError> {
        // Metadata follows from settings that never change: its calls take seconds where nothing is optimised.
        let root = if method.starts_with("Metadata_") { H256::zero() } else { state.root() };
        let slot = self.lock().slot((root, method.to_owned(), args.to_vec()));
        let mut failed = None;
        let answer = slot.get_or_init(|| {
            let answer = state.call(method, args).map_err(|error| failed = Some(error)).ok();
            self.lock().size += answer.as_ref().map_or(0, Vec::len);
            answer
        });
        match (answer, failed) {
            (Some(answer), _) => Ok(answer.clone()),
            (None, Some(error)) => Err(error),
            // Whoever asked first was told the error; who asks again hears it anew.
            (None, None) => state.call(method, args),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn slot(&mut self, question: Question) -> Answer {
        if self.new.len() >= ANSWERS_MAX || self.size >= BYTES_MAX {
            self.old = std::mem::take(&mut self.new);
            self.size = 0;
        }
        if let Some(answer) = self.new.get(&question) {
            return answer.clone();
        }
        let answer = self.old.get(&question).cloned().unwrap_or_default();
        self.size += question.2.len() + answer.get().and_then(Option::as_ref).map_or(0, Vec::len);
        self.new.insert(question, answer.clone());
        answer
    }
}
