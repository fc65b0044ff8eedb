//! An observer: follows a run from the chain and the topics alone, with neither model nor data, and says what happens.
//!
//! `rounds` says what the chain decides; here the network is listened to, and headers are fetched from whoever has them.
//! An observer judges and forwards announcements as a miner does: it costs its neighbours nothing.

mod lines;
mod rounds;

pub use rounds::{Rounds, VouchedHead};

use crate::chain::{Heads, Ledger, LedgerError};
use crate::peer::{Announcement, Received, read_announcement};
use covey_gossip::{Events, FetchError, Handle, Hint, PeerKey, Verdict};
use covey_proto::blob::{DecodeError, HEADER_BYTES_MAX, Header};
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Round, RunId, Uid};
use covey_round::gather::{Action, Announced, Event, Gatherer, Patience};
use covey_round::select::SelectError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What gossip has not brought is asked for after three seconds, and again after as long. Nothing waits for it: an observer
/// has no vote.
const PATIENCE: Patience = Patience { pull_after: Duration::from_secs(3), give_up_after: Duration::MAX };
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
    gatherer: Gatherer<PeerKey, Received>,
    /// The instant from which the gatherer counts time.
    start: Instant,
    /// The round whose announcements are gathered.
    opened: Option<Round>,
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
            gatherer: Gatherer::new(PATIENCE),
            start: Instant::now(),
            opened: None,
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
                        match self.read(bytes, from) {
                            Some(Announced { round, uid, digest, from, body }) => {
                                let body = body.with_ticket(ticket);
                                let announced = Announced { round, uid, digest, from, body };
                                self.gather(Event::Announced(announced), &mut tell).await;
                            }
                            None => ticket.judge(Verdict::Reject),
                        }
                    }
                    Some(_) => {}
                    None => return Err(WatchError::NetworkGone),
                },
                Some(Ok(news)) = self.headers.join_next() => tell(news),
                () = wait(self.start, self.gatherer.deadline()) => self.gather(Event::Tick, &mut tell).await,
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
                    self.open(tell).await;
                    if let Some(vouched) = vouched {
                        self.look_for(vouched);
                        self.note_weights(tell).await;
                    }
                }
                Err(error @ (LedgerError::Unreachable(_) | LedgerError::Unconfirmed { .. })) => {
                    tracing::warn!(%error, "asking again");
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

    /// A round whose commitments have just become final is gathered from now on.
    async fn open(&mut self, tell: &mut impl FnMut(News)) {
        let Some((round, offered)) = self.rounds.offered().filter(|(round, _)| Some(*round) != self.opened) else {
            return;
        };
        let offered = offered.clone();
        self.opened = Some(round);
        self.gather(Event::Opened { round, offered, mine: None }, tell).await;
    }

    fn read(&self, bytes: Vec<u8>, from: PeerKey) -> Option<Announcement> {
        read_announcement(self.run_id, self.run.compress.inline_max, bytes, from).ok()
    }

    /// Tells the gatherer, and does what it says.
    async fn gather(&mut self, event: Event<PeerKey, Received>, tell: &mut impl FnMut(News)) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.gatherer.stand_at(self.rounds.round(), self.rounds.offered().is_some());
            self.gatherer.handle(self.start.elapsed(), event, &mut actions);
            for action in actions {
                match action {
                    Action::Take(announced) => self.take(announced, tell),
                    Action::PassOn(mut announced) => announced.body.judge(Verdict::Accept),
                    Action::Ignore(mut announced) => announced.body.judge(Verdict::Ignore),
                    Action::Refuse(mut announced) => announced.body.judge(Verdict::Reject),
                    Action::Pull { round, have } => {
                        let (mut announcements, mut malformed) = (Vec::new(), BTreeSet::new());
                        for (from, bytes) in self.network.announcements(round, have).await {
                            match self.read(bytes, from) {
                                Some(announcement) => announcements.push(announcement),
                                None => drop(malformed.insert(from)),
                            }
                        }
                        events.push(Event::Pulled { round, announcements, malformed });
                    }
                    Action::Ban(peer) => self.network.ban(peer).await,
                    // An observer has no contribution, and no state machine.
                    Action::TakeOwn { .. } | Action::Tell(_) => {}
                }
            }
        }
    }

    /// Passes on what the chain vouches for, and says so.
    fn take(&mut self, announced: Announcement, tell: &mut impl FnMut(News)) {
        let Announced { round, uid, mut body, .. } = announced;
        let gossiped = body.is_gossiped();
        body.judge(Verdict::Accept);
        let bytes = body.shard_bytes;
        self.network.remember(round, uid, body.bytes);
        tell(News::Announced { round, uid, bytes, gossiped });
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

/// Returns when so much time has passed since `start`; never without a deadline.
async fn wait(start: Instant, deadline: Option<Duration>) {
    match deadline.and_then(|deadline| start.checked_add(deadline)) {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A row counts by its shares, whatever its numbers add up to; one of nothing but zeros counts as a row that gives none.
    #[test]
    fn shares_are_means_over_validators_and_not_over_their_numbers() {
        let row = |weights: &[(u8, u16)]| weights.iter().map(|(uid, weight)| (Uid::from(*uid), *weight)).collect();
        let weights = [(1, row(&[(7, 10), (8, 30)])), (2, row(&[(7, 65_535)])), (3, row(&[(8, 0)]))];
        let shares =
            shares(&weights.map(|(uid, row)| (covey_proto::Hotkey::new([uid; 32]), row)).into_iter().collect());
        let (of_7, of_8) = (shares[&Uid::from(7)], shares[&Uid::from(8)]);
        assert!((of_7 - 1.25 / 3.0).abs() < 1e-12 && (of_8 - 0.75 / 3.0).abs() < 1e-12, "{of_7} {of_8}");
        assert!(super::shares(&crate::chain::Weights::new()).is_empty());
    }
}
