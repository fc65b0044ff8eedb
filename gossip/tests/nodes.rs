//! Real nodes on loopback: what they do for one another, and what they refuse.

#![allow(clippy::unwrap_used)]

mod rig;

use covey_gossip::store::Durability;
use covey_gossip::{Event, FetchError, Hint, PublishError, StartError, Verdict, start};
use covey_proto::blob::BlobRef;
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, Uid};
use rig::*;
use std::time::{Duration, Instant};

fn bytes(seed: u8, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    covey_proto::derive("covey test bytes", &[&[seed]]).fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_travels_on_over_tcp_and_quic() {
    for listen in [TCP, QUIC] {
        // A line: the ends know only the middle.
        let mut middle = node(&[listen], &[]).await;
        let left = node(&[], &middle.handle.addresses()).await;
        let mut right = node(&[], &middle.handle.addresses()).await;
        middle.until_heard_by(2).await;
        left.publish(b"news").await;
        let (got, ticket) = middle.until_announcement().await;
        assert_eq!(got, b"news");
        middle.handle.judge(ticket, Verdict::Accept);
        let (got, _ticket) = right.until_announcement().await;
        assert_eq!(got, b"news");
        assert!(left.handle.publish(b"news".to_vec()).await.unwrap().repeated);
        assert_eq!(middle.handle.traffic().announcements_in.bytes, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_accepted_stays_where_it_is() {
    let mut middle = node(&[TCP], &[]).await;
    let left = node(&[], &middle.handle.addresses()).await;
    let mut right = node(&[], &middle.handle.addresses()).await;
    middle.until_heard_by(2).await;
    for (text, verdict) in [("false", Some(Verdict::Reject)), ("late", Some(Verdict::Ignore)), ("dropped", None)] {
        left.publish(text.as_bytes()).await;
        let (_, ticket) = middle.until_announcement().await;
        match verdict {
            Some(verdict) => middle.handle.judge(ticket, verdict),
            None => drop(ticket),
        }
    }
    // What comes last arrives alone.
    middle.publish(b"right").await;
    assert_eq!(right.until_announcement().await.0, b"right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_keeps_sending_false_news_is_banned() {
    let mut judge = node(&[TCP], &[]).await;
    let mut liar = node(&[], &judge.handle.addresses()).await;
    for n in 0..2u8 {
        liar.publish(&[n; 10]).await;
        let (_, ticket) = judge.until_announcement().await;
        ticket.judge(Verdict::Reject);
    }
    judge.until("its leaving", |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    assert_eq!(judge.handle.traffic().bans, 1);
    liar.until("its leaving", |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_find_one_another_and_a_blob_comes_from_the_one_that_has_it() {
    let nodes = swarm(5, &[TCP]).await;
    let blob = bytes(1, 150_000);
    let named = nodes[3].handle.store().put(&blob, Durability::Buffered).unwrap();
    for (asker, hints) in [(0, vec![]), (1, vec![Hint::Uid(Uid::from(3))]), (2, vec![nodes[4].handle.peer_id().into()])]
    {
        let got = nodes[asker].handle.fetch(named, &hints, PATIENCE).await.unwrap();
        assert_eq!(got[..], blob[..]);
        assert!(nodes[asker].handle.store().has(&named.root), "it is stored");
    }
    let unsized_one = nodes[4].handle.fetch_unsized(named.root, 1 << 20, &[], PATIENCE).await.unwrap();
    assert_eq!(unsized_one[..], blob[..]);
}

/// Records travel by gossip, so that a uid is found that was never met.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hinted_uid_is_dialled_where_its_record_says() {
    let aloof = |config: &mut covey_gossip::Config| config.limits.peers_target = 1;
    let hub = node_with(&[TCP], &[], |config| config.limits.peers_target = 0).await;
    let mut nodes = vec![];
    for _ in 0..2 {
        nodes.push(node_with(&[TCP], &hub.handle.addresses(), aloof).await);
    }
    for (uid, node) in [&hub, &nodes[0], &nodes[1]].into_iter().enumerate() {
        node.handle.set_members(members(3));
        node.handle.set_record(record(uid as u8, &node.handle, 1).sign(&hotkey(uid as u8)));
    }
    let blob = nodes[1].handle.store().put(b"far away", Durability::Buffered).unwrap();
    let got = nodes[0].handle.fetch(blob, &[Uid::from(2).into()], PATIENCE).await.unwrap();
    assert_eq!(got[..], *b"far away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_transports_form_one_swarm() {
    let mut nodes = swarm(2, &[TCP, QUIC]).await;
    let quic: Vec<String> =
        nodes[0].handle.addresses().into_iter().filter(|address| address.contains("quic")).collect();
    let mut third = node(&[QUIC], &quic).await;
    third.until_connected().await;
    third.publish(b"over quic").await;
    assert_eq!(nodes[0].until_announcement().await.0, b"over quic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_ban_their_sender_and_another_peer_serves() {
    let mut nodes = swarm(3, &[TCP]).await;
    let blob = bytes(2, 50_000);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    nodes[2].handle.store().put(&blob, Durability::Buffered).unwrap();
    nodes[1].handle.lie(true);
    let liar = nodes[1].handle.peer_id();
    let hints = [Hint::Peer(liar), Hint::Uid(Uid::from(2))];
    let got = nodes[0].handle.fetch(named, &hints, PATIENCE).await.unwrap();
    assert_eq!(got[..], blob[..]);
    let gone = |event| matches!(event, Event::Disconnected { peer } if peer == liar).then_some(());
    nodes[0].until("the liar's leaving", gone).await;
    let traffic = nodes[0].handle.traffic();
    assert_eq!((traffic.bans, traffic.blobs_wrong.count, traffic.blobs_in.count), (1, 1, 1));
    assert!(nodes[0].handle.peers().iter().all(|info| info.peer != liar));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_the_blob_to_appear_and_gives_up_in_time() {
    let nodes = swarm(2, &[TCP]).await;
    let blob = bytes(3, 1000);
    let named = BlobRef::of(&blob);
    let fetches = (0..4).map(|_| nodes[0].handle.fetch(named, &[], PATIENCE));
    let put = async {
        // Asked for before it is there.
        while nodes[1].handle.traffic().requests_in < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    };
    let (got, ()) = futures::join!(futures::future::join_all(fetches), put);
    assert!(got.iter().all(|got| got.as_ref().unwrap()[..] == blob[..]));
    assert_eq!(nodes[1].handle.traffic().blobs_out.count, 1, "four fetches are one request");

    let nowhere = BlobRef { root: Digest::of(b"nowhere"), size: 5 };
    let error = nodes[0].handle.fetch(nowhere, &[], Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { connected: 1, lacking: 1, .. }), "{error}");
    let wrong_size = BlobRef { root: named.root, size: 999 };
    nodes[1].handle.store().put(&bytes(4, 1000), Durability::Buffered).unwrap();
    assert!(matches!(nodes[0].handle.fetch(wrong_size, &[], PATIENCE).await, Err(FetchError::Size { got: 1000, .. })));
    let other = BlobRef { root: Digest::of(&bytes(4, 1000)), size: 1001 };
    assert!(matches!(nodes[0].handle.fetch(other, &[], PATIENCE).await, Err(FetchError::Size { got: 1000, .. })));
    assert_eq!(nodes[0].handle.traffic().bans, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_announcements_pulls_them() {
    let nodes = swarm(3, &[TCP]).await;
    for uid in 0..3u8 {
        nodes[1].handle.remember(Round(7), Uid::from(uid), bytes(uid, 500));
        nodes[2].handle.remember(Round(7), Uid::from(uid), bytes(uid, 500));
    }
    let have: UidSet = [Uid::from(1)].into_iter().collect();
    let mut pulled: Vec<Vec<u8>> =
        nodes[0].handle.announcements(Round(7), have).await.into_iter().map(|(_, bytes)| bytes).collect();
    pulled.sort();
    let mut expected = vec![bytes(0, 500), bytes(2, 500)];
    expected.sort();
    assert_eq!(pulled, expected);
    assert!(nodes[0].handle.announcements(Round(8), UidSet::default()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_binds_its_own_peer_and_an_impostor_is_banned() {
    let mut nodes = swarm(2, &[TCP]).await;
    assert_eq!(nodes[0].handle.peer_of(Uid::from(1)), Some(nodes[1].handle.peer_id()));
    // Uid 1's record, which names node 1, presented by another.
    let impostor = node(&[], &nodes[0].handle.addresses()).await;
    impostor.handle.set_record(record(1, &nodes[1].handle, 9).sign(&hotkey(1)));
    let id = impostor.handle.peer_id();
    nodes[0]
        .until("the impostor's leaving", |e| matches!(e, Event::Disconnected { peer } if peer == id).then_some(()))
        .await;
    assert_eq!(nodes[0].handle.peer_of(Uid::from(1)), Some(nodes[1].handle.peer_id()));
    // Membership ends the binding.
    nodes[0].handle.set_members(members(1));
    nodes[0].until("the unbinding", |event| matches!(event, Event::Unbound { .. }).then_some(())).await;
    assert_eq!(nodes[0].handle.peer_of(Uid::from(1)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_identity_blobs_and_the_way_to_peers() {
    let mut first = node(&[TCP], &[]).await;
    let mut second = node(&[], &first.handle.addresses()).await;
    second.until_connected().await;
    first.until_connected().await;
    let id = second.handle.peer_id();
    let named = second.handle.store().put(b"kept", Durability::Buffered).unwrap();
    second.handle.clone().shutdown().await;
    assert!(matches!(second.handle.publish(vec![1]).await, Err(PublishError::Closed)));
    while second.events.next().await.is_some() {}
    let rig::Node { handle, events, dir } = second;
    drop((handle, events));
    // No bootstrap: it remembers.
    let (handle, events) = start(config(dir.path(), &[], &[]), store(dir.path())).await.unwrap();
    let mut second = rig::Node { handle, events, dir };
    assert_eq!(second.handle.peer_id(), id);
    assert_eq!(second.handle.store().get(&named.root).unwrap().unwrap(), b"kept");
    second.until_connected().await;
    let got = first.handle.fetch(named, &[id.into()], PATIENCE).await.unwrap();
    assert_eq!(got[..], *b"kept");
}

/// A node in a runtime of its own, which takes the node with it as a crash would: nothing is told to anybody.
struct Mortal {
    node: rig::Node,
    runtime: tokio::runtime::Runtime,
}

impl Mortal {
    async fn born(dir: tempfile::TempDir, bootstrap: &[String]) -> Mortal {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = config(dir.path(), &[QUIC], bootstrap);
        let store = store(dir.path());
        let started = runtime.spawn(start(config, store)).await.unwrap();
        let (handle, events) = started.unwrap();
        Mortal { node: rig::Node { handle, events, dir }, runtime }
    }

    /// Returns its folder once nothing of it runs.
    async fn crash(self) -> tempfile::TempDir {
        self.runtime.shutdown_background();
        let rig::Node { handle, mut events, dir } = self.node;
        while events.next().await.is_some() {}
        drop(handle);
        dir
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_crashed_and_came_back_is_heard_though_its_old_connections_look_alive() {
    let mut hub = node(&[QUIC], &[]).await;
    let mut other = node(&[QUIC], &hub.handle.addresses()).await;
    let mut mortal = Mortal::born(tempfile::tempdir().unwrap(), &hub.handle.addresses()).await;
    let id = mortal.node.handle.peer_id();
    let old = mortal.node.handle.addresses();
    hub.until_heard_by(2).await;
    mortal.node.publish(b"before").await;
    for node in [&mut hub, &mut other] {
        let (got, ticket) = node.until_announcement().await;
        assert_eq!(got, b"before");
        ticket.judge(Verdict::Accept);
    }
    let dir = mortal.crash().await;
    assert!(hub.handle.peers().iter().any(|info| info.peer == id), "QUIC has not noticed");

    let start = Instant::now();
    mortal = Mortal::born(dir, &hub.handle.addresses()).await;
    assert_eq!(mortal.node.handle.peer_id(), id);
    assert_ne!(mortal.node.handle.addresses(), old);
    mortal.node.publish(b"after").await;
    for node in [&mut hub, &mut other] {
        let (got, ticket) = node.until_announcement().await;
        assert_eq!(got, b"after");
        ticket.judge(Verdict::Accept);
    }
    // And it hears again.
    hub.until_heard_by(2).await;
    hub.publish(b"welcome").await;
    assert_eq!(mortal.node.until_announcement().await.0, b"welcome");
    let took = start.elapsed();
    mortal.crash().await;
    println!("back after {took:?}");
    assert!(took < Duration::from_secs(10), "QUIC alone notices after half a minute: {took:?}");
}

// A release cannot be told to panic.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_network_rebuilds_it_and_a_fetch_outlives_it() {
    let mut nodes = swarm(2, &[TCP, QUIC]).await;
    let addresses = nodes[0].handle.addresses();
    let blob = bytes(5, 1000);
    let handle = nodes[0].handle.clone();
    let named = BlobRef::of(&blob);
    let fetch = tokio::spawn(async move { handle.fetch(named, &[], PATIENCE).await });
    nodes[0].handle.panic_network().await;
    nodes[0].until("the restart", |event| matches!(event, Event::NetworkRestarted).then_some(())).await;
    nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    assert_eq!(fetch.await.unwrap().unwrap()[..], blob[..]);
    assert_eq!(nodes[0].handle.traffic().restarts, 1);
    assert_eq!(nodes[0].handle.addresses().len(), addresses.len());
    assert!(addresses.iter().all(|address| nodes[0].handle.addresses().contains(address)), "the ports are the same");
    // Gossip works again too.
    nodes[1].publish(b"again").await;
    assert_eq!(nodes[0].until_announcement().await.0, b"again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let first = node(&[TCP, QUIC], &[]).await;
    for taken in first.handle.addresses() {
        let (address, _) = taken.split_once("/p2p/").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = start(config(dir.path(), &[address], &[]), store(dir.path())).await.unwrap_err();
        assert!(matches!(&error, StartError::Listen { address: named, .. } if named == address), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let error = start(config(dir.path(), &["localhost:80"], &[]), store(dir.path())).await.unwrap_err();
    assert!(matches!(error, StartError::Address(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_announcement_gets_through() {
    let mut nodes = swarm(2, &[TCP]).await;
    let largest = bytes(9, covey_proto::message::ANNOUNCEMENT_BYTES_MAX);
    nodes[0].publish(&largest).await;
    assert_eq!(nodes[1].until_announcement().await.0, largest);
    nodes[0].handle.remember(Round(1), Uid::from(0), largest.clone());
    let pulled = nodes[1].handle.announcements(Round(1), UidSet::default()).await;
    assert_eq!(pulled, [(nodes[0].handle.peer_id(), largest)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_gets_through_and_one_beyond_any_size_is_refused() {
    let nodes = swarm(2, &[TCP, QUIC]).await;
    let blob = bytes(1, covey_proto::message::BLOB_BYTES_MAX);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    assert!(nodes[0].handle.fetch(named, &[], PATIENCE).await.unwrap()[..] == blob[..]);
    let other = BlobRef { root: named.root, size: named.size + 1 };
    assert!(matches!(nodes[0].handle.fetch(other, &[], PATIENCE).await, Err(FetchError::Size { .. })));
    let huge = BlobRef { root: named.root, size: u64::MAX };
    assert!(matches!(nodes[0].handle.fetch(huge, &[], PATIENCE).await, Err(FetchError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_to_hear_is_an_error() {
    let alone = node(&[TCP], &[]).await;
    assert_eq!(alone.handle.publish(b"hello?".to_vec()).await, Err(PublishError::NoPeers));
    assert!(matches!(alone.handle.publish(vec![0; 600_000]).await, Err(PublishError::TooLarge { .. })));
}

/// Prints what a swarm of eight in one process costs; run with --nocapture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_are_ready_soon() {
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: 0 kB").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
    };
    let (start, before) = (Instant::now(), rss());
    let mut nodes = swarm(8, &[TCP]).await;
    println!("8 nodes all bound to each other: {:?}, {} KiB a node", start.elapsed(), (rss() - before) / 8);
    let start = Instant::now();
    for (n, node) in nodes.iter().enumerate() {
        node.publish(&bytes(n as u8, 3000)).await;
    }
    for node in &mut nodes {
        for _ in 0..7 {
            let (_, ticket) = node.until_announcement().await;
            ticket.judge(Verdict::Accept);
        }
    }
    println!("8 announcements of 3,000 bytes everywhere: {:?}", start.elapsed());
    let blobs: Vec<BlobRef> =
        (0..20).map(|n| nodes[1].handle.store().put(&bytes(n, 150_000), Durability::Buffered).unwrap()).collect();
    let start = Instant::now();
    for blob in &blobs {
        nodes[0].handle.fetch(*blob, &[Uid::from(1).into()], PATIENCE).await.unwrap();
    }
    println!("20 blobs of 150 kB one after another: {:?} each", start.elapsed() / 20);
    println!("{:?}", nodes[0].handle.traffic());
}
