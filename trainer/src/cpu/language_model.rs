//! A model on the CPU that judges: one vector of parameters, and for each thread the activations of one layer. Enough
//! groups of sequences keep the threads busy with one each; fewer are worked on by all threads, one after the other.

use super::continuation::Continuation;
use super::finite;
use super::groups::{Parted, check, groups};
use super::network::Network;
use super::passes::Passes;
use super::pool::Pool;
use super::shape::Shape;
use crate::backend::{BackendError, Batch, CONTEXT, LanguageModel, LoadError, TryError};
use crate::stream::load;
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_sparseloco::{CodecError, OuterStep, SparseShard, Trial};
use std::io;
use std::sync::Arc;

/// Parameters and activations.
pub struct CpuModel {
    layout: Layout,
    parameters: Vec<f32>,
    is_loaded: bool,
    trial: Trial,
    pool: Arc<Pool>,
    /// A pool of the one thread that works on a group of its own.
    alone: Pool,
    /// One a thread, at least one; the first can use all threads.
    workers: Vec<Worker>,
    continuation: Continuation,
}

/// What one thread works with.
struct Worker {
    network: Network,
    parted: Parted,
}

impl CpuModel {
    /// A model that works on as many threads, at least one; nothing is loaded.
    ///
    /// # Panics
    /// If the model's numbers cannot be: heads that do not divide the width, say. [`super::open`] checks them.
    pub fn new(model: &Model, threads: usize) -> CpuModel {
        CpuModel::with(model, Arc::new(Pool::new(threads)))
    }

    pub(super) fn with(model: &Model, pool: Arc<Pool>) -> CpuModel {
        let layout = Layout::of(model);
        let worker = |number: usize| {
            let threads = if number == 0 { pool.threads() } else { 1 };
            Worker { network: Network::new(model, Passes::Forward, threads), parted: Parted::default() }
        };
        CpuModel {
            parameters: vec![0.0; layout.elements()],
            layout,
            is_loaded: false,
            trial: Trial::default(),
            workers: (0..pool.threads()).map(worker).collect(),
            alone: Pool::new(1),
            pool,
            continuation: Continuation::default(),
        }
    }

    /// Summed losses of the groups of `jobs`, in their order.
    fn sums(&mut self, jobs: &[(&[u32], usize)]) -> Vec<f64> {
        let CpuModel { parameters, pool, alone, workers, .. } = self;
        if jobs.len() < workers.len() {
            return jobs.iter().map(|job| workers[0].loss(pool, parameters, *job)).collect();
        }
        let mut sums = vec![0.0; jobs.len()];
        pool.each_with(workers, jobs.iter().zip(&mut sums), |worker, (job, sum)| {
            *sum = worker.loss(alone, parameters, *job);
        });
        sums
    }

    fn loaded(&self) -> Result<(), BackendError> {
        if self.is_loaded { Ok(()) } else { Err(BackendError::NotLoaded) }
    }
}

impl Worker {
    fn loss(&mut self, pool: &Pool, parameters: &[f32], (rows, length): (&[u32], usize)) -> f64 {
        let group = self.parted.part(rows, length);
        self.network.loss(pool, parameters, &group)
    }
}

/// Whether `tokens` may follow `before` others.
fn check_text(shape: &Shape, before: usize, tokens: &[u32]) -> Result<(), BackendError> {
    if tokens.is_empty() || before + tokens.len() > shape.sequence {
        let got = if tokens.is_empty() { 0 } else { before + tokens.len() };
        return Err(BackendError::Length { got, max: shape.sequence });
    }
    match tokens.iter().find(|token| **token as usize >= shape.vocabulary) {
        Some(&token) => Err(BackendError::Token { token, vocabulary: shape.vocabulary }),
        None => Ok(()),
    }
}

impl LanguageModel for CpuModel {
    fn load(&mut self, state: &mut dyn io::Read) -> Result<(), LoadError> {
        self.trial.forget();
        self.continuation.rewind(0);
        self.is_loaded = false;
        load(state, &mut self.parameters)?;
        self.is_loaded = true;
        Ok(())
    }

    fn batches_at_once(&self) -> usize {
        self.workers.len()
    }

    fn losses(&mut self, batches: &[Batch]) -> Result<Vec<f64>, BackendError> {
        self.loaded()?;
        let network = &self.workers[0].network;
        batches.iter().try_for_each(|batch| check(batch, &network.shape))?;
        let jobs: Vec<(&[u32], usize)> =
            batches.iter().flat_map(|batch| groups(batch, network).map(|rows| (rows, batch.sequence()))).collect();
        let counts: Vec<usize> = batches.iter().map(|batch| groups(batch, network).count()).collect();
        let mut sums = self.sums(&jobs).into_iter();
        let mean = |(batch, count): (&Batch, usize)| {
            // From 0, one after the other: the order of additions is part of the result.
            let sum = sums.by_ref().take(count).fold(0.0, |sum, group| sum + group);
            finite("loss", sum / batch.predictions().max(1) as f64)
        };
        batches.iter().zip(counts).map(mean).collect()
    }

    fn text_losses(&mut self, texts: &[Vec<u32>]) -> Result<Vec<f64>, BackendError> {
        self.loaded()?;
        let shape = &self.workers[0].network.shape;
        for text in texts {
            let (read, vocabulary) = (text.len().saturating_sub(1), shape.vocabulary);
            if !(1..=shape.sequence).contains(&read) {
                return Err(BackendError::Length { got: read, max: shape.sequence });
            }
            if let Some(token) = text.iter().map(|token| token & !CONTEXT).find(|token| *token as usize >= vocabulary) {
                return Err(BackendError::Token { token, vocabulary });
            }
        }
        let jobs: Vec<(&[u32], usize)> = texts.iter().map(|text| (&text[..], text.len() - 1)).collect();
        self.sums(&jobs).into_iter().map(|sum| finite("loss", sum)).collect()
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BackendError> {
        self.loaded()?;
        let CpuModel { parameters, pool, workers, .. } = self;
        let network = &mut workers[0].network;
        let shape = &network.shape;
        check_text(shape, 0, tokens)?;
        Ok(network.logits(pool, parameters, tokens))
    }

    fn context(&self) -> &[u32] {
        self.continuation.tokens()
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<&[f32], BackendError> {
        self.loaded()?;
        let network = &self.workers[0].network;
        check_text(&network.shape, self.continuation.tokens().len(), tokens)?;
        Ok(self.continuation.extend(&self.pool, &network.shape, &self.parameters, network.angles(), tokens))
    }

    fn rewind(&mut self, length: usize) {
        self.continuation.rewind(length);
    }

    fn try_step(
        &mut self,
        shards: &mut dyn Iterator<Item = Result<SparseShard, CodecError>>,
        factors: &[Option<f32>],
        step: OuterStep<'_>,
    ) -> Result<(), TryError> {
        self.loaded()?;
        self.continuation.rewind(0);
        let shards =
            shards.enumerate().map(|(shard, decoded)| decoded.map_err(|error| TryError::Codec { shard, error }));
        self.trial.begin(&self.layout, &mut self.parameters, shards, factors, step)
    }

    fn undo(&mut self) {
        self.continuation.rewind(0);
        self.trial.undo(&self.layout, &mut self.parameters);
    }
}
