//! A model on the CPU that judges: one vector of parameters, and for each thread the activations of one layer.

use super::continuation::Continuation;
use super::finite;
use super::groups::{Parted, check, groups};
use super::network::Network;
use super::passes::Passes;
use super::pool::Pool;
use super::shape::Shape;
use crate::backend::{BackendError, Batch, LanguageModel, LoadError, TryError};
use crate::stream::load;
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_sparseloco::{CodecError, OuterStep, SparseShard, Trial};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Parameters and activations.
pub struct CpuModel {
    layout: Layout,
    parameters: Vec<f32>,
    is_loaded: bool,
    trial: Trial,
    /// One a thread, at least one.
    workers: Vec<Worker>,
    pool: Arc<Pool>,
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
        let layout = Layout::of(model);
        let worker = |_| Worker { network: Network::new(model, Passes::Forward), parted: Parted::default() };
        CpuModel {
            parameters: vec![0.0; layout.elements()],
            layout,
            is_loaded: false,
            trial: Trial::default(),
            workers: (0..threads.max(1)).map(worker).collect(),
            pool: Arc::new(Pool::new(threads)),
            continuation: Continuation::default(),
        }
    }

    fn loaded(&self) -> Result<(), BackendError> {
        if self.is_loaded { Ok(()) } else { Err(BackendError::NotLoaded) }
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

/// Summed losses of the groups of `jobs`, in their order; each thread takes the next that nobody has.
fn sums(workers: &mut [Worker], parameters: &[f32], jobs: &[(&[u32], usize)]) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let work = |worker: &mut Worker| {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((rows, length)) = jobs.get(number) else { return done };
            let group = worker.parted.part(rows, *length);
            done.push((number, worker.network.loss(parameters, &group)));
        }
    };
    let busy = workers.len().min(jobs.len());
    let Some((first, others)) = workers[..busy].split_first_mut() else { return Vec::new() };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = others.iter_mut().map(|worker| scope.spawn(|| work(worker))).collect();
        let mut done = work(first);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, sum)| sum).collect()
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
        let mut sums = sums(&mut self.workers, &self.parameters, &jobs).into_iter();
        let mean = |(batch, count): (&Batch, usize)| {
            // From 0, one after the other: the order of additions is part of the result.
            let sum = sums.by_ref().take(count).fold(0.0, |sum, group| sum + group);
            finite("loss", sum / batch.predictions() as f64)
        };
        batches.iter().zip(counts).map(mean).collect()
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BackendError> {
        self.loaded()?;
        let network = &mut self.workers[0].network;
        let shape = &network.shape;
        check_text(shape, 0, tokens)?;
        Ok(network.logits(&self.parameters, tokens))
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
        step: OuterStep,
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
