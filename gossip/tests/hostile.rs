//! A peer that speaks libp2p as it likes, against a real node: what it sends, and what becomes of it.

#![allow(clippy::unwrap_used)]

mod rig;

use covey_gossip::store::Durability;
use covey_gossip::{Event, Hint, PeerKey, ServeLimits};
use covey_proto::message::{Request, Response};
use covey_proto::record::UidSet;
use covey_proto::wire;
use covey_proto::{Digest, Round, RunId, Uid};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::request_response::{self as requests, Codec, ProtocolSupport};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, noise, tcp, yamux};
use prost::Message;
use rig::*;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};

/// Sends the bytes it is given, and gives those that come.
#[derive(Clone, Default)]
struct Raw {
    /// Reads no answers.
    silent: bool,
}

impl Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;
    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        if self.silent {
            futures::future::pending::<()>().await;
        }
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }
    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    requests: requests::Behaviour<Raw>,
    gossip: gossipsub::Behaviour,
}

struct Villain {
    swarm: Swarm<Behaviour>,
    victim: PeerId,
    key: PeerKey,
}

fn transport(key: &libp2p::identity::Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::default()
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

/// What the nodes of this file log, with its level.
static LOG: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// A failed test must not fail the others through the log.
fn log() -> MutexGuard<'static, Vec<(Level, String)>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("covey_gossip")
    }
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        // The folders of tests that have ended are gone before their nodes are: no peer's doing.
        if !line.0.contains("could not be saved") {
            log().push((*event.metadata().level(), line.0));
        }
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// No villain of this file makes a node say more than what is for its developers.
fn assert_quiet() {
    let loud: Vec<_> = log().iter().filter(|(level, _)| *level < Level::DEBUG).cloned().collect();
    assert!(loud.is_empty(), "{loud:?}");
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes(), message].concat()
}

fn topic(kind: &str) -> IdentTopic {
    IdentTopic::new(format!("/covey/1/{}/{kind}", RunId(Digest::of(b"a run of tests"))))
}

impl Villain {
    async fn against(node: &mut Node) -> Villain {
        Villain::that(false, node).await
    }

    async fn that(silent: bool, node: &mut Node) -> Villain {
        // An error means that another test listens already.
        let _ = tracing::subscriber::set_global_default(Listener);
        let key = libp2p::identity::Keypair::generate_ed25519();
        let config = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::None)
            .message_id_fn(|message| Digest::of(&message.data).as_bytes().to_vec().into())
            .build()
            .unwrap();
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap();
        gossip.subscribe(&topic("peers")).unwrap();
        let protocol = StreamProtocol::new("/covey/1/get");
        let requests = requests::Behaviour::with_codec(
            Raw { silent },
            [(protocol, ProtocolSupport::Full)],
            requests::Config::default(),
        );
        let own = key.public().to_peer_id();
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let mut swarm = Swarm::new(transport(&key), Behaviour { requests, gossip }, own, config);
        let address: Multiaddr = node.handle.addresses()[0].parse().unwrap();
        swarm.dial(address).unwrap();
        let mut villain = Villain { swarm, victim: own, key: PeerKey::from_bytes(&own.to_bytes()).unwrap() };
        villain.victim = villain
            .until(|event| match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => Some(peer_id),
                _ => None,
            })
            .await;
        villain
    }

    async fn until<T>(&mut self, mut pick: impl FnMut(SwarmEvent<BehaviourEvent>) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = pick(self.swarm.select_next_some().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("what it waits for happens")
    }

    fn ask(&mut self, bytes: Vec<u8>) {
        self.swarm.behaviour_mut().requests.send_request(&self.victim, bytes);
    }

    async fn answer(&mut self) -> Vec<u8> {
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(requests::Event::Message {
                message: requests::Message::Response { response, .. },
                ..
            })) => Some(response),
            _ => None,
        })
        .await
    }

    async fn until_thrown_out(&mut self) {
        self.until(|event| matches!(event, SwarmEvent::ConnectionClosed { .. }).then_some(())).await;
    }

    /// Answers every request with these bytes, until it is thrown out.
    async fn answer_all(mut self, bytes: Vec<u8>) {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Requests(requests::Event::Message {
                    message: requests::Message::Request { request, channel, .. },
                    ..
                })) => {
                    // That it knows no members is no lie.
                    let asked = request.get(4..).map(Request::from_bytes);
                    let knows = matches!(asked, Some(Ok(Request::Records(_))));
                    let answer = if knows { frame(&Response::Nothing.to_bytes()) } else { bytes.clone() };
                    drop(self.swarm.behaviour_mut().requests.send_response(channel, answer));
                }
                SwarmEvent::ConnectionClosed { .. } => return,
                _ => {}
            }
        }
    }
}

async fn until_gone(node: &mut Node, villain: PeerKey) {
    let gone = |event| matches!(event, Event::Disconnected { peer } if peer == villain).then_some(());
    node.until("the villain's leaving", gone).await;
    assert_eq!(node.handle.traffic().bans, 1);
    assert_quiet();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_above_the_limit_ends_the_acquaintance_before_its_bytes_come() {
    let mut node = node(&[TCP], &[]).await;
    let mut villain = Villain::against(&mut node).await;
    villain.ask(u32::MAX.to_le_bytes().to_vec());
    villain.until_thrown_out().await;
    until_gone(&mut node, villain.key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_breaches_at_once_are_one_line_of_the_log() {
    let mut node = node(&[TCP], &[]).await;
    let mut villain = Villain::against(&mut node).await;
    (0..50).for_each(|_| villain.ask(u32::MAX.to_le_bytes().to_vec()));
    villain.until_thrown_out().await;
    until_gone(&mut node, villain.key).await;
    let of_it = |line: &str| line.contains(&villain.key.to_string()) && line.contains("banned");
    let lines = log().iter().filter(|(_, line)| of_it(line)).count();
    assert_eq!(lines, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_its_hotkey_did_not_sign_ends_it_too() {
    let mut node = node(&[TCP], &[]).await;
    node.handle.set_members(members(2));
    let mut villain = Villain::against(&mut node).await;
    let mut record = record(1, &node.handle, 1);
    record.peer = villain.key.to_bytes();
    let forged = wire::SignedPeerRecord { signature: vec![7; 64], ..record.sign(&hotkey(1)).to_wire() };
    let ask = wire::request::Ask::Record(forged);
    villain.ask(frame(&wire::Request { ask: Some(ask) }.encode_to_vec()));
    villain.until_thrown_out().await;
    until_gone(&mut node, villain.key).await;
    assert_eq!(node.handle.peer_of(Uid::from(1)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_gets_nothing_and_no_punishment() {
    let mut node = node(&[TCP], &[]).await;
    let mut villain = Villain::against(&mut node).await;
    let blob = node.handle.store().put(b"blob", Durability::Buffered).unwrap();
    for request in [vec![], vec![0x7a, 1, 0], b"GET / HTTP/1.1".to_vec(), Request::Blob(Digest::of(b"?")).to_bytes()] {
        villain.ask(frame(&request));
        assert_eq!(villain.answer().await, frame(&Response::Nothing.to_bytes()));
    }
    villain.ask(frame(&Request::Blob(blob.root).to_bytes()));
    assert_eq!(villain.answer().await, frame(&Response::Blob(b"blob".to_vec()).to_bytes()));
    assert_eq!(node.handle.traffic().bans, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_a_peers_pace_stay_unanswered() {
    let mut node = node_with(&[TCP], &[], |config| config.limits.asks_per_peer.burst = 3).await;
    let mut villain = Villain::against(&mut node).await;
    for _ in 0..10 {
        villain.ask(frame(&[0x7a, 1, 0]));
    }
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 10 {
        let empty = villain.answer().await.is_empty();
        refused += usize::from(empty);
        answered += usize::from(!empty);
    }
    assert_eq!((answered, refused), (3, 7));
    assert_eq!(node.handle.traffic().requests_refused, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_the_protocol_ban_their_sender_and_another_serves() {
    let wrong = frame(&Response::Announcements(vec![vec![1]]).to_bytes());
    let lie = frame(&Response::Blob(b"another blob".to_vec()).to_bytes());
    for answer in [u32::MAX.to_le_bytes().to_vec(), frame(b"\xff\xff"), wrong, lie] {
        let mut nodes = swarm(2, &[TCP]).await;
        let villain = Villain::against(&mut nodes[0]).await;
        let key = villain.key;
        let connected = |event| matches!(event, Event::Connected { peer } if peer == key).then_some(());
        nodes[0].until("its coming", connected).await;
        let blob = nodes[1].handle.store().put(b"the right bytes", Durability::Buffered).unwrap();
        let answering = tokio::spawn(villain.answer_all(answer));
        let got = nodes[0].handle.fetch(blob, &[Hint::Peer(key)], PATIENCE).await.unwrap();
        assert_eq!(got[..], *b"the right bytes");
        until_gone(&mut nodes[0], key).await;
        answering.await.unwrap();
    }
}

/// A pull that lacks two uids, answered so.
async fn pull_of_two(answer: Response) -> (Node, PeerKey, usize) {
    let mut node = node(&[TCP], &[]).await;
    let villain = Villain::against(&mut node).await;
    let key = villain.key;
    node.until_connected().await;
    tokio::spawn(villain.answer_all(frame(&answer.to_bytes())));
    let have: UidSet = (2..=255u8).map(Uid::from).collect();
    let got = node.handle.announcements(Round(3), have).await;
    (node, key, got.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_brings_one_announcement_a_missing_uid_and_more_is_a_breach() {
    let entries = |count: u16| Response::Announcements((0..count).map(|n| n.to_le_bytes().to_vec()).collect());
    let (node, _, got) = pull_of_two(entries(2)).await;
    assert_eq!((got, node.handle.traffic().bans), (2, 0));
    // More than are missing; more than there are uids.
    for count in [3, 257] {
        let (mut node, villain, got) = pull_of_two(entries(count)).await;
        assert_eq!(got, 0, "of {count}");
        until_gone(&mut node, villain).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_do_not_read_leave_a_member_its_places_and_bytes() {
    let mut hub = node_with(&[TCP], &[], |config| {
        config.limits.serve = ServeLimits { per_peer_max: 4, all_max: 16, bytes_max: 8 << 20 };
    })
    .await;
    let mut member = node(&[], &hub.handle.addresses()).await;
    for (uid, node) in [&hub, &member].into_iter().enumerate() {
        node.handle.set_members(members(2));
        node.handle.set_record(record(uid as u8, &node.handle, 1).sign(&hotkey(uid as u8)));
    }
    hub.until_bound(1).await;
    member.until_bound(1).await;
    // More than a stream takes in unread.
    let blobs: Vec<_> =
        (0..3).map(|n| hub.handle.store().put(&vec![n; 2 << 20], Durability::Buffered).unwrap()).collect();
    let mut strangers = vec![];
    for _ in 0..3 {
        let mut villain = Villain::that(true, &mut hub).await;
        (0..4).for_each(|_| villain.ask(frame(&Request::Blob(blobs[0].root).to_bytes())));
        strangers.push(tokio::spawn(async move { while villain.swarm.next().await.is_some() {} }));
    }
    let refused = async {
        while hub.handle.traffic().requests_refused < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("half of the places are for others");
    for blob in &blobs[1..] {
        let hints = [Hint::Uid(Uid::from(0))];
        assert_eq!(member.handle.fetch(*blob, &hints, PATIENCE).await.unwrap().len(), 2 << 20);
    }
    assert_eq!(hub.handle.traffic().requests_refused, 4);
    strangers.iter().for_each(|stranger| stranger.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_records_on_the_peers_topic_end_in_a_ban() {
    let mut node = node(&[TCP], &[]).await;
    let mut villain = Villain::against(&mut node).await;
    let subscribed = |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { topic: heard, .. })) => {
            (heard == topic("peers").hash()).then_some(())
        }
        _ => None,
    };
    villain.until(subscribed).await;
    for n in 0..2u8 {
        villain.swarm.behaviour_mut().gossip.publish(topic("peers"), vec![n; 100]).unwrap();
    }
    villain.until_thrown_out().await;
    until_gone(&mut node, villain.key).await;
}

/// Says who it is by identify, and nothing else.
struct Life {
    swarm: Swarm<identify::Behaviour>,
    address: Multiaddr,
}

impl Life {
    /// A life of the peer of this key, as its agent's name tells, with so many connections.
    async fn of(key: &libp2p::identity::Keypair, agent: &str, connections: usize, node: &Node) -> Life {
        let config = identify::Config::new("/covey/1".into(), key.public()).with_agent_version(agent.into());
        let idle = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let own = key.public().to_peer_id();
        let swarm = Swarm::new(transport(key), identify::Behaviour::new(config), own, idle);
        let mut life = Life { swarm, address: node.handle.addresses()[0].parse().unwrap() };
        life.address.pop();
        for _ in 0..connections {
            let options = DialOpts::unknown_peer_id().address(life.address.clone()).allocate_new_port().build();
            life.swarm.dial(options).unwrap();
        }
        life
    }

    /// How many connections are left at the first close, and which of them were told the agent's name until then.
    async fn until_one_closes(&mut self) -> (u32, usize) {
        let mut told = 0;
        let search = async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(identify::Event::Sent { .. }) => told += 1,
                    SwarmEvent::ConnectionClosed { num_established, .. } => return (num_established, told),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("one is closed")
    }

    async fn until_told(&mut self) {
        let told = async {
            while !matches!(self.swarm.select_next_some().await, SwarmEvent::Behaviour(identify::Event::Sent { .. })) {}
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it says who it is");
    }
}

/// What two peers that dial each other at once look like; the surplus one goes after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_of_the_same_life_is_no_restart() {
    let mut node = node(&[TCP], &[]).await;
    let key = libp2p::identity::Keypair::generate_ed25519();
    let mut life = Life::of(&key, "covey/1/one", 2, &node).await;
    assert_eq!(life.until_one_closes().await, (1, 2), "(connections left, identified)");
    node.until_connected().await;
    while let Some(event) = node.events.try_next() {
        assert!(!matches!(event, Event::Disconnected { .. }), "{event:?}");
    }
    assert_eq!(node.handle.peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_another_life_ends_those_of_the_first() {
    let mut node = node(&[TCP], &[]).await;
    let key = libp2p::identity::Keypair::generate_ed25519();
    let mut first = Life::of(&key, "covey/1/one", 1, &node).await;
    first.until_told().await;
    let mut second = Life::of(&key, "covey/1/two", 1, &node).await;
    let ((left, _), (also_left, _)) = futures::join!(first.until_one_closes(), second.until_one_closes());
    assert_eq!((left, also_left), (0, 0));
    node.until("its leaving", |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    assert_eq!(node.handle.traffic().bans, 0, "a crash is no breach");
}
