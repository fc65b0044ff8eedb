//! What a person is shown of a node, and what becomes of announcements that nobody hears or too many claim.

#![allow(clippy::unwrap_used)]

mod rig;

use covey_gossip::{PublishError, Verdict};
use covey_proto::blob::{BlobRef, Manifest};
use covey_proto::message::Announcement;
use covey_proto::{Digest, Hotkey, Round, RunId, Uid};
use rig::*;
use std::time::Duration;

/// Until something is so, looked at again and again.
async fn until(what: &str, so: impl Fn() -> bool) {
    let search = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Bytes that claim to be of this round and author, and differ by `nonce`.
fn announcement(round: u32, uid: u32, nonce: u8) -> Vec<u8> {
    let manifest = Manifest {
        run: RunId(Digest::of(&[nonce])),
        round: Round(round),
        uid: Uid::new(uid).unwrap(),
        hotkey: Hotkey::from_slice(&[7; 32]).unwrap(),
        registered_at: 1,
        base: Digest::ZERO,
        samples: 1,
        codec: 1,
        shards: vec![BlobRef { root: Digest::of(b"a shard"), size: 1 << 20 }],
    };
    let bytes = Announcement { manifest, inline: vec![] }.to_bytes();
    Announcement::from_bytes(&bytes, 64).unwrap();
    bytes
}

/// The value of a series on a node's page of metrics.
fn series(node: &Node, name: &str) -> Option<f64> {
    let page = node.handle.metrics();
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Two members whose hearts beat fast, and so do their pings.
async fn quick_pair(listen: &str) -> [Node; 2] {
    let quick = |config: &mut covey_gossip::Config| config.heartbeat = Duration::from_millis(50);
    let first = node_with(&[listen], &[], quick).await;
    let second = node_with(&[listen], &first.handle.addresses(), quick).await;
    let mut nodes = [first, second];
    for (uid, node) in nodes.iter().enumerate() {
        node.handle.set_members(members(2));
        node.handle.set_record(record(uid as u8, &node.handle, 1).sign(&hotkey(uid as u8)));
    }
    for node in &mut nodes {
        node.until_bound(1).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_shown_with_its_uid_round_trip_rates_and_place_in_the_mesh() {
    for listen in [TCP, QUIC] {
        let nodes = quick_pair(listen).await;
        let peer = || nodes[0].handle.peers().first().cloned();
        until("a round trip and a place in the mesh", || {
            peer().is_some_and(|peer| peer.rtt.is_some() && peer.in_mesh && peer.up > 0.0 && peer.down > 0.0)
        })
        .await;
        let peer = peer().unwrap();
        assert_eq!((peer.peer, peer.uid), (nodes[1].handle.peer_id(), Some(Uid::from(1))));
        assert!(peer.direct && peer.score > 0.0 && peer.connected > Duration::ZERO, "{peer:?}");
        until("the gauges", || {
            let gauges = nodes[0].handle.gauges();
            gauges.members == 1 && gauges.gradients.mesh == 1 && gauges.gradients.listeners == 1
        })
        .await;
        assert_eq!(series(&nodes[0], "covey_peers{kind=\"member\"}"), Some(1.0));
        assert_eq!(series(&nodes[0], "covey_mesh_peers{topic=\"gradients\"}"), Some(1.0));
        let tcp = series(&nodes[0], "covey_transport_bytes_total{transport=\"tcp\",direction=\"in\"}").unwrap();
        assert_eq!(tcp > 0.0, listen == TCP);
        assert_eq!(nodes[0].handle.congestion().is_some(), listen == TCP);
        assert!(!nodes[0].handle.metrics().contains(&peer.peer.to_string()), "no peer is a label");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_be_told_of_is_an_error_and_is_told_to_who_comes() {
    let first = node(&[TCP], &[]).await;
    let told = announcement(1, 1, 1);
    assert_eq!(first.handle.publish(told.clone()).await, Err(PublishError::NoPeers));
    let mut second = node(&[], &first.handle.addresses()).await;
    assert_eq!(second.until_announcement().await.0, told);
    until("the count", || first.handle.traffic().announcements_repeated == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_up_of_a_later_round_and_ignored_takes_no_authors_place() {
    let mut judge = node(&[TCP], &[]).await;
    let flooder = node(&[], &judge.handle.addresses()).await;
    for nonce in 0..4 {
        flooder.publish(&announcement(8, 3, nonce)).await;
        judge.until_announcement().await.1.judge(Verdict::Ignore);
    }
    until("the verdicts", || judge.handle.traffic().announcements_unheeded == 4).await;
    flooder.publish(&announcement(8, 3, 9)).await;
    assert_eq!(judge.until_announcement().await.0, announcement(8, 3, 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_announcements_of_an_author_and_round_are_looked_at_but_rejected_ones_take_no_place() {
    let mut judge = node(&[TCP], &[]).await;
    let flooder = node(&[], &judge.handle.addresses()).await;
    for nonce in 0..6 {
        flooder.publish(&announcement(7, 3, nonce)).await;
    }
    flooder.publish(&announcement(7, 4, 0)).await;
    let mut tickets = vec![];
    for nonce in 0..4 {
        let (bytes, ticket) = judge.until_announcement().await;
        assert_eq!(bytes, announcement(7, 3, nonce));
        tickets.push(ticket);
    }
    assert_eq!(judge.until_announcement().await.0, announcement(7, 4, 0), "another author's passes");
    assert_eq!(judge.handle.traffic().announcements_surplus, 2);
    tickets.pop().unwrap().judge(Verdict::Reject);
    until("the verdict", || judge.handle.traffic().announcements_rejected == 1).await;
    flooder.publish(&announcement(7, 3, 9)).await;
    assert_eq!(judge.until_announcement().await.0, announcement(7, 3, 9), "the rejected one made room");
    tickets.pop().unwrap().judge(Verdict::Accept);
    until("the verdict", || judge.handle.traffic().announcements_accepted == 1).await;
    assert_eq!(series(&judge, "covey_announcements_judged_total{outcome=\"surplus\"}"), Some(2.0));
}
