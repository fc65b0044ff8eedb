//! How a node finds the others: through lists, what a former life knew, what any member tells, and Kademlia; and what
//! liars can do about it.

#![allow(clippy::unwrap_used)]

mod rig;

use covey_gossip::store::Durability;
use covey_gossip::{Config, Handle, start};
use covey_proto::{Digest, RunId, derive};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::transport::Transport;
use libp2p::core::upgrade;
use libp2p::request_response::{self as requests, Codec, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, noise, tcp, yamux};
use rig::*;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

const KAD: StreamProtocol = StreamProtocol::new("/covey/1/kad");

/// Looks again and again until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let search = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn knows(handle: &Handle, others: &[&Node]) -> bool {
    let connected: BTreeSet<_> = handle.peers().into_iter().map(|info| info.peer).collect();
    others.iter().all(|other| connected.contains(&other.handle.peer_id()))
}

fn reachable(config: &mut Config) {
    config.reachable = true;
}

fn run_key() -> Digest {
    let run = RunId(Digest::of(b"a run of tests"));
    let mut key = [0; 32];
    derive("covey/1/run-peers", &[run.0.as_bytes()]).fill(&mut key);
    Digest::new(key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_met_one_member_finds_the_rest_though_that_one_dies() {
    let mut members = swarm(5, &[TCP]).await;
    let first = members.remove(0);
    let bootstrap = first.handle.addresses();
    // It has no record of its own: nobody dials it, and nobody introduces anybody to it by gossip but the first.
    let mut newcomer = node(&[TCP], &bootstrap).await;
    newcomer.handle.set_members(rig::members(5));
    newcomer.until_connected().await;
    until("what the first knows", || newcomer.handle.traffic().records_heard >= 5).await;
    first.handle.shutdown().await;
    until("the others", || knows(&newcomer.handle, &members.iter().collect::<Vec<_>>())).await;

    // Who comes when the first is dead needs any other one.
    let list = [bootstrap[0].clone(), members[2].handle.addresses()[0].clone()];
    let late = node(&[TCP], &list).await;
    late.handle.set_members(rig::members(5));
    until("the others, again", || knows(&late.handle, &members.iter().collect::<Vec<_>>())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_crashed_enters_again_through_any_peer_that_it_knew() {
    let mut members = swarm(4, &[TCP]).await;
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config_of = |bootstrap: &[String]| config(dir.path(), &[TCP], bootstrap);
    let first_life = start(config_of(&members[0].handle.addresses()), store(dir.path()));
    let (handle, mut events) = runtime.spawn(first_life).await.unwrap().unwrap();
    handle.set_members(rig::members(4));
    until("all of them", || knows(&handle, &members.iter().collect::<Vec<_>>())).await;
    let file = dir.path().join("peers");
    let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    until("the file", || lines() == 4).await;
    runtime.shutdown_background();
    while events.next().await.is_some() {}
    drop(handle);

    // Three of the four are gone for good, and there is no list.
    let left = members.pop().unwrap();
    for member in members {
        member.handle.shutdown().await;
    }
    let (handle, _events) = start(config_of(&[]), store(dir.path())).await.unwrap();
    until("the one that is left", || knows(&handle, &[&left])).await;
    assert_eq!(lines(), 4, "nobody was forgotten yet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_no_record_led_to_find_one_another_by_the_runs_key() {
    // Nobody has seen the chain, so that no record counts: only Kademlia is left.
    let hub = node_with(&[TCP], &[], reachable).await;
    let mut members = vec![];
    for uid in 0..4 {
        let member = node_with(&[TCP], &hub.handle.addresses(), reachable).await;
        member.handle.set_record(record(uid, &member.handle, 1).sign(&hotkey(uid)));
        members.push(member);
    }
    for (n, member) in members.iter().enumerate() {
        let others: Vec<&Node> = members.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other).collect();
        until("the other members", || knows(&member.handle, &others)).await;
    }
    until("their records", || hub.handle.traffic().providers_in >= 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_state_is_found_by_its_root_and_dialled_for_it() {
    let aloof = |config: &mut Config| config.limits.peers_target = 1;
    let hub = node_with(&[TCP], &[], |config| {
        reachable(config);
        config.limits.peers_target = 0;
    })
    .await;
    let seeder = node_with(&[TCP], &hub.handle.addresses(), |config| {
        reachable(config);
        aloof(config);
    })
    .await;
    let asker = node_with(&[TCP], &hub.handle.addresses(), aloof).await;
    let state = Digest::of(b"a state");
    assert!(asker.handle.providers(state).await.is_empty());
    let blob = seeder.handle.store().put(b"a shard of it", Durability::Buffered).unwrap();
    seeder.handle.provide(state);
    until("its record", || hub.handle.traffic().providers_in > 0).await;
    let found = asker.handle.providers(state).await;
    assert_eq!(found, [seeder.handle.peer_id()]);
    let got = asker.handle.fetch(blob, &[found[0].into()], PATIENCE).await.unwrap();
    assert_eq!(got[..], *b"a shard of it");
    assert!(asker.handle.providers(Digest::of(b"another")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_no_server_of_look_ups_until_it_is_told_that_it_can_be_reached() {
    let shy = node(&[TCP], &[]).await;
    let mut villain = Villain::meet(&shy).await;
    assert!(villain.ask(&get_providers(&run_key())).await.is_none());
    let open = node_with(&[TCP], &[], reachable).await;
    let mut villain = Villain::meet(&open).await;
    assert!(villain.ask(&get_providers(&run_key())).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_the_list_is_looked_up_and_one_that_cannot_be_is_an_error() {
    let hub = node(&[TCP], &[]).await;
    let named = hub.handle.addresses()[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    let (without_peer, _) = named.split_once("/p2p/").unwrap();
    for address in [named.clone(), without_peer.to_owned()] {
        let mut newcomer = node(&[], &[address]).await;
        newcomer.until_connected().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let unheard_of = ["/dnsaddr/bootstrap.example.org".to_owned()];
    let error = start(config(dir.path(), &[], &unheard_of), store(dir.path())).await.unwrap_err();
    assert!(error.to_string().contains("/dns4/NAME"), "{error}");
}

// ---- liars

/// Speaks Kademlia's bytes as it likes.
#[derive(NetworkBehaviour)]
struct Speech {
    requests: requests::Behaviour<Raw>,
    identify: identify::Behaviour,
}

struct Villain {
    swarm: Swarm<Speech>,
    victim: PeerId,
}

#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;
    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::Error::other("it only asks"))
    }
    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        // A varint's length, then so many bytes.
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let mut byte = [0];
            io.read_exact(&mut byte).await?;
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut bytes = vec![0; length];
        io.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&varint(bytes.len())).await?;
        io.write_all(&bytes).await?;
        io.flush().await
    }
    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        Ok(())
    }
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 128 {
        bytes.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], &varint(content.len())[..], content].concat()
}

/// ADD_PROVIDER: `peer` provides `key` at `address`.
fn add_provider(key: &Digest, peer: PeerId, address: &str) -> Vec<u8> {
    let address: Multiaddr = address.parse().unwrap();
    let provider = [field(1, &peer.to_bytes()), field(2, &address.to_vec())].concat();
    [vec![1 << 3, 2], field(2, key.as_bytes()), field(9, &provider)].concat()
}

/// GET_PROVIDERS.
fn get_providers(key: &Digest) -> Vec<u8> {
    [vec![1 << 3, 3], field(2, key.as_bytes())].concat()
}

impl Villain {
    async fn meet(node: &Node) -> Villain {
        Villain::meet_at(node, &[]).await
    }

    /// Connected to the node, which it tells that it is at these addresses.
    async fn meet_at(node: &Node, external: &[&str]) -> Villain {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let transport = tcp::tokio::Transport::default()
            .upgrade(upgrade::Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let identify = identify::Config::new_with_signed_peer_record("/covey/1".into(), &key);
        let speech = Speech {
            requests: requests::Behaviour::new([(KAD, ProtocolSupport::Outbound)], requests::Config::default()),
            identify: identify::Behaviour::new(identify),
        };
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let mut swarm = Swarm::new(transport, speech, key.public().to_peer_id(), config);
        external.iter().for_each(|address| swarm.add_external_address(address.parse().unwrap()));
        swarm.dial(node.handle.addresses()[0].parse::<Multiaddr>().unwrap()).unwrap();
        let victim = loop {
            if let SwarmEvent::Behaviour(SpeechEvent::Identify(identify::Event::Sent { peer_id, .. })) =
                swarm.select_next_some().await
            {
                break peer_id;
            }
        };
        Villain { swarm, victim }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn say(&mut self, bytes: &[u8]) {
        let victim = self.victim;
        self.swarm.behaviour_mut().requests.send_request(&victim, bytes.to_vec());
    }

    /// Sends a message; the answer, or none if there is none.
    async fn ask(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.say(bytes);
        let answer = async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(SpeechEvent::Requests(requests::Event::Message {
                        message: requests::Message::Response { response, .. },
                        ..
                    })) => return Some(response),
                    SwarmEvent::Behaviour(SpeechEvent::Requests(requests::Event::OutboundFailure { .. })) => {
                        return None;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer or none")
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_provides_in_anothers_name_or_at_an_address_that_it_did_not_sign() {
    let hub = node_with(&[TCP], &[], reachable).await;
    let seeder = node_with(&[TCP], &hub.handle.addresses(), reachable).await;
    let victim: PeerId = seeder.handle.peer_id().to_string().parse().unwrap();
    let mut villain = Villain::meet_at(&hub, &["/ip4/127.0.0.1/tcp/7777"]).await;
    // AddProvider has no answer: what comes after shows what became of it.
    villain.say(&add_provider(&run_key(), victim, "/ip4/6.6.6.6/tcp/6"));
    let id = villain.id();
    villain.say(&add_provider(&run_key(), id, "/ip4/6.6.6.6/tcp/6"));
    let mut witness = Villain::meet(&hub).await;
    let answer = async {
        loop {
            let answer = witness.ask(&get_providers(&run_key())).await.unwrap();
            if holds(&answer, &id.to_bytes()) {
                return answer;
            }
        }
    };
    let drive = async { while villain.swarm.next().await.is_some() {} };
    let answer = tokio::select! {
        answer = tokio::time::timeout(PATIENCE, answer) => answer.expect("the villain's own record is kept"),
        () = drive => unreachable!("a swarm has no end"),
    };
    // 6.6.6.6 was in the message only; 127.0.0.1:7777 is what the villain signed.
    assert!(!holds(&answer, &[4, 6, 6, 6, 6]), "an address that its peer did not sign");
    assert!(holds(&answer, &"/ip4/127.0.0.1/tcp/7777".parse::<Multiaddr>().unwrap().to_vec()));
    // The seeder is in the answer as somebody who answers look-ups (field 8), not as a provider (field 9).
    let as_provider = |id: &PeerId| {
        let bytes = id.to_bytes();
        let at = answer.windows(bytes.len()).position(|window| window == bytes);
        at.is_some_and(|at| {
            answer[..at].ends_with(&[1 << 3 | 2, bytes.len() as u8])
                && answer[..at].iter().rev().take(8).any(|byte| *byte == (9 << 3 | 2))
        })
    };
    assert!(as_provider(&id) && !as_provider(&victim));
    assert_eq!(hub.handle.traffic().providers_in, 1);
    assert!(hub.handle.peer_of(covey_proto::Uid::from(0)).is_none(), "nobody became a member by Kademlia");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_bogus_records_cost_their_senders_the_connection_and_honest_members_are_found() {
    let mut hub = node_with(&[TCP], &[], reachable).await;
    for n in 0..4u32 {
        let mut villain = Villain::meet_at(&hub, &["/ip4/127.0.0.1/tcp/7777"]).await;
        let id = villain.id();
        for m in 0..1000u32 {
            let key = if m % 2 == 0 { run_key() } else { Digest::of(&(n * 1000 + m).to_le_bytes()) };
            villain.say(&add_provider(&key, id, "/ip4/6.6.6.6/tcp/6"));
        }
        let closed =
            async { while !matches!(villain.swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
        tokio::time::timeout(PATIENCE, closed).await.expect("it is disconnected");
    }
    let traffic = hub.handle.traffic();
    assert!(traffic.providers_in <= 4 * 10, "{traffic:?}");
    let id = hub.handle.peer_id();
    let member = node_with(&[TCP], &hub.handle.addresses(), reachable).await;
    hub.handle.set_members(members(1));
    member.handle.set_record(record(0, &member.handle, 1).sign(&hotkey(0)));
    hub.until_bound(1).await;
    let before = traffic.providers_in;
    until("the member's record", || hub.handle.traffic().providers_in > before).await;
    // Somebody who knows nothing but the hub.
    let asker = node_with(&[TCP], &hub.handle.addresses(), |config| config.limits.peers_target = 8).await;
    until("the member", || knows(&asker.handle, &[&member])).await;
    assert!(asker.handle.peers().iter().any(|info| info.peer == id));
}
