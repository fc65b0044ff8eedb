//! What takes time: each task does one thing that the state machine asked for, and says what came of it.

use super::apply::{self, ApplyError, Decision, State};
use super::catchup::{Caught, JoinError, catch_up};
use super::collect::Incoming;
use super::context::Context;
use super::miner::{Made, Miner, MinerError};
use super::validator::Validator;
use crate::chain::{Ledger, LedgerError};
use crate::compute::{Cancel, off_the_queue};
use crate::contribution::{Contribution, Expected, ObtainError, obtain};
use crate::disk::JournalContribution;
use covey_gossip::store::Durability;
use covey_gossip::{Hint, PeerKey};
use covey_proto::blob::Manifest;
use covey_proto::chain::ChainView;
use covey_proto::message::Announcement;
use covey_proto::record::{self, Record, UidSet, Vote};
use covey_proto::{BlockNumber, Digest, Round, Uid};
use covey_round::clock::RoundBlocks;
use covey_round::engine::{Collection, Settlement, Task, Tip};
use covey_round::rating::Ratings;
use covey_round::submit::Wish;
use covey_trainer::inner::RoundReport;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between two tries of something that failed for now.
const RETRY: Duration = Duration::from_millis(500);
/// Tries of a reveal without anybody to hear it; whoever misses it asks for it.
const ANNOUNCE_TRIES: u32 = 10;

/// What came of a task.
pub(super) enum Done {
    /// A state of the chain, or the block of which none is to be had.
    View(Result<ChainView, BlockNumber>),
    /// A round's training: a contribution in the journal, or none.
    Trained { round: Round, made: Option<Box<Journalled>> },
    /// A call or a reveal is through, or failed for good.
    Sent(Round),
    /// A contribution is held, not valid, or not to be had.
    Collected { round: Round, uid: Uid, found: Result<Arc<Contribution>, ObtainError>, took: Duration },
    /// It is time to ask for what gossip has not brought.
    PullDue(Round),
    /// What peers have of a round's announcements.
    Pulled { round: Round, announcements: Vec<Incoming> },
    /// What has not come by now will hardly come in time.
    Patience(Round),
    /// The parameters after a round are there; their hash is not.
    Stepped(Stepped),
    /// A round is applied.
    Applied(Box<Settled>),
    /// The node has caught up.
    Joined(Box<Caught>),
    /// A round is scored.
    Scored { round: Round, took: Duration, ratings: Option<Arc<Ratings>> },
    /// A person must look at it.
    Fatal(String),
}

/// A contribution that the journal names.
pub(super) struct Journalled {
    /// The manifest's digest.
    pub manifest: Digest,
    /// What the training amounted to.
    pub report: RoundReport,
    /// Time of training and of compression.
    pub times: [Duration; 2],
}

/// Parameters without a head yet.
pub(super) struct Stepped {
    /// The round that they are after.
    pub round: Round,
    /// head(round − 1).
    pub parent: Digest,
    /// The parameters, `[elements]`.
    pub parameters: Arc<Vec<f32>>,
}

/// A round that is applied.
pub(super) struct Settled {
    /// The state after it.
    pub state: State,
    /// What was applied.
    pub settlement: Settlement,
    /// What had been committed.
    pub offered: Vec<Uid>,
    /// Time of aggregation, outer step, hashing and writing.
    pub took: Duration,
}

/// Reads the chain at a final block.
pub(super) async fn read<L: Ledger>(context: Arc<Context<L>>, block: BlockNumber) -> Done {
    loop {
        match context.ledger.view(block).await {
            Ok(view) => return Done::View(Ok(view)),
            Err(LedgerError::Disagreement(what)) => {
                return Done::Fatal(format!(
                    "the chain's endpoints disagree: {what}; find out which of them is right, take the other out of \
                     chain.endpoints and start again"
                ));
            }
            Err(LedgerError::NoState { .. } | LedgerError::Refused(_)) => return Done::View(Err(block)),
            Err(error @ (LedgerError::Unfit(_) | LedgerError::NotYet { .. })) => {
                tracing::error!(node = %context.name, %error, "block {block} is not read");
                return Done::View(Err(block));
            }
            Err(error @ LedgerError::Unreachable(_)) => {
                tracing::warn!(node = %context.name, %error, "reading block {block} again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A head, at once or once it is known.
pub(super) type Head = watch::Receiver<Option<Digest>>;

/// What a miner needs for a round.
pub(super) struct TrainJob {
    /// What to train on.
    pub task: Task,
    /// The state to start from.
    pub theta: Arc<Vec<f32>>,
    /// Its head; closed if it never will be known.
    pub base: Head,
    /// Cancelled with the node.
    pub life: Cancel,
}

/// Trains, compresses, stores, journals.
pub(super) async fn train<L: Ledger>(
    context: Arc<Context<L>>,
    miner: Arc<Mutex<Miner>>,
    job: TrainJob,
    cancel: Cancel,
) -> Done {
    let round = job.task.round;
    match train_and_journal(&context, &miner, job, cancel).await {
        Ok(journalled) => Done::Trained { round, made: Some(Box::new(journalled)) },
        Err(error) => {
            tracing::warn!(node = %context.name, %round, %error, "no contribution this round");
            Done::Trained { round, made: None }
        }
    }
}

/// Why a round's training is not in the journal.
#[derive(Debug, thiserror::Error)]
enum TrainFault {
    #[error(transparent)]
    Miner(#[from] MinerError),
    #[error(transparent)]
    Disk(#[from] crate::disk::DiskError),
    #[error("its base was not applied: the log says why")]
    NoBase,
    #[error("done at block {best}: too late to commit")]
    TooLate { best: BlockNumber },
}

async fn train_and_journal<L: Ledger>(
    context: &Arc<Context<L>>,
    miner: &Arc<Mutex<Miner>>,
    job: TrainJob,
    cancel: Cancel,
) -> Result<Journalled, TrainFault> {
    let TrainJob { task, theta, mut base, life } = job;
    let (owned, miner_of, task_of) = (context.clone(), miner.clone(), task.clone());
    let work = move || {
        let mut miner = miner_of.lock().unwrap_or_else(PoisonError::into_inner);
        miner.prepare(&owned, &task_of, &theta, &|| cancel.is_wanted() && life.is_wanted())
    };
    let draft = context.compute.run(work).await.0?;
    // Outside of the compute's queue: hashing the base may still need a place there.
    let base = head_of(&mut base).await?;
    let (owned, miner_of) = (context.clone(), miner.clone());
    let work = move || miner_of.lock().unwrap_or_else(PoisonError::into_inner).store(&owned, &task, base, draft);
    let made: Made = context.compute.run(work).await.0?;
    let last = RoundBlocks::of(&context.run, made.round).map(|blocks| blocks.submit_latest);
    let best = context.ledger.heads().borrow().best;
    if !last.is_ok_and(|last| best <= last) {
        return Err(TrainFault::TooLate { best });
    }
    // Signed when its turn comes: until then another call may need the next nonce.
    let entry = JournalContribution { round: made.round, base: made.base, manifest: made.manifest, call: None };
    let journalled = Journalled { manifest: made.manifest, report: made.report, times: made.times };
    let (owned, miner_of) = (context.clone(), miner.clone());
    let write = move || {
        owned.journal.change(|journal| journal.contribution = Some(entry))?;
        miner_of.lock().unwrap_or_else(PoisonError::into_inner).journalled(&owned, made)
    };
    off_the_queue(write).await?;
    Ok(journalled)
}

/// Waits until the base's head is told.
async fn head_of(base: &mut Head) -> Result<Digest, TrainFault> {
    let told = base.wait_for(Option::is_some).await.map_err(|_| TrainFault::NoBase)?;
    told.ok_or(TrainFault::NoBase)
}

/// Puts the journalled contribution on chain.
pub(super) async fn commit<L: Ledger>(context: Arc<Context<L>>, round: Round, journalled: JournalContribution) -> Done {
    match RoundBlocks::of(&context.run, round).map(|blocks| blocks.commit) {
        Ok(until) => {
            let mine = record::Contribution { round, manifest: journalled.manifest };
            context.submit.put(Wish::Contribution(mine), until).await;
        }
        Err(error) => tracing::error!(node = %context.name, %error, "no commitment"),
    }
    Done::Sent(round)
}

/// Journals a vote, then puts it on chain.
pub(super) async fn vote<L: Ledger>(context: Arc<Context<L>>, vote: Vote) -> Done {
    let round = vote.round;
    let mut record = Record::of(context.run_id);
    record.vote = Some(vote);
    let (owned, text) = (context.clone(), hex::encode(record.to_bytes()));
    let write = move || owned.journal.change(|journal| journal.record = Some(text));
    let written = off_the_queue(write).await;
    if let Err(error) = written {
        return Done::Fatal(format!("no vote in round {round}: {error}"));
    }
    match RoundBlocks::of(&context.run, round).map(|blocks| blocks.vote) {
        Ok(until) => context.submit.put(Wish::Vote(vote), until).await,
        Err(error) => tracing::error!(node = %context.name, %error, "no vote"),
    }
    Done::Sent(round)
}

/// Reveals the journalled contribution.
pub(super) async fn announce<L: Ledger>(context: Arc<Context<L>>, round: Round) -> Done {
    let Some(made) = context.journal.read().contribution.filter(|made| made.round == round) else {
        return Done::Sent(round);
    };
    let owned = context.clone();
    let announcement = tokio::task::spawn_blocking(move || own_announcement(&owned, made.manifest)).await;
    let Ok(Some((uid, bytes))) = announcement else {
        tracing::error!(node = %context.name, %round, "my contribution is not in my store: nothing is revealed");
        return Done::Sent(round);
    };
    context.network.remember(round, uid, bytes.clone());
    for _ in 0..ANNOUNCE_TRIES {
        match context.network.publish(bytes.clone()).await {
            Ok(_) => return Done::Sent(round),
            Err(error) => {
                tracing::warn!(node = %context.name, %round, %error, "revealing again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    Done::Sent(round)
}

fn own_announcement<L>(context: &Context<L>, digest: Digest) -> Option<(Uid, Vec<u8>)> {
    let store = context.network.store();
    let get = |name| store.get(&name).ok().flatten();
    let manifest = Manifest::from_bytes(&get(digest)?).ok()?;
    let limit = u64::from(context.run.compress.inline_max);
    let small = manifest.shards.iter().filter(|shard| shard.size <= limit);
    let inline = small.map(|shard| get(shard.root)).collect::<Option<Vec<_>>>()?;
    Some((manifest.uid, Announcement { manifest, inline }.to_bytes()))
}

/// A contribution to fetch.
pub(super) struct Fetch {
    /// The round.
    pub collection: Collection,
    /// Its author.
    pub uid: Uid,
    /// Its name.
    pub digest: Digest,
    /// Who announced it, and what came along; none if it is this node's own.
    pub from: Option<(PeerKey, Announcement)>,
}

/// Has a contribution's bytes, checks and decodes them; a validator makes sure that they stay.
pub(super) async fn fetch<L: Ledger>(context: Arc<Context<L>>, job: Fetch) -> Done {
    let (round, uid) = (job.collection.round, job.uid);
    match fetch_one(&context, job).await {
        Ok((contribution, took)) => Done::Collected { round, uid, found: Ok(Arc::new(contribution)), took },
        Err(error) => Done::Collected { round, uid, found: Err(error), took: Duration::ZERO },
    }
}

async fn fetch_one<L: Ledger>(context: &Arc<Context<L>>, job: Fetch) -> Result<(Contribution, Duration), ObtainError> {
    let Fetch { collection, uid, digest, from } = job;
    let mut hints = vec![Hint::Uid(uid)];
    if let Some((peer, announcement)) = from {
        hints.push(peer.into());
        let store = context.network.store().clone();
        let put = move || {
            let blobs: Vec<Vec<u8>> =
                announcement.inline.into_iter().chain([announcement.manifest.to_bytes()]).collect();
            store.put_batch(&blobs, Durability::Buffered).map(drop)
        };
        tokio::task::spawn_blocking(put).await.expect("putting blobs does not panic")?;
    }
    let author = collection.members.get(&uid).copied();
    let expected = author.map(|author| Expected {
        run_id: context.run_id,
        round: collection.round,
        base: collection.base,
        author,
    });
    // A slow link may take the whole round; who votes has looked at what is held by then.
    let (contribution, took) = obtain(context, digest, expected, &hints, 10 * context.patience).await?;
    let names: Vec<Digest> = contribution.manifest.shards.iter().map(|shard| shard.root).chain([digest]).collect();
    let (store, tag) = (context.network.store().clone(), format!("offer-{}-{uid}", collection.round.0 % 4));
    // Pinning brings the bytes to the disk: a vote vouches for them.
    tokio::task::spawn_blocking(move || store.pin(&tag, &names)).await.expect("pinning does not panic")?;
    Ok((contribution, took))
}

/// Asks peers for a round's announcements.
pub(super) async fn pull<L: Ledger>(context: Arc<Context<L>>, round: Round, have: UidSet) -> Done {
    let found = context.network.announcements(round, have).await;
    let announcements = found.into_iter().map(|(from, bytes)| Incoming { bytes, from, ticket: None }).collect();
    Done::Pulled { round, announcements }
}

/// Waits before asking: gossip mostly brings everything.
pub(super) async fn pull_later(after: Duration, round: Round) -> Done {
    tokio::time::sleep(after).await;
    Done::PullDue(round)
}

/// Waits.
pub(super) async fn patience(patience: Duration, round: Round) -> Done {
    tokio::time::sleep(patience).await;
    Done::Patience(round)
}

/// A round to apply.
pub(super) struct ApplyJob {
    /// The state before.
    pub before: State,
    /// What was decided.
    pub settlement: Settlement,
    /// What is decoded already.
    pub held: BTreeMap<Uid, Arc<Contribution>>,
    /// What had been committed.
    pub offered: Vec<Uid>,
    /// Where to say that it waits for others.
    pub tasks: mpsc::Sender<Done>,
}

/// Has whatever was selected, however long it takes, and applies it.
pub(super) async fn apply<L: Ledger>(context: Arc<Context<L>>, job: ApplyJob) -> Done {
    let ApplyJob { before, settlement, held, offered, tasks } = job;
    let round = settlement.round;
    let hints: Vec<Hint> = settlement.holders.iter().map(Hint::Uid).collect();
    let mut selected = Vec::with_capacity(settlement.chosen.len());
    for (uid, digest) in &settlement.chosen {
        selected.push(match held.get(uid).filter(|held| held.digest == *digest) {
            Some(contribution) => contribution.clone(),
            None => match obtain_selected(&context, (round, *digest), &hints, &tasks).await {
                Ok(contribution) => Arc::new(contribution),
                Err(why) => return Done::Fatal(format!("round {round}: uid {uid} was selected, but {why}")),
            },
        });
    }
    match step_and_seal(&context, before, &settlement, selected, &tasks).await {
        Ok((state, took)) => Done::Applied(Box::new(Settled { state, settlement, offered, took })),
        Err(error) => Done::Fatal(format!("round {round} cannot be applied: {error}")),
    }
}

/// Says that the parameters are there as soon as they are; hashes and writes them beside what begins with them.
async fn step_and_seal<L: Ledger>(
    context: &Arc<Context<L>>,
    before: State,
    settlement: &Settlement,
    selected: Vec<Arc<Contribution>>,
    tasks: &mpsc::Sender<Done>,
) -> Result<(State, Duration), ApplyError> {
    let (round, parent) = (settlement.round, settlement.parent);
    let owned = context.clone();
    let step = move |threads| (apply::step(&owned, &before, round, &selected, threads), selected);
    let ((parameters, selected), stepping) = context.compute.run_wide(step).await;
    let parameters = Arc::new(parameters?);
    // The loop is gone only when the node is.
    let _ = tasks.send(Done::Stepped(Stepped { round, parent, parameters: parameters.clone() })).await;
    let decision = Decision { round, parent, hashes: settlement.hashes };
    let owned = context.clone();
    let seal = move |threads| apply::seal(&owned, parameters, &decision, &selected, threads);
    let (state, sealing) = context.compute.run_beside(seal).await;
    Ok((state?, stepping + sealing))
}

/// However long it takes; after the first try in vain the node says that it waits for others.
async fn obtain_selected<L: Ledger>(
    context: &Arc<Context<L>>,
    (round, digest): (Round, Digest),
    hints: &[Hint],
    tasks: &mpsc::Sender<Done>,
) -> Result<Contribution, ObtainError> {
    loop {
        match obtain(context, digest, None, hints, context.patience).await {
            Err(ObtainError::Fetch(why)) => {
                tracing::warn!(node = %context.name, %why, "a selected contribution is still missing");
                // The loop is gone only when the node is.
                let _ = tasks.send(Done::Patience(round)).await;
                tokio::time::sleep(RETRY).await;
            }
            had => return had.map(|(contribution, _)| contribution),
        }
    }
}

/// Catches up, however often it takes.
pub(super) async fn join<L: Ledger>(context: Arc<Context<L>>, mut mine: Vec<State>, target: Tip) -> Done {
    loop {
        match catch_up(&context, &mine, target.round, target.head).await {
            Ok(caught) => return Done::Joined(Box::new(caught)),
            // A state of this folder may be the wrong one; without any of them it is this machine that computes wrong.
            Err(JoinError::Apply(error @ ApplyError::OtherRoot { .. })) if !mine.is_empty() => {
                tracing::error!(node = %context.name, %error, "catching up again, from others' states alone");
                mine.clear();
            }
            Err(error) if !error.is_transient() => return Done::Fatal(format!("cannot catch up: {error}")),
            Err(error) => {
                tracing::warn!(node = %context.name, %error, "catching up again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A round to score.
pub(super) struct ScoreJob {
    /// What it offered.
    pub collection: Collection,
    /// The state before it.
    pub before: State,
    /// What is decoded.
    pub held: BTreeMap<Uid, Arc<Contribution>>,
    /// What the electorate has applied: if it is not held here, that is no fault of its author.
    pub chosen: UidSet,
    /// Cancelled with the node.
    pub life: Cancel,
}

/// Scores a round's contributions, then puts the weights on chain.
pub(super) async fn score<L: Ledger>(
    context: Arc<Context<L>>,
    validator: Arc<Mutex<Validator>>,
    job: ScoreJob,
) -> Done {
    let round = job.collection.round;
    // In the order of rounds: ratings take no round after a later one.
    let turn = context.scoring.lock().await;
    let owned = context.clone();
    let work = move || {
        let mut validator = validator.lock().unwrap_or_else(PoisonError::into_inner);
        let weights = validator.score(&owned, &job);
        (weights, Arc::new(validator.ratings().clone()))
    };
    let ((weights, ratings), took) = context.compute.run(work).await;
    drop(turn);
    match weights {
        Ok(weights) if !weights.is_empty() => {
            // Weights that a round's length has not brought on chain are old.
            let best = context.ledger.heads().borrow().best;
            let until = BlockNumber(best.0.saturating_add(context.run.clock.length));
            context.submit.set_weights(weights, until).await;
        }
        Ok(_) => {}
        Err(error) => tracing::error!(node = %context.name, %round, %error, "not scored"),
    }
    Done::Scored { round, took, ratings: Some(ratings) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_contribution_waits_for_its_bases_head_and_is_none_without_it() {
        let head = Digest::of(b"head");
        let teller = watch::Sender::new(None);
        let (mut early, mut late, mut never) =
            (teller.subscribe(), teller.subscribe(), watch::Sender::new(None).subscribe());
        assert!(head_of(&mut early).now_or_never().is_none(), "nobody has told it");
        teller.send_replace(Some(head));
        drop(teller);
        for base in [&mut early, &mut late] {
            assert_eq!(head_of(base).now_or_never().unwrap().unwrap(), head);
        }
        assert!(matches!(head_of(&mut never).now_or_never(), Some(Err(TrainFault::NoBase))));
    }
}
