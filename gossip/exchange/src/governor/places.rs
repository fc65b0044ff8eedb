//! Who is served at a time: sixteen peers, one place of them for a peer that is no member. Who holds a place for a turn
//! while others wait gives it up, and waits again once what was begun for it has gone. Its place is free at once: one that
//! reads a byte now and then would keep it for ever. How many may be leaving so is bounded by the memory for answers.

use crate::Class;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::types::Rank;

/// One in so many places goes to who waits longest, whatever it waits for: else the last class might wait for ever.
const OLDEST_EACH: u32 = 20;

#[derive(Clone, Copy, Debug)]
struct Seat<P> {
    peer: P,
    rank: Rank,
    since: Instant,
    /// Nothing new is begun for it.
    draining: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wait<P> {
    peer: P,
    rank: Rank,
    best: Class,
}

#[derive(Debug)]
pub(super) struct Places<P> {
    seats_max: usize,
    turn: Duration,
    seats: Vec<Seat<P>>,
    waiting: VecDeque<Wait<P>>,
    changed: bool,
    given: u32,
    /// When the next turn ends; looked at only while somebody waits.
    pub(super) turn_end: Option<Instant>,
}

impl<P: Copy + PartialEq> Places<P> {
    pub(super) fn new(seats_max: usize, turn: Duration) -> Places<P> {
        let seats_max = seats_max.max(1);
        Places {
            seats_max,
            turn,
            seats: Vec::new(),
            waiting: VecDeque::new(),
            changed: false,
            given: 0,
            turn_end: None,
        }
    }

    /// Peers for whom something may be begun.
    pub(super) fn serving(&self) -> impl Iterator<Item = P> + '_ {
        self.seats.iter().filter(|seat| !seat.draining).map(|seat| seat.peer)
    }

    pub(super) fn seated(&self) -> usize {
        self.serving().count()
    }

    /// Peers whose turn is over and who have something under way.
    pub(super) fn draining(&self) -> impl Iterator<Item = P> + '_ {
        self.seats.iter().filter(|seat| seat.draining).map(|seat| seat.peer)
    }

    /// A peer has asked for something: it has a place, or waits for one.
    pub(super) fn want(&mut self, peer: P, rank: Rank, class: Class) {
        self.changed = true;
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.peer == peer) {
            seat.rank = rank;
        } else if let Some(wait) = self.waiting.iter_mut().find(|wait| wait.peer == peer) {
            wait.rank = rank;
            wait.best = wait.best.min(class);
        } else {
            self.waiting.push_back(Wait { peer, rank, best: class });
        }
    }

    /// A peer has nothing left to be served, or is gone.
    pub(super) fn leave(&mut self, peer: P) {
        self.changed = true;
        self.seats.retain(|seat| seat.peer != peer);
        self.waiting.retain(|wait| wait.peer != peer);
    }

    /// What was begun for a peer whose turn is over has gone: it waits again, behind the others.
    pub(super) fn drained(&mut self, peer: P, rank: Rank, best: Class) {
        self.leave(peer);
        self.waiting.push_back(Wait { peer, rank, best });
    }

    /// Gives free places to those that wait and ends turns. False if there was nothing to look at.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        if !self.changed && self.turn_end.is_none_or(|end| now < end) {
            return false;
        }
        self.changed = false;
        self.admit_all(now);
        self.end_turns(now);
        self.admit_all(now);
        let ends = self.seats.iter().filter(|seat| !seat.draining).map(|seat| seat.since + self.turn);
        self.turn_end = if self.waiting.is_empty() { None } else { ends.filter(|end| *end > now).min() };
        true
    }

    fn admit_all(&mut self, now: Instant) {
        while let Some(wait) = self.admit() {
            self.seats.push(Seat { peer: wait.peer, rank: wait.rank, since: now, draining: false });
        }
    }

    fn count(&self, rank: Rank) -> usize {
        self.seats.iter().filter(|seat| seat.rank == rank && !seat.draining).count()
    }

    fn waits(&self, rank: Rank) -> usize {
        self.waiting.iter().filter(|wait| wait.rank == rank).count()
    }

    /// The next of those that wait that may have a place now.
    fn admit(&mut self) -> Option<Wait<P>> {
        if self.seated() >= self.seats_max || self.waiting.is_empty() {
            return None;
        }
        // With a single place nothing can be kept.
        let members_max = if self.seats_max > 1 { self.seats_max - 1 } else { 1 };
        let member = self.count(Rank::Member) < members_max;
        let stranger = self.count(Rank::Stranger) == 0 || !member || self.waits(Rank::Member) == 0;
        let may = |wait: &Wait<P>| if wait.rank == Rank::Member { member } else { stranger };
        let oldest = self.given % OLDEST_EACH == OLDEST_EACH - 1;
        let allowed = self.waiting.iter().enumerate().filter(|(_, wait)| may(wait));
        let (at, _) = allowed.min_by_key(|(at, wait)| (if oldest { Class::Round } else { wait.best }, *at))?;
        self.given = self.given.wrapping_add(1);
        self.waiting.remove(at)
    }

    /// A member that waits ends the turns of strangers beyond the first at once, and of members whose time is up; a
    /// stranger those of strangers whose time is up. The longest served goes first.
    fn end_turns(&mut self, now: Instant) {
        let (mut members, mut strangers) = (self.waits(Rank::Member), self.waits(Rank::Stranger));
        let mut surplus = self.count(Rank::Stranger).saturating_sub(1);
        self.seats.sort_by_key(|seat| seat.since);
        for seat in self.seats.iter_mut().filter(|seat| !seat.draining && seat.rank == Rank::Stranger) {
            seat.draining = surplus > 0 && members > 0;
            surplus = surplus.saturating_sub(1);
            members -= usize::from(seat.draining);
        }
        let turn = self.turn;
        for seat in self.seats.iter_mut().filter(|seat| !seat.draining) {
            let need = if seat.rank == Rank::Member { &mut members } else { &mut strangers };
            seat.draining = *need > 0 && now.saturating_duration_since(seat.since) >= turn;
            *need -= usize::from(seat.draining);
        }
    }
}
