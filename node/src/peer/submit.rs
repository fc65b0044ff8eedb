//! Calls on their way into a block: one nonce at a time, the same bytes again and again, and no longer than they matter.
//!
//! A call gets its nonce, is journalled and is handed over in one turn: whatever is signed after it has a later nonce, so
//! that nothing can take its place and records come into the slot in the order of their turns. Should a nonce be lost all
//! the same (another process with this hotkey, a crash), the record is signed anew, but only once the chain shows that
//! the old call cannot come any more.

use super::context::Context;
use crate::chain::{Call, Fate, Ledger, LedgerError, SignedCall};
use crate::disk::Journal;
use covey_proto::record::{self, Record};
use covey_proto::{BlockNumber, HotkeyPair, Uid};
use covey_round::clock::RoundBlocks;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two tries while the chain does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What a node wants to stand in its slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// The journalled contribution, and with both roles the last vote again: the slot is one.
    Contribution(record::Contribution),
    /// A vote.
    Vote(record::Vote),
}

impl Wish {
    /// What is committed for it.
    fn record<L>(&self, context: &Context<L>) -> Record {
        let mut record = Record::of(context.run_id);
        match self {
            Wish::Contribution(mine) => {
                record.contribution = Some(*mine);
                record.vote = last_vote(&context.journal.read());
            }
            Wish::Vote(vote) => record.vote = Some(*vote),
        }
        record
    }

    fn is_in(&self, record: &Record) -> bool {
        match self {
            Wish::Contribution(mine) => record.contribution == Some(*mine),
            Wish::Vote(vote) => record.vote == Some(*vote),
        }
    }

    /// The call that was signed for it before a crash.
    fn journalled(&self, journal: &Journal) -> Option<SignedCall> {
        let Wish::Contribution(mine) = self else { return None };
        let made = journal.contribution.as_ref().filter(|made| made.round == mine.round)?;
        // Damaged digits: it is signed anew.
        hex::decode(made.call.as_ref()?).ok().map(SignedCall)
    }
}

/// The vote in the journal.
pub(super) fn last_vote(journal: &Journal) -> Option<record::Vote> {
    let bytes = hex::decode(journal.record.as_ref()?).ok()?;
    Record::from_bytes(&bytes).ok()?.vote
}

/// What is to be signed.
#[derive(Clone, Debug)]
enum Wanted {
    /// A record, whose call is journalled.
    Record(Wish),
    /// Weights, which need no journal.
    Weights {
        /// Shares by uid.
        row: Vec<(Uid, u16)>,
        /// Which of this node's they are: older ones are of no use.
        generation: u64,
    },
}

impl Wanted {
    /// Whether nothing newer is wanted in its place.
    fn is_newest<L>(&self, context: &Context<L>) -> bool {
        match self {
            Wanted::Record(_) => true,
            Wanted::Weights { generation, .. } => context.weights.load(Ordering::Acquire) == *generation,
        }
    }
}

/// Why a turn brought nothing.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("block {best} is there, and from {until} on it is of no use")]
    Late { best: BlockNumber, until: BlockNumber },
    #[error("newer weights are on their way")]
    Outdated,
    #[error("the journal is not written: {0}")]
    Journal(String),
    #[error("a node without a hotkey signs nothing")]
    NoHotkey,
}

/// Puts a record on chain: hands over its call, the journalled one if there is one, and goes on beside until it stands at
/// a final block or block `until` is final.
pub(super) async fn put<L: Ledger>(context: &Arc<Context<L>>, wish: Wish, until: BlockNumber) {
    let journalled = wish.journalled(&context.journal.read()).filter(|call| is_own(context, call));
    if let Some(call) = hand_in(context, &Wanted::Record(wish), journalled, until).await {
        tokio::spawn(insist(context.clone(), wish, call, until));
    }
}

/// Whether this node's hotkey signed a call: a folder may have been another's.
fn is_own<L: Ledger>(context: &Context<L>, call: &SignedCall) -> bool {
    let author = context.ledger.author(call).ok();
    author.is_some() && author == context.pair.as_ref().map(HotkeyPair::hotkey)
}

/// Signs what is wanted, unless it is signed already, and hands it over: one try a turn, so that whoever waits for a
/// chain that does not answer holds up nobody. None if it is not signed: it is too late, or cannot be.
async fn hand_in<L: Ledger>(
    context: &Arc<Context<L>>,
    wanted: &Wanted,
    mut call: Option<SignedCall>,
    until: BlockNumber,
) -> Option<SignedCall> {
    let tried = take_turn(context, wanted, &mut call, until).await;
    hand_in_again(context, wanted, call, tried, until).await
}

/// The same after a first try.
async fn hand_in_again<L: Ledger>(
    context: &Arc<Context<L>>,
    wanted: &Wanted,
    mut call: Option<SignedCall>,
    mut tried: Result<(), TurnError>,
    until: BlockNumber,
) -> Option<SignedCall> {
    while let Err(error) = tried {
        if wait_or_give_up(context, &error, until).await.is_none() {
            break;
        }
        tried = take_turn(context, wanted, &mut call, until).await;
    }
    call
}

/// One try. The turn is over with it, whatever came of it.
async fn take_turn<L: Ledger>(
    context: &Arc<Context<L>>,
    wanted: &Wanted,
    call: &mut Option<SignedCall>,
    until: BlockNumber,
) -> Result<(), TurnError> {
    let _turn = context.submitting.lock().await;
    // The turn may have been long in coming.
    let best = context.ledger.heads().borrow().best;
    if best >= until {
        return Err(TurnError::Late { best, until });
    }
    let signed = match call {
        // It has a nonce: what is signed after it comes after it.
        Some(signed) => signed,
        None if !wanted.is_newest(context) => return Err(TurnError::Outdated),
        None => call.insert(sign(context, wanted).await?),
    };
    Ok(context.ledger.submit(signed).await?)
}

/// Signs what is wanted, and journals a contribution's call; for who holds the turn.
async fn sign<L: Ledger>(context: &Arc<Context<L>>, wanted: &Wanted) -> Result<SignedCall, TurnError> {
    let pair = context.pair.as_ref().ok_or(TurnError::NoHotkey)?;
    let wish = match wanted {
        Wanted::Record(wish) => wish,
        Wanted::Weights { row, .. } => return Ok(context.ledger.sign(pair, Call::SetWeights(row.clone())).await?),
    };
    let call = context.ledger.sign(pair, Call::Commit(wish.record(context).to_bytes())).await?;
    let Wish::Contribution(mine) = *wish else { return Ok(call) };
    let (owned, text) = (context.clone(), hex::encode(&call.0));
    let note = move |journal: &mut Journal| {
        if let Some(made) = journal.contribution.as_mut().filter(|made| made.round == mine.round) {
            made.call = Some(text);
        }
    };
    // Not behind heavy work: whoever wants a nonce waits for this turn.
    let noted = tokio::task::spawn_blocking(move || owned.journal.change(note)).await;
    match noted {
        Ok(Ok(())) => Ok(call),
        Ok(Err(error)) => Err(TurnError::Journal(error.to_string())),
        Err(error) => Err(TurnError::Journal(error.to_string())),
    }
}

/// Signs weights, which need no journal, hands them over in their turn, and goes on beside until they have been set,
/// newer ones are wanted, or block `until` is final. A crash of this process may lose them.
pub(super) async fn set_weights<L: Ledger>(context: &Arc<Context<L>>, row: Vec<(Uid, u16)>, until: BlockNumber) {
    let generation = context.weights.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
    let wanted = Wanted::Weights { row, generation };
    let mut call = None;
    let tried = take_turn(context, &wanted, &mut call, until).await;
    let owned = context.clone();
    tokio::spawn(async move {
        if let Some(call) = hand_in_again(&owned, &wanted, call, tried, until).await {
            see_through(owned, wanted, call, until).await;
        }
    });
}

/// Hands a call over again at every block until it is in a final one, and signs it anew where another call has its nonce
/// for good: done once, however often it was sent. Ends when something newer is wanted.
async fn see_through<L: Ledger>(context: Arc<Context<L>>, wanted: Wanted, mut signed: SignedCall, until: BlockNumber) {
    let mut heads = context.ledger.heads();
    while heads.changed().await.is_ok() {
        let now = *heads.borrow_and_update();
        let fate = context.ledger.fate(&signed, now.finalised).await;
        if !wanted.is_newest(&context) {
            return;
        }
        match fate {
            Ok(Fate::Done) => return,
            Ok(Fate::Failed(why)) => {
                tracing::warn!(node = %context.name, %why, "a call failed on chain");
                return;
            }
            Ok(Fate::Lost) if now.best < until => {
                tracing::warn!(node = %context.name, "a call can come no more: signing again");
                let Some(anew) = hand_in(&context, &wanted, None, until).await else { return };
                signed = anew;
            }
            Ok(Fate::Lost) => return,
            _ if now.finalised >= until => return,
            Ok(Fate::Open) if now.best < until => {
                if let Err(error) = context.ledger.submit(&signed).await {
                    tracing::debug!(node = %context.name, %error, "still on its way, or in a block that is not final");
                }
            }
            Ok(Fate::Open) => {}
            Err(error) => tracing::debug!(node = %context.name, %error, "not known what became of a call"),
        }
    }
}

/// Hands over what the last life signed, before this one signs anything: another call would get its nonce.
///
/// # Errors
/// The chain does not answer.
pub(super) async fn resume<L: Ledger>(context: &Context<L>) -> Result<(), LedgerError> {
    let Some(made) = context.journal.read().contribution else { return Ok(()) };
    let Ok(blocks) = RoundBlocks::of(&context.run, made.round) else { return Ok(()) };
    let in_time = context.ledger.heads().borrow().best < blocks.commit;
    let Some(bytes) = made.call.filter(|_| in_time).and_then(|call| hex::decode(call).ok()) else { return Ok(()) };
    let call = SignedCall(bytes);
    if !is_own(context, &call) {
        tracing::warn!(node = %context.name, round = %made.round, "the journalled call is another hotkey's: it is not sent");
        return Ok(());
    }
    match context.ledger.submit(&call).await {
        Err(error @ (LedgerError::Unreachable(_) | LedgerError::Disagreement(_))) => Err(error),
        // Refused: it is in a block, most likely.
        _ => Ok(()),
    }
}

/// What may pass is waited for, until what was wanted is of no use any more.
async fn wait_or_give_up<L: Ledger>(context: &Context<L>, error: &TurnError, until: BlockNumber) -> Option<()> {
    let mut heads = context.ledger.heads();
    let late = heads.borrow().best >= until;
    match error {
        TurnError::Ledger(LedgerError::Unreachable(_)) if !late => {
            tracing::warn!(node = %context.name, %error, "submitting again");
            tokio::time::sleep(RETRY).await;
            Some(())
        }
        TurnError::Ledger(LedgerError::NotYet { at, .. }) if !late && *at < until => {
            tracing::info!(node = %context.name, %error, "submitting then");
            // What is signed now is in the next block at the earliest.
            heads.wait_for(|heads| heads.best.0.saturating_add(1) >= at.0).await.ok().map(drop)
        }
        TurnError::Ledger(LedgerError::Unfit(_) | LedgerError::Disagreement(_)) | TurnError::Journal(_) => {
            tracing::error!(node = %context.name, %error, "not submitted");
            None
        }
        // Refused: sent before a crash and included since, most often.
        _ => {
            tracing::info!(node = %context.name, %error, "not submitted");
            None
        }
    }
}

/// Hands a call over again at every block, until what it sets stands in this node's slot at a final block, or until
/// block `until` is final and it is too late. Where another call has its nonce for good, signs another.
async fn insist<L: Ledger>(context: Arc<Context<L>>, wish: Wish, mut call: SignedCall, until: BlockNumber) {
    let mut heads = context.ledger.heads();
    while heads.changed().await.is_ok() {
        let now = *heads.borrow_and_update();
        if now.finalised >= until {
            return;
        }
        let Ok(view) = context.ledger.view(now.finalised).await else { continue };
        let slot = context.hotkey().and_then(|hotkey| view.slots.get(&hotkey));
        if slot.and_then(|slot| Record::from_bytes(&slot.bytes).ok()).is_some_and(|record| wish.is_in(&record)) {
            return;
        }
        if now.best >= until {
            continue;
        }
        match context.ledger.fate(&call, now.finalised).await {
            Ok(Fate::Lost) => {
                tracing::warn!(node = %context.name, ?wish, "a call can come no more: signing again");
                call = hand_in(&context, &Wanted::Record(wish), None, until).await.unwrap_or(call);
            }
            // The same call again would fail again, and cost as much.
            Ok(Fate::Failed(why)) => {
                tracing::warn!(node = %context.name, ?wish, %why, "a commitment failed on chain");
                return;
            }
            Ok(Fate::Open) => {
                if let Err(error) = context.ledger.submit(&call).await {
                    tracing::debug!(node = %context.name, %error, "still on its way, or in a block that is not final");
                }
            }
            // A later record has taken its place.
            Ok(Fate::Done) => {}
            Err(error) => tracing::debug!(node = %context.name, %error, "not known what became of a call"),
        }
    }
}
