//! A validator's half of a round: the ballot, and loss scores while the next round trains.
//!
//! [`Validating`] is what the node's loop knows of it: ratings to vote by, and rounds that wait to be scored, in order.
//! `validator` evaluates and rates, `scoring` is the task of a round, `voting` the ballot's way to the chain. A ballot is
//! made of the ratings as the last scoring left them: it waits for none.

mod scoring;
mod validator;
mod voting;

pub use scoring::{ScoreJob, Scored, open, score};
pub use validator::{Validator, ValidatorError};
pub use voting::vote;

use covey_proto::record::UidSet;
use covey_proto::{Round, RunId};
use covey_round::ballot::{Probation, ballot};
use covey_round::engine::Collection;
use covey_round::rating::Ratings;
use std::collections::VecDeque;
use std::sync::Arc;

/// Rounds that wait to be scored: a validator that is further behind scores what is newest.
const WAITING_MAX: usize = 4;

/// The validator, as the node's loop sees it.
pub struct Validating {
    /// At home, unless a task has it.
    validator: Option<Validator>,
    /// What it thinks of whom, as its last scoring left it.
    ratings: Arc<Ratings>,
    waiting: VecDeque<ScoreJob>,
}

impl Validating {
    /// A validator that waits for its first round.
    pub fn new(validator: Validator) -> Validating {
        let ratings = Arc::new(validator.ratings().clone());
        Validating { validator: Some(validator), ratings, waiting: VecDeque::new() }
    }

    /// Takes a round to score. Rounds are scored in order: ratings take none after a later one. Gives back the round
    /// that will not be scored for it, if too many wait.
    pub fn score(&mut self, job: ScoreJob) -> Option<Round> {
        self.waiting.push_back(job);
        match self.waiting.len() > WAITING_MAX {
            true => self.waiting.pop_front().map(|job| job.collection.round),
            false => None,
        }
    }

    /// The validator and what it is to score now, if both are there.
    pub fn start(&mut self) -> Option<(Validator, ScoreJob)> {
        let validator = self.validator.take_if(|_| !self.waiting.is_empty())?;
        Some((validator, self.waiting.pop_front()?))
    }

    /// The validator is back from a round.
    pub fn come_home(&mut self, validator: Validator) {
        self.ratings = Arc::new(validator.ratings().clone());
        self.validator = Some(validator);
    }

    /// Who goes on the ballot, of those whose contributions are held.
    pub fn ballot(&self, run_id: RunId, contributions_max: u32, collection: &Collection, held: UidSet) -> UidSet {
        let probation = Probation { run_id, round: collection.round, beacon_c: collection.beacon };
        let standings = self.ratings.standings(&collection.members, collection.round);
        ballot(&probation, &held, &standings, contributions_max)
    }
}
