//! Brings what a node signs into blocks: contributions, votes, weights.
//!
//! What is signed, handed over, sent again and given up is decided by [`covey_round::submit`], without any I/O. Here is
//! its shell: one task a node, `task`, owns that state machine, asks the chain and writes the journal. [`SubmitHandle`]
//! (`orders`) is how the rest of the node wishes something on chain. `log` says what became of it.

mod log;
mod orders;
mod task;
#[cfg(test)]
mod tests;

pub use orders::{Orders, Signer, SubmitHandle};

use crate::chain::{Ledger, LedgerError};
use crate::disk::Journal;
use covey_proto::BlockNumber;
use covey_proto::record::{self, Record};
use covey_round::clock::RoundBlocks;
use covey_round::submit::{MemorisedContribution, Memory, SignedCall, Submitter};
use task::Task;

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
