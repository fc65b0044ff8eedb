//! A miner's half of a round: inner steps, pseudo-gradient, compression, and what must be on disk before the chain hears
//! of it. Training and compressing need the base's parameters; what is stored names its head, which may come later.
//!
//! The order of writes is the protocol's: blobs, then the new error feedback beside the old, then the journal with the
//! signed call; only then is anything submitted. Killed before the journal, the old feedback holds and the round is
//! skipped; killed after it, the same bytes are sent again.

use super::context::Context;
use crate::compute::Stopwatch;
use crate::disk::{DiskError, JournalContribution};
use crate::misbehave;
use covey_gossip::store::{Durability, StoreError};
use covey_proto::blob::{BlobRef, Manifest};
use covey_proto::{Digest, Round};
use covey_round::engine::Task;
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_sparseloco::{CODEC_VERSION, Compression};
use covey_trainer::data::Dataset;
use covey_trainer::inner::{RoundReport, TrainError, train_round};
use covey_trainer::{BackendError, BatchError, EncodedContribution, LoadError, SaveError, Trainer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// After so many missed rounds what the error feedback holds is about another state.
const FEEDBACK_ROUNDS_MAX: u32 = 8;
const MOMENTS: &str = "moments.bin";

/// Why a round's training gave no contribution.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError<BatchError>),
    /// The base cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was learned cannot be read.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Fewer steps than the run asks for.
    #[error("stopped after {steps} steps; the run asks for {needed}: the round is skipped")]
    TooFewSteps {
        /// Steps done.
        steps: u32,
        /// Steps needed.
        needed: u32,
    },
}

/// What a miner keeps from round to round.
pub struct Miner {
    trainer: Box<dyn Trainer>,
    data: Arc<Dataset>,
    /// The round whose contribution the feedback follows.
    feedback_of: Option<Round>,
}

/// A contribution that is nowhere but in memory, and does not name its base yet.
pub struct Draft {
    report: RoundReport,
    compressed: EncodedContribution,
    /// Time of training and of compression.
    times: [Duration; 2],
}

/// A contribution on disk, not yet journalled.
pub struct Made {
    /// The manifest's digest.
    pub manifest: Digest,
    /// head(round − 1).
    pub base: Digest,
    /// The round.
    pub round: Round,
    /// What the training amounted to.
    pub report: RoundReport,
    /// Time of training and of compression.
    pub times: [Duration; 2],
}

impl Miner {
    /// A miner as its folder has it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore<L>(
        context: &Context<L>,
        mut trainer: Box<dyn Trainer>,
        data: Arc<Dataset>,
        journalled: Option<&JournalContribution>,
    ) -> Result<Miner, MinerError> {
        context.disk.keep_only_feedback(journalled.map(|journalled| journalled.round))?;
        let saved = journalled.map(|journalled| context.disk.feedback(journalled)).transpose()?.flatten();
        let whole = saved.is_some_and(|saved| trainer.restore_feedback(&mut saved.as_slice()).is_ok());
        let feedback_of = journalled.filter(|_| whole).map(|journalled| journalled.round);
        if let Some(saved) = context.disk.read(MOMENTS)?
            && let Err(error) = trainer.restore_moments(&mut saved.as_slice())
        {
            tracing::warn!(%error, "the optimizer's state is damaged: it starts from zero");
        }
        Ok(Miner { trainer, data, feedback_of })
    }

    /// Forgets what belongs to a state that the node no longer follows: after joining by state.
    ///
    /// # Errors
    /// The disk refuses; what is in memory is forgotten all the same.
    fn reset<L>(&mut self, context: &Context<L>) -> Result<(), DiskError> {
        self.trainer.reset_moments();
        self.trainer.reset_feedback();
        self.feedback_of = None;
        context.disk.keep_only_feedback(None)?;
        self.write_moments(context).map_err(|error| match error {
            MinerError::Disk(error) => error,
            other => DiskError { path: MOMENTS.into(), error: std::io::Error::other(other.to_string()) },
        })
    }

    /// Trains from `theta` and compresses.
    ///
    /// # Errors
    /// No contribution this round; nothing that counts has changed.
    pub fn prepare<L>(
        &mut self,
        context: &Context<L>,
        task: &Task,
        theta: &[f32],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Draft, MinerError> {
        if context.forget.swap(false, Ordering::AcqRel) {
            self.reset(context)?;
        }
        let start = Stopwatch::start();
        let report = self.train(context, task, theta, is_wanted)?;
        let trained = start.elapsed();
        let run = &context.run;
        let needed = run.inner.steps_min.min(run.inner.steps.count(task.round) as u32);
        if report.steps < needed {
            return Err(MinerError::TooFewSteps { steps: report.steps, needed });
        }
        if let Some(kind) = context.misbehaviour {
            let mut delta = vec![0.0; theta.len()];
            self.trainer.save(&mut as_le_bytes_mut(&mut delta))?;
            delta.iter_mut().zip(theta).for_each(|(delta, theta)| *delta = theta - *delta);
            misbehave::disguise(kind, &context.layout, task, &mut delta);
            delta.iter_mut().zip(theta).for_each(|(delta, theta)| *delta = theta - *delta);
            self.trainer.load(&mut as_le_bytes(&delta))?;
        }
        let compressed = self.compress(context, task.round, theta)?;
        Ok(Draft { report, compressed, times: [trained, start.elapsed() - trained] })
    }

    fn compress<L>(
        &mut self,
        context: &Context<L>,
        round: Round,
        theta: &[f32],
    ) -> Result<EncodedContribution, MinerError> {
        let run = &context.run;
        self.drop_old_feedback(round);
        let how = Compression {
            beta: run.compress.beta,
            k: run.compress.k.count(round),
            quantiser: run.compress.quantiser,
            shard_chunks: run.compress.shard_chunks as usize,
        };
        let mut compressed = self.trainer.contribute(theta, &how)?;
        if let Some(kind) = context.misbehaviour {
            misbehave::damage(kind, &mut compressed.shards);
        }
        Ok(compressed)
    }

    fn train<L>(
        &mut self,
        context: &Context<L>,
        task: &Task,
        theta: &[f32],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<RoundReport, MinerError> {
        let run = &context.run;
        self.trainer.load(&mut as_le_bytes(theta))?;
        let batch = run.inner.batch as usize;
        let mut samples = task.assignment.samples_of(task.member.uid).into_iter().flatten();
        let batches = |_step: u32| self.data.batch(&run.model, samples.by_ref().take(batch));
        Ok(train_round(&mut *self.trainer, run, task.round, batches, |_, _| is_wanted())?)
    }

    /// Stores the blobs, the new feedback and the moments of what was prepared; `base` is head(round − 1).
    ///
    /// # Errors
    /// No contribution this round; nothing that counts has changed.
    pub fn store<L>(&self, context: &Context<L>, task: &Task, base: Digest, draft: Draft) -> Result<Made, MinerError> {
        let start = Stopwatch::start();
        let Draft { report, compressed, times: [trained, compressing] } = draft;
        let run = &context.run;
        let manifest = Manifest {
            run: context.run_id,
            round: task.round,
            uid: task.member.uid,
            hotkey: task.member.hotkey,
            registered_at: task.member.registered_at.0,
            base,
            samples: report.samples,
            codec: CODEC_VERSION,
            shards: compressed.shards.iter().map(|shard| BlobRef::of(shard)).collect(),
        };
        let kept = misbehave::kept(context.misbehaviour, &compressed.shards, run.compress.inline_max);
        let store = context.network.store();
        store.put_batch(&kept, Durability::Synced)?;
        store.put(&manifest.to_bytes(), Durability::Synced)?;
        let digest = manifest.digest();
        let names: Vec<Digest> = kept.iter().map(|shard| Digest::of(shard)).chain([digest]).collect();
        store.pin(&format!("mine-{}", task.round), &names)?;
        let mut feedback = Vec::new();
        self.trainer.save_feedback(&mut feedback)?;
        context.disk.write_feedback(task.round, base, &feedback)?;
        self.write_moments(context)?;
        Ok(Made { manifest: digest, base, round: task.round, report, times: [trained, compressing + start.elapsed()] })
    }

    fn write_moments<L>(&self, context: &Context<L>) -> Result<(), MinerError> {
        let mut moments = Vec::new();
        self.trainer.save_moments(&mut moments)?;
        Ok(context.disk.write(MOMENTS, &[&moments])?)
    }

    fn drop_old_feedback(&mut self, round: Round) {
        let stale = |of: Round| round.0.saturating_sub(of.0) > FEEDBACK_ROUNDS_MAX;
        if self.feedback_of.is_some_and(stale) {
            // The pseudo-gradient is in the parameters: only the feedback goes.
            self.trainer.reset_feedback();
        }
    }

    /// The journal names the contribution: its feedback counts from now on.
    ///
    /// # Errors
    /// The disk refuses to forget the old one.
    pub fn journalled<L>(&mut self, context: &Context<L>, made: Made) -> Result<(), DiskError> {
        self.trainer.keep_feedback();
        self.feedback_of = Some(made.round);
        context.disk.keep_only_feedback(Some(made.round))
    }
}
