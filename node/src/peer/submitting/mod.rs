//! Brings what a node signs into blocks: contributions, votes, weights.
//!
//! What is signed, handed over, sent again and given up is decided by [`covey_round::submit`], without any I/O. Here is
//! its shell: one task a node, `task`, owns that state machine, asks the chain and writes the journal. [`SubmitHandle`]
//! is how the rest of the node wishes something on chain. `log` says what became of it.

mod log;
mod task;
#[cfg(test)]
mod tests;

use crate::chain::{Ledger, LedgerError};
use crate::disk::{Journal, JournalFile};
use covey_proto::record::{self, Record};
use covey_proto::run::Run;
use covey_proto::{BlockNumber, HotkeyPair, RunId, Uid};
use covey_round::clock::RoundBlocks;
use covey_round::submit::{MemorisedContribution, Memory, SignedCall, Submitter, Wish};
use std::sync::Arc;
use task::Task;
use tokio::sync::{mpsc, oneshot};

/// Wishes that wait for the task: it takes them at once, so that these are those of one instant.
const ORDERS_MAX: usize = 16;

/// What signing takes.
pub struct Signer<L> {
    /// The node's name, for people.
    pub name: Arc<str>,
    /// The run: its clock says when a journalled contribution is too late.
    pub run: Arc<Run>,
    /// Its name, which every record bears.
    pub run_id: RunId,
    /// The chain.
    pub ledger: Arc<L>,
    /// Where a contribution's call is written before it is handed over.
    pub journal: Arc<JournalFile>,
    /// The key; a node without one signs nothing.
    pub pair: Option<Arc<HotkeyPair>>,
}

/// A wish, and whom to tell when its first try is over.
struct Order {
    wish: Wish,
    until: BlockNumber,
    tried: oneshot::Sender<()>,
}

/// What was wished and not taken by the task yet: [`start`] needs it.
pub struct Orders(mpsc::Receiver<Order>);

/// Wishes things on chain. Cheap to clone.
#[derive(Clone)]
pub struct SubmitHandle(mpsc::Sender<Order>);

impl SubmitHandle {
    /// A handle, and what [`start`] needs to hear from it. Until then wishes wait.
    pub fn new() -> (SubmitHandle, Orders) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (SubmitHandle(sender), Orders(receiver))
    }

    /// Wishes a record on chain. A contribution must be in the journal by now, and a vote too: after a crash nothing else
    /// knows of them. Returns when the chain has its call or the wish is given up; it is looked after until it stands at a
    /// final block or block `until` is final.
    ///
    /// Dropping the future withdraws nothing that the task has taken.
    pub async fn put(&self, wish: Wish, until: BlockNumber) {
        let (tried, over) = oneshot::channel();
        // The task is gone only when the node is.
        if self.0.send(Order { wish, until, tried }).await.is_ok() {
            let _ = over.await;
        }
    }

    /// Wishes weights on chain, in place of all that were wished before. Returns after the first try: a subnet may take
    /// them many blocks later. A crash of this process may lose them.
    pub async fn set_weights(&self, row: Vec<(Uid, u16)>, until: BlockNumber) {
        self.put(Wish::Weights(row), until).await;
    }
}

/// Hands over what the last life of this node signed, before this one signs anything; gives the task that takes the
/// wishes from then on. It ends when the chain is gone, or all handles are, or when it is dropped: nothing runs beside it.
///
/// # Errors
/// The chain does not answer.
pub async fn start<L: Ledger>(
    signer: Signer<L>,
    orders: Orders,
) -> Result<impl Future<Output = ()> + Send + use<L>, LedgerError> {
    let best = signer.ledger.heads().borrow().best;
    let hotkey = signer.pair.as_ref().map(|pair| pair.hotkey());
    let submitter = Submitter::new(signer.run_id, hotkey, remembered(&signer, best));
    if let Some(call) = submitter.to_resume(best) {
        match signer.ledger.submit(call).await {
            Err(error @ (LedgerError::Unreachable(_) | LedgerError::Disagreement(_))) => return Err(error),
            Err(error) => tracing::debug!(node = %signer.name, %error, "a journalled call is in a block, most likely"),
            Ok(()) => {}
        }
    }
    Ok(Task::new(signer, submitter, orders).run())
}

/// The vote in the journal.
pub(super) fn last_vote(journal: &Journal) -> Option<record::Vote> {
    let bytes = hex::decode(journal.record.as_ref()?).ok()?;
    Record::from_bytes(&bytes).ok()?.vote
}

/// What the journal says, as the state machine wants it.
fn remembered<L: Ledger>(signer: &Signer<L>, best: BlockNumber) -> Memory {
    let journal = signer.journal.read();
    let vote = last_vote(&journal);
    let Some(made) = journal.contribution else { return Memory { vote, contribution: None } };
    let Ok(blocks) = RoundBlocks::of(&signer.run, made.round) else { return Memory { vote, contribution: None } };
    // Digits that are none: it is signed anew.
    let call = made.call.and_then(|digits| hex::decode(digits).ok()).map(SignedCall);
    let call = call.map(|call| {
        let author = signer.ledger.author(&call).ok();
        if best < blocks.commit && author != signer.pair.as_ref().map(|pair| pair.hotkey()) {
            let (node, round) = (&signer.name, made.round);
            tracing::warn!(%node, %round, "the journalled call is another hotkey's: it is not sent");
        }
        (call, author)
    });
    let contribution = record::Contribution { round: made.round, manifest: made.manifest };
    Memory { vote, contribution: Some(MemorisedContribution { contribution, until: blocks.commit, call }) }
}
