//! A validator's half of a round: the ballot, and loss scores while the next round trains.
//!
//! [`Validating`] is what the node's loop knows of it: ratings to vote by, and rounds that wait to be scored, in order.
//! `validator` evaluates and rates, `scoring` is the task of a round, `voting` the ballot's way to the chain. A ballot is
//! made of the ratings as the last scoring left them: it waits for none.

mod scoring;
mod validator;
mod voting;

pub(super) use scoring::{Scored, open, score};
pub(super) use validator::{ScoreJob, Validator, ValidatorError};
pub(super) use voting::vote;

use super::worker::Worker;
use covey_proto::record::UidSet;
use covey_proto::{Round, RunId};
use covey_round::ballot::{Probation, ballot};
use covey_round::engine::Collection;
use covey_round::rating::Ratings;
use std::sync::Arc;

/// Rounds that wait to be scored: a validator that is further behind scores what is newest.
pub(super) const ROUNDS_WAITING_MAX: usize = 4;

/// The validator, as the node's loop sees it: away in the task of a round, or at home.
pub(super) struct Validating {
    /// Rounds are scored in order: ratings take none after a later one.
    worker: Worker<Validator, ScoreJob>,
    /// What it thinks of whom, as its last scoring left it.
    ratings: Arc<Ratings>,
}

impl Validating {
    /// A validator that waits for its first round.
    pub(super) fn new(validator: Validator) -> Validating {
        let ratings = Arc::new(validator.ratings().clone());
        Validating { worker: Worker::new(validator, ROUNDS_WAITING_MAX), ratings }
    }

    /// Takes a round to score; gives back the one that will not be scored for it.
    pub(super) fn score(&mut self, job: ScoreJob) -> Option<Round> {
        self.worker.ask(job).map(|skipped| skipped.collection.round)
    }

    /// The validator and what it is to score now, if both are there.
    pub(super) fn start(&mut self) -> Option<(Validator, ScoreJob)> {
        self.worker.start()
    }

    /// The validator is back from a round.
    pub(super) fn come_home(&mut self, validator: Validator) {
        self.ratings = Arc::new(validator.ratings().clone());
        self.worker.come_home(validator);
    }

    /// Who goes on the ballot, of those whose contributions are held.
    pub(super) fn ballot(
        &self,
        run_id: RunId,
        contributions_max: u32,
        collection: &Collection,
        held: UidSet,
    ) -> UidSet {
        let probation = Probation { run_id, round: collection.round, beacon_c: collection.beacon };
        let standings = self.ratings.standings(&collection.members, collection.round);
        ballot(&probation, &held, &standings, contributions_max)
    }
}
