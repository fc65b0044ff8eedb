//! What a validator keeps from round to round (a model on its device, the data, ratings), and what it does: evaluate a
//! round's contributions, move the ratings, say which weights follow.

use crate::chain::Ledger;
use crate::compute::{Cancel, Resident, off_the_queue};
use crate::contribution::Contribution;
use crate::data::PhaseData;
use crate::disk::{DiskError, StateFile};
use crate::peer::context::Context;
use crate::scoring::{Bench, Scale, ScoreError, Setting, evaluations_max, norms, order};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Uid};
use covey_round::engine::Collection;
use covey_round::rating::{Evaluation, PeerKey, Ratings, Scored};
use covey_trainer::data::Dataset;
use covey_trainer::{BackendError, Device, LanguageModel, open_backend};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const RATINGS: &str = "ratings.bin";

/// Why a round was not scored.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// An evaluation failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The device refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The device's thread does not start.
    #[error("no thread for the device: {0}")]
    Thread(#[from] io::Error),
}

/// A round to score.
pub(in crate::peer) struct ScoreJob {
    /// What it offered.
    pub collection: Arc<Collection>,
    /// The state before it, open on the disk: it is loaded when its turn comes, and in memory only once.
    pub before: StateFile,
    /// What is held.
    pub held: BTreeMap<Uid, Arc<Contribution>>,
    /// What the electorate has applied: if it is not held here, that is no fault of its author.
    pub chosen: UidSet,
    /// Cancelled with the node.
    pub life: Cancel,
}

/// What a validator keeps from round to round.
pub(in crate::peer) struct Validator {
    model: Resident<Box<dyn LanguageModel>>,
    data: PhaseData,
    ratings: Ratings,
}

impl Validator {
    /// A validator as its folder has it. Damaged ratings are said and begun anew. Blocks.
    ///
    /// # Errors
    /// The device cannot be opened, or the folder cannot be read.
    pub(in crate::peer) fn restore<L>(
        context: &Context<L>,
        device: &Device,
        data: PhaseData,
    ) -> Result<Validator, ValidatorError> {
        let scoring = &context.run.scoring;
        let saved = context.disk.read(RATINGS)?.map(|bytes| Ratings::from_bytes(scoring, &bytes));
        let ratings = match saved {
            Some(Ok(ratings)) => ratings,
            Some(Err(error)) => {
                tracing::warn!(node = %context.name, %error, "the saved ratings are damaged: nobody is rated");
                Ratings::new(scoring)
            }
            None => Ratings::new(scoring),
        };
        let (device, model) = (*device, context.run.model.clone());
        let make = move || -> Result<_, ValidatorError> { Ok(open_backend(&device, &model)?.model()?) };
        Ok(Validator { model: Resident::start("scorer", make)?, data, ratings })
    }

    /// What it thinks of whom.
    pub(in crate::peer) fn ratings(&self) -> &Ratings {
        &self.ratings
    }

    /// Evaluates a round's contributions, moves the ratings, keeps them; gives the weights that follow, and the time that
    /// the evaluations took.
    ///
    /// # Errors
    /// An evaluation fails through this machine's fault, or the disk refuses.
    pub(in crate::peer) async fn score<L: Ledger>(
        &mut self,
        context: &Arc<Context<L>>,
        job: ScoreJob,
    ) -> (Result<Vec<(Uid, u16)>, ValidatorError>, Duration) {
        let collection = job.collection.clone();
        let (scored, took) = self.evaluate(context, job).await;
        let rated = match scored {
            Ok(scored) => self.rate(context, &collection, &scored).await,
            Err(error) => Err(error),
        };
        (rated, took)
    }

    async fn rate<L: Ledger>(
        &mut self,
        context: &Arc<Context<L>>,
        collection: &Collection,
        scored: &[Scored],
    ) -> Result<Vec<(Uid, u16)>, ValidatorError> {
        if let Err(stale) = self.ratings.observe(collection.round, scored) {
            // Scored before a crash: once is enough.
            tracing::debug!(node = %context.name, %stale, "not rated again");
        }
        let (owned, bytes) = (context.clone(), self.ratings.to_bytes());
        let write = move || owned.disk.write(RATINGS, &bytes);
        off_the_queue(write).await?;
        Ok(self.ratings.weights(&collection.members, context.run.scoring.power).into_iter().collect())
    }

    async fn evaluate<L: Ledger>(
        &self,
        context: &Arc<Context<L>>,
        job: ScoreJob,
    ) -> (Result<Vec<Scored>, ValidatorError>, Duration) {
        let (collection, hotkey) = (&*job.collection, context.hotkey());
        let Some(me) = collection.members.values().find(|member| Some(member.hotkey) == hotkey) else {
            return (Ok(Vec::new()), Duration::ZERO);
        };
        let voter = me.uid;
        let mut scored = self.absent(collection);
        let wanted = order(collection, &self.ratings, voter);
        let (had, missing): (Vec<Uid>, Vec<Uid>) = wanted.into_iter().partition(|uid| job.held.contains_key(uid));
        // What the majority applied was to be had: that it is not here is this node's fault.
        let theirs = missing.iter().filter(|uid| !job.chosen.contains(**uid));
        let peers = theirs.filter_map(|uid| collection.members.get(uid)).map(PeerKey::from);
        scored.extend(peers.map(|peer| Scored { peer, evaluation: Evaluation::Failed }));
        if had.is_empty() {
            return (Ok(scored), Duration::ZERO);
        }
        let (owned, data) = (context.clone(), self.data.of(&context.run, collection.round).clone());
        let work = move |model: &mut Box<dyn LanguageModel>| measure(&owned, &mut **model, &data, voter, job, &had);
        let (measured, took) = self.model.run(&context.compute, work).await;
        let measured = measured.map(|measured| {
            scored.extend(measured);
            scored
        });
        (measured, took)
    }

    /// Rated peers that offered nothing.
    fn absent(&self, collection: &Collection) -> Vec<Scored> {
        let silent = collection.members.values().filter(|member| !collection.offered.contains_key(&member.uid));
        let rated = silent.map(PeerKey::from).filter(|peer| self.ratings.rating(peer).is_some());
        rated.map(|peer| Scored { peer, evaluation: Evaluation::Absent }).collect()
    }
}

/// Loss scores of what is held, in the order of `had`, as many as there is time for. On the model's thread.
fn measure<L: Ledger>(
    context: &Context<L>,
    model: &mut dyn LanguageModel,
    data: &Dataset,
    voter: Uid,
    job: ScoreJob,
    had: &[Uid],
) -> Result<Vec<Scored>, ValidatorError> {
    let ScoreJob { collection, mut before, held, chosen, life } = job;
    let (run, layout) = (&*context.run, &*context.layout);
    let blobs = |root: &Digest| context.network.store().get(root);
    let decode = |of: &Arc<Contribution>, shard| of.shard(run, layout, &blobs, shard);
    let norms_of = |of: &Arc<Contribution>| norms(layout, (0..of.manifest.shards.len()).map(|shard| decode(of, shard)));
    // As loud as it would be applied: beside what was.
    let applied = held.iter().filter(|(uid, _)| chosen.contains(**uid));
    let applied: BTreeMap<Uid, Vec<f64>> = applied.filter_map(|(uid, of)| Some((*uid, norms_of(of).ok()?))).collect();
    let scale = Scale::new(run, layout, collection.round, &applied.values().cloned().collect::<Vec<_>>());
    let setting = Setting { data, run, collection: &collection, voter };
    let mut bench = Bench::new(model, setting, &mut before)?;
    let mut scored = Vec::new();
    for uid in had.iter().take(evaluations_max(run, collection.round)) {
        let (Some(member), Some(contribution)) = (collection.members.get(uid), held.get(uid)) else { continue };
        if !life.is_wanted() {
            break;
        }
        let mut lost = None;
        let norms = applied.get(uid).cloned().map_or_else(|| norms_of(contribution), Ok);
        let evaluation = norms.map(|norms| {
            let shards = 0..contribution.manifest.shards.len();
            let mut shards =
                shards.map_while(|shard| decode(contribution, shard).map(Ok).map_err(|error| lost = Some(error)).ok());
            bench.evaluate(*uid, &scale.factors(&norms), &mut shards)
        });
        let evaluation = match (evaluation, lost) {
            (Ok(evaluation), None) => evaluation?,
            (Err(error), _) | (_, Some(error)) => {
                // It was held, and no fault of its author that it is not any more.
                tracing::warn!(node = %context.name, round = %collection.round, %uid, %error, "not scored");
                continue;
            }
        };
        tracing::debug!(node = %context.name, round = %collection.round, %uid, ?evaluation, "scored");
        scored.push(Scored { peer: PeerKey::from(member), evaluation });
    }
    Ok(scored)
}
