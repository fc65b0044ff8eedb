//! What others may ask at a time: places and bytes. Counts only; the shell reads and sends.

use crate::peers::PeerKey;
use std::collections::{HashMap, VecDeque};

/// Bounds on answering.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Requests of one peer that wait or are being answered; more are dropped unanswered.
    pub per_peer_max: usize,
    /// Of all peers.
    pub all_max: usize,
    /// Bytes of blobs in memory for answers under way; requests beyond wait their turn.
    pub bytes_max: u64,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits { per_peer_max: 16, all_max: 256, bytes_max: 64 << 20 }
    }
}

/// Requests for blobs: `T` is what the shell needs to answer one.
#[derive(Debug)]
pub(crate) struct Counter<I, T> {
    limits: ServeLimits,
    waiting: VecDeque<(I, u64, T)>,
    /// Who asked, and the bytes held for it once its turn came.
    open: HashMap<I, (PeerKey, u64)>,
    per_peer: HashMap<PeerKey, usize>,
    bytes: u64,
}

impl<I: std::hash::Hash + Eq + Copy, T> Counter<I, T> {
    pub(crate) fn new(limits: ServeLimits) -> Counter<I, T> {
        Counter { limits, waiting: VecDeque::new(), open: HashMap::new(), per_peer: HashMap::new(), bytes: 0 }
    }

    /// Takes a request for `bytes`. False if its peer, or everybody, has too many open.
    pub(crate) fn take(&mut self, id: I, peer: PeerKey, bytes: u64, what: T) -> bool {
        let mine = self.per_peer.get(&peer).copied().unwrap_or(0);
        if mine >= self.limits.per_peer_max || self.open.len() >= self.limits.all_max {
            return false;
        }
        self.per_peer.insert(peer, mine + 1);
        self.open.insert(id, (peer, 0));
        self.waiting.push_back((id, bytes, what));
        true
    }

    /// The next request whose bytes fit. One that alone exceeds the budget goes when nothing else is under way.
    pub(crate) fn next(&mut self) -> Option<(I, T)> {
        let (_, bytes, _) = self.waiting.front()?;
        if self.bytes > 0 && self.bytes + bytes > self.limits.bytes_max {
            return None;
        }
        let (id, bytes, what) = self.waiting.pop_front()?;
        if let Some((_, held)) = self.open.get_mut(&id) {
            *held = bytes;
            self.bytes += bytes;
        }
        Some((id, what))
    }

    /// Answered, or its peer is gone.
    pub(crate) fn done(&mut self, id: &I) {
        let Some((peer, held)) = self.open.remove(id) else {
            return;
        };
        self.bytes -= held;
        self.waiting.retain(|(waiting, _, _)| waiting != id);
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
        let mut counter = Counter::new(ServeLimits { per_peer_max: 2, all_max: 3, bytes_max: 100 });
        assert!(counter.take(1, test_peer(1), 60, 'a'));
        assert!(counter.take(2, test_peer(1), 60, 'b'));
        assert!(!counter.take(3, test_peer(1), 1, 'c'), "its third");
        assert!(counter.take(4, test_peer(2), 500, 'd'));
        assert!(!counter.take(5, test_peer(3), 1, 'e'), "everybody's fourth");
        assert_eq!(counter.next(), Some((1, 'a')));
        assert_eq!(counter.next(), None);
        counter.done(&1);
        assert_eq!(counter.next(), Some((2, 'b')));
        counter.done(&2);
        assert_eq!(counter.next(), Some((4, 'd')), "too large for the budget, alone it goes");
        counter.done(&4);
        assert!(counter.take(6, test_peer(1), 1, 'f'));
        counter.done(&6);
        assert_eq!(counter.next(), None, "who left is not answered");
        assert_eq!(counter.bytes, 0);
    }
}
