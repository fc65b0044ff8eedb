//! What waits for one peer, and in which order it is begun.

use super::types::{GovernorLimits, Rank, Refused, Ticket};
use crate::Class;
use std::collections::VecDeque;

/// One answer in so many of a peer is taken in its order, even if it repeats what others got.
const REPEAT_EACH: u8 = 8;

/// A peer's answers of one class.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) fresh: VecDeque<Ticket>,
    pub(super) repeats: VecDeque<Ticket>,
    /// Fresh ones begun while repeats waited.
    passed: u8,
    /// Read or being read, in the order in which they are written.
    pub(super) begun: VecDeque<Ticket>,
    /// It stands in the ring of its class.
    pub(super) in_turns: bool,
}

impl Flow {
    pub(super) fn waiting(&self) -> Option<Ticket> {
        let repeat = self.repeats.front().filter(|_| self.passed + 1 >= REPEAT_EACH);
        repeat.or(self.fresh.front()).or(self.repeats.front()).copied()
    }

    pub(super) fn begin(&mut self, ticket: Ticket) {
        self.passed =
            if self.repeats.is_empty() || self.repeats.front() == Some(&ticket) { 0 } else { self.passed + 1 };
        self.forget(ticket);
        self.begun.push_back(ticket);
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        for queue in [&mut self.begun, &mut self.fresh, &mut self.repeats] {
            queue.retain(|other| *other != ticket);
        }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: Rank,
    pub(super) requests: usize,
    /// Not written yet.
    pub(super) bytes: u64,
    /// Refused and not forgiven: each answer that goes out forgives one.
    pub(super) refused: (usize, u64),
    pub(super) buffered: u64,
    /// Granted and not written.
    pub(super) ahead: u64,
    pub(super) flows: [Flow; 3],
}

impl Peer {
    pub(super) fn new(rank: Rank) -> Peer {
        Peer { rank, requests: 0, bytes: 0, refused: (0, 0), buffered: 0, ahead: 0, flows: Default::default() }
    }

    /// The most urgent class of which something waits.
    pub(super) fn best(&self) -> Option<Class> {
        Class::ALL.into_iter().find(|class| self.flows[class.number() as usize].waiting().is_some())
    }

    pub(super) fn begun(&self) -> bool {
        self.flows.iter().any(|flow| !flow.begun.is_empty())
    }
}

/// Counts a refusal; a flood if there are too many.
pub(super) fn refuse(peer: &mut Peer, bytes: u64, limits: &GovernorLimits) -> Option<Refused> {
    peer.refused.0 = peer.refused.0.saturating_add(1);
    peer.refused.1 = peer.refused.1.saturating_add(bytes);
    let (requests, bytes) = (peer.requests + peer.refused.0, peer.bytes.saturating_add(peer.refused.1));
    let flood = requests > 2 * limits.requests_max || bytes > limits.bytes_max.saturating_mul(2);
    flood.then_some(Refused::Flood { requests, bytes })
}
