//! Gathering a round's contributions: which announcements are believed, passed on and fetched, when peers are asked for
//! those that gossip has not brought, and when what is missing is given up.
//!
//! The chain says what was committed; an announcement counts if it is exactly that. One that comes before the commit
//! deadline is final here waits: its author's chain node may be ahead of ours. [`Gatherer`] decides; its shell decodes,
//! judges, fetches, asks, and tells it what came of that. It is generic over what names a peer (`P`) and over what an
//! announcement is beside its name (`A`), which passes through untouched.

use crate::engine;
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// How long an announcement waits for its commit deadline to be final here.
const EARLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Announcements that wait: a run's whole subnet, once.
const EARLY_MAX: usize = 256;
/// Of them, those of one neighbour: no stranger can fill the place of the others' reveals.
const EARLY_PEER_MAX: usize = 32;

/// How long a gatherer waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// What gossip has not brought after this long is asked for, and again as long after each answer.
    pub pull_after: Duration,
    /// What has not come after this long is given up: no vote waits for it. It is still asked for.
    pub give_up_after: Duration,
}

/// An announcement of this run, decoded and hashed, but not held against the chain.
#[derive(Debug)]
pub struct Announced<P, A> {
    /// Its round.
    pub round: Round,
    /// Whose contribution it says it is.
    pub uid: Uid,
    /// The name of what is announced.
    pub digest: Digest,
    /// Who handed it over; seldom its author.
    pub from: P,
    /// The announcement itself.
    pub body: A,
}

/// What has happened.
#[derive(Debug)]
pub enum Event<P, A> {
    /// A round's commitments are final: they are collected from now on. Again for the same round: it begins anew.
    Opened {
        /// The round.
        round: Round,
        /// What was committed in time.
        offered: BTreeMap<Uid, Digest>,
        /// This node's own contribution, which is in its store.
        mine: Option<Digest>,
    },
    /// Gossip brought an announcement.
    Announced(Announced<P, A>),
    /// [`Action::Pull`] has its answers.
    Pulled {
        /// The round that was asked about.
        round: Round,
        /// What peers gave, each peer's in order.
        announcements: Vec<Announced<P, A>>,
        /// Peers that gave bytes which are no announcement of this run.
        malformed: BTreeSet<P>,
    },
    /// [`Action::Take`] or [`Action::TakeOwn`] is over.
    Fetched {
        /// The round.
        round: Round,
        /// Whose contribution.
        uid: Uid,
        /// What came of it.
        outcome: Outcome,
    },
    /// Time has passed: due at [`Gatherer::deadline`], harmless at any time.
    Tick,
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Held: valid, complete, on disk.
    Held,
    /// It does not count, by its author's fault.
    Invalid,
    /// Nobody gave it. It may be announced again, and fetched then.
    NotHad,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action<P, A> {
    /// The chain vouches for it: let it go on to the neighbours, keep it for who asks, have the contribution's bytes and
    /// check them: [`Event::Fetched`].
    Take(Announced<P, A>),
    /// The same once more: let it go on to the neighbours.
    PassOn(Announced<P, A>),
    /// It goes no further, and nobody is to blame.
    Ignore(Announced<P, A>),
    /// Its author did not commit to this: it costs whoever handed it over.
    Refuse(Announced<P, A>),
    /// This node's own contribution was committed: check it like any other's: [`Event::Fetched`].
    TakeOwn {
        /// The round.
        round: Round,
        /// This node's uid.
        uid: Uid,
        /// The contribution's name.
        digest: Digest,
    },
    /// Ask peers for the round's announcements but for these: [`Event::Pulled`].
    Pull {
        /// The round.
        round: Round,
        /// What has been announced already.
        have: UidSet,
    },
    /// Connect to this peer no more: asked, it handed out what nobody committed.
    Ban(P),
    /// For the node's state machine.
    Tell(engine::Event),
}

/// A round whose contributions are gathered.
#[derive(Debug)]
struct Open {
    round: Round,
    offered: BTreeMap<Uid, Digest>,
    /// Announced: being fetched, or done with.
    announced: UidSet,
    /// When peers are asked next; none while they are asked, or while nothing is missing.
    pull_at: Option<Duration>,
    /// Whether an answer is awaited.
    is_pulling: bool,
    /// When what is missing is given up; none once it is.
    give_up_at: Option<Duration>,
}

/// Decides what a node does to have a round's contributions. One owner, no clock: `now` is the time since any fixed
/// instant.
#[derive(Debug)]
pub struct Gatherer<P, A> {
    patience: Patience,
    /// The round after the last one that is applied.
    next: Round,
    /// Whether what is gathered can still be voted for.
    is_collecting: bool,
    open: Option<Open>,
    /// Announcements whose round is not open yet, and since when they wait, in order of arrival.
    early: Vec<(Duration, Announced<P, A>)>,
}

impl<P: Copy + Ord, A> Gatherer<P, A> {
    /// A gatherer to which no round has been opened.
    pub fn new(patience: Patience) -> Gatherer<P, A> {
        Gatherer { patience, next: Round(0), is_collecting: false, open: None, early: Vec::new() }
    }

    /// Tells where the node stands: the round after the last one that is applied, and whether a round's offers are being
    /// collected. What comes after that is not passed on.
    pub fn stand_at(&mut self, next: Round, is_collecting: bool) {
        (self.next, self.is_collecting) = (next, is_collecting);
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        [open.pull_at, open.give_up_at].into_iter().flatten().min()
    }

    /// Takes an event; appends what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event<P, A>, actions: &mut Vec<Action<P, A>>) {
        match event {
            Event::Opened { round, offered, mine } => self.open(now, round, offered, mine, actions),
            Event::Announced(announced) => drop(self.rule_on(now, announced, actions)),
            Event::Pulled { round, announcements, malformed } => {
                self.on_pulled(now, round, announcements, malformed, actions);
            }
            Event::Fetched { round, uid, outcome } => self.on_fetched(now, round, uid, outcome, actions),
            Event::Tick => {}
        }
        self.pull_if_due(now, actions);
        self.give_up_if_due(now, actions);
    }

    fn open(
        &mut self,
        now: Duration,
        round: Round,
        offered: BTreeMap<Uid, Digest>,
        mine: Option<Digest>,
        actions: &mut Vec<Action<P, A>>,
    ) {
        let mut open = Open {
            round,
            offered,
            announced: UidSet::default(),
            pull_at: Some(now.saturating_add(self.patience.pull_after)),
            is_pulling: false,
            give_up_at: Some(now.saturating_add(self.patience.give_up_after)),
        };
        // A miner holds its own contribution: it is checked like any other.
        if let Some((&uid, &digest)) = open.offered.iter().find(|(_, digest)| Some(**digest) == mine) {
            open.announced.insert(uid);
            actions.push(Action::TakeOwn { round, uid, digest });
        }
        self.open = Some(open);
        for (_, announced) in std::mem::take(&mut self.early) {
            let _ = self.rule_on(now, announced, actions);
        }
    }

    /// Rules on an announcement; fails if whoever handed it over is to blame.
    fn rule_on(&mut self, now: Duration, announced: Announced<P, A>, actions: &mut Vec<Action<P, A>>) -> Result<(), P> {
        let Announced { round, uid, digest, from, .. } = announced;
        let Some(open) = self.open.as_mut().filter(|open| self.is_collecting && open.round == round) else {
            if round == self.next {
                self.keep_early(now, announced, actions);
            } else {
                actions.push(Action::Ignore(announced));
            }
            return Ok(());
        };
        if open.offered.get(&uid) != Some(&digest) {
            actions.push(Action::Refuse(announced));
            return Err(from);
        }
        let is_known = open.announced.contains(uid);
        open.announced.insert(uid);
        actions.push(if is_known { Action::PassOn(announced) } else { Action::Take(announced) });
        Ok(())
    }

    /// Keeps an early announcement; those that have waited too long go. Where there is no room, one of the neighbour that
    /// brought most gives way: many that make announcements up shut out each other, not who brings a few.
    fn keep_early(&mut self, now: Duration, announced: Announced<P, A>, actions: &mut Vec<Action<P, A>>) {
        let is_late = |(since, _): &mut (Duration, _)| now.saturating_sub(*since) > EARLY_TIMEOUT;
        actions.extend(self.early.extract_if(.., is_late).map(|(_, late)| Action::Ignore(late)));
        let of_peer = |from: P| self.early.iter().filter(|(_, other)| other.from == from).count();
        let its_own = of_peer(announced.from);
        if its_own >= EARLY_PEER_MAX {
            actions.push(Action::Ignore(announced));
            return;
        }
        if self.early.len() >= EARLY_MAX {
            let most = self.early.iter().map(|(_, other)| (of_peer(other.from), other.from)).max();
            let last_of_most = most
                .filter(|(count, _)| *count > its_own + 1)
                .and_then(|(_, greedy)| self.early.iter().rposition(|(_, other)| other.from == greedy));
            let Some(at) = last_of_most else {
                actions.push(Action::Ignore(announced));
                return;
            };
            actions.push(Action::Ignore(self.early.remove(at).1));
        }
        self.early.push((now, announced));
    }

    /// What was asked for is ruled on like what gossip brings. Of a peer that hands out what nobody committed, nothing
    /// more is looked at.
    fn on_pulled(
        &mut self,
        now: Duration,
        round: Round,
        announcements: Vec<Announced<P, A>>,
        malformed: BTreeSet<P>,
        actions: &mut Vec<Action<P, A>>,
    ) {
        let mut liars = malformed;
        for announced in announcements {
            if liars.contains(&announced.from) {
                actions.push(Action::Ignore(announced));
            } else if let Err(liar) = self.rule_on(now, announced, actions) {
                liars.insert(liar);
            }
        }
        actions.extend(liars.into_iter().map(Action::Ban));
        if let Some(open) = self.open.as_mut().filter(|open| open.round == round) {
            open.is_pulling = false;
            open.pull_at = Some(now.saturating_add(self.patience.pull_after));
        }
    }

    fn on_fetched(&mut self, now: Duration, round: Round, uid: Uid, outcome: Outcome, actions: &mut Vec<Action<P, A>>) {
        let Some(open) = self.open.as_mut().filter(|open| open.round == round) else { return };
        match outcome {
            Outcome::Held => actions.push(Action::Tell(engine::Event::Held(round, uid))),
            Outcome::Invalid => actions.push(Action::Tell(engine::Event::Refused(round, uid))),
            Outcome::NotHad => {
                open.announced.remove(uid);
                if !open.is_pulling {
                    let again = now.saturating_add(self.patience.pull_after);
                    open.pull_at = Some(open.pull_at.map_or(again, |at| at.min(again)));
                }
            }
        }
    }

    /// Asks peers for what has not been announced, while it can still be voted for.
    fn pull_if_due(&mut self, now: Duration, actions: &mut Vec<Action<P, A>>) {
        let Some(open) = self.open.as_mut().filter(|open| open.pull_at.is_some_and(|at| at <= now)) else { return };
        open.pull_at = None;
        let is_missing = open.offered.keys().any(|uid| !open.announced.contains(*uid));
        if self.is_collecting && is_missing {
            open.is_pulling = true;
            actions.push(Action::Pull { round: open.round, have: open.announced });
        }
    }

    fn give_up_if_due(&mut self, now: Duration, actions: &mut Vec<Action<P, A>>) {
        let Some(open) = self.open.as_mut().filter(|open| open.give_up_at.is_some_and(|at| at <= now)) else { return };
        open.give_up_at = None;
        actions.push(Action::Tell(engine::Event::CollectingOver(open.round)));
    }
}
