//! What a miner keeps from round to round (a trainer on its device, the data, how far its files are), and what it does:
//! draft a contribution, store it, keep what was not sent.
//!
//! Moments and error feedback are three times the model. They go to the disk every `save_rounds` rounds and at a clean end. With
//! 1 they are there whenever the journal names a contribution, and a crash changes no bit of the next. With more, a crash
//! between two writings costs the whole error feedback, which starts from zero, and leaves moments that are some rounds
//! old. Blobs and journal are written in every round.

use super::saved::{self, Restored};
use crate::chain::Ledger;
use crate::compute::{Cancel, Resident, Stopwatch, off_the_queue};
use crate::data::PhaseData;
use crate::disk::{DiskError, JournalContribution};
use crate::misbehave;
use crate::peer::context::Context;
use covey_gossip::store::StoreError;
use covey_proto::blob::{BlobRef, Manifest};
use covey_proto::{Digest, Round};
use covey_round::engine::Task;
use covey_sparseloco::state::as_le_bytes;
use covey_sparseloco::{CODEC_VERSION, Compression};
use covey_trainer::data::Dataset;
use covey_trainer::inner::{RoundReport, TrainError, train_round};
use covey_trainer::{BackendError, BatchError, Device, LoadError, SaveError, Trainer, open_backend};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// After so many missed rounds what the error feedback holds is about another state.
const FEEDBACK_ROUNDS_MAX: u32 = 8;

/// Why a round's training gave no contribution.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The base cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The parameters cannot be read back.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError<BatchError>),
    /// A cheat fails.
    #[error(transparent)]
    Disguise(#[from] misbehave::DisguiseError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The device's thread does not start.
    #[error("no thread for the device: {0}")]
    Thread(#[from] io::Error),
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
pub(in crate::peer) struct Miner {
    trainer: Resident<Box<dyn Trainer>>,
    data: PhaseData,
    /// The round whose contribution the feedback follows.
    feedback_of: Option<Round>,
    /// The last round whose contribution counts and whose feedback, with the moments, is on the disk.
    saved: Option<Round>,
    /// Rounds from one such writing to the next.
    save_rounds: u32,
}

/// A contribution that is nowhere but in memory, and does not name its base yet.
pub(in crate::peer) struct Draft {
    /// What the training amounted to.
    pub report: RoundReport,
    /// Time of training and of compression.
    pub times: [Duration; 2],
    shards: Vec<Vec<u8>>,
}

/// A contribution whose blobs are on the disk.
pub(in crate::peer) struct Stored {
    /// The manifest's digest.
    pub(in crate::peer) manifest: Digest,
    /// Time of storing.
    pub(in crate::peer) took: Duration,
    /// Whether the feedback that follows it, and the moments, are there too.
    with_feedback: bool,
}

impl Miner {
    /// A miner as its folder has it. Blocks.
    ///
    /// # Errors
    /// The device cannot be opened, or the folder cannot be read.
    pub(in crate::peer) fn restore<L>(
        context: &Context<L>,
        device: &Device,
        data: PhaseData,
        save_rounds: u32,
    ) -> Result<Miner, MinerError> {
        let journalled = context.journal.read().contribution;
        let (owned, device, of) = (context.disk.clone(), *device, journalled.clone());
        let (run, layout, node) = (context.run.clone(), context.layout.clone(), context.name.clone());
        let (told, restored) = std::sync::mpsc::sync_channel(1);
        let make = move || -> Result<_, MinerError> {
            let mut trainer = open_backend(&device, &run.model)?.trainer(run.inner.optimizer)?;
            let restored = match &of {
                Some(of) => saved::restore(&owned, of, layout.elements(), (&mut *trainer, &node))?,
                None => Restored::Nothing,
            };
            // The receiver waits below.
            let _ = told.send(restored);
            Ok(trainer)
        };
        let trainer = Resident::start("trainer", make)?;
        let is_whole = restored.recv() == Ok(Restored::Whole);
        let feedback_of = journalled.map(|journalled| journalled.round).filter(|_| is_whole);
        if let Some(round) = feedback_of {
            context.disk.keep_only_training(Some(round))?;
        }
        Ok(Miner { trainer, data, feedback_of, saved: feedback_of, save_rounds: save_rounds.max(1) })
    }

    /// Forgets what belongs to a state that the node no longer follows: after joining by state.
    ///
    /// # Errors
    /// The disk refuses; what is in memory is forgotten all the same.
    pub(in crate::peer) async fn reset<L: Ledger>(&mut self, context: &Arc<Context<L>>) -> Result<(), MinerError> {
        (self.feedback_of, self.saved) = (None, None);
        let owned = context.clone();
        let forget = move |trainer: &mut Box<dyn Trainer>| {
            trainer.reset_moments();
            trainer.reset_feedback();
            Ok(owned.disk.forget_training()?)
        };
        self.trainer.call(forget).await
    }

    /// Trains from `theta` and compresses, as long as none of `cancels` says to stop.
    ///
    /// # Errors
    /// No contribution this round; nothing that counts has changed.
    pub(in crate::peer) async fn draft<L: Ledger>(
        &mut self,
        context: &Arc<Context<L>>,
        task: Task,
        theta: Arc<Vec<f32>>,
        cancels: [Cancel; 2],
    ) -> Result<Draft, MinerError> {
        let stale = |of: Round| task.round.0.saturating_sub(of.0) > FEEDBACK_ROUNDS_MAX;
        let drop_feedback = self.feedback_of.is_some_and(stale);
        if drop_feedback {
            self.feedback_of = None;
        }
        let (owned, data) = (context.clone(), self.data.of(&context.run, task.round).clone());
        let work = move |trainer: &mut Box<dyn Trainer>| {
            if drop_feedback {
                trainer.reset_feedback();
            }
            let is_wanted = || cancels.iter().all(Cancel::is_wanted);
            draft(&owned, &mut **trainer, &data, &task, &theta, &is_wanted)
        };
        self.trainer.run(&context.compute, work).await.0
    }

    /// Stores what was drafted: its blobs, and every few rounds the feedback that follows it and the moments. `base` is
    /// head(round − 1).
    ///
    /// # Errors
    /// No contribution this round; nothing that counts has changed.
    pub(in crate::peer) async fn store<L: Ledger>(
        &mut self,
        context: &Arc<Context<L>>,
        task: &Task,
        base: Digest,
        draft: Draft,
    ) -> Result<Stored, MinerError> {
        let round = task.round;
        let (owned, task) = (context.clone(), task.clone());
        let put = move || {
            let watch = Stopwatch::start();
            put_blobs(&owned, &task, base, &draft).map(|digest| (digest, watch.elapsed()))
        };
        let (digest, putting) = off_the_queue(put).await?;
        if self.saved.is_some_and(|saved| round.0 < saved.0.saturating_add(self.save_rounds)) {
            return Ok(Stored { manifest: digest, took: putting, with_feedback: false });
        }
        let saving = self.save(context, round, base).await?;
        Ok(Stored { manifest: digest, took: putting + saving, with_feedback: true })
    }

    /// The journal names the contribution of `round`: its feedback counts from now on, and older ones on the disk go.
    pub(in crate::peer) async fn keep<L: Ledger>(&mut self, context: &Arc<Context<L>>, round: Round, stored: &Stored) {
        self.feedback_of = Some(round);
        self.trainer.call(|trainer| trainer.keep_feedback()).await;
        if !stored.with_feedback {
            return;
        }
        self.saved = Some(round);
        let owned = context.clone();
        if let Err(error) = off_the_queue(move || owned.disk.keep_only_training(Some(round))).await {
            tracing::warn!(node = %context.name, %error, "an older error feedback stays on the disk");
        }
    }

    /// The round ends without a contribution: what was drafted leaves no trace but in the moments.
    pub(in crate::peer) async fn discard(&self) {
        self.trainer.call(|trainer| trainer.discard_feedback()).await;
    }

    /// Writes what the disk does not have yet: for a node that ends in good order, after a round that was kept or discarded.
    ///
    /// # Errors
    /// The disk refuses.
    pub(in crate::peer) async fn leave<L: Ledger>(self, context: &Arc<Context<L>>) -> Result<(), MinerError> {
        match context.journal.read().contribution {
            Some(JournalContribution { round, base, .. }) if self.feedback_of == Some(round) => {
                if self.saved != Some(round) {
                    self.save(context, round, base).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes the feedback that follows the contribution of `round`, and the moments.
    async fn save<L: Ledger>(
        &self,
        context: &Arc<Context<L>>,
        round: Round,
        base: Digest,
    ) -> Result<Duration, MinerError> {
        let owned = context.clone();
        let save = move |trainer: &mut Box<dyn Trainer>| -> Result<Duration, DiskError> {
            let watch = Stopwatch::start();
            saved::save(&owned.disk, round, base, &**trainer)?;
            Ok(watch.elapsed())
        };
        Ok(self.trainer.call(save).await?)
    }
}

/// A round's inner steps and its contribution, on the trainer's thread.
fn draft<L>(
    context: &Context<L>,
    trainer: &mut dyn Trainer,
    data: &Dataset,
    task: &Task,
    theta: &[f32],
    is_wanted: &dyn Fn() -> bool,
) -> Result<Draft, MinerError> {
    let run = &context.run;
    let start = Stopwatch::start();
    trainer.load(&mut as_le_bytes(theta))?;
    let mut samples = task.assignment.samples_of(task.member.uid).into_iter().flatten();
    let batches = |_step: u32| data.batch(&run.model, samples.by_ref().take(run.inner.batch as usize));
    let report = train_round(trainer, run, task.round, batches, |_, _| is_wanted())?;
    let trained = start.elapsed();
    let needed = run.inner.steps_min.min(run.inner.steps.count(task.round) as u32);
    if report.steps < needed {
        return Err(MinerError::TooFewSteps { steps: report.steps, needed });
    }
    if let Some(kind) = context.misbehaviour {
        misbehave::disguise(kind, &context.layout, task, theta, trainer)?;
    }
    let how = Compression {
        beta: run.compress.beta,
        k: run.compress.k.count(task.round),
        quantiser: run.compress.quantiser,
        shard_chunks: run.compress.shard_chunks as usize,
    };
    let mut shards = trainer.contribute(theta, &how)?.shards;
    if let Some(kind) = context.misbehaviour {
        misbehave::damage(kind, &mut shards);
    }
    Ok(Draft { report, shards, times: [trained, start.elapsed().saturating_sub(trained)] })
}

/// The tag of a node's own contribution: pinned under it, and until its reveal veiled.
pub(in crate::peer) fn own_tag(round: Round) -> String {
    format!("mine-{round}")
}

/// Puts shards and manifest into the store, on the disk when this returns, for nobody to see before the reveal; gives the
/// manifest's digest.
fn put_blobs<L>(context: &Context<L>, task: &Task, base: Digest, draft: &Draft) -> Result<Digest, StoreError> {
    let Draft { report, shards, .. } = draft;
    let manifest = Manifest {
        run: context.run_id,
        round: task.round,
        uid: task.member.uid,
        hotkey: task.member.hotkey,
        registered_at: task.member.registered_at.0,
        base,
        samples: report.samples,
        codec: CODEC_VERSION,
        shards: shards.iter().map(|shard| BlobRef::of(shard)).collect(),
    };
    let kept = misbehave::kept(context.misbehaviour, shards, context.run.compress.inline_max);
    let store = context.network.store();
    let manifest = manifest.to_bytes();
    let blobs: Vec<&[u8]> = kept.iter().map(|shard| shard.as_ref()).chain([manifest.as_ref()]).collect();
    let tag = own_tag(task.round);
    let names: Vec<Digest> = store.put_veiled(&tag, &blobs)?.into_iter().map(|blob| blob.root).collect();
    store.pin(&tag, &names)?;
    Ok(Digest::of(&manifest))
}
