//! All that a connection speaks, behind the gate: gossip, small requests, streams of pieces, Kademlia, identify, ping; and
//! every setting of theirs. A relay's client would stand here.

use super::gate::Gate;
use super::kademlia::Kademlia;
use super::requests::RequestBehaviour;
use crate::config::Config;
use crate::links::Links;
use crate::peers::admission::Admission;
use crate::shared::Shared;
use crate::small::codec::PROTOCOL;
use crate::traffic::Counters;
use covey_proto::RunId;
use covey_proto::message::ANNOUNCEMENT_BYTES_MAX;
use libp2p::gossipsub::{
    self, DataTransform, IdentTopic, Message, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
    RawMessage, TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter, score_parameter_decay,
};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{identify, ping, request_response as requests};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Gossip's heartbeat is no quicker than this: it costs every peer something.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// How long the node may take to judge a message: until then gossip keeps it.
const JUDGE_TIME: Duration = Duration::from_secs(30);
/// How long a message is known after it was seen: two rounds of the slowest clock.
const SEEN_TIME: Duration = Duration::from_secs(46 * 60);
/// Below this a peer is ignored, and then banned: two rejected messages.
pub(super) const GRAYLIST: f64 = -200.0;
/// What a bound uid is worth.
pub(super) const UID_SCORE: f64 = 10.0;
/// The longest that one request's stream may take: a blob of the largest size at the slowest rate, and to spare.
const STREAM_TIMEOUT: Duration = Duration::from_secs(120);
/// Streams of requests on one connection, both ways: half of those that it may have. A node has at most six requests for
/// blobs at a peer, and few others.
const REQUEST_STREAMS_MAX: usize = 32;

pub(super) type GossipBehaviour = gossipsub::Behaviour<Counting, WhitelistSubscriptionFilter>;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, so that a connection it denies reaches nobody else.
    pub(super) gate: Gate,
    pub(super) gossip: GossipBehaviour,
    pub(super) requests: RequestBehaviour,
    pub(super) links: Links,
    pub(super) kademlia: Kademlia,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
}

/// The topics of a run.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    pub(super) gradients: IdentTopic,
    pub(super) peers: IdentTopic,
}

impl Topics {
    pub(super) fn of(run: RunId) -> Topics {
        Topics {
            gradients: IdentTopic::new(format!("/covey/1/{run}/gradients")),
            peers: IdentTopic::new(format!("/covey/1/{run}/peers")),
        }
    }
}

/// Counts every message that gossip brings; changes nothing.
pub(super) struct Counting(Arc<Counters>);

impl DataTransform for Counting {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        self.0.gossip_in.add(raw.data.len());
        Ok(Message { source: raw.source, data: raw.data, sequence_number: raw.sequence_number, topic: raw.topic })
    }
    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// BLAKE3 over the topic's length (u32, little-endian), the topic and the data; its first 20 bytes.
fn message_id(message: &Message) -> MessageId {
    let topic = message.topic.as_str().as_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(topic.len() as u32).to_le_bytes()).update(topic).update(&message.data);
    MessageId::new(&hasher.finalize().as_bytes()[..20])
}

/// What identify calls this life of the node: another one of the same peer id has another name, so that peers notice a
/// crash whose old connections have not timed out yet (QUIC's take half a minute).
fn agent() -> String {
    let life = RandomState::new().build_hasher().finish();
    format!(concat!("covey/", env!("CARGO_PKG_VERSION"), "/{:016x}"), life)
}

pub(super) fn build(
    config: &Config,
    key: &Keypair,
    shared: &Arc<Shared>,
    here: bool,
) -> Result<Behaviour, &'static str> {
    // Signed, each 5 min. No cache: what strangers say of themselves is dialled by nobody.
    let identify = identify::Config::new_with_signed_peer_record("/covey/1".into(), key)
        .with_agent_version(agent())
        .with_cache_size(0);
    let requests = requests::Config::default()
        .with_request_timeout(STREAM_TIMEOUT)
        .with_max_concurrent_streams(REQUEST_STREAMS_MAX);
    Ok(Behaviour {
        gate: Gate::new(
            shared.clone(),
            Admission::new(config.limits.connections.clone()),
            here || config.limits.connections.loopback_exempt,
        ),
        gossip: gossip(config, shared.traffic.clone())?,
        links: Links::new(shared.peer),
        requests: requests::Behaviour::new([(PROTOCOL, requests::ProtocolSupport::Full)], requests),
        kademlia: Kademlia::new(shared.clone(), config.run, here),
        identify: identify::Behaviour::new(identify),
        // Each 15 heartbeats, 20 s for the answer: a peer whose machine went dark says nothing else.
        ping: ping::Behaviour::new(ping::Config::new().with_interval(config.heartbeat.max(HEARTBEAT_MIN) * 15)),
    })
}

fn gossip(config: &Config, traffic: Arc<Counters>) -> Result<GossipBehaviour, &'static str> {
    let topics = Topics::of(config.run);
    let heartbeat = config.heartbeat.max(HEARTBEAT_MIN);
    let beats = |time: Duration| time.as_millis().div_ceil(heartbeat.as_millis()) as usize;
    let settings = gossipsub::ConfigBuilder::default()
        .heartbeat_interval(heartbeat)
        .heartbeat_initial_delay(heartbeat)
        .history_length(beats(JUDGE_TIME).max(6))
        // Missed in the mesh, a message is still offered for so many heartbeats to some who did not get it.
        .history_gossip(6)
        // Two more than usual, for meshes where some neighbours pass nothing on; see docs/protocol.md.
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .mesh_outbound_min(3)
        // Messages are few and small, and no mesh peer can then keep one to itself.
        .flood_publish(true)
        .validate_messages()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .duplicate_cache_time(SEEN_TIME)
        .max_transmit_size(ANNOUNCEMENT_BYTES_MAX + 16 * 1024)
        // Behind bulk on a home line a message waits longer than the usual second, after which it would vanish unseen.
        .publish_queue_duration(Duration::from_secs(30))
        .forward_queue_duration(Duration::from_secs(10))
        // A round of 256 announcements four times over; beyond, a slow peer misses messages, which is counted and told.
        .connection_handler_queue_len(1024)
        .build()
        .map_err(|_| "gossip settings that contradict each other")?;
    let allowed = [topics.gradients.hash(), topics.peers.hash()].into_iter().collect();
    let mut gossip = GossipBehaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        settings,
        WhitelistSubscriptionFilter(allowed),
        Counting(traffic),
    )?;
    gossip.with_peer_score(score(&topics), thresholds()).map_err(|_| "gossip scores that contradict each other")?;
    for topic in [&topics.gradients, &topics.peers] {
        gossip.subscribe(topic).map_err(|_| "a topic that its own filter refuses")?;
    }
    Ok(gossip)
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -50.0,
        publish_threshold: -100.0,
        graylist_threshold: GRAYLIST,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 5.0,
    }
}

fn score(topics: &Topics) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        // P1: at most 10, after five minutes in the mesh.
        time_in_mesh_weight: 1.0,
        time_in_mesh_quantum: Duration::from_secs(30),
        time_in_mesh_cap: 10.0,
        // P2: at most 20.
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: score_parameter_decay(Duration::from_secs(1800)),
        first_message_deliveries_cap: 20.0,
        // P3, P3b: off. On topics with long silences they push every honest peer below zero.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // P4: the square of the rejected messages.
        invalid_message_deliveries_weight: -100.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_secs(3600)),
        ..Default::default()
    };
    PeerScoreParams {
        topics: [(topics.gradients.hash(), topic.clone()), (topics.peers.hash(), topic)].into(),
        topic_score_cap: 60.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: -5.0,
        ip_colocation_factor_threshold: 8.0,
        ip_colocation_factor_whitelist: [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into(),
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: score_parameter_decay(Duration::from_secs(600)),
        ..Default::default()
    }
}
