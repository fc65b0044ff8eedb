//! What others may ask at a time: places and bytes. Counts only; the shell reads and sends.
//!
//! Peer ids are free, and who reads slowly holds what it was given until its stream's time is up. So half of the places
//! and of the bytes is for peers that speak for a uid: strangers get the other half, and do not stand in their way.

use crate::peers::PeerKey;
use std::collections::{HashMap, VecDeque};

/// Bounds on answering.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Requests of one peer that wait or are being answered; more are dropped unanswered.
    pub per_peer_max: usize,
    /// Of all peers. Half of them is kept for peers with a uid.
    pub all_max: usize,
    /// Bytes of blobs in memory for answers under way; requests beyond wait their turn. Half of them is kept for peers
    /// with a uid, so it should be four blobs of the largest size or more.
    pub bytes_max: u64,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits { per_peer_max: 16, all_max: 256, bytes_max: 64 << 20 }
    }
}

/// What kind of place who asks can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It speaks for a uid, or nobody can yet.
    Any,
    /// It speaks for none: no place of those that are kept for others.
    Stranger,
}

#[derive(Debug)]
struct OpenAnswer {
    peer: PeerKey,
    rank: Rank,
    /// Bytes held for it once its turn came.
    held: u64,
}

#[derive(Debug)]
struct Waiting<I, T> {
    id: I,
    rank: Rank,
    bytes: u64,
    what: T,
}

/// Requests for blobs and announcements: `T` is what the shell needs to answer one.
#[derive(Debug)]
pub(crate) struct Answers<I, T> {
    limits: ServeLimits,
    waiting: VecDeque<Waiting<I, T>>,
    open: HashMap<I, OpenAnswer>,
    per_peer: HashMap<PeerKey, usize>,
    strangers: usize,
    bytes: u64,
    /// Those of [`Answers::bytes`] that strangers hold.
    stranger_bytes: u64,
}

impl<I: std::hash::Hash + Eq + Copy, T> Answers<I, T> {
    pub(crate) fn new(limits: ServeLimits) -> Answers<I, T> {
        Answers {
            limits,
            waiting: VecDeque::new(),
            open: HashMap::new(),
            per_peer: HashMap::new(),
            strangers: 0,
            bytes: 0,
            stranger_bytes: 0,
        }
    }

    /// Takes a request for `bytes`. False if its peer, all strangers if it is one, or everybody has too many open.
    pub(crate) fn take(&mut self, id: I, peer: PeerKey, rank: Rank, bytes: u64, what: T) -> bool {
        let mine = self.per_peer.get(&peer).copied().unwrap_or(0);
        let strange = rank == Rank::Stranger;
        if mine >= self.limits.per_peer_max
            || self.open.len() >= self.limits.all_max
            || (strange && self.strangers >= self.limits.all_max / 2)
        {
            return false;
        }
        self.strangers += usize::from(strange);
        self.per_peer.insert(peer, mine + 1);
        self.open.insert(id, OpenAnswer { peer, rank, held: 0 });
        self.waiting.push_back(Waiting { id, rank, bytes, what });
        true
    }

    /// The next request whose bytes fit. One that alone exceeds its budget goes when nothing else of it is under way.
    /// Strangers that wait for other strangers are passed by; nobody else is.
    pub(crate) fn next(&mut self) -> Option<(I, T)> {
        let fits = |held: u64, bytes: u64, most: u64| held == 0 || held.saturating_add(bytes) <= most;
        let share = self.limits.bytes_max / 2;
        let mut passed = false;
        let at = self.waiting.iter().position(|next| {
            let strange = next.rank == Rank::Stranger;
            // In turn among themselves.
            passed |= strange && !fits(self.stranger_bytes, next.bytes, share);
            !(strange && passed)
        })?;
        if !fits(self.bytes, self.waiting.get(at)?.bytes, self.limits.bytes_max) {
            return None;
        }
        let Waiting { id, rank, bytes, what } = self.waiting.remove(at)?;
        if let Some(open) = self.open.get_mut(&id) {
            open.held = bytes;
            self.bytes += bytes;
            self.stranger_bytes += if rank == Rank::Stranger { bytes } else { 0 };
        }
        Some((id, what))
    }

    /// Answered, or its peer is gone.
    pub(crate) fn done(&mut self, id: &I) {
        let Some(OpenAnswer { peer, rank, held }) = self.open.remove(id) else {
            return;
        };
        self.bytes -= held;
        if rank == Rank::Stranger {
            self.strangers -= 1;
            self.stranger_bytes -= held;
        }
        self.waiting.retain(|waiting| waiting.id != *id);
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;

    #[test]
    fn one_peer_gets_its_places_and_bytes_wait_their_turn() {
        let mut answers = Answers::new(ServeLimits { per_peer_max: 2, all_max: 3, bytes_max: 100 });
        assert!(answers.take(1, test_peer(1), Rank::Any, 60, 'a'));
        assert!(answers.take(2, test_peer(1), Rank::Any, 60, 'b'));
        assert!(!answers.take(3, test_peer(1), Rank::Any, 1, 'c'), "its third");
        assert!(answers.take(4, test_peer(2), Rank::Any, 500, 'd'));
        assert!(!answers.take(5, test_peer(3), Rank::Any, 1, 'e'), "everybody's fourth");
        assert_eq!(answers.next(), Some((1, 'a')));
        assert_eq!(answers.next(), None);
        answers.done(&1);
        assert_eq!(answers.next(), Some((2, 'b')));
        answers.done(&2);
        assert_eq!(answers.next(), Some((4, 'd')), "too large for the budget, alone it goes");
        answers.done(&4);
        assert!(answers.take(6, test_peer(1), Rank::Any, 1, 'f'));
        answers.done(&6);
        assert_eq!(answers.next(), None, "who left is not answered");
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn strangers_hold_half_of_the_places_and_members_get_in() {
        let mut answers = Answers::new(ServeLimits { per_peer_max: 2, all_max: 8, bytes_max: 100 });
        for id in 0..6u8 {
            let taken = answers.take(id, test_peer(id / 2), Rank::Stranger, 1, ());
            assert_eq!(taken, id < 4, "request {id}");
        }
        for id in 10..16u8 {
            let taken = answers.take(id, test_peer(id), Rank::Any, 1, ());
            assert_eq!(taken, id < 14, "request {id}");
        }
        (0..4).for_each(|id| answers.done(&id));
        for id in 20..24u8 {
            assert!(answers.take(id, test_peer(id), Rank::Any, 1, ()), "members may have all: {id}");
        }
        assert!(!answers.take(30, test_peer(30), Rank::Any, 1, ()));
    }

    #[test]
    fn strangers_that_do_not_read_hold_half_of_the_bytes_and_members_pass_them() {
        let mut answers = Answers::new(ServeLimits { per_peer_max: 9, all_max: 99, bytes_max: 100 });
        for (id, bytes) in [(1, 30), (2, 30), (3, 10)] {
            assert!(answers.take(id, test_peer(1), Rank::Stranger, bytes, ()));
        }
        assert_eq!(answers.next(), Some((1, ())));
        assert_eq!(answers.next(), None, "the second does not fit into half, and the third does not pass it");
        for (id, bytes) in [(4, 40), (5, 40), (6, 10)] {
            assert!(answers.take(id, test_peer(2), Rank::Any, bytes, ()));
        }
        assert_eq!(answers.next(), Some((4, ())));
        assert_eq!(answers.next(), None, "nobody passes a member");
        answers.done(&4);
        assert_eq!(answers.next(), Some((5, ())));
        answers.done(&1);
        assert_eq!(answers.next(), Some((2, ())), "whose turn it is");
        assert_eq!(answers.next(), Some((3, ())));
        assert_eq!(answers.next(), Some((6, ())));
        (2..7).for_each(|id| answers.done(&id));
        assert_eq!((answers.bytes, answers.stranger_bytes, answers.strangers), (0, 0, 0));
    }
}
