//! Work beside the network's task: reading and writing of blobs, the resolver. What it comes to is an event of the loop.

use crate::peers::Multiaddr;
use crate::peers::dialer::Dial;
use crate::small::codec::Answer;
use crate::store::{Partial, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A piece of work that has ended.
pub(super) enum Job {
    /// Room was made for a large blob.
    Begun { blob: BlobRef, result: Result<Partial, Arc<StoreError>> },
    /// A small blob was stored.
    Stored { root: Digest, result: Result<Arc<[u8]>, Arc<StoreError>> },
    /// A small blob was read for somebody.
    Read(Reading),
    /// What the name in an address means, for the dial that is to be made.
    Resolved { dial: Dial, addresses: Vec<Multiaddr> },
    /// Nobody waits for it.
    Done,
}

/// A small blob, if it is here, for a request of this life of the network.
pub(super) struct Reading {
    pub(super) life: u64,
    pub(super) request: InboundRequestId,
    pub(super) channel: ResponseChannel<Answer>,
    pub(super) blob: Option<Arc<[u8]>>,
}

/// Work under way.
pub(super) type Jobs = JoinSet<Job>;
