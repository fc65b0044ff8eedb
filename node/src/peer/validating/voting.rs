//! A ballot's way to the chain: journalled, then handed over.

use crate::chain::Ledger;
use crate::disk::{DiskError, Journal};
use crate::peer::context::Context;
use crate::peer::submitting::Wish;
use covey_proto::record::{Record, Vote};
use covey_round::clock::RoundBlocks;
use std::sync::Arc;

/// The vote in the journal.
pub fn last_vote(journal: &Journal) -> Option<Vote> {
    let bytes = hex::decode(journal.record.as_ref()?).ok()?;
    Record::from_bytes(&bytes).ok()?.vote
}

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
    tokio::task::spawn_blocking(write).await.expect("writing the journal does not panic")?;
    Ok(vote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::record::UidSet;
    use covey_proto::{Digest, Round, RunId};

    #[test]
    fn the_last_vote_is_read_from_the_journal_and_damaged_digits_are_none() {
        let vote = Vote { round: Round(3), head: Digest::of(b"head"), ballot: UidSet::default() };
        let record = Record { vote: Some(vote), ..Record::of(RunId(Digest::ZERO)) };
        let journal = |record: &str| Journal { record: Some(record.to_owned()), ..Journal::default() };
        assert_eq!(last_vote(&journal(&hex::encode(record.to_bytes()))), Some(vote));
        assert_eq!(last_vote(&journal("00")), None);
        assert_eq!(last_vote(&journal("no digits")), None);
        assert_eq!(last_vote(&Journal::default()), None);
    }
}
