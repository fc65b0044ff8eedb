//! One experiment: the rounds, what each miner hands in, and how it becomes the next state. Which experiments there are,
//! and what is made of their curves, others decide.

use super::error::LabError;
use super::worker::{Outcome, Start, Work, Worker};
use super::{Experiment, Method, Point};
use crate::evaluation::Evaluator;
use covey_proto::layout::Layout;
use covey_proto::run::{Run, UIDS};
use covey_proto::{Digest, Round, Uid, derive};
use covey_round::assign::{Assignment, samples_per_member};
use covey_round::reach::reach;
use covey_sparseloco::state::as_le_bytes;
use covey_sparseloco::{OuterStep, outer_step};
use covey_trainer::data::Dataset;
use covey_trainer::genesis::initial_state;
use covey_trainer::{Device, open_backend};
use std::sync::Arc;

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
    let mut workers = workers(*method, run, *miners)?;
    let mut evaluator = Evaluator::new(Device::Cpu { threads: cores }, data.clone(), &run.model);
    let mut outer = Outer { theta: initial_state(&run.model)?, velocity: Vec::new() };
    let mut curve = Vec::new();
    let (mut tokens, mut bytes) = (0, 0);
    for round in (0..*rounds).map(Round) {
        let assignment = assignment(experiment, run, data, round);
        let start = Start { experiment, run, layout: &layout, data, round, assignment, theta: &outer.theta };
        let missed = |uid| method.is_joint() && misses(experiment, round, uid);
        let outcomes = in_parallel(&mut workers, cores, |worker| start.train(worker, missed(worker.uid)))?;
        tokens += outcomes.iter().map(|outcome| outcome.tokens).sum::<u64>();
        bytes += outcomes.iter().map(|outcome| outcome.bytes).sum::<u64>() / workers.len() as u64;
        outer.apply(experiment, run, &layout, round, outcomes)?;
        let done = round.0 + 1;
        let evaluated = done.is_multiple_of(*every) || done == *rounds;
        let state = &mut as_le_bytes(&outer.theta);
        let found = if evaluated { Some(evaluator.loss(state, *sequences, &mut |_| true)?) } else { None };
        let point = found.map(|found| Point { round: done, loss: found.loss, tokens, bytes });
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

/// Where all data are in one batch, that has every miner's part.
fn single_batch(method: Method, run: &Run, miners: u32) -> Run {
    let mut run = run.clone();
    if method == Method::All {
        run.inner.batch *= miners;
    }
    run
}

/// The first `count` uids; 256 are all there are.
fn uids(count: u32) -> impl Iterator<Item = Uid> {
    (0..count).map_while(Uid::new)
}

/// Each on a thread of its own, as the miners of a swarm are.
fn workers(method: Method, run: &Run, miners: u32) -> Result<Vec<Worker>, LabError> {
    let count = if method.is_joint() { miners } else { 1 };
    let backend = open_backend(&Device::Cpu { threads: 1 }, &run.model)?;
    uids(count).map(|uid| Ok(Worker { uid, trainer: backend.trainer(run.inner.optimizer)? })).collect()
}

fn assignment(experiment: &Experiment, run: &Run, data: &Dataset, round: Round) -> Assignment {
    let mut seed = [0; 32];
    derive("covey/1/lab", &[&experiment.seed.to_le_bytes(), &round.0.to_le_bytes()]).fill(&mut seed);
    let members = if experiment.method == Method::All { 1 } else { experiment.miners };
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
        outcomes: Vec<Outcome>,
    ) -> Result<(), LabError> {
        let (mut sparse, mut whole) = (Vec::new(), Vec::new());
        for outcome in outcomes.into_iter().filter(|outcome| !outcome.missed) {
            match outcome.work {
                Work::Sparse(shards) => sparse.push(shards),
                Work::Whole(trained) => whole.push(trained),
            }
        }
        let rate = run.outer.rate.linear(f64::from(round.0));
        if !sparse.is_empty() {
            let reach = reach(run, layout, round);
            outer_step(layout, &mut self.theta, &sparse, OuterStep { alpha: rate, rho: run.outer.rho, reach: &reach })?;
        }
        let Some(mean) = mean(whole) else { return Ok(()) };
        match experiment.method {
            Method::Diloco => self.step(&mean, rate as f32, experiment.momentum as f32),
            Method::Dense => self.step(&mean, rate as f32, 0.0),
            // Whoever trains alone goes on from what it has, whatever the outer rate.
            Method::Swarm | Method::Exact | Method::Alone | Method::All => self.theta = mean,
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
