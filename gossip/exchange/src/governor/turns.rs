//! Deficit round-robin: who is next among those that could send, and with how many bytes. It knows no peer's queue.

use std::collections::VecDeque;

/// A ring of takers. Each has a quantum of bytes a turn; what it leaves of it, it has at once, until the turn is used up
/// or it has nothing to send. So two that always could send are never further apart than a quantum.
#[derive(Clone, Debug)]
pub(super) struct Turns<K> {
    ring: VecDeque<(K, u64)>,
    quantum: u64,
}

impl<K: Copy + PartialEq> Turns<K> {
    pub(super) fn new(quantum: u64) -> Turns<K> {
        Turns { ring: VecDeque::new(), quantum }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Who is next, and how much is left of its turn.
    pub(super) fn front(&self) -> Option<(K, u64)> {
        self.ring.front().copied()
    }

    pub(super) fn push(&mut self, who: K) {
        self.ring.push_back((who, self.quantum));
    }

    /// The one in front has nothing to send: it gives up the rest of its turn.
    pub(super) fn drop_front(&mut self) {
        self.ring.pop_front();
    }

    pub(super) fn remove(&mut self, who: K) {
        self.ring.retain(|(other, _)| *other != who);
    }

    /// The one in front sends so many bytes.
    pub(super) fn charge(&mut self, bytes: u64) {
        let Some((who, left)) = self.ring.front_mut() else { return };
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            let who = *who;
            self.ring.pop_front();
            self.push(who);
        }
    }
}
