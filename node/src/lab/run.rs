//! One experiment: the rounds, what each miner hands in, and how it becomes the next state. Which experiments there are,
//! and what is made of their curves, others decide.

use super::{Experiment, Method, OnMiss, Point};
use crate::evaluation::{EvaluationError, Evaluator};
use covey_proto::layout::{CHUNK, Layout};
use covey_proto::run::{Run, UIDS};
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::{Assignment, samples_per_member};
use covey_sparseloco::select::Selector;
use covey_sparseloco::{
    CodecError, CompressError, Compression, ErrorFeedback, OuterStep, SparseShard, StateError, StepError, chunk,
    decode_shard, outer_step,
};
use covey_trainer::cpu::CpuBackend;
use covey_trainer::data::Dataset;
use covey_trainer::genesis::initial_state;
use covey_trainer::inner::{TrainError, train_round};
use covey_trainer::{Backend, BackendError, BatchError};
use std::sync::Arc;

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Numbers that cannot be.
    #[error("{what} is {got}; it must be {need}")]
    Number {
        /// Which.
        what: &'static str,
        /// What it is.
        got: u64,
        /// What it may be.
        need: &'static str,
    },
    /// Not even one training sequence.
    #[error("the data set has no sequence of {sequence} tokens; give it more text")]
    Short {
        /// The model's.
        sequence: u32,
    },
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError<BatchError>),
    /// A pseudo-gradient cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// Error feedback that cannot be kept.
    #[error("error feedback: {0}")]
    Feedback(#[from] StateError),
    /// What a miner encoded is not what the codec reads: a bug.
    #[error("a miner's own shard does not decode: {0}")]
    Codec(#[from] CodecError),
    /// The outer step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A state has no loss.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// One miner of an experiment.
struct Worker {
    uid: Uid,
    backend: CpuBackend,
    feedback: ErrorFeedback,
}

/// What a miner's round came to.
struct Handed {
    work: Work,
    bytes: u64,
    tokens: u64,
    missed: bool,
}

enum Work {
    /// The trained state itself.
    Whole(Vec<f32>),
    Sparse(Vec<SparseShard>),
}

/// Runs an experiment on `data` with `cores` threads; `each` is told of every round that is done, with its point where
/// it was evaluated. The same experiment gives the same curve to the bit, whatever the cores.
///
/// # Errors
/// Numbers that cannot be, or training, compressing or evaluating fails: a run that diverges does.
pub fn run(
    experiment: &Experiment,
    data: &Arc<Dataset>,
    cores: usize,
    each: impl FnMut(u32, Option<Point>),
) -> Result<Vec<Point>, LabError> {
    Ok(run_to_state(experiment, data, cores, each)?.0)
}

/// As [`run`], with the last state.
pub(super) fn run_to_state(
    experiment: &Experiment,
    data: &Arc<Dataset>,
    cores: usize,
    mut each: impl FnMut(u32, Option<Point>),
) -> Result<(Vec<Point>, Vec<f32>), LabError> {
    check(experiment, data)?;
    let Experiment { method, miners, rounds, every, sequences, .. } = experiment;
    let run = &single_batch(*method, &experiment.run, *miners);
    let layout = run.layout();
    let mut workers = workers(*method, run, &layout, *miners);
    let mut evaluator = Evaluator::new(data.clone(), &run.model);
    let mut outer = Outer { theta: initial_state(&run.model), velocity: Vec::new() };
    let mut curve = Vec::new();
    let (mut tokens, mut bytes) = (0, 0);
    for round in (0..*rounds).map(Round) {
        let assignment = assignment(experiment, run, data, round);
        let start = Start { experiment, run, layout: &layout, data, round, assignment, theta: &outer.theta };
        let handed = in_parallel(&mut workers, cores, |worker| start.train(worker))?;
        tokens += handed.iter().map(|handed| handed.tokens).sum::<u64>();
        bytes += handed.iter().map(|handed| handed.bytes).sum::<u64>() / workers.len() as u64;
        outer.apply(experiment, run, &layout, round, handed)?;
        let done = round.0 + 1;
        let evaluated = done.is_multiple_of(*every) || done == *rounds;
        let loss = if evaluated { Some(evaluator.loss(&outer.theta, *sequences)?) } else { None };
        let point = loss.map(|loss| Point { round: done, loss, tokens, bytes });
        curve.extend(point);
        each(done, point);
    }
    Ok((curve, outer.theta))
}

fn check(experiment: &Experiment, data: &Dataset) -> Result<(), LabError> {
    let at_least_one = [
        ("rounds", u64::from(experiment.rounds)),
        ("every", u64::from(experiment.every)),
        ("sequences", experiment.sequences),
    ];
    if let Some(&(what, got)) = at_least_one.iter().find(|(_, got)| *got == 0) {
        return Err(LabError::Number { what, got, need: "at least 1" });
    }
    if !(1..=UIDS as u32).contains(&experiment.miners) {
        return Err(LabError::Number { what: "miners", got: experiment.miners.into(), need: "1 to 256" });
    }
    let sequence = experiment.run.model.sequence;
    if data.samples(sequence) == 0 { Err(LabError::Short { sequence }) } else { Ok(()) }
}

/// AdamW takes all miners' batches as one.
fn single_batch(method: Method, run: &Run, miners: u32) -> Run {
    let mut run = run.clone();
    if method == Method::Adamw {
        run.inner.batch *= miners;
    }
    run
}

/// The first `count` uids; 256 are all there are.
fn uids(count: u32) -> impl Iterator<Item = Uid> {
    (0..count).map_while(Uid::new)
}

fn workers(method: Method, run: &Run, layout: &Layout, miners: u32) -> Vec<Worker> {
    let count = if method.is_joint() { miners } else { 1 };
    let worker = |uid| Worker { uid, backend: CpuBackend::new(&run.model), feedback: ErrorFeedback::zero(layout) };
    uids(count).map(worker).collect()
}

fn assignment(experiment: &Experiment, run: &Run, data: &Dataset, round: Round) -> Assignment {
    let mut seed = [0; 32];
    derive("covey/1/lab", &[&experiment.seed.to_le_bytes(), &round.0.to_le_bytes()]).fill(&mut seed);
    let members = if experiment.method == Method::Adamw { 1 } else { experiment.miners };
    let samples = data.samples(run.model.sequence);
    Assignment::new(Digest::new(seed), samples, uids(members), samples_per_member(run, round))
}

/// Whether what `uid` makes in `round` is not applied. Who misses at one probability misses at every larger one.
fn misses(experiment: &Experiment, round: Round, uid: Uid) -> bool {
    let mut draw = [0; 8];
    let parts: [&[u8]; 3] = [&experiment.seed.to_le_bytes(), &round.0.to_le_bytes(), &uid.number().to_le_bytes()];
    derive("covey/1/lab-miss", &parts).fill(&mut draw);
    // 53 bits: every such number below 1 is exact.
    ((u64::from_le_bytes(draw) >> 11) as f64) / ((1u64 << 53) as f64) < experiment.miss
}

fn in_parallel<T: Send>(
    workers: &mut [Worker],
    cores: usize,
    work: impl Fn(&mut Worker) -> Result<T, LabError> + Sync,
) -> Result<Vec<T>, LabError> {
    let share = workers.len().div_ceil(cores.max(1));
    let results: Vec<Result<Vec<T>, LabError>> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            workers.chunks_mut(share).map(|part| scope.spawn(move || part.iter_mut().map(work).collect())).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(results.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// What a round starts from, the same for every miner.
struct Start<'a> {
    experiment: &'a Experiment,
    run: &'a Run,
    layout: &'a Layout,
    data: &'a Dataset,
    round: Round,
    assignment: Assignment,
    theta: &'a [f32],
}

impl Start<'_> {
    /// A miner's round.
    fn train(&self, worker: &mut Worker) -> Result<Handed, LabError> {
        let Start { experiment, run, data, round, theta, .. } = *self;
        worker.backend.load(theta)?;
        let mut samples = self.assignment.samples_of(worker.uid).into_iter().flatten();
        let batch = run.inner.batch as usize;
        let batches = |_| data.batch(&run.model, samples.by_ref().take(batch));
        let report = train_round(&mut worker.backend, run, round, batches, |_, _| true)?;
        let mut trained = vec![0.0; theta.len()];
        worker.backend.parameters(&mut trained)?;
        let missed = experiment.method.is_joint() && misses(experiment, round, worker.uid);
        let whole = theta.len() as u64 * 4;
        let (bytes, work) = match experiment.method {
            Method::Swarm | Method::Exact => self.sparse(worker, trained, missed)?,
            Method::Dense | Method::Diloco => (whole, Work::Whole(trained)),
            Method::Adamw => (whole * u64::from(report.steps), Work::Whole(trained)),
            Method::Alone => (0, Work::Whole(trained)),
        };
        Ok(Handed { work, bytes, tokens: report.tokens, missed })
    }

    /// Its shards, as everyone decodes them, and their bytes.
    fn sparse(&self, worker: &mut Worker, trained: Vec<f32>, missed: bool) -> Result<(u64, Work), LabError> {
        let Start { experiment, run, layout, theta, .. } = *self;
        let mut delta = trained;
        delta.iter_mut().zip(theta).for_each(|(delta, theta)| *delta = theta - *delta);
        let (feedback, shards, bytes) = match experiment.method {
            Method::Exact => self.exact(&worker.feedback, &delta)?,
            _ => self.compressed(&worker.feedback, &delta)?,
        };
        worker.feedback = match (missed, experiment.ef_on_miss) {
            (true, OnMiss::Keep) => accumulated(layout, &worker.feedback, run.compress.beta as f32, &delta)?,
            _ => feedback,
        };
        Ok((bytes, Work::Sparse(shards)))
    }

    /// What the codec makes of it: new error feedback, decoded shards, their bytes.
    fn compressed(&self, e: &ErrorFeedback, delta: &[f32]) -> Result<(ErrorFeedback, Vec<SparseShard>, u64), LabError> {
        let Start { run, layout, round, .. } = *self;
        let (beta, quantiser) = (run.compress.beta, run.compress.quantiser);
        let (k, shard_chunks) = (run.compress.k.count(round), run.compress.shard_chunks as usize);
        let compressed = e.compress(layout, &Compression { beta, k, quantiser, shard_chunks }, delta)?;
        let bytes = compressed.shards.iter().map(|shard| shard.len() as u64).sum();
        let decode = |(number, shard): (usize, &Vec<u8>)| {
            decode_shard(shard, layout, layout.shard(number, shard_chunks), k, quantiser)
        };
        let shards: Result<Vec<SparseShard>, CodecError> = compressed.shards.iter().enumerate().map(decode).collect();
        Ok((compressed.feedback, shards?, bytes))
    }

    /// The same without rounding, in one shard: what is sent is gone from the feedback to the last bit. Bytes: 12 bits an
    /// index and 32 a value.
    fn exact(&self, e: &ErrorFeedback, delta: &[f32]) -> Result<(ErrorFeedback, Vec<SparseShard>, u64), LabError> {
        let Start { run, layout, round, .. } = *self;
        let k = run.compress.k.count(round);
        let mut a = sum(e, run.compress.beta as f32, delta);
        let mut shard = SparseShard::with_capacity(0, layout.chunks(), layout.chunks() * k);
        let (mut selector, mut scratch, mut chosen) = (Selector::new(), [0.0; CHUNK], Vec::new());
        for number in 0..layout.chunks() {
            let place = layout.chunk(number);
            let dense = chunk::gather(&a, &place, &mut scratch);
            selector.choose(dense, place.values(k), &mut chosen);
            let values: Vec<f32> = chosen.iter().map(|&index| std::mem::take(&mut dense[usize::from(index)])).collect();
            shard.push_chunk(&chosen, &values);
            chunk::scatter(dense, &place, &mut a);
        }
        let bytes = shard.values().len() as u64 * (12 + 32) / 8;
        Ok((feedback(layout, &a)?, vec![shard], bytes))
    }
}

/// a = β·e + Δ, as feedback.
fn accumulated(layout: &Layout, e: &ErrorFeedback, beta: f32, delta: &[f32]) -> Result<ErrorFeedback, StateError> {
    feedback(layout, &sum(e, beta, delta))
}

/// a = β·e + Δ.
fn sum(e: &ErrorFeedback, beta: f32, delta: &[f32]) -> Vec<f32> {
    e.elements().iter().zip(delta).map(|(e, delta)| beta * e + delta).collect()
}

fn feedback(layout: &Layout, elements: &[f32]) -> Result<ErrorFeedback, StateError> {
    let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    ErrorFeedback::from_bytes(layout, &bytes)
}

/// What all miners agree on.
struct Outer {
    theta: Vec<f32>,
    /// DiLoCo's, once it has made a step.
    velocity: Vec<f32>,
}

impl Outer {
    /// A round in which everyone missed is void: nothing changes.
    fn apply(
        &mut self,
        experiment: &Experiment,
        run: &Run,
        layout: &Layout,
        round: Round,
        handed: Vec<Handed>,
    ) -> Result<(), LabError> {
        let (mut sparse, mut whole) = (Vec::new(), Vec::new());
        for handed in handed.into_iter().filter(|handed| !handed.missed) {
            match handed.work {
                Work::Sparse(shards) => sparse.push(shards),
                Work::Whole(trained) => whole.push(trained),
            }
        }
        let rate = run.outer.rate.linear(f64::from(round.0));
        if !sparse.is_empty() {
            outer_step(layout, &mut self.theta, &sparse, OuterStep { alpha: rate, rho: run.outer.rho })?;
        }
        let Some(mean) = mean(whole) else { return Ok(()) };
        match experiment.method {
            Method::Diloco => self.step(&mean, rate as f32, experiment.momentum as f32),
            Method::Dense => self.step(&mean, rate as f32, 0.0),
            // Whoever trains alone goes on from what it has, whatever the outer rate.
            Method::Swarm | Method::Exact | Method::Alone | Method::Adamw => self.theta = mean,
        }
        Ok(())
    }

    /// v ← μ·v + g; θ ← θ − α·(g + μ·v), with g = θ − mean: Nesterov momentum as PyTorch's SGD has it.
    fn step(&mut self, mean: &[f32], rate: f32, momentum: f32) {
        if rate == 1.0 && momentum == 0.0 {
            // The same without a rounding.
            self.theta.copy_from_slice(mean);
            return;
        }
        self.velocity.resize(mean.len(), 0.0);
        for ((theta, velocity), mean) in self.theta.iter_mut().zip(&mut self.velocity).zip(mean) {
            let gradient = *theta - mean;
            *velocity = momentum * *velocity + gradient;
            *theta -= rate * (gradient + momentum * *velocity);
        }
    }
}

/// The mean of the states, added up in their order; of one state, that state.
fn mean(states: Vec<Vec<f32>>) -> Option<Vec<f32>> {
    let count = states.len() as f32;
    let mut states = states.into_iter();
    let mut sum = states.next()?;
    for state in states {
        sum.iter_mut().zip(&state).for_each(|(sum, value)| *sum += value);
    }
    sum.iter_mut().for_each(|sum| *sum /= count);
    Some(sum)
}
