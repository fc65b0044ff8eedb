//! Gauntlet's evaluation of one contribution: does it lower the loss, on its author's data and on nobody's?
//!
//! What is done with the answer (ratings, weights, ballots) is `covey_round`'s.

use crate::contribution::Contribution;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::samples_per_member;
use covey_round::engine::Collection;
use covey_round::rating::{Evaluation, PeerKey, Ratings};
use covey_sparseloco::{OuterStep, StepError, outer_step};
use covey_trainer::data::Dataset;
use covey_trainer::{Backend, BackendError, Batch, BatchError};

/// Why an evaluation failed: this machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data is not the model's.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The contribution cannot be applied.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Contributions that a validator may evaluate in a round: as many as fit into the stated share of the time in which a
/// miner trains.
///
/// A sequence costs a miner a forward and a backward pass, about three forward passes; a contribution costs a validator
/// three forward passes of an evaluation set (own data before and after, random data after). At least one is evaluated.
pub fn evaluations_max(run: &Run, round: Round) -> usize {
    let training = samples_per_member(run, round) as f64;
    ((run.scoring.share * training / f64::from(run.scoring.sequences)) as usize).max(1)
}

/// Whom to evaluate first: who has waited longest, ties in an order of this voter's own.
pub fn order(collection: &Collection, ratings: &Ratings, voter: Uid) -> Vec<Uid> {
    let waited = |uid: &Uid| {
        let member = collection.members.get(uid)?;
        Some(ratings.rating(&PeerKey::from(member))?.evaluated)
    };
    let tie = |uid: &Uid| {
        let parts =
            [collection.beacon.as_bytes().as_slice(), &voter.number().to_le_bytes(), &uid.number().to_le_bytes()];
        let mut bytes = [0; 32];
        derive("covey/1/look", &parts).fill(&mut bytes);
        Digest::new(bytes)
    };
    let mut uids: Vec<Uid> = collection.offered.keys().copied().collect();
    uids.sort_by_cached_key(|uid| (waited(uid), tie(uid)));
    uids
}

/// One validator's evaluations of one round.
pub struct Bench<'a> {
    backend: &'a mut dyn Backend,
    data: &'a Dataset,
    run: &'a Run,
    layout: &'a Layout,
    collection: &'a Collection,
    voter: Uid,
    before: &'a [f32],
    random: Batch,
    random_before: f64,
}

/// What a [`Bench`] is set up with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The training data.
    pub data: &'a Dataset,
    /// The run.
    pub run: &'a Run,
    /// How parameters lie.
    pub layout: &'a Layout,
    /// The round.
    pub collection: &'a Collection,
    /// Who evaluates.
    pub voter: Uid,
    /// The state that the round's contributions are based on.
    pub before: &'a [f32],
}

impl<'a> Bench<'a> {
    /// Draws the random data and takes its loss before.
    ///
    /// # Errors
    /// The device refuses, or the data is not the model's.
    pub fn new(backend: &'a mut dyn Backend, setting: Setting<'a>) -> Result<Bench<'a>, ScoreError> {
        let Setting { data, run, layout, collection, voter, before } = setting;
        let count = run.scoring.sequences as usize;
        let samples = collection.assignment.evaluation(collection.beacon, voter, count);
        let random = data.batch(&run.model, samples)?;
        backend.load(before)?;
        let random_before = backend.loss(&random)?;
        Ok(Bench { backend, data, run, layout, collection, voter, before, random, random_before })
    }

    /// Tries a contribution alone: the base state less a share of the outer step.
    ///
    /// # Errors
    /// The device refuses, or the data is not the model's.
    pub fn evaluate(&mut self, contribution: &Contribution) -> Result<Evaluation, ScoreError> {
        let (round, uid) = (self.collection.round, contribution.manifest.uid);
        let count = self.run.scoring.sequences as usize;
        let Some(samples) = self.collection.assignment.own_samples(self.collection.beacon, self.voter, uid, count)
        else {
            return Ok(Evaluation::Failed);
        };
        let own = self.data.batch(&self.run.model, samples)?;
        self.backend.load(self.before)?;
        let own_before = self.backend.loss(&own)?;
        let alpha = self.run.outer.rate.linear(f64::from(round.0)) * self.run.scoring.rate;
        let mut after = self.before.to_vec();
        let step = OuterStep { alpha, rho: self.run.outer.rho };
        outer_step(self.layout, &mut after, &[contribution.shards.as_slice()], step)?;
        self.backend.load(&after)?;
        // A contribution that makes the loss infinite is worth less than nothing, and no fault of this machine.
        let (Ok(own_after), Ok(random_after)) = (self.backend.loss(&own), self.backend.loss(&self.random)) else {
            return Ok(Evaluation::Failed);
        };
        let gain = |before: f64, after: f64| (before - after) / before;
        Ok(Evaluation::Gains { own: gain(own_before, own_after), random: gain(self.random_before, random_after) })
    }
}
