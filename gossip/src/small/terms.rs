//! What a fetch is given, and how it ends: hints, sizes, bounds, errors.

use crate::peers::PeerKey;
use crate::store::StoreError;
use covey_proto::{Digest, Uid};
use std::sync::Arc;
use std::time::Duration;

/// Bounds on fetching.
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Blobs wanted at a time; more are refused with [`FetchError::TooMany`].
    pub wants_max: usize,
    /// Requests under way, to all peers.
    pub requests_max: usize,
    /// Requests under way to one peer.
    pub per_peer_max: usize,
    /// Bytes that requests under way may bring, so that answers fit in memory.
    pub bytes_max: u64,
    /// Peers asked for one blob at a time.
    pub same_blob_max: usize,
    /// How long a request may take, besides its bytes at `rate_min`.
    pub request_timeout: Duration,
    /// After this, and the bytes' time at eight times `rate_min`, another peer is asked beside.
    pub hedge_after: Duration,
    /// Bytes a second below which a peer is too slow.
    pub rate_min: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        FetchLimits {
            wants_max: 2048,
            requests_max: 64,
            per_peer_max: 6,
            bytes_max: 128 << 20,
            same_blob_max: 3,
            request_timeout: Duration::from_secs(5),
            hedge_after: Duration::from_secs(1),
            rate_min: 256 * 1024,
        }
    }
}

/// Why a blob did not come.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The caller's time is up.
    #[error("no peer gave blob {root} in time: asked {asked}, {lacking} have none, {connected} are connected")]
    Timeout {
        /// The blob.
        root: Digest,
        /// Peers that were asked.
        asked: usize,
        /// Of them, those that said they have none.
        lacking: usize,
        /// Peers connected at the end.
        connected: usize,
    },
    /// The bytes of that name are of another size than the caller was told. Whoever named them is to blame, not a peer.
    #[error("blob {root} is {got} bytes, not {named}")]
    Size {
        /// The blob.
        root: Digest,
        /// Bytes it should have, or have at most.
        named: u64,
        /// Bytes it has.
        got: u64,
    },
    /// It is being fetched for somebody who was told another size. One of the two was told wrong.
    #[error("blob {root} of {named} bytes is being fetched as one of {other} already; wait for that to end")]
    TwoSizes {
        /// The blob.
        root: Digest,
        /// Bytes it should have.
        named: u64,
        /// Bytes it should have, says the other.
        other: u64,
    },
    /// More than is exchanged.
    #[error("blob {root} of {size} bytes cannot be fetched: the limit is {limit}")]
    TooLarge {
        /// The blob.
        root: Digest,
        /// Bytes it should have.
        size: u64,
        /// The protocol's limit.
        limit: u64,
    },
    /// Too many are wanted already.
    #[error("{0} blobs are being fetched already; fetch fewer at a time")]
    TooMany(usize),
    /// It came and verified, but could not be stored or read.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}

/// A peer that may have the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This peer.
    Peer(PeerKey),
    /// Whoever speaks for this uid.
    Uid(Uid),
}

impl From<PeerKey> for Hint {
    fn from(peer: PeerKey) -> Hint {
        Hint::Peer(peer)
    }
}

impl From<Uid> for Hint {
    fn from(uid: Uid) -> Hint {
        Hint::Uid(uid)
    }
}

/// What is known of a blob's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Exactly(u64),
    AtMost(u64),
}

impl Size {
    pub(crate) fn most(self) -> u64 {
        match self {
            Size::Exactly(size) | Size::AtMost(size) => size,
        }
    }
    pub(crate) fn admits(self, got: u64) -> bool {
        match self {
            Size::Exactly(size) => got == size,
            Size::AtMost(size) => got <= size,
        }
    }
}

/// How a fetch ends.
pub(crate) type Fetched = Result<Arc<[u8]>, FetchError>;
