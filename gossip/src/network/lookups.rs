//! Carries out what discovery decides (`discovery/`): starts Kademlia's queries, keeps its table, tells what it found.

use super::behaviour::Behaviour;
use super::connections::Connections;
use super::effects::{Effect, Effects};
use super::kademlia::{Kademlia, KademliaEvent};
use super::listeners::Listeners;
use super::records::Records;
use crate::discovery::{
    AskerId, Discovery, DiscoveryAction, DiscoveryEvent, Entry, IdentifyReport, LookUpId, ProviderRecord,
    PublicationId, Surroundings,
};
use crate::peers::leads::Leads;
use crate::peers::{Multiaddr, PeerKey};
use crate::shared::Shared;
use covey_proto::{Digest, RunId};
use libp2p::Swarm;
use libp2p::identify;
use libp2p::kad::QueryId;
use libp2p::swarm::ConnectionId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What a look-up's answer is given to.
type Askers = HashMap<AskerId, oneshot::Sender<Vec<PeerKey>>>;

/// The look-ups and publications of one life of the network.
pub(super) struct LookUps {
    shared: Arc<Shared>,
    discovery: Discovery,
    look_ups: HashMap<QueryId, LookUpId>,
    publications: HashMap<QueryId, PublicationId>,
    askers: Askers,
    askers_made: u64,
}

/// What else of the network discovery has a say in.
pub(super) struct LookUpMeans<'a> {
    pub(super) swarm: &'a mut Swarm<Behaviour>,
    pub(super) connections: &'a Connections,
    pub(super) records: &'a Records,
    pub(super) listeners: &'a Listeners,
    pub(super) effects: &'a mut Effects,
}

/// What discovery may look at.
struct View<'a> {
    shared: &'a Shared,
    connections: &'a Connections,
    kademlia: &'a mut Kademlia,
    askers: &'a Askers,
    now: Instant,
}

impl Surroundings for View<'_> {
    fn connected(&self) -> &BTreeSet<PeerKey> {
        self.connections.peers()
    }
    fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr> {
        self.connections.seen_at(peer)
    }
    fn is_member(&self, peer: &PeerKey) -> bool {
        self.shared.book().uid_of(peer).is_some()
    }
    fn is_named(&self, peer: &PeerKey) -> bool {
        self.shared.book().is_named(peer)
    }
    fn shown_addresses(&self, peer: &PeerKey) -> Vec<Multiaddr> {
        self.shared.book().shown_addresses(peer).iter().filter_map(|text| text.parse().ok()).collect()
    }
    fn is_banned(&self, peer: &PeerKey) -> bool {
        self.shared.bans().holds(peer, self.now)
    }
    fn sees_chain(&self) -> bool {
        self.shared.book().has_view()
    }
    fn takes_part(&self) -> bool {
        self.shared.book().own().is_some()
    }
    fn states(&self) -> Vec<Digest> {
        self.shared.provided().iter().copied().collect()
    }
    fn is_gone(&self, asker: AskerId) -> bool {
        self.askers.get(&asker).is_none_or(oneshot::Sender::is_closed)
    }
    fn can_ask(&mut self) -> bool {
        self.kademlia.has_peers()
    }
    fn bucket_of(&mut self, peer: &PeerKey) -> Vec<Entry> {
        self.kademlia.bucket_of(*peer)
    }
}

impl LookUps {
    pub(super) fn new(shared: Arc<Shared>, run: RunId, peers_target: usize, now: Instant) -> LookUps {
        LookUps {
            shared,
            discovery: Discovery::new(run, peers_target, now),
            look_ups: HashMap::new(),
            publications: HashMap::new(),
            askers: HashMap::new(),
            askers_made: 0,
        }
    }

    /// Peers that others named.
    pub(super) fn leads(&self) -> &Leads {
        self.discovery.leads()
    }

    /// Somebody here asks who holds a state. Dropping its reply is an answer too: nobody.
    pub(super) fn want(&mut self, state: Digest, reply: oneshot::Sender<Vec<PeerKey>>, means: LookUpMeans<'_>) {
        self.askers_made += 1;
        let asker = AskerId(self.askers_made);
        self.askers.insert(asker, reply);
        self.tell(DiscoveryEvent::Wanted { state, asker }, means);
        self.askers.retain(|_, reply| !reply.is_closed());
    }

    /// Kademlia says something.
    pub(super) fn found(&mut self, found: KademliaEvent, means: LookUpMeans<'_>) {
        let event = match found {
            KademliaEvent::Providers { query, providers } => {
                let Some(look_up) = self.look_ups.get(&query).copied() else { return };
                DiscoveryEvent::Found { look_up, providers }
            }
            KademliaEvent::Ended { query } => {
                let Some(look_up) = self.look_ups.remove(&query) else { return };
                DiscoveryEvent::LookUpEnded { look_up }
            }
            KademliaEvent::Published { query, with } => {
                let Some(publication) = self.publications.remove(&query) else { return };
                DiscoveryEvent::Published { publication, with }
            }
            KademliaEvent::Offer { key, peer } => DiscoveryEvent::Offer { peer, key },
            KademliaEvent::Serves { peer, dialled } => DiscoveryEvent::Serves { peer, dialled },
        };
        self.tell(event, means);
    }

    /// Identify says something of a connection's other end.
    pub(super) fn identified(&mut self, id: ConnectionId, info: identify::Info, means: LookUpMeans<'_>) {
        let Some(line) = means.connections.line(&id) else { return };
        let report = IdentifyReport {
            peer: line.peer,
            dialled: line.dialled,
            way: line.way,
            listens: info.signed_peer_record.is_some().then_some(info.listen_addrs),
            observed: info.observed_addr,
        };
        self.tell(DiscoveryEvent::Identified(report), means);
    }

    /// Time passed. Connections that look-ups opened and need no longer are closed, but only once there are more peers than
    /// this node wants: until then any connection is of use.
    pub(super) fn tick(&mut self, now: Instant, mut means: LookUpMeans<'_>) {
        self.tell(DiscoveryEvent::Tick, means.again());
        let plenty = self.discovery.has_plenty(means.connections.peers().len());
        for id in means.swarm.behaviour_mut().kademlia.idle(now) {
            if plenty {
                means.swarm.close_connection(id);
            }
        }
    }

    /// Tells discovery something, and does what it then wants done.
    pub(super) fn tell(&mut self, event: DiscoveryEvent, mut means: LookUpMeans<'_>) {
        let now = Instant::now();
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        // What cannot be done is an event in turn; it makes no more of its kind.
        while let Some(event) = events.pop_front() {
            let kademlia = &mut means.swarm.behaviour_mut().kademlia;
            let LookUps { shared, askers, discovery, .. } = self;
            let mut view = View { shared, connections: means.connections, kademlia, askers, now };
            discovery.handle(now, event, &mut view, &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action, &mut means, now));
            }
        }
    }

    fn perform(
        &mut self,
        action: DiscoveryAction,
        means: &mut LookUpMeans<'_>,
        now: Instant,
    ) -> Option<DiscoveryEvent> {
        let kademlia = &mut means.swarm.behaviour_mut().kademlia;
        match action {
            DiscoveryAction::LookUp { look_up, key } => {
                self.look_ups.insert(kademlia.find(&key), look_up);
            }
            DiscoveryAction::Publish { publication, key } => match kademlia.publish(&key) {
                Some(query) => drop(self.publications.insert(query, publication)),
                None => return Some(DiscoveryEvent::Published { publication, with: 0 }),
            },
            DiscoveryAction::Unpublish { key } => kademlia.stop(&key),
            DiscoveryAction::Answer { asker, peers } => {
                if let Some(reply) = self.askers.remove(&asker) {
                    // Whoever asked may have given up.
                    let _ = reply.send(peers);
                }
            }
            DiscoveryAction::AskForRecords { peer } => means.records.ask_for_list(peer, means.effects),
            DiscoveryAction::Enter { peer, addresses } => kademlia.enter(peer, addresses),
            DiscoveryAction::Remove { peer } => kademlia.remove(peer),
            DiscoveryAction::Keep(provided) => self.keep(kademlia, provided, now),
            DiscoveryAction::Refuse { .. } => self.shared.traffic.providers_refused.add(1),
            DiscoveryAction::Rank { peer, rank } => kademlia.providers().rank(&peer, rank),
            DiscoveryAction::Forget { peer } => kademlia.providers().forget(&peer),
            DiscoveryAction::ReachedAt { address } => means.listeners.reached_at(address, means.swarm),
            DiscoveryAction::DialSoon => means.effects.push_back(Effect::UpkeepSoon),
        }
        None
    }

    fn keep(&self, kademlia: &mut Kademlia, provided: ProviderRecord, now: Instant) {
        let ProviderRecord { key, peer, rank, addresses, place } = provided;
        match kademlia.providers().put(key, peer, rank, addresses, place, now) {
            Ok(()) => self.shared.traffic.providers_in.add(1),
            Err(error) => {
                self.shared.traffic.providers_refused.add(1);
                tracing::debug!(%peer, %error, "a provider's record is not kept");
            }
        }
    }
}

impl LookUpMeans<'_> {
    pub(super) fn again(&mut self) -> LookUpMeans<'_> {
        LookUpMeans {
            swarm: self.swarm,
            connections: self.connections,
            records: self.records,
            listeners: self.listeners,
            effects: self.effects,
        }
    }
}
