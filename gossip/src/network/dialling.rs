//! Dials: carries out what the dialer decides (`peers/dialer.rs`), and keeps the file of peers for the next start.

use super::behaviour::Behaviour;
use super::jobs::{Job, Jobs};
use super::names;
use crate::identity;
use crate::peers::cache::{self, Cache};
use crate::peers::dialer::{Dial, DialPlan, Dialer};
use crate::peers::leads::Leads;
use crate::peers::place::{may_dial, without_peer};
use crate::peers::way::Way;
use crate::peers::{Multiaddr, PeerKey};
use crate::shared::{ConnectedPeer, Shared};
use libp2p::Swarm;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Dials under way at a time.
const DIALS_MAX: usize = 16;

/// Whom this node dials. It outlives a fault.
pub(super) struct Dialling {
    shared: Arc<Shared>,
    directory: PathBuf,
    /// Whether the swarm lives on this machine.
    here: bool,
    dialer: Dialer,
    /// Peers of this life and former ones.
    cache: Cache,
    under_way: HashMap<ConnectionId, PeerKey>,
}

impl Dialling {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: PathBuf,
        here: bool,
        peers_target: usize,
        bootstrap: Vec<(Option<PeerKey>, String)>,
        cache: Cache,
    ) -> Dialling {
        let remembered = cache.addresses().into_iter().map(|(peer, address)| (Some(peer), address));
        let fixed = bootstrap.into_iter().chain(remembered).collect();
        let dialer = Dialer::new(shared.peer, peers_target, fixed);
        Dialling { shared, directory, here, dialer, cache, under_way: HashMap::new() }
    }

    /// For another life of the network: of the former one's dials nothing is heard any more.
    pub(super) fn renew(&mut self, here: bool) {
        self.under_way.clear();
        self.here = here;
    }

    /// Dials to known peers that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// A connection came to be; `dialled`: where, if by a dial.
    pub(super) fn established(&mut self, id: &ConnectionId, peer: PeerKey, dialled: Option<&str>, way: Way) {
        self.under_way.remove(id);
        if let Some(address) = dialled {
            self.dialer.reached(address, peer, way);
        }
    }

    /// A dial led nowhere. To which peer it was, if that is known. Who is alone learns nothing about others.
    pub(super) fn failed(&mut self, id: &ConnectionId, connected: &BTreeSet<PeerKey>) -> Option<PeerKey> {
        let peer = self.under_way.remove(id)?;
        if !connected.is_empty() && !connected.contains(&peer) {
            self.cache.failed(&peer);
        }
        Some(peer)
    }

    /// Dials as many as are wanted.
    pub(super) fn dial_more(
        &mut self,
        now: Instant,
        connected: &BTreeSet<PeerKey>,
        leads: &Leads,
        swarm: &mut Swarm<Behaviour>,
        jobs: &mut Jobs,
    ) {
        let mut known = connected.clone();
        known.extend(self.under_way.values());
        let dials = {
            let (book, bans) = (self.shared.book(), self.shared.bans());
            let named = book.addresses().into_iter().chain(leads.all(now));
            let records = named.filter(|(peer, _)| !bans.holds(peer, now));
            self.dialer.next(now, &known, records)
        };
        for dial in dials {
            self.dial(dial, swarm, jobs);
        }
    }

    /// Dials a peer where its record says, or somebody else does.
    pub(super) fn dial_peer(&mut self, peer: PeerKey, leads: &Leads, swarm: &mut Swarm<Behaviour>, jobs: &mut Jobs) {
        if self.under_way.values().any(|other| *other == peer) {
            return;
        }
        let mut addresses: Vec<String> = self.shared.book().addresses().remove(&peer).unwrap_or_default();
        addresses.extend_from_slice(leads.of(&peer));
        self.dial(Dial { peer: Some(peer), addresses, again: true, trusted: false }, swarm, jobs);
    }

    /// Goes on with a dial whose name has become addresses.
    pub(super) fn resolved(
        &mut self,
        dial: Dial,
        addresses: &[Multiaddr],
        swarm: &mut Swarm<Behaviour>,
        jobs: &mut Jobs,
    ) {
        if let Some(name) = dial.addresses.first() {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            self.dialer.resolved(name, &texts);
        }
        for dial in dial.resolved(addresses) {
            self.dial(dial, swarm, jobs);
        }
    }

    fn dial(&mut self, dial: Dial, swarm: &mut Swarm<Behaviour>, jobs: &mut Jobs) {
        let mut addresses = match dial.plan(self.here) {
            DialPlan::Nothing => return,
            DialPlan::Resolve(named) => {
                jobs.spawn(async move { Job::Resolved { addresses: names::resolve(&named).await, dial } });
                return;
            }
            DialPlan::To(addresses) => addresses,
        };
        if self.under_way.len() >= DIALS_MAX {
            return;
        }
        let options = match dial.peer {
            Some(peer) => DialOpts::peer_id(peer.id())
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id().address(addresses.swap_remove(0)).allocate_new_port().build(),
        };
        let id = options.connection_id();
        if swarm.dial(options).is_ok()
            && let Some(peer) = dial.peer
        {
            self.under_way.insert(id, peer);
        }
    }

    /// Where each connected peer can be reached: where it was, or else where its record says.
    fn reachable(&self) -> Vec<(PeerKey, String)> {
        let connected = self.shared.connected();
        let dialled = |(peer, seen): (&PeerKey, &ConnectedPeer)| Some((*peer, seen.dialled.clone()?));
        let mut found: Vec<_> = connected.iter().filter_map(dialled).collect();
        for (peer, addresses) in self.shared.book().addresses() {
            let may = |address: &&String| address.parse().is_ok_and(|address| may_dial(&address, self.here));
            if connected.contains_key(&peer) && !found.iter().any(|(other, _)| *other == peer) {
                found.extend(addresses.iter().find(may).map(|address| (peer, without_peer(address))));
            }
        }
        found
    }

    /// Writes the addresses of connected peers for the next start.
    pub(super) fn remember(&mut self, jobs: &mut Jobs) {
        let reachable = self.reachable();
        {
            let book = self.shared.book();
            let with_kind = |(peer, address)| (peer, address, book.uid_of(&peer).is_some());
            self.cache.reached(reachable.into_iter().map(with_kind), now_seconds());
        }
        let text = self.cache.text();
        let directory = self.directory.clone();
        if text.is_empty() {
            return;
        }
        jobs.spawn_blocking(move || {
            let (beside, path) = (directory.join("peers.new"), directory.join("peers"));
            if let Err(error) = identity::write_beside(&beside, &path, text.as_bytes(), 0o644) {
                tracing::warn!(%error, path = %path.display(), "the addresses of peers could not be saved");
            }
            Job::Done
        });
    }
}

/// Seconds since 1970; a clock before that is at 0.
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The peers of former lives. A file that cannot be read has none.
pub(super) fn remembered(directory: &Path) -> Cache {
    let mut text = String::new();
    let file = std::fs::File::open(directory.join("peers"));
    let read = file.and_then(|file| file.take(cache::BYTES_MAX).read_to_string(&mut text));
    Cache::read(if read.is_ok() { &text } else { "" }, now_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;

    #[tokio::test]
    async fn peers_are_remembered_where_they_were_dialled_and_one_behind_a_relay_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let shared = test_shared(dir.path());
        let (direct, relayed) = (test_peer(1), test_peer(2));
        for (peer, way) in [(direct, Way::Direct), (relayed, Way::Relayed)] {
            let dialled = (way == Way::Direct).then(|| "/ip4/1.2.3.4/tcp/7".to_owned());
            let seen = ConnectedPeer { dialled, ..ConnectedPeer::new(way, Instant::now()) };
            shared.connected().insert(peer, seen);
        }
        let directory = dir.path().to_owned();
        let mut dialling = Dialling::new(shared, directory, false, 3, vec![], remembered(dir.path()));
        let mut jobs = Jobs::new();
        dialling.remember(&mut jobs);
        assert!(matches!(jobs.join_next().await, Some(Ok(Job::Done))));
        assert_eq!(remembered(dir.path()).addresses(), [(direct, "/ip4/1.2.3.4/tcp/7".to_owned())]);
    }

    #[test]
    fn a_peer_that_cannot_be_dialled_loses_standing_only_while_others_are_connected() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, peer, id) = (test_shared(dir.path()), test_peer(1), ConnectionId::new_unchecked(1));
        let cache = Cache::read(&format!("/ip4/1.2.3.4/tcp/7/p2p/{peer} 0 0 member\n"), 0);
        let mut dialling = Dialling::new(shared, dir.path().to_owned(), false, 3, vec![], cache);
        assert_eq!(dialling.failed(&id, &BTreeSet::new()), None, "nobody knows whom it was for");
        for (connected, fails) in [(BTreeSet::new(), 0), (BTreeSet::from([test_peer(2)]), 1)] {
            dialling.under_way.insert(id, peer);
            assert_eq!(dialling.failed(&id, &connected), Some(peer));
            assert!(dialling.cache.text().contains(&format!(" 0 {fails} member")), "{}", dialling.cache.text());
        }
    }
}
