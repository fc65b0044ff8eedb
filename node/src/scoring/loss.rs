//! Gauntlet's evaluation of one contribution: what a share of its step alone does to the loss, on its author's data and on
//! data that nobody was given.
//!
//! The base is loaded once a round. Each contribution is tried where the parameters are and taken back, so that an
//! evaluation costs three forward passes of an evaluation set and no copy of the model.

use covey_proto::Uid;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_round::engine::Collection;
use covey_round::rating::Evaluation;
use covey_sparseloco::{CodecError, OuterStep, SparseShard, StepError};
use covey_trainer::data::Dataset;
use covey_trainer::{BackendError, Batch, BatchError, LanguageModel, LoadError, TryError};
use std::io::Read;
use std::slice::from_ref;

/// Why an evaluation failed: this machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The base is not to be had.
    #[error("the base: {0}")]
    Base(#[from] LoadError),
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data is not the model's.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The contribution cannot be applied.
    #[error(transparent)]
    Try(#[from] TryError),
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
}

/// One validator's evaluations of one round.
pub struct Bench<'a> {
    model: &'a mut dyn LanguageModel,
    setting: Setting<'a>,
    /// What every tensor of a contribution alone is multiplied by: it is its own median.
    factors: Vec<Option<f32>>,
    random: Batch,
    random_before: f64,
}

impl<'a> Bench<'a> {
    /// Loads `base`, the state that the round's contributions are based on (its parameters as bytes, to the end); draws the
    /// random data and takes its loss before.
    ///
    /// # Errors
    /// The base cannot be read, the device refuses, or the data is not the model's.
    pub fn new(
        model: &'a mut dyn LanguageModel,
        setting: Setting<'a>,
        base: &mut dyn Read,
    ) -> Result<Bench<'a>, ScoreError> {
        let Setting { data, run, layout, collection, voter } = setting;
        let count = run.scoring.sequences as usize;
        let samples = collection.assignment.evaluation(collection.beacon, voter, count);
        let random = data.batch(&run.model, samples)?;
        model.load(base)?;
        let [random_before] = losses(model, from_ref(&random))?;
        let factors = vec![Some(1.0); layout.tensors().len()];
        Ok(Bench { model, setting, factors, random, random_before })
    }

    /// Tries the contribution of `uid` alone: the base state less a share of the outer step. `shards` are its shards in
    /// order, decoded as they are asked for. The model holds the base again afterwards.
    ///
    /// # Errors
    /// The device refuses, the data is not the model's, or the shards are not this layout's.
    pub fn evaluate(
        &mut self,
        uid: Uid,
        shards: &mut dyn Iterator<Item = Result<SparseShard, CodecError>>,
    ) -> Result<Evaluation, ScoreError> {
        let Setting { data, run, collection, voter, .. } = self.setting;
        let count = run.scoring.sequences as usize;
        let Some(samples) = collection.assignment.own_samples(collection.beacon, voter, uid, count) else {
            return Ok(Evaluation::Failed);
        };
        let own = data.batch(&run.model, samples)?;
        let [own_before] = losses(self.model, from_ref(&own))?;
        let alpha = run.outer.rate.linear(f64::from(collection.round.0)) * run.scoring.rate;
        let step = OuterStep { alpha, rho: run.outer.rho };
        match self.model.try_step(shards, &self.factors, step) {
            Ok(()) => {}
            // Values so large that a parameter would not be finite: the author's fault, and no reason to rate nobody.
            Err(TryError::Step(StepError::NotFinite { .. })) => return Ok(Evaluation::Failed),
            Err(error) => return Err(error.into()),
        }
        let batches = [own, self.random.clone()];
        let after = losses(self.model, &batches);
        self.model.undo();
        let gain = |before: f64, after: f64| (before - after) / before;
        match after {
            Ok([own, random]) => {
                Ok(Evaluation::Gains { own: gain(own_before, own), random: gain(self.random_before, random) })
            }
            // A contribution that makes the loss infinite is worth less than nothing, and no fault of this machine.
            Err(BackendError::NotFinite { .. }) => Ok(Evaluation::Failed),
            Err(error) => Err(error.into()),
        }
    }
}

/// The losses of as many batches.
fn losses<const N: usize>(model: &mut dyn LanguageModel, batches: &[Batch]) -> Result<[f64; N], BackendError> {
    let losses = model.losses(batches)?;
    // A backend that answers with another number of losses is broken.
    <[f64; N]>::try_from(losses).map_err(|losses| BackendError::Device {
        device: "the backend".to_owned(),
        message: format!("{} losses of {N} batches", losses.len()),
    })
}
