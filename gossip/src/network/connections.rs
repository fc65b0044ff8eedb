//! Connections as they come and go, and the upkeep of those that are there.

use super::behaviour::{BehaviourEvent, UID_SCORE};
use super::network::Job;
use super::running::{Connection, Running};
use crate::event::Event;
use crate::peers::PeerKey;
use crate::peers::book::Change;
use crate::peers::dialer::Dial;
use crate::small::codec::Ask;
use crate::small::fetch;
use covey_proto::Digest;
use covey_proto::message::{PEER_RECORD_BYTES_MAX, Request};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Time between two looks at the connections.
const UPKEEP_EACH: Duration = Duration::from_millis(500);
/// Time between two savings of peers' addresses.
pub(super) const REMEMBER_EACH: Duration = Duration::from_secs(60);
pub(super) const REMEMBER_FIRST: Duration = Duration::from_secs(5);
/// Two connections to one peer are let be for so long: each side may have just dialled.
const SURPLUS_TIME: Duration = Duration::from_secs(5);
/// Dials under way at a time.
const DIALS_MAX: usize = 16;

impl Running<'_> {
    pub(super) fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        if let Some(listen) = self.net.listeners.remove(&listener).and_then(|index| self.net.listen.get_mut(index)) {
            *listen = with_port_of(listen, &address);
        }
        self.on_own_address(&address);
        let text = format!("{address}/p2p/{}", self.net.shared.peer);
        let mut addresses = self.net.shared.addresses();
        if !addresses.contains(&text) {
            addresses.push(text);
        }
    }

    pub(super) fn on_connection(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(PeerKey::of(peer_id), connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(%peer_id, left = num_established, cause = cause.map(|cause| cause.to_string()), "closed");
                self.connections.remove(&connection_id);
                if num_established == 0 {
                    self.on_disconnected(PeerKey::of(peer_id));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                tracing::debug!(%error, "a dial failed");
                if let Some(peer) = self.dialling.remove(&connection_id) {
                    self.on_dial_failed(&peer);
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let text = format!("{address}/p2p/{}", self.net.shared.peer);
                self.net.shared.addresses().retain(|other| *other != text);
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "no longer listening");
            }
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerKey, id: ConnectionId, endpoint: &ConnectedPoint) {
        self.dialling.remove(&id);
        let dialled = endpoint.is_dialer();
        self.connections.insert(id, Connection { peer, dialled, since: Instant::now(), life: None });
        let address = super::split(endpoint.get_remote_address()).1;
        tracing::debug!(%peer, %address, dialled, "connected");
        {
            let mut connected = self.net.shared.connected();
            let seen = connected.entry(peer).or_default();
            seen.since.get_or_insert_with(Instant::now);
            if dialled {
                seen.dialled = Some(address.clone());
            }
            seen.addresses.push(address.clone());
            seen.addresses.truncate(4);
        }
        if dialled {
            self.net.dialer.reached(&address, peer);
        }
        if self.connected.insert(peer) {
            self.net.tell(Event::Connected { peer });
            let bound = self.net.shared.book().uid_of(&peer).is_some();
            self.value(peer.id(), bound);
            self.show_record_to(peer);
            self.ask_for_records(Instant::now());
            self.fetch(fetch::Event::Tick);
            self.on_peer_up(peer);
        }
    }

    /// A connection with another life of its peer than an older one: the peer has crashed and come back, and the older one
    /// is dead. Gossip tells a peer its topics on the first connection only, so all are closed: the peer dials again.
    pub(super) fn on_identified(&mut self, id: ConnectionId, agent: &str) {
        let life = Digest::of(agent.as_bytes());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.life = Some(life);
        let peer = connection.peer;
        let another = |other: &Connection| other.peer == peer && other.life.is_some_and(|other| other != life);
        if self.connections.values().any(another) {
            tracing::debug!(%peer, "the peer was restarted: its old connections are dead");
            // An error means that it is not connected.
            let _ = self.swarm.disconnect_peer_id(peer.id());
        }
    }

    fn on_disconnected(&mut self, peer: PeerKey) {
        self.connected.remove(&peer);
        self.on_left(&peer);
        self.net.shared.connected().remove(&peer);
        self.net.shared.book().disconnected(&peer);
        self.net.tell(Event::Disconnected { peer });
        self.on_peer_down(peer);
        self.upkeep_at = self.upkeep_at.min(Instant::now() + Duration::from_millis(100));
    }

    fn value(&mut self, peer: PeerId, bound: bool) {
        let score = if bound { UID_SCORE } else { 0.0 };
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
    }

    /// Asks a peer for its record by showing the own one.
    pub(super) fn show_record_to(&mut self, peer: PeerKey) {
        let own = self.net.shared.book().own().cloned();
        if let Some(record) = own {
            let ask = Ask { request: Request::Record(record), answer_bytes_max: PEER_RECORD_BYTES_MAX + 256 };
            self.send(peer, ask, super::running::Pending::Record);
        }
    }

    /// Carries out what a record or a chain view changed.
    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Bound(peer, uid) => {
                    let member = self.net.shared.book().member_of(&peer);
                    if member.is_some_and(|member| self.net.shared.bans().holds_member(&member, Instant::now())) {
                        self.ban(peer, "it speaks for a member that is banned");
                    }
                    self.value(peer.id(), true);
                    self.on_rank(peer, true);
                    self.net.tell(Event::Bound { peer, uid });
                }
                Change::Unbound(peer, uid) => {
                    self.value(peer.id(), false);
                    self.on_rank(peer, false);
                    self.net.tell(Event::Unbound { peer, uid });
                }
            }
        }
        self.fetch(fetch::Event::Tick);
    }

    /// Refuses a peer, and the member it speaks for, for a while.
    pub(super) fn ban(&mut self, peer: PeerKey, why: &str) {
        let member = self.net.shared.book().member_of(&peer);
        let now = Instant::now();
        if !self.net.shared.bans().holds(&peer, now) {
            // Once, however many of its requests break the protocol at a time.
            tracing::debug!(%peer, why, "banned");
            self.net.shared.traffic.bans.add(1);
        }
        self.net.shared.bans().ban(peer, member, now, self.net.config.limits.ban);
        self.on_banned(&peer);
        // An error means that it is not connected.
        let _ = self.swarm.disconnect_peer_id(peer.id());
    }

    pub(super) fn upkeep(&mut self) {
        let now = Instant::now();
        self.upkeep_at = now + UPKEEP_EACH;
        self.close_surplus(now);
        for id in self.swarm.behaviour().gate.surplus() {
            self.swarm.close_connection(id);
        }
        self.look_at_peers(now);
        self.publish_unheard(now);
        self.dial_more(now);
        for peer in std::mem::take(&mut self.unshown) {
            if self.connected.contains(&peer) {
                self.show_record_to(peer);
            }
        }
        self.repeat_record(now);
        self.introduce_late();
        self.upkeep_discovery(now);
        if now >= self.remember_at {
            self.remember_at = now + REMEMBER_EACH;
            self.net.remember_peers();
        }
    }

    /// Of two connections to a peer, both sides close the one that the larger id dialled.
    fn close_surplus(&mut self, now: Instant) {
        let mut by_peer: HashMap<PeerKey, Vec<(ConnectionId, bool)>> = HashMap::new();
        for (id, connection) in &self.connections {
            if now.saturating_duration_since(connection.since) >= SURPLUS_TIME {
                by_peer.entry(connection.peer).or_default().push((*id, connection.dialled));
            }
        }
        for (peer, mut connections) in by_peer {
            let smaller = self.net.shared.peer < peer;
            // First the one that stays.
            connections.sort_by_key(|(id, dialled)| (*dialled != smaller, *id));
            for (id, _) in connections.into_iter().skip(1) {
                self.swarm.close_connection(id);
            }
        }
    }

    fn dial_more(&mut self, now: Instant) {
        let mut known: BTreeSet<PeerKey> = self.connected.clone();
        known.extend(self.dialling.values());
        let dials = {
            let (book, bans) = (self.net.shared.book(), self.net.shared.bans());
            let named = book.addresses().into_iter().chain(self.discovery.leads.all(now));
            let records = named.filter(|(peer, _)| !bans.holds(peer, now));
            self.net.dialer.next(now, &known, records)
        };
        for dial in dials {
            self.dial(dial);
        }
    }

    /// Dials a peer where its record says.
    pub(super) fn dial_peer(&mut self, peer: PeerKey) {
        let addresses: Vec<String> = {
            let mut addresses = self.net.shared.book().addresses().remove(&peer).unwrap_or_default();
            addresses.extend_from_slice(self.discovery.leads.of(&peer));
            addresses
        };
        if !self.dialling.values().any(|other| *other == peer) {
            self.dial(Dial { peer: Some(peer), addresses, again: true, trusted: false });
        }
    }

    /// Goes on with a dial whose name has become addresses.
    pub(super) fn dial_resolved(&mut self, dial: Dial, addresses: &[Multiaddr]) {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if let Some(name) = dial.addresses.first() {
            self.net.dialer.resolved(name, &texts);
        }
        match dial.peer {
            Some(_) => self.dial(Dial { addresses: texts, ..dial }),
            // Each may be another peer.
            None => texts.into_iter().for_each(|text| self.dial(Dial { addresses: vec![text], ..dial.clone() })),
        }
    }

    fn dial(&mut self, dial: Dial) {
        let may = |address: &Multiaddr| self.net.may_dial(address);
        let mut addresses: Vec<Multiaddr> = dial.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        if !dial.trusted {
            addresses.retain(may);
        }
        // One address each is what the operator and the cache name.
        if let Some(named) = addresses.iter().find(|address| super::names::is_named(address)).cloned() {
            if dial.trusted {
                let resolve = async move { Job::Resolved { addresses: super::names::resolve(&named).await, dial } };
                self.net.jobs.spawn(resolve);
            }
            return;
        }
        // QUIC is for where TCP does not get through: bulk over it is slower by far on long lines.
        let tcp = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        if !dial.again && addresses.iter().any(tcp) {
            addresses.retain(tcp);
        }
        if addresses.is_empty() || self.dialling.len() >= DIALS_MAX {
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
        if self.swarm.dial(options).is_ok()
            && let Some(peer) = dial.peer
        {
            self.dialling.insert(id, peer);
        }
    }
}

/// `listen` with the port that the system chose, so that a rebuilt network listens where it did.
fn with_port_of(listen: &Multiaddr, actual: &Multiaddr) -> Multiaddr {
    let port = actual.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    });
    let Some(port) = port else { return listen.clone() };
    let parts = listen.iter().map(|part| match part {
        Protocol::Tcp(0) => Protocol::Tcp(port),
        Protocol::Udp(0) => Protocol::Udp(port),
        part => part,
    });
    parts.collect()
}
