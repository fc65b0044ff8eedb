//! The end of a round: have what was selected, aggregate it, take the outer step, seal the state; the same bits for
//! everyone.
//!
//! [`apply`] is the task, with what it waits for; `outer` computes, `keep` brings it to the disk and lets go of what nobody
//! needs any more.

mod keep;
mod outer;

pub(super) use keep::{
    hold_checkpoint, hold_genesis, is_checkpoint, pin_selected, provide_checkpoints, provide_genesis,
};
pub(super) use outer::{Decision, replay, seal, step};
pub use outer::{StepFault, next_parameters};

use super::context::Context;
use super::obtain::{ObtainError, obtain};
use super::states::{Base, BaseError, State};
use crate::chain::Ledger;
use crate::compute::Cancel;
use crate::contribution::Contribution;
use crate::disk::DiskError;
use covey_gossip::Hint;
use covey_gossip::store::StoreError;
use covey_proto::{Digest, Round, Uid};
use covey_round::engine::Settlement;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two tries of a selected contribution.
const RETRY: Duration = Duration::from_millis(500);

/// Why a round could not be applied: a fault of this machine, never of a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// The outer step was not taken.
    #[error(transparent)]
    Step(#[from] StepFault),
    /// The state to start from is lost.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was selected is not to be had, and waiting does not help.
    #[error("uid {uid} was selected, but {why}")]
    Selected {
        /// Whose contribution.
        uid: Uid,
        /// Why not.
        why: ObtainError,
    },
    /// The node has left the round meanwhile.
    #[error("the round was given up")]
    GivenUp,
    /// Replaying a header gave another state.
    #[error(
        "round {round}: applying what was selected gives state {mine}; the header says {agreed}. This machine computes wrong, or its disk is damaged: test its memory"
    )]
    OtherRoot {
        /// The round.
        round: Round,
        /// What came out.
        mine: Digest,
        /// What the electorate has.
        agreed: Digest,
    },
}

/// A round to apply.
pub(super) struct ApplyJob {
    /// The state before, which nobody else has in memory.
    pub before: Base,
    /// What was decided.
    pub settlement: Settlement,
    /// What is held already.
    pub held: BTreeMap<Uid, Arc<Contribution>>,
    /// Says whether it is still wanted: once it is not, nothing is written any more.
    pub cancel: Cancel,
}

/// What is said while a round is applied.
pub(super) enum Progress {
    /// It waits for bytes that only others have.
    Starving(Round),
    /// The parameters after the round are there; their hash is not.
    Stepped {
        /// The round.
        round: Round,
        /// head(round − 1).
        parent: Digest,
        /// The parameters, `[elements]`.
        parameters: Arc<Vec<f32>>,
    },
}

/// A round that is applied.
pub(super) struct Settled {
    /// The state after it.
    pub state: State,
    /// What was applied.
    pub settlement: Settlement,
    /// Time of aggregation, outer step, hashing and writing.
    pub took: Duration,
}

/// Has whatever was selected, however long it takes, and applies it. Says how far it is in `progress`.
///
/// # Errors
/// A person must look at it.
pub(super) async fn apply<L: Ledger, P: From<Progress> + Send>(
    context: Arc<Context<L>>,
    job: ApplyJob,
    progress: mpsc::Sender<P>,
) -> Result<Settled, ApplyError> {
    let ApplyJob { before, settlement, held, cancel } = job;
    let (round, parent) = (settlement.round, settlement.parent);
    let selected = obtain_selected(&context, &settlement, held, &progress).await?;
    let owned = context.clone();
    let stepping = move |threads| (step(&owned, before, round, &selected, threads), selected);
    let ((parameters, selected), stepped) = context.compute.run_wide(stepping).await;
    let parameters = Arc::new(parameters?);
    // The loop is gone only when the node is.
    let _ = progress.send(Progress::Stepped { round, parent, parameters: parameters.clone() }.into()).await;
    let decision = Decision { round, parent, hashes: settlement.hashes };
    let owned = context.clone();
    let sealing = move |threads| seal(&owned, parameters, &decision, (&selected, &cancel), threads);
    let (state, sealed) = context.compute.run_beside(sealing).await;
    Ok(Settled { state: state?, settlement, took: stepped + sealed })
}

/// All that was selected, by uid rising, in the store and pinned there until the round is applied.
async fn obtain_selected<L: Ledger, P: From<Progress> + Send>(
    context: &Arc<Context<L>>,
    settlement: &Settlement,
    held: BTreeMap<Uid, Arc<Contribution>>,
    progress: &mpsc::Sender<P>,
) -> Result<Vec<Arc<Contribution>>, ApplyError> {
    let round = settlement.round;
    let hints: Vec<Hint> = settlement.holders.iter().map(Hint::Uid).collect();
    loop {
        let mut selected = Vec::with_capacity(settlement.chosen.len());
        for (uid, digest) in &settlement.chosen {
            selected.push(match held.get(uid).filter(|held| held.digest == *digest) {
                Some(contribution) => contribution.clone(),
                None => {
                    let found = obtain_patiently(context, (round, *digest), &hints, progress).await;
                    Arc::new(found.map_err(|why| ApplyError::Selected { uid: *uid, why })?)
                }
            });
        }
        match pin_selected(context, round, &selected).await {
            // Evicted between its fetch and now: had once more.
            Err(StoreError::Missing(blob)) => tracing::warn!(node = %context.name, %round, %blob, "fetched again"),
            pinned => return Ok(pinned.map(|()| selected)?),
        }
    }
}

/// However long it takes; after the first try in vain the node says that it waits for others.
async fn obtain_patiently<L: Ledger, P: From<Progress> + Send>(
    context: &Arc<Context<L>>,
    (round, digest): (Round, Digest),
    hints: &[Hint],
    progress: &mpsc::Sender<P>,
) -> Result<Contribution, ObtainError> {
    loop {
        match obtain(context, digest, None, hints, context.patience).await {
            Err(ObtainError::Fetch(why)) => {
                tracing::warn!(node = %context.name, %why, "a selected contribution is still missing");
                // The loop is gone only when the node is.
                let _ = progress.send(Progress::Starving(round).into()).await;
                tokio::time::sleep(RETRY).await;
            }
            had => return had.map(|(contribution, _)| contribution),
        }
    }
}
