//! What handles and the network both touch. It outlives the network, so that a fault there loses none of it.

use crate::announcements::kept::Reveals;
use crate::config::Config;
use crate::metrics::Gauges;
use crate::network::meter::Meter;
use crate::network::sockets::CongestionSeen;
use crate::peers::PeerKey;
use crate::peers::bans::Bans;
use crate::peers::book::{Book, Change};
use crate::store::Store;
use crate::traffic::Counters;
use covey_proto::Digest;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connected peer, as the network last saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) addresses: Vec<String>,
    /// Where this node reached it: worth remembering.
    pub(crate) dialled: Option<String>,
    pub(crate) score: f64,
    pub(crate) since: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) in_mesh: bool,
    /// Bytes a second, sent and received.
    pub(crate) up: f64,
    pub(crate) down: f64,
    /// Bytes sent and received so far, and when that was read.
    pub(crate) bytes: (u64, u64),
    pub(crate) measured: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) peer: PeerKey,
    pub(crate) store: Store,
    pub(crate) traffic: Arc<Counters>,
    /// Bytes by peer.
    pub(crate) meter: Meter,
    /// What TCP connections run.
    pub(crate) congestion: CongestionSeen,
    /// Rung when the own record or the chain view has changed.
    pub(crate) changed: Notify,
    /// Whether it was the own record.
    pub(crate) record_changed: AtomicBool,
    /// A fault on purpose: blobs are served with a bit flipped.
    pub(crate) lies: AtomicBool,
    book: Mutex<Book>,
    changes: Mutex<Vec<Change>>,
    bans: Mutex<Bans>,
    reveals: Mutex<Reveals>,
    addresses: Mutex<Vec<String>>,
    provided: Mutex<VecDeque<Digest>>,
    connected: Mutex<BTreeMap<PeerKey, Seen>>,
    gauges: Mutex<Gauges>,
}

/// A poisoned lock is taken all the same: a fault in the network must not end its handles, and everything here is
/// either whole or checked again by the rebuilt network.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(peer: PeerKey, config: &Config, store: Store) -> Shared {
        let limits = &config.limits;
        Shared {
            peer,
            store,
            traffic: Arc::default(),
            meter: Meter::default(),
            congestion: CongestionSeen::default(),
            changed: Notify::new(),
            record_changed: AtomicBool::new(false),
            lies: AtomicBool::new(false),
            book: Mutex::new(Book::new(config.genesis, config.netuid)),
            changes: Mutex::default(),
            bans: Mutex::default(),
            reveals: Mutex::new(Reveals::new(limits.rounds_max, limits.announcements_bytes_max)),
            addresses: Mutex::default(),
            provided: Mutex::default(),
            connected: Mutex::default(),
            gauges: Mutex::default(),
        }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
    /// Bindings that a new chain view changed and that were not told yet.
    pub(crate) fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        lock(&self.changes)
    }
    pub(crate) fn bans(&self) -> MutexGuard<'_, Bans> {
        lock(&self.bans)
    }
    pub(crate) fn reveals(&self) -> MutexGuard<'_, Reveals> {
        lock(&self.reveals)
    }
    /// Where it listens, with `/p2p/ID`.
    pub(crate) fn addresses(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.addresses)
    }
    /// How the network stood at its last look.
    pub(crate) fn gauges(&self) -> MutexGuard<'_, Gauges> {
        lock(&self.gauges)
    }
    /// The states that this node says it holds.
    pub(crate) fn provided(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        lock(&self.provided)
    }
    pub(crate) fn connected(&self) -> MutexGuard<'_, BTreeMap<PeerKey, Seen>> {
        lock(&self.connected)
    }
}
