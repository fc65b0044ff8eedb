//! Who may send next: which answer is read from the disk, and whose turn it is to write how many bytes of one.
//!
//! Answers wait here under a [`Ticket`]. The shell asks [`Governor::next`] after every other call and does what it says:
//! read an answer into memory and say [`ready`](Governor::ready) (or [`failed`](Governor::failed)); write so many bytes of
//! one that is ready and say [`written`](Governor::written). Answers of one peer and class are granted in the order in
//! which they were begun and never interleaved: they share a stream.
//!
//! What is decided here: the rate of sending ([`TokenBucket`]); the most urgent class first, 5 % of the bytes kept for
//! each other one ([`KEPT`]); among the peers of a class deficit round-robin by bytes, all strangers together being one
//! taker, so that peer ids, which are free, buy nothing; sixteen peers at a time, one of them no member; memory for
//! answers, half of it for members' requests of the round, a quarter each for members' other ones and for strangers. Two
//! that always have something to send are never a quantum apart, as long as an answer of each fits into that memory.
//! What is not: what a peer may ask for, what a group is, when a peer that reads nothing is closed (30 s, by the shell).

mod bucket;
mod peer;
mod places;
mod turns;
mod types;

#[cfg(test)]
#[path = "governor_tests.rs"]
mod tests;

use crate::Class;
pub use bucket::{ByteRate, TokenBucket};
use peer::{Peer, refuse};
use places::Places;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;
use turns::Turns;
pub use types::{Asked, Cancelled, GovernorLimits, Next, Rank, Refused, Ticket};

/// One byte in so many is kept for each class that is not the most urgent, while it has something to send.
pub const KEPT: u64 = 20;
/// Answers begun for one peer and class ahead of need, if they are small.
const BEGUN_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Reading,
    Ready,
}

#[derive(Clone, Copy, Debug)]
struct Open<P> {
    peer: P,
    class: Class,
    bytes: u64,
    granted: u64,
    written: u64,
    stage: Stage,
    /// Whose memory it takes, once it takes some.
    pool: usize,
}

/// Who takes turns within a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker<P> {
    Member(P),
    Strangers,
}

/// The turns of one class.
#[derive(Debug)]
struct Line<P> {
    takers: Turns<Taker<P>>,
    strangers: Turns<P>,
    /// Bytes that more urgent classes sent while this one could have.
    credit: u64,
}

/// Who may send next. `P` names a peer.
#[derive(Debug)]
pub struct Governor<P> {
    limits: GovernorLimits,
    upload: TokenBucket,
    peers: BTreeMap<P, Peer>,
    open: HashMap<Ticket, Open<P>>,
    /// Being read for nobody: they take memory until they are read.
    orphans: HashMap<Ticket, Open<P>>,
    last_ticket: u64,
    places: Places<P>,
    lines: [Line<P>; 3],
    /// Bytes in memory: members' of the round, members' others, strangers'.
    pools: [u64; 3],
    /// Something may be begun that could not be before.
    look: bool,
    /// At whom the last look ended.
    looked_at: usize,
}

const fn index(class: Class) -> usize {
    class.number() as usize
}

fn pool_of(rank: Rank, class: Class) -> usize {
    match (rank, class) {
        (Rank::Member, Class::Round) => 0,
        (Rank::Member, _) => 1,
        (Rank::Stranger, _) => 2,
    }
}

impl<P: Copy + Ord> Governor<P> {
    /// One that nobody has asked yet, with a full bucket.
    pub fn new(limits: GovernorLimits, now: Instant) -> Governor<P> {
        let limits = GovernorLimits {
            grant_max: limits.grant_max.max(1),
            ahead_max: limits.ahead_max.max(limits.grant_max).max(1),
            ..limits
        };
        let line = || Line { takers: Turns::new(limits.grant_max), strangers: Turns::new(limits.grant_max), credit: 0 };
        Governor {
            upload: TokenBucket::new(limits.upload.map(|rate| at_least(rate, limits.grant_max)), now),
            peers: BTreeMap::new(),
            open: HashMap::new(),
            orphans: HashMap::new(),
            last_ticket: 0,
            places: Places::new(limits.active_max, limits.turn),
            lines: [line(), line(), line()],
            pools: [0; 3],
            look: false,
            looked_at: 0,
            limits,
        }
    }

    /// Counts bytes that were sent without asking against the rate of sending: answers that are no pieces.
    pub fn charge(&mut self, bytes: u64, now: Instant) {
        self.upload.charge(bytes, now);
    }

    /// Takes a request, or says which bound refuses it; see [`Refused::disconnects`].
    pub fn enqueue(&mut self, peer: P, asked: Asked) -> Result<Ticket, Refused> {
        let limits = &self.limits;
        if !self.peers.contains_key(&peer) && self.peers.len() >= limits.peers_max {
            return Err(Refused::Peers { limit: limits.peers_max });
        }
        let bytes = asked.bytes.max(1);
        let state = self.peers.entry(peer).or_insert_with(|| Peer::new(asked.rank));
        let open = state.requests;
        let refusal = if open >= limits.requests_max {
            Some(Refused::Requests { open, limit: limits.requests_max })
        } else if state.bytes.saturating_add(bytes) > limits.bytes_max {
            Some(Refused::Bytes { open: state.bytes, asked: bytes, limit: limits.bytes_max })
        } else {
            None
        };
        if let Some(refused) = refusal {
            let refused = refuse(state, bytes, limits).unwrap_or(refused);
            self.tidy(peer);
            return Err(refused);
        }
        state.requests += 1;
        state.bytes += bytes;
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let flow = &mut state.flows[index(asked.class)];
        if asked.repeat {
            flow.repeats.push_back(ticket)
        } else {
            flow.fresh.push_back(ticket)
        }
        self.look = true;
        let stage = Stage::Waiting;
        let one = Open { peer, class: asked.class, bytes, granted: 0, written: 0, stage, pool: 0 };
        self.open.insert(ticket, one);
        self.rank(peer, asked.rank);
        self.places.want(peer, asked.rank, asked.class);
        Ok(ticket)
    }

    /// What to do next. Asks to be called again until it says [`Next::WaitUntil`] or [`Next::Idle`].
    pub fn next(&mut self, now: Instant) -> Next {
        self.settle(now);
        if self.look {
            if let Some(ticket) = self.begin() {
                return Next::Read { ticket };
            }
            self.look = false;
        }
        let turn_end = self.places.turn_end;
        let until = match self.choose() {
            None => None,
            Some((class, peer, ticket, bytes)) => match self.upload.take(bytes, now) {
                Ok(()) => {
                    self.grant(class, peer, ticket, bytes);
                    return Next::Grant { ticket, bytes };
                }
                Err(at) => at,
            },
        };
        until.into_iter().chain(turn_end).min().map_or(Next::Idle, Next::WaitUntil)
    }

    /// An answer is in memory. False: nobody wants it any more, drop it.
    pub fn ready(&mut self, ticket: Ticket) -> bool {
        if self.orphan(ticket) {
            return false;
        }
        let Some(open) = self.open.get_mut(&ticket).filter(|open| open.stage == Stage::Reading) else { return false };
        open.stage = Stage::Ready;
        let (peer, class) = (open.peer, open.class);
        self.join(peer, class);
        true
    }

    /// An answer could not be read: it is forgotten. True if its peer still waits for it and is to be told.
    pub fn failed(&mut self, ticket: Ticket) -> bool {
        if self.orphan(ticket) {
            return false;
        }
        if let Some(open) = self.open.get_mut(&ticket).filter(|open| open.stage == Stage::Reading) {
            open.stage = Stage::Ready;
        }
        self.end(ticket, true).is_some()
    }

    /// Bytes of a grant were written to the socket. True: that was the last of the answer, and its memory is free.
    pub fn written(&mut self, ticket: Ticket, bytes: u64) -> bool {
        let Some(open) = self.open.get_mut(&ticket) else { return false };
        let bytes = bytes.min(open.granted - open.written);
        open.written += bytes;
        let (peer, last) = (open.peer, open.written == open.bytes);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.ahead -= bytes;
            state.bytes -= bytes;
        }
        if last {
            self.end(ticket, true);
        }
        Class::ALL.into_iter().for_each(|class| self.join(peer, class));
        last
    }

    /// The peer takes a request back.
    pub fn cancel(&mut self, ticket: Ticket) -> Cancelled {
        match self.open.get(&ticket).map(|open| open.granted) {
            None => Cancelled::Unknown,
            Some(1..) => Cancelled::Underway,
            Some(0) => {
                self.end(ticket, false);
                Cancelled::Dropped
            }
        }
    }

    /// The peer is gone, or its streams are: forgets all of it. A [`Next::Read`] under way still ends with
    /// [`ready`](Self::ready) or [`failed`](Self::failed).
    pub fn gone(&mut self, peer: P) {
        let tickets = self.open.iter().filter(|(_, open)| open.peer == peer).map(|(ticket, _)| *ticket);
        for ticket in tickets.collect::<Vec<_>>() {
            self.end(ticket, false);
        }
        self.tidy(peer);
    }

    /// Forgets one answer whatever became of it: its stream has ended.
    pub fn drop_ticket(&mut self, ticket: Ticket) {
        self.end(ticket, false);
    }

    /// Gives free places to peers that wait, and ends turns. A peer whose turn has ended and for whom nothing is under way
    /// leaves at once, and its place is free for another: hence a second round.
    fn settle(&mut self, now: Instant) {
        for _ in 0..2 {
            if !self.places.settle(now) {
                return;
            }
            self.look = true;
            for peer in self.places.draining().collect::<Vec<_>>() {
                self.tidy(peer);
            }
        }
    }

    /// Frees the memory of an answer that was taken back while it was being read, now that it has been read. False if the
    /// answer is not such a one.
    fn orphan(&mut self, ticket: Ticket) -> bool {
        let Some(open) = self.orphans.remove(&ticket) else { return false };
        self.pools[open.pool] -= open.bytes;
        self.look = true;
        true
    }

    /// Takes one answer out of everything. `answered` forgives a refusal.
    fn end(&mut self, ticket: Ticket, answered: bool) -> Option<()> {
        let open = self.open.remove(&ticket)?;
        let peer = self.peers.get_mut(&open.peer)?;
        peer.flows[index(open.class)].forget(ticket);
        peer.requests -= 1;
        peer.bytes -= open.bytes - open.written;
        peer.ahead -= open.granted - open.written;
        if answered {
            peer.refused.0 = peer.refused.0.saturating_sub(1);
            peer.refused.1 = peer.refused.1.saturating_sub(open.bytes);
        }
        if open.stage != Stage::Waiting {
            peer.buffered -= open.bytes;
        }
        match open.stage {
            Stage::Waiting => {}
            Stage::Reading => drop(self.orphans.insert(ticket, open)),
            Stage::Ready => self.pools[open.pool] -= open.bytes,
        }
        self.look = true;
        self.tidy(open.peer);
        Class::ALL.into_iter().for_each(|class| self.join(open.peer, class));
        Some(())
    }

    /// Lets go of a place, and of a peer of whom nothing is left.
    fn tidy(&mut self, peer: P) {
        let Some(state) = self.peers.get(&peer) else { return };
        if state.requests == 0 {
            self.rings(peer, |_| {});
            self.peers.remove(&peer);
            self.places.leave(peer);
        } else if !state.begun() && self.places.draining().any(|other| other == peer) {
            self.places.drained(peer, state.rank, state.best().unwrap_or(Class::Data));
        }
    }

    /// A peer that has become a member, or is none any more, takes its turns elsewhere.
    fn rank(&mut self, peer: P, rank: Rank) {
        if self.peers.get(&peer).is_some_and(|state| state.rank != rank) {
            self.rings(peer, |state| state.rank = rank);
        }
    }

    /// Takes a peer out of all rings, changes it, and puts it back.
    fn rings(&mut self, peer: P, change: impl FnOnce(&mut Peer)) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        for (flow, line) in state.flows.iter_mut().zip(&mut self.lines) {
            flow.in_turns = false;
            line.takers.remove(Taker::Member(peer));
            line.strangers.remove(peer);
        }
        change(state);
        Class::ALL.into_iter().for_each(|class| self.join(peer, class));
    }

    /// The next answer to read, if a place and memory are there for one: urgent classes first, peers in turn.
    fn begin(&mut self) -> Option<Ticket> {
        let serving: Vec<P> = self.places.serving().collect();
        for class in Class::ALL {
            for step in 1..=serving.len() {
                let at = (self.looked_at + step) % serving.len();
                let Some(ticket) = self.could_begin(serving[at], class) else { continue };
                self.looked_at = at;
                let open = self.open.get_mut(&ticket)?;
                let peer = self.peers.get_mut(&open.peer)?;
                open.stage = Stage::Reading;
                open.pool = pool_of(peer.rank, class);
                self.pools[open.pool] += open.bytes;
                peer.buffered += open.bytes;
                peer.flows[index(class)].begin(ticket);
                return Some(ticket);
            }
        }
        None
    }

    fn could_begin(&self, peer: P, class: Class) -> Option<Ticket> {
        let peer = self.peers.get(&peer)?;
        let flow = &peer.flows[index(class)];
        let ticket = flow.waiting()?;
        let bytes = self.open.get(&ticket)?.bytes;
        let room = match flow.begun.len() {
            0 | 1 => true,
            BEGUN_MAX.. => false,
            _ => peer.buffered + bytes <= self.limits.peer_buffers_max,
        };
        let pool = pool_of(peer.rank, class);
        let share = self.limits.buffers_max / if pool == 0 { 2 } else { 4 };
        // What is read ahead must not take the memory of others' first.
        let share = if flow.begun.is_empty() { share } else { share / 2 };
        (room && (self.pools[pool] == 0 || self.pools[pool] + bytes <= share)).then_some(ticket)
    }

    /// The next answer of a flow and how many bytes of it could go, if it is in memory and its socket has room.
    fn offer(&self, peer: P, class: Class) -> Option<(Ticket, u64)> {
        let peer = self.peers.get(&peer)?;
        let mut begun =
            peer.flows[index(class)].begun.iter().filter_map(|ticket| Some((*ticket, self.open.get(ticket)?)));
        let (ticket, open) = begun.find(|(_, open)| open.granted < open.bytes)?;
        let bytes = (open.bytes - open.granted).min(self.limits.grant_max);
        (open.stage == Stage::Ready && peer.ahead + bytes <= self.limits.ahead_max).then_some((ticket, bytes))
    }

    /// Puts a flow into its ring if it could send and is not there.
    fn join(&mut self, peer: P, class: Class) {
        if self.offer(peer, class).is_none() {
            return;
        }
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let flow = &mut state.flows[index(class)];
        if std::mem::replace(&mut flow.in_turns, true) {
            return;
        }
        let line = &mut self.lines[index(class)];
        match state.rank {
            Rank::Member => line.takers.push(Taker::Member(peer)),
            Rank::Stranger => {
                // The strangers stand in the ring while any of them does.
                if line.strangers.is_empty() {
                    line.takers.remove(Taker::Strangers);
                    line.takers.push(Taker::Strangers);
                }
                line.strangers.push(peer);
            }
        }
    }

    /// Who of a class is next, having thrown out who cannot send now.
    fn front(&mut self, class: Class) -> Option<(P, Ticket, u64)> {
        loop {
            let line = &self.lines[index(class)];
            let (taker, left) = line.takers.front()?;
            let (peer, left) = match taker {
                Taker::Member(peer) => (peer, left),
                Taker::Strangers => match line.strangers.front() {
                    Some((peer, own)) => (peer, left.min(own)),
                    None => {
                        self.lines[index(class)].takers.drop_front();
                        continue;
                    }
                },
            };
            if let Some((ticket, bytes)) = self.offer(peer, class) {
                return Some((peer, ticket, bytes.min(left)));
            }
            let line = &mut self.lines[index(class)];
            if taker == Taker::Strangers {
                line.strangers.drop_front()
            } else {
                line.takers.drop_front()
            }
            if let Some(state) = self.peers.get_mut(&peer) {
                state.flows[index(class)].in_turns = false;
            }
        }
    }

    /// Whose turn it is: a class that was passed over for long enough, the last first; else the most urgent.
    fn choose(&mut self) -> Option<(Class, P, Ticket, u64)> {
        let due = (KEPT - 1) * self.limits.grant_max;
        let kept = [Class::Data, Class::State].into_iter().filter(|class| self.lines[index(*class)].credit >= due);
        for class in kept.chain(Class::ALL).collect::<Vec<_>>() {
            if let Some((peer, ticket, bytes)) = self.front(class) {
                return Some((class, peer, ticket, bytes));
            }
        }
        None
    }

    fn grant(&mut self, class: Class, peer: P, ticket: Ticket, bytes: u64) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.granted += bytes;
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.ahead += bytes;
        }
        let line = &mut self.lines[index(class)];
        if line.takers.front().is_some_and(|(taker, _)| taker == Taker::Strangers) {
            line.strangers.charge(bytes);
        }
        line.takers.charge(bytes);
        line.credit = line.credit.saturating_sub(bytes.saturating_mul(KEPT - 1));
        let most = 2 * KEPT * self.limits.grant_max;
        for lower in Class::ALL.into_iter().filter(|lower| *lower > class) {
            let waits = self.front(lower).is_some();
            let line = &mut self.lines[index(lower)];
            line.credit = if waits { (line.credit + bytes).min(most) } else { 0 };
        }
    }
}

fn at_least(rate: ByteRate, burst: u64) -> ByteRate {
    ByteRate { burst: rate.burst.max(burst), ..rate }
}
