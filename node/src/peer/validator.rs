//! A validator's half of a round: loss scores while the next round trains, ratings, weights, and the ballot that
//! follows from them.

use super::context::Context;
use super::tasks::ScoreJob;
use crate::disk::DiskError;
use crate::scoring::{Bench, ScoreError, Setting, evaluations_max, order};
use covey_proto::Uid;
use covey_proto::record::UidSet;
use covey_round::ballot::{Probation, ballot};
use covey_round::engine::Collection;
use covey_round::rating::{Evaluation, PeerKey, Ratings, RatingsError, Scored};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::LanguageModel;
use covey_trainer::data::Dataset;
use std::sync::Arc;

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
    /// The saved ratings are damaged.
    #[error("the saved ratings are damaged: {0}")]
    Ratings(#[from] RatingsError),
}

/// What a validator keeps from round to round.
pub struct Validator {
    model: Box<dyn LanguageModel>,
    data: Arc<Dataset>,
    ratings: Ratings,
}

impl Validator {
    /// A validator as its folder has it. Damaged ratings are said and begun anew.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore<L>(
        context: &Context<L>,
        model: Box<dyn LanguageModel>,
        data: Arc<Dataset>,
    ) -> Result<Validator, DiskError> {
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
        Ok(Validator { model, data, ratings })
    }

    /// What it thinks of whom.
    pub fn ratings(&self) -> &Ratings {
        &self.ratings
    }

    /// Evaluates a round's contributions, moves the ratings, keeps them; gives the weights that follow.
    ///
    /// # Errors
    /// An evaluation fails through this machine's fault, or the disk refuses.
    pub(super) fn score<L>(&mut self, context: &Context<L>, job: &ScoreJob) -> Result<Vec<(Uid, u16)>, ValidatorError> {
        let scored = self.evaluate(context, job)?;
        let collection = &job.collection;
        let members = &*collection.members;
        if let Err(stale) = self.ratings.observe(collection.round, &scored) {
            // Scored before a crash: once is enough.
            tracing::debug!(node = %context.name, %stale, "not rated again");
        }
        context.disk.write(RATINGS, &[&self.ratings.to_bytes()])?;
        Ok(self.ratings.weights(members, context.run.scoring.power).into_iter().collect())
    }

    fn evaluate<L>(&mut self, context: &Context<L>, job: &ScoreJob) -> Result<Vec<Scored>, ValidatorError> {
        let ScoreJob { collection, before, held, chosen, life } = job;
        let hotkey = context.hotkey();
        let Some(me) = collection.members.values().find(|member| Some(member.hotkey) == hotkey) else {
            return Ok(Vec::new());
        };
        let mut scored = self.absent(collection);
        let (had, missing): (Vec<Uid>, Vec<Uid>) =
            order(collection, &self.ratings, me.uid).into_iter().partition(|uid| held.contains_key(uid));
        let peer = |uid: &Uid| collection.members.get(uid).map(PeerKey::from);
        let failed = |peer| Scored { peer, evaluation: Evaluation::Failed };
        // What the majority applied was to be had: that it is not here is this node's fault.
        let theirs = missing.iter().filter(|uid| !chosen.contains(**uid));
        scored.extend(theirs.filter_map(peer).map(failed));
        if had.is_empty() {
            return Ok(scored);
        }
        let setting =
            Setting { data: &self.data, run: &context.run, layout: &context.layout, collection, voter: me.uid };
        let mut bench = Bench::new(&mut *self.model, setting, &mut as_le_bytes(&before.parameters))?;
        for uid in had.iter().take(evaluations_max(&context.run, collection.round)) {
            let (Some(peer), Some(contribution)) = (peer(uid), held.get(uid)) else { continue };
            if !life.is_wanted() {
                break;
            }
            let evaluation = bench.evaluate(*uid, &mut contribution.shards.iter().cloned().map(Ok))?;
            tracing::debug!(node = %context.name, round = %collection.round, %uid, ?evaluation, "scored");
            scored.push(Scored { peer, evaluation });
        }
        Ok(scored)
    }

    /// Rated peers that offered nothing.
    fn absent(&self, collection: &Collection) -> Vec<Scored> {
        let silent = collection.members.values().filter(|member| !collection.offered.contains_key(&member.uid));
        let rated = silent.map(PeerKey::from).filter(|peer| self.ratings.rating(peer).is_some());
        rated.map(|peer| Scored { peer, evaluation: Evaluation::Absent }).collect()
    }
}

/// Who goes on the ballot, of those whose contributions are held.
pub fn ballot_of<L>(context: &Context<L>, ratings: &Ratings, collection: &Collection, held: UidSet) -> UidSet {
    let probation = Probation { run_id: context.run_id, round: collection.round, beacon_c: collection.beacon };
    let standings = ratings.standings(&collection.members, collection.round);
    ballot(&probation, &held, &standings, context.run.electorate.contributions_max)
}
