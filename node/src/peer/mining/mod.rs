//! A miner's half of a round, from training to the reveal.
//!
//! [`Mining`] is what the node's loop knows of it: whether the miner is at home, what it does next, what stops it.
//! `miner` holds what a miner keeps from round to round and what it does with it; `training` is the order of a round's
//! writes, `reveal` the announcement. The miner moves into the task of its round and comes back with the result.

mod miner;
mod reveal;
mod training;

pub use miner::{Miner, MinerError};
pub(super) use reveal::announce;
pub use training::{Made, TrainJob, Trained, commit, train};

use crate::compute::Cancel;

/// The miner, as the node's loop sees it.
#[derive(Default)]
pub struct Mining {
    is_miner: bool,
    /// At home, unless a task has it.
    miner: Option<Miner>,
    /// The round that it trains next, once it is back from one that was given up.
    next: Option<TrainJob>,
    /// Stops the newest round's training.
    cancel: Cancel,
    /// It is to forget its optimizer and error feedback before it trains again: the node joined by state.
    forget: bool,
}

impl Mining {
    /// A miner that waits for its first round.
    pub fn new(miner: Option<Miner>) -> Mining {
        Mining { is_miner: miner.is_some(), miner, ..Mining::default() }
    }

    /// Takes a round to train. Of rounds that wait, the newest counts; the one that it replaces is given back.
    pub fn train(&mut self, job: TrainJob) -> Option<TrainJob> {
        self.cancel = job.cancel.clone();
        self.next.replace(job)
    }

    /// The miner and what it is to do now, if both are there.
    pub fn start(&mut self) -> Option<(Miner, TrainJob)> {
        let miner = self.miner.take_if(|_| self.next.is_some())?;
        let mut job = self.next.take()?;
        job.forget = std::mem::take(&mut self.forget);
        Some((miner, job))
    }

    /// The miner is back.
    pub fn come_home(&mut self, miner: Miner) {
        self.miner = Some(miner);
    }

    /// Stops the newest round's training, wherever it is.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// What the miner has learned belongs to a state that the node no longer follows.
    pub fn forget(&mut self) {
        self.forget = true;
    }

    /// Whether a task has the miner.
    pub fn is_away(&self) -> bool {
        self.is_miner && self.miner.is_none()
    }

    /// The miner, for good, if it is at home.
    pub fn retire(&mut self) -> Option<Miner> {
        self.next = None;
        self.miner.take()
    }
}
