//! A miner's half of a round, from training to the reveal.
//!
//! [`Mining`] is what the node's loop knows of it: whether the miner is at home, what it does next, what stops it.
//! `miner` holds what a miner keeps from round to round and what it does with it; `training` is the order of a round's
//! writes, `saved` what survives a kill, `reveal` the announcement. The miner moves into the task of its round and comes back with the result.

mod miner;
mod reveal;
mod saved;
mod training;

pub(super) use miner::{Miner, MinerError};
pub(super) use reveal::announce;
pub(super) use training::{TrainBase, TrainJob, Trained, commit, train};

use super::worker::Worker;
use crate::compute::Cancel;

/// The miner, as the node's loop sees it: away in the task of a round, or at home.
pub(super) struct Mining {
    /// Of rounds that wait for one that was given up, the newest counts.
    worker: Worker<Miner, TrainJob>,
    /// Stops the newest round's training.
    cancel: Cancel,
    /// It is to forget its optimizer and error feedback before it trains again: the node joined by state.
    forget: bool,
}

impl Mining {
    /// A miner that waits for its first round.
    pub(super) fn new(miner: Miner) -> Mining {
        Mining { worker: Worker::new(miner, 1), cancel: Cancel::default(), forget: false }
    }

    /// Takes a round to train; gives back the one that will not be trained for it.
    pub(super) fn train(&mut self, job: TrainJob) -> Option<TrainJob> {
        self.cancel = job.cancel.clone();
        self.worker.ask(job)
    }

    /// The miner and what it is to do now, if both are there.
    pub(super) fn start(&mut self) -> Option<(Miner, TrainJob)> {
        let (miner, mut job) = self.worker.start()?;
        job.forget = std::mem::take(&mut self.forget);
        Some((miner, job))
    }

    /// The miner is back.
    pub(super) fn come_home(&mut self, miner: Miner) {
        self.worker.come_home(miner);
    }

    /// Stops the newest round's training, wherever it is.
    pub(super) fn stop(&self) {
        self.cancel.cancel();
    }

    /// What the miner has learned belongs to a state that the node no longer follows.
    pub(super) fn forget(&mut self) {
        self.forget = true;
    }

    /// Whether a task has the miner.
    pub(super) fn is_away(&self) -> bool {
        self.worker.is_away()
    }

    /// The miner for good, if it is at home; with whether it is to forget what it has learned.
    pub(super) fn retire(&mut self) -> Option<(Miner, bool)> {
        Some((self.worker.retire()?, self.forget))
    }
}
