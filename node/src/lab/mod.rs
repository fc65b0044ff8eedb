//! Experiments in one process, without network or chain, over the same code paths as a swarm: what a method reaches with
//! given rounds, and what it sends. It answers "which preset", "is joining worth it", "how far from AdamW on all data".

use crate::evaluation::{EvaluationError, Evaluator};
use crate::peer::miner::sequences;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::{Assignment, samples_per_member};
use covey_sparseloco::{
    CompressError, Compression, ErrorFeedback, OuterStep, SparseShard, StepError, decode_shard, outer_step,
};
use covey_trainer::cpu::CpuBackend;
use covey_trainer::data::Dataset;
use covey_trainer::genesis::initial_state;
use covey_trainer::inner::{TrainError, train_round};
use covey_trainer::{Backend, BackendError, BatchError};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How the miners' work becomes one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// As a swarm does it: compressed pseudo-gradients, error feedback, outer step.
    Swarm,
    /// The plain average of whole pseudo-gradients: what compression costs is the difference.
    Dense,
    /// One miner on its own part of the data.
    Alone,
    /// AdamW on all miners' batches as one.
    Adamw,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 4] = [Method::Swarm, Method::Dense, Method::Alone, Method::Adamw];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Swarm => "swarm",
            Method::Dense => "dense",
            Method::Alone => "alone",
            Method::Adamw => "adamw",
        })
    }
}

impl FromStr for Method {
    type Err = String;
    fn from_str(text: &str) -> Result<Method, String> {
        let known = || Method::ALL.map(|method| method.to_string()).join(", ");
        Method::ALL
            .into_iter()
            .find(|method| method.to_string() == text)
            .ok_or_else(|| format!("no method {text:?}; there are {}", known()))
    }
}

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError<BatchError>),
    /// A pseudo-gradient cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The outer step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A state has no loss.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// One experiment.
#[derive(Clone)]
pub struct Experiment {
    /// The method.
    pub method: Method,
    /// The run: its chain and digests do not matter.
    pub run: Arc<Run>,
    /// The data.
    pub data: Arc<Dataset>,
    /// Miners, R.
    pub miners: usize,
    /// Rounds.
    pub rounds: u32,
    /// Makes the order of the data.
    pub seed: u64,
    /// Rounds between evaluations.
    pub every: u32,
    /// Held-out sequences of an evaluation.
    pub sequences: u64,
    /// Threads for the miners.
    pub cores: usize,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Rounds done.
    pub round: u32,
    /// Held-out loss, nats a token.
    pub loss: f64,
    /// Tokens that all miners have trained on.
    pub tokens: u64,
    /// Bytes that one miner has sent.
    pub bytes: u64,
}

/// One miner of an experiment.
struct Worker {
    uid: Uid,
    backend: CpuBackend,
    feedback: ErrorFeedback,
}

/// What a miner hands in.
enum Handed {
    Dense(Vec<f32>),
    Sparse(Vec<SparseShard>),
}

/// Runs an experiment; `each` is told of every evaluation.
///
/// # Errors
/// Training, compressing or evaluating fails.
pub fn run(experiment: &Experiment, mut each: impl FnMut(Point)) -> Result<Vec<Point>, LabError> {
    let Experiment { method, run, data, miners, rounds, every, sequences, cores, .. } = experiment;
    let run = &single_batch(*method, run, *miners);
    let layout = run.layout();
    let mut workers = workers(*method, run, &layout, *miners);
    let mut evaluator = Evaluator::new(data.clone(), &run.model);
    let mut theta = initial_state(&run.model);
    let mut curve = Vec::new();
    let (mut tokens, mut bytes) = (0, 0);
    for round in (0..*rounds).map(Round) {
        let assignment = assignment(experiment, run, round);
        let handed = in_parallel(&mut workers, *cores, |worker| {
            one_round(*method, run, &layout, data, &assignment, worker, round, &theta)
        })?;
        for (_, sent, trained) in &handed {
            tokens += trained;
            bytes += sent / workers.len() as u64;
        }
        apply(run, &layout, round, &mut theta, handed.into_iter().map(|(handed, ..)| handed).collect())?;
        if (round.0 + 1).is_multiple_of(*every) || round.0 + 1 == *rounds {
            let point = Point { round: round.0 + 1, loss: evaluator.loss(&theta, *sequences)?, tokens, bytes };
            each(point);
            curve.push(point);
        }
    }
    Ok(curve)
}

/// AdamW takes all miners' batches as one.
fn single_batch(method: Method, run: &Run, miners: usize) -> Run {
    let mut run = run.clone();
    if method == Method::Adamw {
        run.inner.batch *= miners as u32;
    }
    run
}

fn workers(method: Method, run: &Run, layout: &Layout, miners: usize) -> Vec<Worker> {
    let count = if matches!(method, Method::Alone | Method::Adamw) { 1 } else { miners };
    let worker = |uid: u8| Worker {
        uid: Uid::from(uid),
        backend: CpuBackend::new(&run.model),
        feedback: ErrorFeedback::zero(layout),
    };
    (0..count as u8).map(worker).collect()
}

fn assignment(experiment: &Experiment, run: &Run, round: Round) -> Assignment {
    let mut seed = [0; 32];
    derive("covey/1/lab", &[&experiment.seed.to_le_bytes(), &round.0.to_le_bytes()]).fill(&mut seed);
    let members = if experiment.method == Method::Adamw { 1 } else { experiment.miners as u8 };
    let samples = experiment.data.samples(run.model.sequence);
    Assignment::new(Digest::new(seed), samples, (0..members).map(Uid::from), samples_per_member(run, round))
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

/// A miner's round: what it hands in, the bytes of it, the tokens trained on.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of an experiment, borrowed apart so that miners run in parallel"
)]
fn one_round(
    method: Method,
    run: &Run,
    layout: &Layout,
    data: &Dataset,
    assignment: &Assignment,
    worker: &mut Worker,
    round: Round,
    theta: &[f32],
) -> Result<(Handed, u64, u64), LabError> {
    worker.backend.load(theta)?;
    let mut samples = assignment.samples_of(worker.uid).into_iter().flatten();
    let batch = run.inner.batch as usize;
    let batches = |_| sequences(data, &run.model, samples.by_ref().take(batch));
    let report = train_round(&mut worker.backend, run, round, batches, |_, _| true)?;
    let mut delta = vec![0.0; theta.len()];
    worker.backend.parameters(&mut delta)?;
    delta.iter_mut().zip(theta).for_each(|(delta, theta)| *delta = theta - *delta);
    if method != Method::Swarm {
        return Ok((Handed::Dense(delta), theta.len() as u64 * 4, report.tokens));
    }
    let (k, shard_chunks) = (run.compress.k.count(round), run.compress.shard_chunks as usize);
    let how = Compression { beta: run.compress.beta, k, quantiser: run.compress.quantiser, shard_chunks };
    let compressed = worker.feedback.compress(layout, &how, &delta)?;
    worker.feedback = compressed.feedback;
    let bytes = compressed.shards.iter().map(|shard| shard.len() as u64).sum();
    let decode = |(number, shard): (usize, &Vec<u8>)| {
        decode_shard(shard, layout, layout.shard(number, shard_chunks), k, run.compress.quantiser)
            .expect("what was encoded decodes")
    };
    let shards = compressed.shards.iter().enumerate().map(decode).collect();
    Ok((Handed::Sparse(shards), bytes, report.tokens))
}

fn apply(run: &Run, layout: &Layout, round: Round, theta: &mut [f32], handed: Vec<Handed>) -> Result<(), LabError> {
    let mut sparse = Vec::new();
    let mut dense: Vec<Vec<f32>> = Vec::new();
    for handed in handed {
        match handed {
            Handed::Sparse(shards) => sparse.push(shards),
            Handed::Dense(delta) => dense.push(delta),
        }
    }
    // One miner's own result is kept as it is, whatever the outer rate.
    let rate = if dense.len() == 1 { 1.0 } else { run.outer.rate.linear(f64::from(round.0)) };
    let scale = (rate / dense.len().max(1) as f64) as f32;
    for delta in &dense {
        theta.iter_mut().zip(delta).for_each(|(theta, delta)| *theta -= scale * delta);
    }
    if !sparse.is_empty() {
        outer_step(layout, theta, &sparse, OuterStep { alpha: rate, rho: run.outer.rho })?;
    }
    Ok(())
}
