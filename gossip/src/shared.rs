//! What handles and the network both touch. It outlives the network, so that a fault there loses none of it.

use crate::announcements::kept::KeptAnnouncements;
use crate::config::Config;
use crate::metrics::Gauges;
use crate::peers::PeerKey;
use crate::peers::bans::Bans;
use crate::peers::book::{Book, Change};
use crate::peers::way::Way;
use crate::store::Store;
use crate::traffic::{CongestionSeen, Counters, Meter, PeerRate};
use covey_proto::Digest;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connected peer, as the network last saw it.
#[derive(Clone, Debug)]
pub(crate) struct ConnectedPeer {
    /// Where it is connected, as its connections say.
    pub(crate) addresses: Vec<String>,
    /// The best way that any of them takes.
    pub(crate) way: Way,
    /// Where this node reached it directly: worth remembering.
    pub(crate) dialled: Option<String>,
    pub(crate) score: f64,
    pub(crate) since: Instant,
    pub(crate) rtt: Option<Duration>,
    pub(crate) in_mesh: bool,
    pub(crate) rate: PeerRate,
}

impl ConnectedPeer {
    /// One that has just been connected.
    pub(crate) fn new(way: Way, now: Instant) -> ConnectedPeer {
        ConnectedPeer {
            addresses: Vec::new(),
            way,
            dialled: None,
            score: 0.0,
            since: now,
            rtt: None,
            in_mesh: false,
            rate: PeerRate::default(),
        }
    }
}

/// Rung by handles when what the network knows of its peers has changed.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Notify,
    record_changed: AtomicBool,
    /// Bindings that a new chain view changed and that were not told yet.
    changes: Mutex<Vec<Change>>,
}

impl Bell {
    /// The own record is another.
    pub(crate) fn record_changed(&self) {
        self.record_changed.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    /// The chain view is another, and these bindings with it.
    pub(crate) fn view_changed(&self, changes: Vec<Change>) {
        lock(&self.changes).extend(changes);
        self.rung.notify_one();
    }

    /// Waits until it is rung. Cancel safe.
    pub(crate) async fn rings(&self) {
        self.rung.notified().await;
    }

    /// What it was rung for: bindings, and whether for the own record.
    pub(crate) fn take(&self) -> (Vec<Change>, bool) {
        let changes = std::mem::take(&mut *lock(&self.changes));
        (changes, self.record_changed.swap(false, Ordering::AcqRel))
    }
}

/// What handles and the network both touch.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) peer: PeerKey,
    pub(crate) store: Store,
    pub(crate) traffic: Arc<Counters>,
    /// Bytes by peer.
    pub(crate) meter: Meter,
    /// What TCP connections run.
    pub(crate) congestion: CongestionSeen,
    pub(crate) bell: Bell,
    /// A fault on purpose: blobs are served with a bit flipped.
    pub(crate) lies: AtomicBool,
    tables: Tables,
}

/// Each behind a lock of its own. Where several are held, they were locked in this order.
#[derive(Debug)]
struct Tables {
    connected: Mutex<BTreeMap<PeerKey, ConnectedPeer>>,
    book: Mutex<Book>,
    bans: Mutex<Bans>,
    announcements: Mutex<KeptAnnouncements>,
    addresses: Mutex<Vec<String>>,
    provided: Mutex<VecDeque<Digest>>,
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
        let kept = KeptAnnouncements::new(limits.rounds_max, limits.announcements_bytes_max);
        let tables = Tables {
            connected: Mutex::default(),
            book: Mutex::new(Book::new(config.genesis, config.netuid)),
            bans: Mutex::default(),
            announcements: Mutex::new(kept),
            addresses: Mutex::default(),
            provided: Mutex::default(),
            gauges: Mutex::default(),
        };
        Shared {
            peer,
            store,
            traffic: Arc::default(),
            meter: Meter::default(),
            congestion: CongestionSeen::default(),
            bell: Bell::default(),
            lies: AtomicBool::new(false),
            tables,
        }
    }

    pub(crate) fn connected(&self) -> MutexGuard<'_, BTreeMap<PeerKey, ConnectedPeer>> {
        lock(&self.tables.connected)
    }
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.tables.book)
    }
    pub(crate) fn bans(&self) -> MutexGuard<'_, Bans> {
        lock(&self.tables.bans)
    }
    /// Announcements that were checked, for peers that missed them.
    pub(crate) fn announcements(&self) -> MutexGuard<'_, KeptAnnouncements> {
        lock(&self.tables.announcements)
    }
    /// Where it listens, with `/p2p/ID`.
    pub(crate) fn addresses(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.tables.addresses)
    }
    /// The states that this node says it holds.
    pub(crate) fn provided(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        lock(&self.tables.provided)
    }
    /// How the network stood at its last look.
    pub(crate) fn gauges(&self) -> MutexGuard<'_, Gauges> {
        lock(&self.tables.gauges)
    }

    /// Whether a peer counts as a stranger: it speaks for no uid, and the chain was seen, so that it could be known.
    pub(crate) fn is_stranger(&self, peer: &PeerKey) -> bool {
        let book = self.book();
        book.has_view() && book.uid_of(peer).is_none()
    }
}

/// What a node of tests shares, with its store in `directory`.
#[cfg(test)]
pub(crate) fn test_shared(directory: &std::path::Path) -> Arc<Shared> {
    let config = Config::new(directory, Digest::ZERO, 1, covey_proto::RunId(Digest::ZERO));
    let store = Store::open(directory.join("blobs"), 1 << 20).unwrap();
    Arc::new(Shared::new(crate::peers::test_peer(0), &config, store))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use covey_proto::Uid;

    #[tokio::test]
    async fn a_bell_tells_once_what_it_was_rung_for() {
        let bell = Bell::default();
        bell.view_changed(vec![Change::Bound(test_peer(1), Uid::from(1))]);
        bell.view_changed(vec![Change::Unbound(test_peer(1), Uid::from(1))]);
        bell.record_changed();
        bell.rings().await;
        let (changes, record_changed) = bell.take();
        assert_eq!((changes.len(), record_changed), (2, true));
        assert_eq!(bell.take(), (vec![], false));
    }

    #[test]
    fn nobody_is_a_stranger_before_the_chain_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!test_shared(dir.path()).is_stranger(&test_peer(1)));
    }
}
