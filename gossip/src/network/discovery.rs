//! Discovery: which providers are admitted, who is put into Kademlia's table, what is looked up and published when, and
//! whose lists of peer records are asked for.
//!
//! What is found are hints for the dialer. That a peer speaks for a uid is only ever its own word over its own
//! connection (`peers/book.rs`).

use super::kademlia::{Found, run_key, state_key};
use super::running::{Pending, Running};
use crate::peers::PeerKey;
use crate::peers::bucket::{Buckets, Rate};
use crate::peers::external::Candidates;
use crate::peers::leads::Leads;
use crate::peers::place::{Net, Place, address_of, dialable, is_here, useful};
use crate::peers::providers::{ADDRESSES_MAX, REPEAT, Rank};
use crate::small::codec::{Ask, RECORDS_BYTES_MAX};
use covey_proto::Digest;
use covey_proto::message::{Request, SignedPeerRecord};
use libp2p::kad::QueryId;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Provider records that one peer may bring: ten a minute.
const OFFER_RATE: Rate = Rate { burst: 10, refill: Duration::from_secs(6) };
/// Peers that may bring them at a time: more than there are connections.
const OFFER_KEYS_MAX: usize = 1024;
/// Records of one peer that wait until it has shown who it is.
const OFFERS_MAX: usize = 5;
/// Look-ups under way, and those that wait for one to end; more are answered with nobody.
const LOOK_UPS_MAX: usize = 4;
const LOOK_UPS_WAITING_MAX: usize = 16;
/// Peers that one look-up finds.
const FOUND_MAX: usize = 64;
/// Waits between look-ups of the run's peers while there are too few, and before the second publication of a key: the
/// table is small at first.
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// A publication that reached nobody is tried again so soon.
const RETRY: Duration = Duration::from_secs(10);
/// Time between two askings of one peer for the records that it knows.
const ASK_EACH: Duration = Duration::from_secs(300);
/// Peers asked at a time.
const ASKED_MAX: usize = 2;
/// Strangers in one bucket of Kademlia's table, which holds 20, and of one /16 among them.
const STRANGERS_MAX: usize = 10;
const STRANGERS_PER_NET_MAX: usize = 2;
const BUCKET_MAX: usize = 20;
/// Addresses of a peer in that table: they are handed out in every answer.
const TABLE_ADDRESSES_MAX: usize = 4;

struct Publication {
    due: Instant,
    wait: Duration,
}

struct LookUp {
    found: BTreeSet<PeerKey>,
    /// None for the run's peers.
    reply: Option<oneshot::Sender<Vec<PeerKey>>>,
}

pub(super) struct Discovery {
    /// Where connected peers say that they are.
    certified: HashMap<PeerKey, Vec<Multiaddr>>,
    /// Connected peers that answer look-ups.
    serving: BTreeSet<PeerKey>,
    /// Keys that connected peers offer to provide and that are not admitted yet.
    offers: HashMap<PeerKey, BTreeSet<Digest>>,
    offer_rate: Buckets<PeerKey>,
    pub(super) leads: Leads,
    candidates: Candidates,
    published: BTreeMap<Digest, Publication>,
    publishing: HashMap<QueryId, Digest>,
    looking: HashMap<QueryId, LookUp>,
    waiting: VecDeque<(Digest, oneshot::Sender<Vec<PeerKey>>)>,
    run_due: Instant,
    run_wait: Duration,
    /// When connected peers were asked for the records that they know.
    asked: HashMap<PeerKey, Instant>,
    saw_chain: bool,
    /// Where the next sample of records begins.
    turn: u8,
}

impl Discovery {
    pub(super) fn new(now: Instant) -> Discovery {
        Discovery {
            certified: HashMap::new(),
            serving: BTreeSet::new(),
            offers: HashMap::new(),
            offer_rate: Buckets::new(OFFER_RATE, OFFER_KEYS_MAX),
            leads: Leads::default(),
            candidates: Candidates::default(),
            published: BTreeMap::new(),
            publishing: HashMap::new(),
            looking: HashMap::new(),
            waiting: VecDeque::new(),
            run_due: now,
            run_wait: WAIT_MIN,
            asked: HashMap::new(),
            saw_chain: false,
            turn: std::process::id() as u8,
        }
    }
}

impl Running<'_> {
    pub(super) fn on_found(&mut self, found: Found) {
        match found {
            Found::Providers { query, providers } => self.on_providers(query, providers),
            Found::Ended { query } => {
                if let Some(LookUp { found, reply: Some(reply) }) = self.discovery.looking.remove(&query) {
                    // Whoever asked may have given up.
                    let _ = reply.send(self.ranked(found));
                }
            }
            Found::Published { query, with } => {
                let key = self.discovery.publishing.remove(&query);
                if let Some(publication) = key.and_then(|key| self.discovery.published.get_mut(&key))
                    && with == 0
                {
                    *publication = Publication { due: Instant::now() + RETRY, wait: WAIT_MIN };
                }
            }
            Found::Offer { key, peer } => {
                let offers = self.discovery.offers.get(&peer).map_or(0, BTreeSet::len);
                let known = self.connected.contains(&peer) && offers < OFFERS_MAX;
                if known && self.discovery.offer_rate.take(peer, Instant::now()) {
                    self.discovery.offers.entry(peer).or_default().insert(key);
                    self.settle_offers(peer);
                } else {
                    self.net.shared.traffic.providers_refused.add(1);
                }
            }
            Found::Serves { peer, dialled } => {
                if self.connected.contains(&peer) {
                    self.discovery.serving.insert(peer);
                    self.route(peer, dialled);
                }
            }
        }
    }

    /// Identify: where a peer is, and where it thinks that this node is.
    pub(super) fn on_identity(&mut self, id: ConnectionId, info: &identify::Info) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (peer, dialled) = (connection.peer, connection.dialled);
        let Some(ip) = self.seen_at(&peer) else { return };
        if info.signed_peer_record.is_some() {
            let addresses = useful(info.listen_addrs.iter(), ip, ADDRESSES_MAX);
            self.discovery.certified.insert(peer, addresses);
        }
        // Whoever was dialled sees a port that is of this connection only.
        if !dialled && let Some(address) = self.discovery.candidates.seen(&info.observed_addr, peer, ip) {
            tracing::info!(%address, "this node can be reached here: two peers of different networks did");
            // First, since a peer record takes eight.
            self.net.shared.addresses().insert(0, format!("{address}/p2p/{}", self.net.shared.peer));
            self.swarm.add_external_address(address);
        }
        self.route(peer, None);
        self.settle_offers(peer);
    }

    /// This node listens there: its external address, if the operator says so.
    pub(super) fn on_own_address(&mut self, address: &Multiaddr) {
        let here = address_of(address).is_some_and(is_here);
        let few = self.swarm.external_addresses().count() < crate::peers::external::EXTERNAL_MAX;
        if self.net.config.reachable && few && (!here || self.net.listens_here()) {
            self.swarm.add_external_address(address.clone());
        }
    }

    /// A peer began to speak for a uid, or ceased to.
    pub(super) fn on_rank(&mut self, peer: PeerKey, member: bool) {
        let rank = if member { Rank::Member } else { Rank::Stranger };
        self.swarm.behaviour_mut().kademlia.providers().rank(&peer, rank);
        if member {
            self.route(peer, None);
            self.settle_offers(peer);
        }
    }

    pub(super) fn on_banned(&mut self, peer: &PeerKey) {
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        kademlia.providers().forget(peer);
        kademlia.inner.remove_peer(&peer.id());
        self.discovery.leads.forget(peer);
    }

    pub(super) fn on_left(&mut self, peer: &PeerKey) {
        let Discovery { certified, serving, offers, asked, .. } = &mut self.discovery;
        certified.remove(peer);
        serving.remove(peer);
        offers.remove(peer);
        asked.remove(peer);
    }

    pub(super) fn on_dial_failed(&mut self, peer: &PeerKey) {
        self.discovery.leads.failed(peer);
        // Who is alone learns nothing about others.
        if !self.connected.is_empty() && !self.connected.contains(peer) {
            self.net.cache.failed(peer);
        }
    }

    fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr> {
        let connected = self.net.shared.connected();
        address_of(&connected.get(peer)?.addresses.first()?.parse().ok()?)
    }

    /// The addresses that a member signed with its hotkey.
    fn shown(&self, peer: &PeerKey, ip: IpAddr) -> Vec<Multiaddr> {
        let book = self.net.shared.book();
        let parsed: Vec<Multiaddr> = book.shown_addresses(peer).iter().filter_map(|text| text.parse().ok()).collect();
        useful(parsed.iter(), ip, ADDRESSES_MAX)
    }

    /// Admits what a peer offers to provide, once it has shown who it is: with the addresses that it signed, not those
    /// that came along.
    fn settle_offers(&mut self, peer: PeerKey) {
        let (true, Some(ip)) = (self.discovery.offers.contains_key(&peer), self.seen_at(&peer)) else { return };
        let member = self.net.shared.book().uid_of(&peer).is_some();
        let mut addresses = self.shown(&peer, ip);
        if addresses.is_empty() {
            addresses = self.discovery.certified.get(&peer).cloned().unwrap_or_default();
        }
        if addresses.is_empty() {
            return;
        }
        let rank = if member { Rank::Member } else { Rank::Stranger };
        let place = Place::of(ip);
        for key in self.discovery.offers.remove(&peer).unwrap_or_default() {
            let providers = self.swarm.behaviour_mut().kademlia.providers();
            match providers.put(key, peer, rank, addresses.clone(), place, Instant::now()) {
                Ok(()) => self.net.shared.traffic.providers_in.add(1),
                Err(error) => {
                    self.net.shared.traffic.providers_refused.add(1);
                    tracing::debug!(%peer, %error, "a provider's record is not kept");
                }
            }
        }
    }

    /// Puts a peer that answers look-ups into Kademlia's table, where it can be dialled by others: where it was dialled,
    /// where a member says it is, where a stranger says it is if it is seen there.
    fn route(&mut self, peer: PeerKey, dialled: Option<Multiaddr>) {
        let (true, Some(ip)) = (self.discovery.serving.contains(&peer), self.seen_at(&peer)) else { return };
        let mut addresses: Vec<Multiaddr> = dialled.as_ref().and_then(dialable).into_iter().collect();
        let certified = self.discovery.certified.get(&peer).into_iter().flatten();
        addresses.extend(certified.filter(|address| address_of(address) == Some(ip)).cloned());
        addresses.extend(self.shown(&peer, ip));
        if addresses.is_empty() || !self.may_route(peer, ip) {
            return;
        }
        let table = &mut self.swarm.behaviour_mut().kademlia.inner;
        let bucket = table.kbucket(peer.id());
        let entry =
            bucket.iter().flat_map(|bucket| bucket.iter()).find(|entry| *entry.node.key.preimage() == peer.id());
        let old: Vec<Multiaddr> = entry.map(|entry| entry.node.value.clone().into_vec()).unwrap_or_default();
        let mut wanted: Vec<Multiaddr> = Vec::new();
        for address in addresses.into_iter().chain(old.iter().filter_map(dialable)) {
            if wanted.len() < TABLE_ADDRESSES_MAX && !wanted.contains(&address) {
                wanted.push(address);
            }
        }
        // Each change makes libp2p look around anew while the table is small.
        if old.len() != wanted.len() || !old.iter().filter_map(dialable).all(|address| wanted.contains(&address)) {
            table.remove_peer(&peer.id());
            for address in wanted {
                table.add_address(&peer.id(), address);
            }
        }
    }

    /// Members have a place in every bucket; strangers take at most half, and few of one network.
    fn may_route(&mut self, peer: PeerKey, ip: IpAddr) -> bool {
        let book = self.net.shared.book();
        let table = &mut self.swarm.behaviour_mut().kademlia.inner;
        let net = |address: &Multiaddr| -> Option<Net> { Some(Place::of(address_of(address)?)?.net()) };
        let (mut count, mut strangers) = (0, Vec::<(PeerId, Option<Net>)>::new());
        if let Some(bucket) = table.kbucket(peer.id()) {
            for entry in bucket.iter().filter(|entry| *entry.node.key.preimage() != peer.id()) {
                let other = *entry.node.key.preimage();
                count += 1;
                if !book.is_named(&PeerKey::of(other)) {
                    strangers.push((other, net(entry.node.value.first())));
                }
            }
        }
        if book.is_named(&peer) {
            if count >= BUCKET_MAX
                && let Some((stranger, _)) = strangers.first()
            {
                table.remove_peer(stranger);
            }
            return true;
        }
        let own = Place::of(ip).map(Place::net);
        let near = strangers.iter().filter(|(_, net)| own.is_some() && *net == own).count();
        strangers.len() < STRANGERS_MAX && near < STRANGERS_PER_NET_MAX
    }

    fn on_providers(&mut self, query: QueryId, providers: Vec<(PeerKey, Vec<Multiaddr>)>) {
        let now = Instant::now();
        let Some(look_up) = self.discovery.looking.get_mut(&query) else { return };
        for (peer, addresses) in providers {
            if look_up.found.len() >= FOUND_MAX || self.net.shared.bans().holds(&peer, now) {
                continue;
            }
            look_up.found.insert(peer);
            if !self.connected.contains(&peer) {
                self.discovery.leads.add(peer, &addresses, now);
            }
        }
        self.upkeep_at = now;
    }

    /// Members first, then from as many networks as there are.
    fn ranked(&self, found: BTreeSet<PeerKey>) -> Vec<PeerKey> {
        let book = self.net.shared.book();
        let (mut members, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|peer| book.is_named(peer));
        let order = self.discovery.leads.all(Instant::now());
        let place = |peer: &PeerKey| order.iter().position(|(other, _)| other == peer).unwrap_or(usize::MAX);
        let mut others: Vec<(usize, PeerKey)> = others.into_iter().map(|peer| (place(&peer), peer)).collect();
        others.sort();
        members.extend(others.into_iter().map(|(_, peer)| peer));
        members
    }

    pub(super) fn look_up(&mut self, state: &Digest, reply: oneshot::Sender<Vec<PeerKey>>) {
        // One that waits in vain is answered with nobody, by dropping its reply.
        if self.discovery.waiting.len() < LOOK_UPS_WAITING_MAX {
            self.discovery.waiting.push_back((state_key(state), reply));
            self.look_up_more();
        }
    }

    fn look_up_more(&mut self) {
        while self.discovery.looking.len() < LOOK_UPS_MAX {
            let Some((key, reply)) = self.discovery.waiting.pop_front() else { return };
            if reply.is_closed() {
                continue;
            }
            let query = self.swarm.behaviour_mut().kademlia.find(&key);
            self.discovery.looking.insert(query, LookUp { found: BTreeSet::new(), reply: Some(reply) });
        }
    }

    pub(super) fn upkeep_discovery(&mut self, now: Instant) {
        self.ask_for_records(now);
        self.publish_more(now);
        self.look_up_more();
        self.look_up_run(now);
        // What a look-up opened is welcome as long as peers are wanted anyway.
        let plenty = self.connected.len() > self.net.config.limits.peers_target;
        for id in self.swarm.behaviour_mut().kademlia.idle(now) {
            if plenty {
                self.swarm.close_connection(id);
            }
        }
    }

    fn look_up_run(&mut self, now: Instant) {
        if self.connected.len() >= self.net.config.limits.peers_target {
            self.discovery.run_wait = WAIT_MIN;
            return;
        }
        let idle = now >= self.discovery.run_due && self.discovery.looking.len() < LOOK_UPS_MAX;
        if !idle || !self.swarm.behaviour_mut().kademlia.has_peers() {
            return;
        }
        self.discovery.run_due = now + self.discovery.run_wait;
        self.discovery.run_wait = (self.discovery.run_wait * 2).min(WAIT_MAX);
        let query = self.swarm.behaviour_mut().kademlia.find(&run_key(self.net.config.run));
        self.discovery.looking.insert(query, LookUp { found: BTreeSet::new(), reply: None });
    }

    /// Says which states this node holds and, if it is a member, that it takes part in the run.
    fn publish_more(&mut self, now: Instant) {
        let mut wanted: BTreeSet<Digest> = self.net.shared.provided().iter().map(state_key).collect();
        if self.net.shared.book().own().is_some() {
            wanted.insert(run_key(self.net.config.run));
        }
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        let Discovery { published, publishing, .. } = &mut self.discovery;
        published.retain(|key, _| {
            let kept = wanted.contains(key);
            if !kept {
                kademlia.stop(key);
            }
            kept
        });
        for key in wanted {
            published.entry(key).or_insert(Publication { due: now, wait: WAIT_MIN });
        }
        for (key, publication) in published.iter_mut().filter(|(_, publication)| publication.due <= now) {
            if publishing.len() >= LOOK_UPS_MAX || !kademlia.has_peers() {
                return;
            }
            *publication = Publication { due: now + publication.wait, wait: (publication.wait * 4).min(REPEAT) };
            publishing.extend(kademlia.publish(key).map(|query| (query, *key)));
        }
    }

    // ---- the records that others know

    /// Asks a few connected peers for the records that they know, while peers are few: the first one at once, since it may
    /// be gone soon.
    pub(super) fn ask_for_records(&mut self, now: Instant) {
        let has_view = self.net.shared.book().has_view();
        if has_view && !self.discovery.saw_chain {
            // Only now can the answers be judged.
            self.discovery.saw_chain = true;
            self.discovery.asked.clear();
        }
        if self.connected.len() > self.net.config.limits.peers_target {
            return;
        }
        let fresh = |peer: &&PeerKey| {
            let asked = self.discovery.asked.get(peer);
            asked.is_none_or(|at| now.saturating_duration_since(*at) >= ASK_EACH)
        };
        let peers: Vec<PeerKey> = self.connected.iter().filter(fresh).take(ASKED_MAX).copied().collect();
        for peer in peers {
            self.discovery.asked.insert(peer, now);
            let have = self.net.shared.book().known_uids();
            let ask = Ask { request: Request::Records(have), answer_bytes_max: RECORDS_BYTES_MAX };
            self.send(peer, ask, Pending::Records);
        }
    }

    /// Some of the records that this node knows, others each time.
    pub(super) fn sample(&mut self, have: &covey_proto::record::UidSet) -> Vec<SignedPeerRecord> {
        let sample = self.net.shared.book().sample(have, self.discovery.turn);
        self.discovery.turn = sample.last().map_or(0, |last| last.record().uid.index() as u8).wrapping_add(1);
        sample
    }

    /// Records that a peer knows: their signatures hold, and they say where to dial.
    pub(super) fn on_records(&mut self, records: Vec<SignedPeerRecord>) {
        for record in records {
            if self.net.shared.book().hear(record) == Ok(true) {
                self.net.shared.traffic.records_heard.add(1);
                self.upkeep_at = Instant::now();
            }
        }
    }
}
