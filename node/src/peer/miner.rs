//! A miner's half of a round: inner steps, pseudo-gradient, compression, and what must be on disk before the chain hears
//! of it.
//!
//! The order of writes is the protocol's: blobs, then the new error feedback beside the old, then the journal with the
//! signed call; only then is anything submitted. Killed before the journal, the old feedback holds and the round is
//! skipped; killed after it, the same bytes are sent again.

use super::context::Context;
use super::disk::{DiskError, JournalContribution};
use super::misbehave;
use covey_gossip::store::{Durability, StoreError};
use covey_proto::blob::{BlobRef, Manifest};
use covey_proto::{Digest, Round};
use covey_round::engine::Task;
use covey_sparseloco::{CODEC_VERSION, CompressError, Compression, ErrorFeedback};
use covey_trainer::data::Dataset;
use covey_trainer::inner::{RoundReport, TrainError, train_round};
use covey_trainer::{Backend, BackendError, BatchError, Moments};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
    /// The pseudo-gradient cannot be sent.
    #[error(transparent)]
    Compress(#[from] CompressError),
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
    backend: Box<dyn Backend>,
    data: Arc<Dataset>,
    feedback: ErrorFeedback,
    /// The round whose contribution the feedback follows.
    feedback_of: Option<Round>,
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
    /// Bits a transmitted value.
    pub bits_per_value: f64,
    /// Time of training and of compression.
    pub times: [Duration; 2],
    feedback: ErrorFeedback,
}

impl Miner {
    /// A miner as its folder has it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore<L>(
        context: &Context<L>,
        backend: Box<dyn Backend>,
        data: Arc<Dataset>,
        journalled: Option<&JournalContribution>,
    ) -> Result<Miner, MinerError> {
        let layout = &context.layout;
        context.disk.keep_only_feedback(journalled.map(|journalled| journalled.round))?;
        let saved = journalled.map(|journalled| context.disk.feedback(journalled, layout)).transpose()?.flatten();
        let feedback_of = saved.as_ref().and(journalled).map(|journalled| journalled.round);
        let feedback = saved.unwrap_or_else(|| ErrorFeedback::zero(layout));
        let mut miner = Miner { backend, data, feedback, feedback_of };
        match context.disk.read(MOMENTS)?.map(|bytes| Moments::from_bytes(&bytes, layout.elements())) {
            Some(Ok(moments)) => miner.backend.set_moments(moments)?,
            Some(Err(error)) => tracing::warn!(%error, "the optimizer's state is damaged: it starts from zero"),
            None => {}
        }
        Ok(miner)
    }

    /// Forgets what belongs to a state that the node no longer follows: after joining by state.
    ///
    /// # Errors
    /// The disk refuses; what is in memory is forgotten all the same.
    fn reset<L>(&mut self, context: &Context<L>) -> Result<(), DiskError> {
        self.backend.reset_moments();
        self.feedback = ErrorFeedback::zero(&context.layout);
        self.feedback_of = None;
        context.disk.keep_only_feedback(None)?;
        context.disk.write(MOMENTS, &[&self.backend.moments().to_bytes()])
    }

    /// Trains from `theta`, compresses, stores the blobs and the new feedback.
    ///
    /// # Errors
    /// No contribution this round; nothing that counts has changed.
    pub fn contribute<L>(
        &mut self,
        context: &Context<L>,
        task: &Task,
        theta: &[f32],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Made, MinerError> {
        if context.forget.swap(false, Ordering::AcqRel) {
            self.reset(context)?;
        }
        let start = Instant::now();
        let report = self.train(context, task, theta, is_wanted)?;
        let trained = start.elapsed();
        let run = &context.run;
        let needed = run.inner.steps_min.min(run.inner.steps.count(task.round) as u32);
        if report.steps < needed {
            return Err(MinerError::TooFewSteps { steps: report.steps, needed });
        }
        let mut delta = vec![0.0; theta.len()];
        self.backend.parameters(&mut delta)?;
        for (delta, theta) in delta.iter_mut().zip(theta) {
            *delta = theta - *delta;
        }
        if let Some(kind) = context.misbehaviour {
            misbehave::disguise(kind, &context.layout, task, &mut delta);
        }
        let made = self.store(context, task, delta, report)?;
        context.disk.write(MOMENTS, &[&self.backend.moments().to_bytes()])?;
        Ok(Made { times: [trained, start.elapsed() - trained], ..made })
    }

    fn train<L>(
        &mut self,
        context: &Context<L>,
        task: &Task,
        theta: &[f32],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<RoundReport, MinerError> {
        let run = &context.run;
        self.backend.load(theta)?;
        let batch = run.inner.batch as usize;
        let mut samples = task.assignment.samples_of(task.member.uid).into_iter().flatten();
        let batches = |_step: u32| self.data.batch(&run.model, samples.by_ref().take(batch));
        Ok(train_round(&mut *self.backend, run, task.round, batches, |_, _| is_wanted())?)
    }

    fn store<L>(
        &mut self,
        context: &Context<L>,
        task: &Task,
        delta: Vec<f32>,
        report: RoundReport,
    ) -> Result<Made, MinerError> {
        let run = &context.run;
        self.drop_old_feedback(context, task.round);
        let how = Compression {
            beta: run.compress.beta,
            k: run.compress.k.count(task.round),
            quantiser: run.compress.quantiser,
            shard_chunks: run.compress.shard_chunks as usize,
        };
        let mut compressed = self.feedback.compress_into(&context.layout, &how, delta, 1)?;
        if let Some(kind) = context.misbehaviour {
            misbehave::damage(kind, &mut compressed.shards);
        }
        let manifest = Manifest {
            run: context.run_id,
            round: task.round,
            uid: task.member.uid,
            hotkey: task.member.hotkey,
            registered_at: task.member.registered_at.0,
            base: task.base,
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
        context.disk.write_feedback(task.round, task.base, &compressed.feedback)?;
        Ok(Made {
            manifest: digest,
            base: task.base,
            round: task.round,
            report,
            bits_per_value: compressed.stats.bits_per_value(),
            times: [Duration::ZERO; 2],
            feedback: compressed.feedback,
        })
    }

    fn drop_old_feedback<L>(&mut self, context: &Context<L>, round: Round) {
        let stale = |of: Round| round.0.saturating_sub(of.0) > FEEDBACK_ROUNDS_MAX;
        if self.feedback_of.is_some_and(stale) {
            self.feedback = ErrorFeedback::zero(&context.layout);
        }
    }

    /// The journal names the contribution: its feedback counts from now on.
    ///
    /// # Errors
    /// The disk refuses to forget the old one.
    pub fn journalled<L>(&mut self, context: &Context<L>, made: Made) -> Result<(), DiskError> {
        self.feedback = made.feedback;
        self.feedback_of = Some(made.round);
        context.disk.keep_only_feedback(Some(made.round))
    }
}
