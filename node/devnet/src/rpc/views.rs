//! Answers of runtime calls that are at hand: a call's answer follows from the state and the arguments, and the nodes of
//! a run all ask the same of each block.

use crate::chain::{CallError, State};
use sp_core::H256;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Answers of one generation: a view of 256 members is some 30 KB, so these are at most some tens of MB, and mostly the
/// views of the newest blocks. Two generations are kept.
const ANSWERS_MAX: usize = 256;
/// Bytes of a method's name: those that there are have fewer than 80.
const METHOD_MAX: usize = 256;
/// Bytes of names, arguments and answers of one generation.
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
    /// As [`State::call`]. What failed is not kept.
    pub(super) fn call(&self, state: &State, method: &str, args: &[u8]) -> Result<Vec<u8>, CallError> {
        if method.len() > METHOD_MAX {
            return Err(CallError::NotFound(format!("of a name of {} bytes", method.len())));
        }
        // Metadata follows from settings that never change: its calls take seconds where nothing is optimised.
        let root = if method.starts_with("Metadata_") { H256::zero() } else { state.root() };
        let question = (root, method.to_owned(), args.to_vec());
        let slot = self.lock().slot(&question);
        let mut failed = None;
        let answer = slot.get_or_init(|| {
            let answer = state.call(method, args).map_err(|error| failed = Some(error)).ok();
            self.lock().size += answer.as_ref().map_or(0, Vec::len);
            answer
        });
        match (answer, failed) {
            (Some(answer), _) => Ok(answer.clone()),
            (None, Some(error)) => {
                self.lock().forget(&question, &slot);
                Err(error)
            }
            // Whoever asked first was told the error; who asks again hears it anew.
            (None, None) => state.call(method, args),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn slot(&mut self, question: &Question) -> Answer {
        if self.new.len() >= ANSWERS_MAX || self.size >= BYTES_MAX {
            self.old = std::mem::take(&mut self.new);
            self.size = 0;
        }
        if let Some(answer) = self.new.get(question) {
            return answer.clone();
        }
        let answer = self.old.get(question).cloned().unwrap_or_default();
        self.size += asked(question) + answer.get().and_then(Option::as_ref).map_or(0, Vec::len);
        self.new.insert(question.clone(), answer.clone());
        answer
    }

    /// Forgets a question that has no answer, unless another slot is in its place by now.
    fn forget(&mut self, question: &Question, slot: &Answer) {
        let is_it = |held: Option<&Answer>| held.is_some_and(|held| Arc::ptr_eq(held, slot));
        if is_it(self.old.get(question)) {
            self.old.remove(question);
        }
        if is_it(self.new.get(question)) {
            self.new.remove(question);
            self.size = self.size.saturating_sub(asked(question));
        }
    }
}

/// Bytes that a question takes.
fn asked((root, method, args): &Question) -> usize {
    root.0.len() + method.len() + args.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

    use super::*;
    use crate::chain::Chain;
    use crate::config::Config;

    fn state() -> State {
        Chain::open(&Config::default()).unwrap().best_state()
    }

    /// New answers, old ones, and the bytes of the new.
    fn held(views: &Views) -> (usize, usize, usize) {
        let all = views.lock();
        (all.new.len(), all.old.len(), all.size)
    }

    #[test]
    fn what_fails_is_not_kept_and_what_does_not_is() {
        let (views, state) = (Views::default(), state());
        for number in 0..8_u8 {
            assert!(views.call(&state, &format!("Nothing_here{number}"), &[0; 1_000]).is_err());
            assert!(
                views.call(&state, "AccountNonceApi_account_nonce", &[number; 31]).is_err(),
                "its argument is short"
            );
        }
        assert_eq!(held(&views), (0, 0, 0));
        let answer = views.call(&state, "Core_version", &[]).unwrap();
        assert_eq!(views.call(&state, "Core_version", &[]).unwrap(), answer);
        let size = 32 + "Core_version".len() + answer.len();
        assert_eq!(held(&views), (1, 0, size), "name and answer count");
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_and_not_kept() {
        let (views, state) = (Views::default(), state());
        let refused = views.call(&state, &"x".repeat(METHOD_MAX + 1), &[]).unwrap_err().to_string();
        assert_eq!(refused, "Exported method of a name of 257 bytes is not found");
        assert_eq!(held(&views), (0, 0, 0));
    }

    #[test]
    fn bytes_make_a_new_generation_and_two_are_kept() {
        let mut all = Generations::default();
        let question = |number: u8| (H256::zero(), String::new(), vec![number; BYTES_MAX]);
        for number in 0..3 {
            all.slot(&question(number));
            assert!(all.size <= BYTES_MAX + 32, "{}", all.size);
        }
        assert_eq!((all.new.len(), all.old.len()), (1, 1));
        assert!(!all.old.contains_key(&question(0)));
    }
}
