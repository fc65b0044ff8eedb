//! A model on the CPU that learns. Its memory is arrays as long as the model, made once: parameters, gradient, feedback, and
//! the optimizer's moments. A contribution is made in the parameters' array, which then holds the pending feedback.

use super::finite;
use super::groups::{Parted, check, groups};
use super::network::Network;
use super::optimizer::Moments;
use super::passes::Passes;
use super::pool::Pool;
use super::product::Into;
use super::row_tasks::sum_of_squares;
use crate::backend::{BackendError, Batch, EncodedContribution, LoadError, SaveError, StepHyper, StepStats, Trainer};
use crate::stream::{load, save};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer};
use covey_sparseloco::state::{StateError, finite as finite_state};
use covey_sparseloco::{Compression, Encoded, compress};
use std::io;
use std::sync::Arc;

/// Parameters, gradient, moments, feedback and activations.
pub struct CpuTrainer {
    layout: Layout,
    network: Network,
    pool: Arc<Pool>,
    parameters: Vec<f32>,
    holds: Holds,
    gradient: Vec<f32>,
    moments: Moments,
    /// e, what was not sent before: the kept one.
    feedback: Vec<f32>,
    parted: Parted,
}

/// What the parameters' memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Nothing of use.
    Nothing,
    /// Parameters.
    Parameters,
    /// The feedback that follows the last contribution, until it is kept or forgotten.
    Pending,
}

impl CpuTrainer {
    /// A trainer that works on as many threads, at least one; nothing is loaded.
    ///
    /// # Panics
    /// If the model's numbers cannot be: heads that do not divide the width, say. [`super::open`] checks them.
    pub fn new(model: &Model, optimizer: Optimizer, threads: usize) -> CpuTrainer {
        CpuTrainer::with(model, optimizer, Arc::new(Pool::new(threads)), Passes::Both { keep: None })
    }

    pub(super) fn with(model: &Model, optimizer: Optimizer, pool: Arc<Pool>, passes: Passes) -> CpuTrainer {
        let layout = Layout::of(model);
        let room = || vec![0.0; layout.elements()];
        CpuTrainer {
            network: Network::new(model, passes, pool.threads()),
            pool,
            parameters: room(),
            holds: Holds::Nothing,
            gradient: room(),
            moments: Moments::new(&layout, optimizer),
            feedback: room(),
            parted: Parted::default(),
            layout,
        }
    }

    /// Mean loss of a batch and its gradient, flat, unclipped: for tests, which compare it with other sources.
    ///
    /// # Errors
    /// Nothing is loaded, another model's batch, or a loss that is not finite.
    pub fn gradient(&mut self, batch: &Batch) -> Result<(f64, &[f32]), BackendError> {
        let loss = self.compute_gradient(batch)?;
        Ok((loss, &self.gradient))
    }

    /// Leaves the gradient of the mean loss in `self.gradient`; gives the mean loss.
    fn compute_gradient(&mut self, batch: &Batch) -> Result<f64, BackendError> {
        self.loaded()?;
        check(batch, &self.network.shape)?;
        // Where nothing is to be predicted, the loss and its gradient are 0.
        let positions = batch.predictions().max(1) as f64;
        let weight = (1.0 / positions) as f32;
        let CpuTrainer { network, pool, parameters, gradient, parted, .. } = self;
        let mut sum = 0.0;
        let mut into = Into::Set;
        let rows_of: Vec<&[u32]> = groups(batch, network).collect();
        for rows in rows_of {
            let group = parted.part(rows, batch.sequence());
            sum += network.gradient(pool, parameters, gradient, &group, weight, into);
            into = Into::Add;
        }
        finite("loss", sum / positions)
    }

    fn loaded(&self) -> Result<(), BackendError> {
        if self.holds == Holds::Parameters { Ok(()) } else { Err(BackendError::NotLoaded) }
    }
}

impl Trainer for CpuTrainer {
    fn load(&mut self, base: &mut dyn io::Read) -> Result<(), LoadError> {
        self.holds = Holds::Nothing;
        load(base, &mut self.parameters)?;
        self.holds = Holds::Parameters;
        Ok(())
    }

    fn save(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
        self.loaded()?;
        Ok(save(to, &self.parameters)?)
    }

    fn step(&mut self, batch: &Batch, hyper: &StepHyper) -> Result<Option<StepStats>, BackendError> {
        let loss = self.compute_gradient(batch)?;
        let gradient_norm = finite("gradient norm", sum_of_squares(&self.pool, &self.gradient).sqrt())?;
        self.moments.step(&self.pool, &mut self.parameters, &self.gradient, hyper, gradient_norm);
        Ok(Some(StepStats { loss, gradient_norm, tokens: batch.predictions() }))
    }

    fn finish(&mut self) -> Result<Option<StepStats>, BackendError> {
        // Every step has given its numbers.
        Ok(None)
    }

    fn steps(&self) -> u64 {
        self.moments.steps()
    }

    fn contribute(&mut self, base: &[f32], how: &Compression) -> Result<EncodedContribution, BackendError> {
        self.loaded()?;
        let expected = self.layout.elements();
        if base.len() != expected {
            return Err(BackendError::Elements { got: base.len(), expected });
        }
        self.holds = Holds::Nothing;
        let Encoded { shards, stats } =
            compress(self.pool.threads(), &self.layout, how, base, &self.feedback, &mut self.parameters)?;
        self.holds = Holds::Pending;
        Ok(EncodedContribution { shards, stats })
    }

    fn keep_feedback(&mut self) {
        if self.holds == Holds::Pending {
            std::mem::swap(&mut self.parameters, &mut self.feedback);
            self.holds = Holds::Nothing;
        }
    }

    fn discard_feedback(&mut self) {
        self.forget_pending();
    }

    fn save_feedback(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
        let feedback = if self.holds == Holds::Pending { &self.parameters } else { &self.feedback };
        Ok(save(to, feedback)?)
    }

    fn restore_feedback(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError> {
        let not_finite = |error| match error {
            StateError::NotFinite { index } => LoadError::NotFinite { index },
            StateError::Length { got, need } => {
                LoadError::Length { got: got as u64, elements: need / 4, expected: need as u64 }
            }
        };
        let outcome = load(from, &mut self.feedback).and_then(|()| finite_state(&self.feedback).map_err(not_finite));
        match outcome {
            Ok(()) => self.forget_pending(),
            Err(_) => self.reset_feedback(),
        }
        outcome
    }

    fn reset_feedback(&mut self) {
        self.feedback.fill(0.0);
        self.forget_pending();
    }

    fn save_moments(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
        self.moments.save(to)
    }

    fn restore_moments(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError> {
        self.moments.restore(from)
    }

    fn reset_moments(&mut self) {
        self.moments.reset();
    }
}

impl CpuTrainer {
    fn forget_pending(&mut self) {
        if self.holds == Holds::Pending {
            self.holds = Holds::Nothing;
        }
    }
}
