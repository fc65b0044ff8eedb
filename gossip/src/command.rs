//! What handles ask of the network's task, and what it answers to a publication. Neither side knows the other.

use crate::announcements::pull::Pulled;
use crate::downloads::Waiter;
use crate::peers::PeerKey;
use crate::small::terms::{Fetched, Hint, Size};
use covey_exchange::Class;
use covey_proto::blob::BlobRef;
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round};
use std::time::Instant;
use tokio::sync::oneshot;

/// A published announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Neighbours that it was sent to.
    pub peers: usize,
    /// Whether it had been seen here before, and so was not sent again.
    pub repeated: bool,
}

/// Why an announcement was not published.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// Nobody would hear it.
    #[error("no connected peer listens to this run's announcements; publish again once one does")]
    NoPeers,
    /// It is larger than gossip carries.
    #[error("the announcement is {got} bytes; the limit is {limit}")]
    TooLarge {
        /// Its bytes.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Every neighbour's queue is full.
    #[error("the queues to all {0} neighbours are full; publish again shortly")]
    Busy(usize),
    /// Gossip refused.
    #[error("gossip refused the announcement: {0}")]
    Refused(String),
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}

/// An order, with whom to answer.
pub(crate) enum Command {
    Publish {
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<Published, PublishError>>,
    },
    Fetch {
        root: Digest,
        size: Size,
        hints: Vec<Hint>,
        deadline: Instant,
        reply: oneshot::Sender<Fetched>,
    },
    Download {
        blob: BlobRef,
        class: Class,
        hints: Vec<Hint>,
        waiter: Waiter,
    },
    Pull {
        round: Round,
        have: UidSet,
        reply: oneshot::Sender<Pulled>,
    },
    Ban {
        peer: PeerKey,
    },
    Providers {
        state: Digest,
        reply: oneshot::Sender<Vec<PeerKey>>,
    },
    /// A fault on purpose, for the test of what rebuilds the network.
    #[cfg(debug_assertions)]
    Panic,
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}
