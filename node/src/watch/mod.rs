//! An observer: follows a run from the chain and the topics alone, with neither model nor data, and says what happens.
//!
//! `rounds` says what the chain decides; here the network is listened to, and headers are fetched from whoever has them.
//! An observer judges and forwards announcements as a miner does: it costs its neighbours nothing.

mod lines;
mod rounds;

pub use rounds::{Rounds, VouchedHead};

use crate::chain::{Heads, Ledger, LedgerError};
use crate::peer::collect::{Inbox, Incoming, Ruling, verdict};
use covey_gossip::{Events, FetchError, Handle, Hint, Verdict};
use covey_proto::blob::{DecodeError, HEADER_BYTES_MAX, Header};
use covey_proto::record::UidSet;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use covey_round::select::SelectError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Between two questions for announcements that gossip has not brought.
const PULL_EACH: Duration = Duration::from_secs(3);
/// How long a header is looked for: until votes vouch for the next one it is news.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two tries at a chain that does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// What an observer tells: one at a time, in the order in which it came to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// A round's anchor is final: who takes part.
    Opened {
        /// The round.
        round: Round,
        /// Its first block.
        first: BlockNumber,
        /// Its last block.
        last: BlockNumber,
        /// Members of the subnet.
        members: usize,
        /// Those of them that may vote.
        validators: usize,
    },
    /// The commit deadline is final: who committed.
    Committed {
        /// The round.
        round: Round,
        /// Who, rising.
        uids: Vec<Uid>,
    },
    /// A committed contribution was revealed.
    Announced {
        /// The round.
        round: Round,
        /// Whose.
        uid: Uid,
        /// Bytes of all its shards.
        bytes: u64,
        /// Whether gossip brought it; else a peer was asked.
        gossiped: bool,
    },
    /// The vote deadline is final: what is applied.
    Decided {
        /// The round.
        round: Round,
        /// What is applied, by uid rising.
        selected: Vec<Uid>,
        /// What was committed and is not, with the share of the electorate's stake behind it.
        missed: BTreeMap<Uid, f64>,
        /// Why nothing is applied.
        void: Option<String>,
        /// Who voted.
        voted: Vec<Uid>,
        /// Members of the electorate.
        electorate: usize,
        /// Heads of the round before, with the share of the electorate's stake behind each.
        heads: BTreeMap<Digest, f64>,
    },
    /// The header that most stake vouches for has come: a round's outcome.
    Applied {
        /// The round.
        round: Round,
        /// The header's digest.
        head: Digest,
        /// The state root after it.
        root: Digest,
        /// Contributions in it.
        selected: usize,
        /// Whether it says what the chain decided; none if the round was not followed.
        as_decided: Option<bool>,
    },
    /// The header that most stake vouches for was not to be had.
    NoHeader {
        /// The round.
        round: Round,
        /// Its digest.
        head: Digest,
        /// Why not.
        why: String,
    },
    /// Weights on chain, if they have changed.
    Weights {
        /// Validators that have set any.
        validators: usize,
        /// Each uid's share, the mean over validators.
        shares: BTreeMap<Uid, f64>,
    },
    /// A state that the chain has forgotten, or does not give: the rounds up to now are skipped.
    Skipped {
        /// The block.
        block: BlockNumber,
        /// Why.
        why: String,
    },
}

/// Why an observer stops.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The chain's states do not fit the run.
    #[error("the chain's answers do not fit the run: {0}")]
    Contradiction(#[from] SelectError),
    /// Two endpoints of the chain say different things.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The chain's client ended.
    #[error("the chain is gone")]
    ChainGone,
    /// The network half ended.
    #[error("the network ended and could not be rebuilt")]
    NetworkGone,
}

/// An observer of one run.
pub struct Watch<L> {
    run: Arc<Run>,
    run_id: RunId,
    ledger: L,
    network: Handle,
    rounds: Rounds,
    inbox: Inbox,
    /// Whose reveals of the round have come.
    revealed: (Round, UidSet),
    /// The block whose state was not to be had last: told of once.
    skipped: Option<BlockNumber>,
    weights: BTreeMap<Uid, f64>,
    headers: JoinSet<News>,
}

impl<L: Ledger> Watch<L> {
    /// Watches `run` over a chain and a network.
    pub fn new(run: Arc<Run>, ledger: L, network: Handle) -> Watch<L> {
        Watch {
            run_id: run.id(),
            rounds: Rounds::new(run.clone()),
            run,
            ledger,
            network,
            inbox: Inbox::default(),
            revealed: (Round(0), UidSet::default()),
            skipped: None,
            weights: BTreeMap::new(),
            headers: JoinSet::new(),
        }
    }

    /// Tells what happens, until it cannot go on. Dropping it ends it.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub async fn follow(mut self, mut events: Events, mut tell: impl FnMut(News)) -> Result<(), WatchError> {
        let mut heads = self.ledger.heads();
        let mut pull = tokio::time::interval(PULL_EACH);
        pull.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heads.mark_changed();
        loop {
            tokio::select! {
                changed = heads.changed() => {
                    changed.map_err(|_| WatchError::ChainGone)?;
                    let now = *heads.borrow_and_update();
                    self.on_heads(now, &mut tell).await?;
                }
                event = events.next() => match event {
                    Some(covey_gossip::Event::Announcement { bytes, from, ticket }) => {
                        self.on_announcement(Incoming { bytes, from, ticket: Some(ticket) }, &mut tell);
                    }
                    Some(_) => {}
                    None => return Err(WatchError::NetworkGone),
                },
                Some(Ok(news)) = self.headers.join_next() => tell(news),
                _ = pull.tick() => self.pull(&mut tell).await,
            }
        }
    }

    /// Reads every state that is final and needed.
    async fn on_heads(&mut self, heads: Heads, tell: &mut impl FnMut(News)) -> Result<(), WatchError> {
        while let Some(block) = self.rounds.needed(heads.finalised) {
            match self.ledger.view(block).await {
                Ok(view) => {
                    let view = Arc::new(view);
                    self.network.set_members(view.clone());
                    let (news, vouched) = self.rounds.learn(view)?;
                    news.into_iter().for_each(&mut *tell);
                    self.rule_on_early(tell);
                    if let Some(vouched) = vouched {
                        self.look_for(vouched);
                        self.note_weights(tell).await;
                    }
                }
                Err(LedgerError::Unreachable(error)) => {
                    tracing::warn!(error, "the chain does not answer: asking again");
                    tokio::time::sleep(RETRY).await;
                    return Ok(());
                }
                Err(error @ LedgerError::Disagreement(_)) => return Err(WatchError::Ledger(error)),
                Err(error) => {
                    if self.skipped.replace(block) != Some(block) {
                        tell(News::Skipped { block, why: error.to_string() });
                    }
                    self.rounds.forget();
                    // The round under way now may be as old as the state that is gone: wait for the next block.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn rule_on_early(&mut self, tell: &mut impl FnMut(News)) {
        for incoming in self.inbox.take() {
            self.on_announcement(incoming, tell);
        }
    }

    fn on_announcement(&mut self, mut incoming: Incoming, tell: &mut impl FnMut(News)) {
        let (next, gossiped) = (self.rounds.round(), incoming.ticket.is_some());
        let inline_max = self.run.compress.inline_max;
        let ruling = Inbox::rule(self.run_id, inline_max, self.rounds.offered(), next, &incoming);
        if let Some(verdict) = verdict(&ruling)
            && let Some(ticket) = incoming.ticket.take()
        {
            self.network.judge(ticket, verdict);
        }
        match ruling {
            Ruling::Accept(accepted) => {
                let manifest = &accepted.announcement.manifest;
                let (round, uid) = (manifest.round, manifest.uid);
                if self.revealed.0 != round {
                    self.revealed = (round, UidSet::default());
                }
                if !self.revealed.1.contains(uid) {
                    self.revealed.1.insert(uid);
                    let bytes = manifest.shards.iter().map(|shard| shard.size).sum();
                    self.network.remember(round, uid, accepted.bytes);
                    tell(News::Announced { round, uid, bytes, gossiped });
                }
            }
            Ruling::Wait => {
                for mut late in self.inbox.wait(Instant::now(), incoming) {
                    if let Some(ticket) = late.ticket.take() {
                        self.network.judge(ticket, Verdict::Ignore);
                    }
                }
            }
            Ruling::Ignore | Ruling::Reject(_) => {}
        }
    }

    /// Asks for what gossip has not brought.
    async fn pull(&mut self, tell: &mut impl FnMut(News)) {
        let Some((round, offered)) = self.rounds.offered() else { return };
        let have = if self.revealed.0 == round { self.revealed.1 } else { UidSet::default() };
        if offered.keys().all(|uid| have.contains(*uid)) {
            return;
        }
        for (from, bytes) in self.network.announcements(round, have).await {
            self.on_announcement(Incoming { bytes, from, ticket: None }, tell);
        }
    }

    fn look_for(&mut self, vouched: VouchedHead) {
        let (network, run_id) = (self.network.clone(), self.run_id);
        self.headers.spawn(async move {
            match header(&network, run_id, &vouched).await {
                Ok(header) => News::Applied {
                    round: vouched.round,
                    head: vouched.head,
                    root: header.state,
                    selected: header.selected.len(),
                    as_decided: vouched.selected.map(|selected| selected == header.selected),
                },
                Err(error) => News::NoHeader { round: vouched.round, head: vouched.head, why: error.to_string() },
            }
        });
    }

    async fn note_weights(&mut self, tell: &mut impl FnMut(News)) {
        let weights = match self.ledger.weights().await {
            Ok(weights) => weights,
            Err(error) => return tracing::warn!(%error, "no weights"),
        };
        let shares = shares(&weights);
        if shares != self.weights {
            self.weights.clone_from(&shares);
            tell(News::Weights { validators: weights.len(), shares });
        }
    }
}

/// Why there is no header to show.
#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("it is of run {run}, round {round}")]
    Other { run: RunId, round: Round },
}

async fn header(network: &Handle, run_id: RunId, vouched: &VouchedHead) -> Result<Header, HeaderError> {
    let holders: Vec<Hint> = vouched.holders.iter().map(|uid| Hint::Uid(*uid)).collect();
    let fetched = network.fetch_unsized(vouched.head, HEADER_BYTES_MAX as u64, &holders, HEADER_TIMEOUT).await?;
    let header = Header::from_bytes(&fetched)?;
    match (header.run, header.round) == (run_id, vouched.round) {
        true => Ok(header),
        false => Err(HeaderError::Other { run: header.run, round: header.round }),
    }
}

/// The mean over validators of each uid's share.
fn shares(weights: &crate::chain::Weights) -> BTreeMap<Uid, f64> {
    let mut shares: BTreeMap<Uid, f64> = BTreeMap::new();
    for row in weights.values() {
        let total: f64 = row.iter().map(|(_, weight)| f64::from(*weight)).sum();
        for (uid, weight) in row.iter().filter(|_| total > 0.0) {
            *shares.entry(*uid).or_default() += f64::from(*weight) / total / weights.len() as f64;
        }
    }
    shares
}
