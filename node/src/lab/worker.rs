//! One miner's round in a laboratory: training and contributing by the very functions that a miner of a swarm calls; and what
//! the methods do instead that no swarm knows. Who trains on what, and what becomes of it, [`super::run`] decides.

use super::error::LabError;
use super::{Experiment, Method, OnMiss};
use covey_proto::layout::{CHUNK, Layout};
use covey_proto::run::Run;
use covey_proto::{Round, Uid};
use covey_round::assign::Assignment;
use covey_sparseloco::select::Selector;
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_sparseloco::{CodecError, Compression, SparseShard, chunk, decode_shard};
use covey_trainer::data::Dataset;
use covey_trainer::inner::train_round;
use covey_trainer::{SaveError, Trainer};

/// One miner of an experiment.
pub(super) struct Worker {
    pub(super) uid: Uid,
    pub(super) trainer: Box<dyn Trainer>,
}

/// What a miner's round came to.
pub(super) struct Outcome {
    pub(super) work: Work,
    /// Bytes sent.
    pub(super) bytes: u64,
    /// Tokens trained on.
    pub(super) tokens: u64,
    /// Whether it is made and sent, but not applied.
    pub(super) missed: bool,
}

/// What a miner gives to the others.
pub(super) enum Work {
    /// The trained state itself.
    Whole(Vec<f32>),
    /// A contribution, as everyone decodes it.
    Sparse(Vec<SparseShard>),
}

/// What a round starts from, the same for every miner.
pub(super) struct Start<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) run: &'a Run,
    pub(super) layout: &'a Layout,
    pub(super) data: &'a Dataset,
    pub(super) round: Round,
    pub(super) assignment: Assignment,
    pub(super) theta: &'a [f32],
}

impl Start<'_> {
    /// A miner's round, which counts unless it is `missed`.
    pub(super) fn train(&self, worker: &mut Worker, missed: bool) -> Result<Outcome, LabError> {
        let Start { experiment, run, data, round, theta, .. } = *self;
        let trainer = &mut *worker.trainer;
        trainer.load(&mut as_le_bytes(theta))?;
        let mut samples = self.assignment.samples_of(worker.uid).into_iter().flatten();
        let batch = run.inner.batch as usize;
        let batches = |_| data.batch(&run.model, samples.by_ref().take(batch));
        let report = train_round(trainer, run, round, batches, |_, _| true)?;
        let whole = theta.len() as u64 * 4;
        let (bytes, work) = match experiment.method {
            Method::Swarm => self.encoded(trainer, missed)?,
            Method::Exact => self.exact(trainer, missed)?,
            Method::Dense | Method::Diloco => (whole, self.trained(trainer)?),
            Method::All => (whole * u64::from(report.steps), self.trained(trainer)?),
            Method::Alone => (0, self.trained(trainer)?),
        };
        Ok(Outcome { work, bytes, tokens: report.tokens, missed })
    }

    fn trained(&self, trainer: &dyn Trainer) -> Result<Work, SaveError> {
        let mut trained = vec![0.0; self.theta.len()];
        trainer.save(&mut as_le_bytes_mut(&mut trained))?;
        Ok(Work::Whole(trained))
    }

    /// Its contribution as everyone decodes it, and its bytes.
    fn encoded(&self, trainer: &mut dyn Trainer, missed: bool) -> Result<(u64, Work), LabError> {
        let Start { run, layout, round, theta, .. } = *self;
        let (beta, quantiser) = (run.compress.beta, run.compress.quantiser);
        let (k, shard_chunks) = (run.compress.k.count(round), run.compress.shard_chunks as usize);
        let unsent = if self.keeps_all(missed) { Some(self.accumulated(trainer)?) } else { None };
        let made = trainer.contribute(theta, &Compression { beta, k, quantiser, shard_chunks })?;
        match unsent {
            Some(a) => trainer.restore_feedback(&mut as_le_bytes(&a))?,
            None => trainer.keep_feedback(),
        }
        let decode = |(number, shard): (usize, &Vec<u8>)| {
            decode_shard(shard, layout, layout.shard(number, shard_chunks), k, quantiser)
        };
        let shards: Result<Vec<SparseShard>, CodecError> = made.shards.iter().enumerate().map(decode).collect();
        Ok((made.stats.bytes as u64, Work::Sparse(shards?)))
    }

    /// The same without rounding, in one shard: what is sent is gone from the feedback to the last bit. Bytes: 12 bits an
    /// index and 32 a value.
    fn exact(&self, trainer: &mut dyn Trainer, missed: bool) -> Result<(u64, Work), LabError> {
        let Start { run, layout, round, .. } = *self;
        let k = run.compress.k.count(round);
        let mut a = self.accumulated(trainer)?;
        if self.keeps_all(missed) {
            trainer.restore_feedback(&mut as_le_bytes(&a))?;
        }
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
        if !self.keeps_all(missed) {
            trainer.restore_feedback(&mut as_le_bytes(&a))?;
        }
        let bytes = shard.values().len() as u64 * (12 + 32) / 8;
        Ok((bytes, Work::Sparse(vec![shard])))
    }

    /// Whether nothing of a contribution counts as sent.
    fn keeps_all(&self, missed: bool) -> bool {
        missed && self.experiment.ef_on_miss == OnMiss::Keep
    }

    /// a = β·e + (base − trained).
    fn accumulated(&self, trainer: &dyn Trainer) -> Result<Vec<f32>, SaveError> {
        let (mut a, mut trained) = (vec![0.0f32; self.theta.len()], vec![0.0f32; self.theta.len()]);
        trainer.save_feedback(&mut as_le_bytes_mut(&mut a))?;
        trainer.save(&mut as_le_bytes_mut(&mut trained))?;
        let beta = self.run.compress.beta as f32;
        for ((a, base), trained) in a.iter_mut().zip(self.theta).zip(trained) {
            *a = beta * *a + (base - trained);
        }
        Ok(a)
    }
}
