//! Kademlia, held short: what it may dial, how much of it one peer may use, and what it keeps.
//!
//! libp2p's behaviour dials whatever address a stranger's answer names, keeps the first providers that come, and hands
//! out providers without their addresses. Wrapped here it dials plain addresses only, sixteen connections at a time; it
//! keeps [`Providers`], and what it finds comes with addresses. Whom to put into its table, what to look up and which
//! records to admit is decided in `discovery/`.

use crate::discovery::{Entry, run_key};
use crate::peers::PeerKey;
use crate::peers::bucket::{Buckets, Rate};
use crate::peers::place::{address_of, dialable, is_here};
use crate::peers::providers::{ADDRESSES_MAX, ANSWER_MAX, Providers};
use crate::shared::Shared;
use covey_proto::{Digest, RunId};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::store::{Error as StoreError, RecordStore};
use libp2p::kad::{self, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult, Record, RecordKey};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/covey/1/kad");
/// Bytes of a message: 20 providers of 8 addresses and 20 closer peers, at 60 bytes an address.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// For one look-up: three round trips, and dials that lead nowhere.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that look-ups opened, at a time: they must not take the places of those that the run needs.
const CONNECTIONS_MAX: usize = 16;
/// They are left alone for so long: what was asked over them may be on its way.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Messages of one peer; one that sends more is disconnected.
const RATE: Rate = Rate { burst: 64, refill: Duration::from_millis(250) };
const RATE_KEYS_MAX: usize = 1024;

/// What others said of whom, for Kademlia; and the keys of this node.
pub(super) struct Table {
    me: PeerId,
    pub(super) providers: Providers,
    own: BTreeSet<Digest>,
}

fn digest(key: &RecordKey) -> Option<Digest> {
    <[u8; 32]>::try_from(key.as_ref()).ok().map(Digest::new)
}

fn record(key: &RecordKey, peer: PeerId, addresses: Vec<Multiaddr>, expires: Option<Instant>) -> ProviderRecord {
    ProviderRecord { key: key.clone(), provider: peer, expires, addresses }
}

/// Values are neither kept nor given. Providers of others come in by [`Providers::put`] alone.
impl RecordStore for Table {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }
    fn put(&mut self, _: Record) -> Result<(), StoreError> {
        Err(StoreError::MaxRecords)
    }
    fn remove(&mut self, _: &RecordKey) {}
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<(), StoreError> {
        match digest(&record.key) {
            Some(key) if record.provider == self.me => {
                self.own.insert(key);
                Ok(())
            }
            _ => Err(StoreError::MaxProvidedKeys),
        }
    }
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Some(of) = digest(key) else { return Vec::new() };
        let own = self.own.contains(&of).then(|| record(key, self.me, Vec::new(), None));
        let others = self.providers.of(&of, Instant::now()).into_iter();
        let others = others.map(|(peer, held)| record(key, peer.id(), held.addresses.clone(), Some(held.until)));
        own.into_iter().chain(others).collect()
    }
    /// None: `discovery` publishes them again.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }
    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        if let Some(key) = digest(key).filter(|_| *peer == self.me) {
            self.own.remove(&key);
        }
    }
}

/// What Kademlia tells.
#[derive(Debug)]
pub(super) enum KademliaEvent {
    /// Somebody says that these provide what a look-up is for.
    Providers { query: QueryId, providers: Vec<(PeerKey, Vec<Multiaddr>)> },
    /// A look-up has ended.
    Ended { query: QueryId },
    /// A key was published, with so many peers.
    Published { query: QueryId, with: u32 },
    /// A peer says that it provides a key.
    Offer { key: Digest, peer: PeerKey },
    /// A peer answers look-ups; where it was dialled, if it was.
    Serves { peer: PeerKey, dialled: Option<Multiaddr> },
}

type Inner = kad::Behaviour<Table>;

pub(super) struct Kademlia {
    inner: Inner,
    shared: Arc<Shared>,
    /// Whether addresses of this machine may be dialled.
    here: bool,
    /// Connections that look-ups opened or are opening.
    opened: HashMap<ConnectionId, Instant>,
    rate: Buckets<PeerKey>,
    /// To be disconnected.
    greedy: BTreeSet<PeerId>,
}

impl Kademlia {
    pub(super) fn new(shared: Arc<Shared>, run: RunId, here: bool) -> Kademlia {
        let me = shared.peer.id();
        let mut config = kad::Config::new(PROTOCOL);
        config
            .set_query_timeout(LOOK_UP_TIMEOUT)
            .set_max_packet_size(MESSAGE_BYTES_MAX)
            .set_record_filtering(kad::StoreInserts::FilterBoth)
            .set_kbucket_inserts(kad::BucketInserts::Manual)
            .set_caching(kad::Caching::Disabled)
            .set_periodic_bootstrap_interval(None)
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_record_ttl(Some(crate::peers::providers::TTL))
            .set_provider_publication_interval(None)
            .set_replication_factor(NonZeroUsize::new(ANSWER_MAX).unwrap_or(kad::K_VALUE));
        let table = Table { me, providers: Providers::new(run_key(run)), own: BTreeSet::new() };
        Kademlia {
            inner: Inner::with_config(me, table, config),
            shared,
            here,
            opened: HashMap::new(),
            rate: Buckets::new(RATE, RATE_KEYS_MAX),
            greedy: BTreeSet::new(),
        }
    }

    pub(super) fn providers(&mut self) -> &mut Providers {
        &mut self.inner.store_mut().providers
    }

    /// Whether it knows anybody to ask.
    pub(super) fn has_peers(&mut self) -> bool {
        self.inner.kbuckets().any(|bucket| !bucket.is_empty())
    }

    pub(super) fn find(&mut self, key: &Digest) -> QueryId {
        self.inner.get_providers(RecordKey::new(key.as_bytes()))
    }

    /// None if its table refuses, which it does not.
    pub(super) fn publish(&mut self, key: &Digest) -> Option<QueryId> {
        self.inner.start_providing(RecordKey::new(key.as_bytes())).ok()
    }

    pub(super) fn stop(&mut self, key: &Digest) {
        self.inner.stop_providing(&RecordKey::new(key.as_bytes()));
    }

    /// The bucket of its table in which a peer belongs, as far as it is filled.
    pub(super) fn bucket_of(&mut self, peer: PeerKey) -> Vec<Entry> {
        let Some(bucket) = self.inner.kbucket(peer.id()) else { return Vec::new() };
        let entry = |peer: &PeerId, addresses: Vec<Multiaddr>| Entry { peer: PeerKey::of(*peer), addresses };
        bucket.iter().map(|held| entry(held.node.key.preimage(), held.node.value.clone().into_vec())).collect()
    }

    /// Puts a peer into its table with these addresses and no others.
    pub(super) fn enter(&mut self, peer: PeerKey, addresses: Vec<Multiaddr>) {
        self.remove(peer);
        for address in addresses {
            self.inner.add_address(&peer.id(), address);
        }
    }

    /// Takes a peer out of its table.
    pub(super) fn remove(&mut self, peer: PeerKey) {
        self.inner.remove_peer(&peer.id());
    }

    /// Connections that look-ups opened and need no longer.
    pub(super) fn idle(&mut self, now: Instant) -> Vec<ConnectionId> {
        if self.inner.iter_queries().next().is_some() {
            return Vec::new();
        }
        let old = self.opened.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= CONNECTION_TIME);
        let old: Vec<ConnectionId> = old.map(|(id, _)| *id).collect();
        self.opened.retain(|id, _| !old.contains(id));
        old
    }

    /// Where a look-up was told that a peer is: plain addresses, without the peer.
    fn addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        // libp2p has no other way to see them. It only reads.
        let none = ConnectionId::new_unchecked(usize::MAX);
        let told = self.inner.handle_pending_outbound_connection(none, Some(peer), &[], Endpoint::Dialer);
        let mut found: Vec<Multiaddr> = Vec::new();
        for address in told.unwrap_or_default().iter().filter_map(dialable) {
            let allowed = self.here || !address_of(&address).is_some_and(is_here);
            if allowed && found.len() < ADDRESSES_MAX && !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// The dial that a look-up may make in place of the one that it wants.
    fn dial(&mut self, wanted: &DialOpts) -> Option<DialOpts> {
        let peer = wanted.get_peer_id()?;
        let addresses = self.addresses(peer);
        let now = Instant::now();
        let refused = self.shared.bans().holds(&PeerKey::of(peer), now) || self.opened.len() >= CONNECTIONS_MAX;
        if refused || addresses.is_empty() {
            let failure = DialFailure {
                peer_id: Some(peer),
                error: &DialError::NoAddresses,
                connection_id: wanted.connection_id(),
            };
            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
            return None;
        }
        let options = DialOpts::peer_id(peer).addresses(addresses).allocate_new_port().build();
        self.opened.insert(options.connection_id(), now);
        Some(options)
    }

    fn told(&mut self, event: kad::Event) -> Option<KademliaEvent> {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, stats, .. } => match result {
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key, providers })) => {
                    // Nobody who keeps to the protocol names more.
                    let peers = providers.into_iter().filter(|peer| *peer != self.shared.peer.id()).take(ANSWER_MAX);
                    let peers: Vec<PeerId> = peers.collect();
                    let kept = self.inner.store_mut().providers(&key);
                    let providers = peers.into_iter().map(|peer| {
                        let kept = kept.iter().find(|kept| kept.provider == peer).map(|kept| kept.addresses.clone());
                        (PeerKey::of(peer), kept.unwrap_or_else(|| self.addresses(peer)))
                    });
                    Some(KademliaEvent::Providers { query: id, providers: providers.collect() })
                }
                QueryResult::GetProviders(_) => Some(KademliaEvent::Ended { query: id }),
                QueryResult::StartProviding(_) => {
                    Some(KademliaEvent::Published { query: id, with: stats.num_successes() })
                }
                _ => None,
            },
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                digest(&record.key).map(|key| KademliaEvent::Offer { key, peer: PeerKey::of(record.provider) })
            }
            kad::Event::RoutablePeer { peer, address } => {
                Some(KademliaEvent::Serves { peer: PeerKey::of(peer), dialled: Some(address) })
            }
            kad::Event::UnroutablePeer { peer } => {
                Some(KademliaEvent::Serves { peer: PeerKey::of(peer), dialled: None })
            }
            _ => None,
        }
    }
}

impl NetworkBehaviour for Kademlia {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = KademliaEvent;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => {
                self.opened.remove(&closed.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                if self.opened.remove(&failure.connection_id).is_some()
                    && let Some(peer) = failure.peer_id.filter(|_| is_dead(failure.error))
                {
                    self.inner.remove_peer(&peer);
                }
            }
            // It would look for peers before there are any, and warn that there are none.
            FromSwarm::NewListenAddr(_) => return,
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        if self.rate.take(PeerKey::of(peer), Instant::now()) {
            self.inner.on_connection_handler_event(peer, id, event);
        } else {
            self.greedy.insert(peer);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<KademliaEvent, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.greedy.pop_first() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
        while let Poll::Ready(event) = self.inner.poll(cx) {
            match event {
                ToSwarm::GenerateEvent(event) => {
                    if let Some(found) = self.told(event) {
                        return Poll::Ready(ToSwarm::GenerateEvent(found));
                    }
                }
                ToSwarm::Dial { opts } => {
                    if let Some(opts) = self.dial(&opts) {
                        return Poll::Ready(ToSwarm::Dial { opts });
                    }
                }
                // What strangers say of a peer's addresses stays here.
                ToSwarm::NewExternalAddrOfPeer { .. } => {}
                ToSwarm::NotifyHandler { peer_id, handler, event } => {
                    return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
                }
                // It has none of its own.
                _ => {}
            }
        }
        Poll::Pending
    }
}

/// Whether a dial says that nobody is there, rather than that it was not made.
fn is_dead(error: &DialError) -> bool {
    matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. } | DialError::NoAddresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;

    #[test]
    fn a_peer_in_the_table_has_the_addresses_that_it_was_entered_with_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut kademlia = Kademlia::new(test_shared(dir.path()), RunId(Digest::ZERO), true);
        let (peer, at) = (test_peer(1), |text: &str| vec![text.parse::<Multiaddr>().unwrap()]);
        assert!(!kademlia.has_peers() && kademlia.bucket_of(peer).is_empty());
        kademlia.enter(peer, at("/ip4/1.2.3.4/tcp/1"));
        kademlia.enter(peer, at("/ip4/1.2.3.4/tcp/2"));
        let [entry] = &kademlia.bucket_of(peer)[..] else { panic!("one peer") };
        let named = entry.addresses.iter().filter_map(dialable).collect::<Vec<_>>();
        assert_eq!((entry.peer, named), (peer, at("/ip4/1.2.3.4/tcp/2")));
        assert!(kademlia.has_peers());
        kademlia.remove(peer);
        assert!(!kademlia.has_peers());
    }

    #[test]
    fn keys_of_others_come_in_by_admission_only_and_no_values_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut kademlia = Kademlia::new(test_shared(dir.path()), RunId(Digest::ZERO), true);
        let (me, key) = (kademlia.inner.store_mut().me, RecordKey::new(Digest::of(b"a key").as_bytes()));
        let store = kademlia.inner.store_mut();
        assert!(store.put(Record::new(key.clone(), vec![1])).is_err());
        assert!(store.add_provider(record(&key, test_peer(1).id(), vec![], None)).is_err());
        assert!(store.add_provider(record(&key, me, vec![], None)).is_ok());
        assert_eq!(store.providers(&key).len(), 1);
        store.remove_provider(&key, &me);
        assert!(store.providers(&key).is_empty());
    }
}
