//! A ballot's way to the chain: journalled, then handed over.

use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::disk::DiskError;
use crate::peer::context::Context;
use crate::peer::submitting::last_vote;
use covey_proto::record::{Record, Vote};
use covey_round::clock::RoundBlocks;
use covey_round::submit::Wish;
use std::sync::Arc;

/// Journals a vote, then puts it on chain.
///
/// # Errors
/// The journal cannot be written: nothing was handed over.
pub async fn vote<L: Ledger>(context: Arc<Context<L>>, vote: Vote) -> Result<(), DiskError> {
    let vote = journal(&context, vote).await?;
    match RoundBlocks::of(&context.run, vote.round).map(|blocks| blocks.vote) {
        Ok(until) => context.submit.put(Wish::Vote(vote), until).await,
        Err(error) => tracing::error!(node = %context.name, %error, "no vote"),
    }
    Ok(())
}

/// Writes the vote to the journal, unless one of this round and head is there: voted before a crash, its bytes are pinned,
/// and what has been collected since may be less. Gives the vote that stands there then.
async fn journal<L: Ledger>(context: &Arc<Context<L>>, vote: Vote) -> Result<Vote, DiskError> {
    let before = last_vote(&context.journal.read());
    if let Some(before) = before.filter(|before| (before.round, before.head) == (vote.round, vote.head)) {
        return Ok(before);
    }
    let mut record = Record::of(context.run_id);
    record.vote = Some(vote);
    let (owned, text) = (context.clone(), hex::encode(record.to_bytes()));
    let write = move || owned.journal.change(|journal| journal.record = Some(text));
    off_the_queue(write).await?;
    Ok(vote)
}
