//! What is asked of the governor and what it says: bounds, requests, refusals, orders.

use super::bucket::ByteRate;
use crate::Class;
use std::time::{Duration, Instant};

/// What kind of place a peer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// It speaks for a uid, or nobody can yet.
    Member,
    /// It speaks for none. Strangers share one place, and what members leave.
    Stranger,
}

/// Bounds on answering.
#[derive(Clone, Debug)]
pub struct GovernorLimits {
    /// Bytes sent a second and at once; none: as the sockets take them. A burst below [`grant_max`](Self::grant_max)
    /// is taken as that much.
    pub upload: Option<ByteRate>,
    /// Requests of one peer that wait or are being answered. Who holds to 32 MiB in flight has at most 32 of 1 MiB.
    pub requests_max: usize,
    /// Bytes of their answers: the 32 MiB that a requester may have in flight from one peer, and their proofs, which take
    /// up to 3 % of single groups.
    pub bytes_max: u64,
    /// Peers that are being answered at a time, one place being kept for a stranger. Sixteen share a home line of
    /// 110 Mbit/s at 0.9 MB/s each: more would make each piece wait longer and none come sooner.
    pub active_max: usize,
    /// How long a peer is answered while others wait for its place: less than the 4 s after which a requester that has
    /// heard nothing asks elsewhere.
    pub turn: Duration,
    /// Bytes of answers in memory, read and not yet written: sixteen peers with one of the largest each.
    pub buffers_max: u64,
    /// Bytes of a peer's answers that are in memory, beyond two answers a class.
    pub peer_buffers_max: u64,
    /// Bytes granted at once, and the quantum of a turn: a group.
    pub grant_max: u64,
    /// Bytes granted to one peer and not written yet: keeps its socket fed, and is all that one that stops reading gets.
    pub ahead_max: u64,
    /// Peers that wait or are served: twice the connections that a node keeps.
    pub peers_max: usize,
}

impl Default for GovernorLimits {
    fn default() -> Self {
        GovernorLimits {
            upload: None,
            requests_max: 64,
            bytes_max: 33 << 20,
            active_max: 16,
            turn: Duration::from_secs(2),
            buffers_max: 64 << 20,
            peer_buffers_max: 4 << 20,
            grant_max: 64 << 10,
            ahead_max: 256 << 10,
            peers_max: 256,
        }
    }
}

/// An answer that waits or is under way. Never used twice by one governor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub rank: Rank,
    /// Of which class its stream is.
    pub class: Class,
    /// Bytes of the answer, proofs included: at least 1.
    pub bytes: u64,
    /// The same piece was sent to, or is waiting for, another peer. It comes after the others of this peer (but each
    /// eighth time): where one node alone has a blob, everybody gets something different of it first. False is right too.
    pub repeat: bool,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has too many open.
    #[error("the peer has {open} requests open, {limit} is the limit: ask again once some are answered")]
    Requests {
        /// Open now.
        open: usize,
        /// The bound.
        limit: usize,
    },
    /// Too many bytes wait for it.
    #[error(
        "{open} bytes wait for the peer and {asked} more exceed the limit of {limit}: ask again once some have come"
    )]
    Bytes {
        /// Waiting now.
        open: u64,
        /// Asked for now.
        asked: u64,
        /// The bound.
        limit: u64,
    },
    /// Too many peers wait.
    #[error("{limit} peers wait already: ask later")]
    Peers {
        /// The bound.
        limit: usize,
    },
    /// It goes on asking at twice a bound: it does not read refusals, or means harm. To be disconnected.
    #[error("the peer has {requests} requests or {bytes} bytes open and refused, twice the limit: disconnect it")]
    Flood {
        /// Open and refused requests.
        requests: usize,
        /// Bytes of both.
        bytes: u64,
    },
}

impl Refused {
    /// Whether the peer is to be disconnected rather than told.
    pub fn disconnects(&self) -> bool {
        matches!(self, Refused::Flood { .. })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read this answer into memory (its bytes are reserved), then say [`ready`](super::Governor::ready) or
    /// [`failed`](super::Governor::failed): one of them always, even if it was cancelled meanwhile. Then ask again.
    Read {
        /// Which.
        ticket: Ticket,
    },
    /// Write so many more bytes of this answer, then say [`written`](super::Governor::written). Ask again at once.
    Grant {
        /// Which.
        ticket: Ticket,
        /// How many more: at least 1, at most [`GovernorLimits::grant_max`].
        bytes: u64,
    },
    /// Nothing before then, unless something else is called first.
    WaitUntil(Instant),
    /// Nothing until something else is called.
    Idle,
}

/// What became of a request that its peer takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Nothing of it was granted and nothing will be: say so to the peer.
    Dropped,
    /// Part of it was granted: it goes on to its end.
    Underway,
    /// There is none such: it has ended.
    Unknown,
}
