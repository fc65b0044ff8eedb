//! Calls on their way into a block: one nonce at a time, the same bytes again and again, and no longer than they matter.
//!
//! A call gets its nonce, is journalled and is handed over in one turn: whatever is signed after it has a later nonce, so
//! that nothing can take its place and records come into the slot in the order of their turns. Should a nonce be lost all
//! the same (another process with this hotkey, a crash), the record is signed anew, but only once the chain shows that
//! the old call cannot come any more.

use super::context::Context;
use super::disk::Journal;
use crate::chain::{Call, Fate, Ledger, LedgerError, SignedCall};
use covey_proto::BlockNumber;
use covey_proto::record::{self, Record};
use covey_round::clock::RoundBlocks;
use std::sync::Arc;
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

/// Puts a record on chain: hands over its call, the journalled one if there is one, and goes on beside until it stands at
/// a final block or block `until` is final.
pub(super) async fn put<L: Ledger>(context: &Arc<Context<L>>, wish: Wish, until: BlockNumber) {
    let call = {
        let _turn = context.submitting.lock().await;
        match wish.journalled(&context.journal.read()) {
            Some(call) => {
                hand_over(context, &call, until).await;
                Some(call)
            }
            None => sign_in_turn(context, wish, until).await,
        }
    };
    if let Some(call) = call {
        tokio::spawn(insist(context.clone(), wish, call, until));
    }
}

/// Signs a record, journals its call, hands it over; for who holds the turn. None if it is too late or cannot be.
async fn sign_in_turn<L: Ledger>(context: &Arc<Context<L>>, wish: Wish, until: BlockNumber) -> Option<SignedCall> {
    let call = sign(context, Call::Commit(wish.record(context).to_bytes()), until).await?;
    if let Wish::Contribution(mine) = wish {
        let (owned, text) = (context.clone(), hex::encode(&call.0));
        let note = move |journal: &mut Journal| {
            if let Some(made) = journal.contribution.as_mut().filter(|made| made.round == mine.round) {
                made.call = Some(text);
            }
        };
        // Not behind heavy work: whoever wants a nonce waits for this turn.
        let noted = tokio::task::spawn_blocking(move || owned.journal.change(note)).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::error!(node = %context.name, round = %mine.round, ?noted, "no commitment: the journal is not written");
            return None;
        }
    }
    hand_over(context, &call, until).await;
    Some(call)
}

/// Signs a call that needs no journal, hands it over in its turn, and goes on beside until it has been done or block
/// `until` is final. A crash of this process may lose it.
pub(super) async fn sign_and_submit<L: Ledger>(context: &Arc<Context<L>>, call: Call, until: BlockNumber) {
    if let Some(signed) = submit_in_turn(context, &call, until).await {
        tokio::spawn(see_through(context.clone(), call, signed, until));
    }
}

async fn submit_in_turn<L: Ledger>(context: &Context<L>, call: &Call, until: BlockNumber) -> Option<SignedCall> {
    let _turn = context.submitting.lock().await;
    let signed = sign(context, call.clone(), until).await?;
    hand_over(context, &signed, until).await;
    Some(signed)
}

/// Hands a call over again at every block until it is in a final one, and signs it anew where another call has its nonce
/// for good: done once, however often it was sent.
async fn see_through<L: Ledger>(context: Arc<Context<L>>, call: Call, mut signed: SignedCall, until: BlockNumber) {
    let mut heads = context.ledger.heads();
    while heads.changed().await.is_ok() {
        let now = *heads.borrow_and_update();
        match context.ledger.fate(&signed, now.finalised).await {
            Ok(Fate::Done) => return,
            Ok(Fate::Failed(why)) => {
                tracing::warn!(node = %context.name, %why, "a call failed on chain");
                return;
            }
            Ok(Fate::Lost) if now.best < until => {
                tracing::warn!(node = %context.name, "another call took the nonce: signing again");
                let Some(anew) = submit_in_turn(&context, &call, until).await else { return };
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
    match context.ledger.submit(&SignedCall(bytes)).await {
        Err(error @ (LedgerError::Unreachable(_) | LedgerError::Disagreement(_))) => Err(error),
        // Refused: it is in a block, most likely.
        _ => Ok(()),
    }
}

async fn sign<L: Ledger>(context: &Context<L>, call: Call, until: BlockNumber) -> Option<SignedCall> {
    // A node without a key takes no part, and wishes for nothing.
    let pair = context.pair.as_ref()?;
    loop {
        match context.ledger.sign(pair, call.clone()).await {
            Ok(call) => return Some(call),
            Err(error) => wait_or_give_up(context, &error, until).await?,
        }
    }
}

async fn hand_over<L: Ledger>(context: &Context<L>, call: &SignedCall, until: BlockNumber) -> Option<()> {
    loop {
        match context.ledger.submit(call).await {
            Ok(()) => return Some(()),
            Err(error) => wait_or_give_up(context, &error, until).await?,
        }
    }
}

/// A chain that does not answer is asked again, until what was wanted is of no use any more.
async fn wait_or_give_up<L: Ledger>(context: &Context<L>, error: &LedgerError, until: BlockNumber) -> Option<()> {
    let late = context.ledger.heads().borrow().best >= until;
    if late || !matches!(error, LedgerError::Unreachable(_)) {
        // Refused: sent before a crash and included since, most often.
        tracing::info!(node = %context.name, %error, "not submitted");
        return None;
    }
    tracing::warn!(node = %context.name, %error, "submitting again");
    tokio::time::sleep(RETRY).await;
    Some(())
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
        // At one final block the nonce is used and the slot does not have it.
        if matches!(context.ledger.is_spent(&call, now.finalised).await, Ok(true)) {
            tracing::warn!(node = %context.name, ?wish, "another call took the nonce: signing again");
            let _turn = context.submitting.lock().await;
            call = sign_in_turn(&context, wish, until).await.unwrap_or(call);
        } else if let Err(error) = context.ledger.submit(&call).await {
            tracing::debug!(node = %context.name, %error, "still on its way, or in a block that is not final");
        }
    }
}
