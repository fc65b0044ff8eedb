//! A round's training as a task, and the order of what it writes.
//!
//! Training and compressing need the base's parameters; what is stored names its head, which may come later. The order of
//! writes is the protocol's: blobs; error feedback and moments, beside the old (every `save_rounds` rounds); the journal; only
//! then is a call signed. Whoever is done too late to commit journals nothing. Killed before the journal: the old feedback and
//! moments hold, and the round is trained again to the same bits, or skipped if it is too late. Killed after it: the same
//! contribution is sent; if its feedback was not written, the next life's starts from zero.

use super::miner::{Draft, Miner, MinerError};
use crate::chain::Ledger;
use crate::compute::{Cancel, off_the_queue};
use crate::disk::{DiskError, JournalContribution};
use crate::peer::context::Context;
use crate::peer::states::{AwaitedHead, Base, BaseError};
use covey_proto::{BlockNumber, Digest, Round, record};
use covey_round::clock::RoundBlocks;
use covey_round::engine::Task;
use covey_round::submit::Wish;
use covey_trainer::inner::RoundReport;
use std::sync::Arc;
use std::time::Duration;

/// What a miner needs for a round.
pub(in crate::peer) struct TrainJob {
    /// What to train on.
    pub task: Task,
    /// The state to start from; none of a node that has lost it, which then makes no contribution.
    pub base: Option<TrainBase>,
    /// Stops this round's training.
    pub cancel: Cancel,
    /// Cancelled with the node.
    pub life: Cancel,
    /// Whether to forget optimizer and error feedback first.
    pub forget: bool,
}

/// Parameters to start from.
pub(in crate::peer) enum TrainBase {
    /// Of a state whose head is known.
    Sealed(Base),
    /// Parameters whose head will be told.
    Headless(Arc<Vec<f32>>, AwaitedHead),
}

/// A contribution that the journal names.
#[derive(Debug)]
pub(in crate::peer) struct Made {
    /// The manifest's digest.
    pub manifest: Digest,
    /// What the training amounted to.
    pub report: RoundReport,
    /// Time of training and of compression.
    pub times: [Duration; 2],
}

/// A round's training is over.
pub(in crate::peer) struct Trained {
    /// The round.
    pub round: Round,
    /// The miner, back from it.
    pub miner: Miner,
    /// Its contribution, if there is one.
    pub made: Option<Made>,
}

/// Why a round's training is not in the journal.
#[derive(Debug, thiserror::Error)]
enum TrainFault {
    #[error(transparent)]
    Miner(#[from] MinerError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("its base is not in memory: the log says why")]
    NoBase,
    #[error("its base was not applied: the log says why")]
    NoHead,
    #[error("done at block {best}: too late to commit")]
    TooLate { best: BlockNumber },
}

/// Trains, compresses, stores, journals.
pub(in crate::peer) async fn train<L: Ledger>(context: Arc<Context<L>>, mut miner: Miner, job: TrainJob) -> Trained {
    let round = job.task.round;
    let made = match contribute(&context, &mut miner, job).await {
        Ok(made) => Some(made),
        Err(error) => {
            tracing::warn!(node = %context.name, %round, %error, "no contribution this round");
            miner.discard().await;
            None
        }
    };
    Trained { round, miner, made }
}

async fn contribute<L: Ledger>(
    context: &Arc<Context<L>>,
    miner: &mut Miner,
    job: TrainJob,
) -> Result<Made, TrainFault> {
    let TrainJob { task, base, cancel, life, forget } = job;
    if forget {
        miner.reset(context).await?;
    }
    let (theta, mut head) = parameters(context, base.ok_or(TrainFault::NoBase)?).await?;
    let draft = miner.draft(context, task.clone(), theta, [cancel, life]).await?;
    let base = told(&mut head).await?;
    store_and_journal(context, miner, &task, base, draft).await
}

/// The parameters to start from, and where their head is told.
async fn parameters<L: Ledger>(
    context: &Arc<Context<L>>,
    base: TrainBase,
) -> Result<(Arc<Vec<f32>>, AwaitedHead), TrainFault> {
    match base {
        TrainBase::Headless(parameters, head) => Ok((parameters, head)),
        TrainBase::Sealed(base) => {
            let head = tokio::sync::watch::Sender::new(Some(base.sealed.tip.head)).subscribe();
            let owned = context.clone();
            let read = move || base.parameters(&owned.disk, owned.layout.elements());
            Ok((off_the_queue(read).await?, head))
        }
    }
}

/// Waits until the base's head is told.
async fn told(head: &mut AwaitedHead) -> Result<Digest, TrainFault> {
    let told = head.wait_for(Option::is_some).await.map_err(|_| TrainFault::NoHead)?;
    told.ok_or(TrainFault::NoHead)
}

/// From a draft in memory to a contribution that will be committed, whatever happens to this process.
async fn store_and_journal<L: Ledger>(
    context: &Arc<Context<L>>,
    miner: &mut Miner,
    task: &Task,
    base: Digest,
    draft: Draft,
) -> Result<Made, TrainFault> {
    let (round, report, [trained, compressed]) = (task.round, draft.report, draft.times);
    let stored = miner.store(context, task, base, draft).await?;
    let manifest = stored.manifest;
    let last = RoundBlocks::of(&context.run, round).map(|blocks| blocks.submit_latest);
    let best = context.ledger.heads().borrow().best;
    if !last.is_ok_and(|last| best <= last) {
        return Err(TrainFault::TooLate { best });
    }
    // Signed when its turn comes: until then another call may need the next nonce.
    let entry = JournalContribution { round, base, manifest, call: None };
    let owned = context.clone();
    let write = move || owned.journal.change(|journal| journal.contribution = Some(entry));
    off_the_queue(write).await?;
    miner.keep(context, round, &stored).await;
    Ok(Made { manifest, report, times: [trained, compressed + stored.took] })
}

/// Puts the journalled contribution on chain, if there is one of this round.
pub(in crate::peer) async fn commit<L: Ledger>(context: Arc<Context<L>>, round: Round) {
    let Some(journalled) = context.journal.read().contribution.filter(|made| made.round == round) else { return };
    match RoundBlocks::of(&context.run, round).map(|blocks| blocks.commit) {
        Ok(until) => {
            let mine = record::Contribution { round, manifest: journalled.manifest };
            context.submit.put(Wish::Contribution(mine), until).await;
        }
        Err(error) => tracing::error!(node = %context.name, %error, "no commitment"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::watch;

    #[test]
    fn a_contribution_waits_for_its_bases_head_and_is_none_without_it() {
        let head = Digest::of(b"head");
        let teller = watch::Sender::new(None);
        let (mut early, mut late, mut never) =
            (teller.subscribe(), teller.subscribe(), watch::Sender::new(None).subscribe());
        assert!(told(&mut early).now_or_never().is_none(), "nobody has told it");
        teller.send_replace(Some(head));
        drop(teller);
        for base in [&mut early, &mut late] {
            assert_eq!(told(base).now_or_never().unwrap().unwrap(), head);
        }
        assert!(matches!(told(&mut never).now_or_never(), Some(Err(TrainFault::NoHead))));
    }
}
