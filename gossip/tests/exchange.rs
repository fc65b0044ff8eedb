//! Large blobs between real nodes on loopback: from one, from many, through restarts.

#![allow(clippy::unwrap_used)]

mod rig;

use covey_gossip::store::{Durability, Store};
use covey_gossip::{ByteRate, Class, Config, Event, FetchError, Hint, Progress, start};
use covey_proto::Uid;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::Pieces;
use rig::*;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn bytes(seed: u8, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    covey_proto::derive("covey test bytes", &[&[seed]]).fill(&mut bytes);
    bytes
}

/// Puts some pieces of a blob into a store, as if a peer had sent them.
fn give(from: &Store, to: &Store, blob: BlobRef, wanted: impl Fn(u32) -> bool) {
    let pieces = Pieces::of_blob(&blob).unwrap();
    let partial = to.begin(blob).unwrap();
    for piece in (0..pieces.count()).filter(|piece| wanted(*piece)) {
        let mut answer = vec![];
        from.public().encode(&blob, pieces.groups_of(piece), &mut answer).unwrap();
        let mut receive = partial.receive(pieces.groups_of(piece));
        let mut rest = &answer[..];
        while let Some(length) = receive.next_len() {
            receive.feed(&rest[..length]).unwrap();
            rest = &rest[length..];
        }
        assert!(receive.finish().unwrap().piece_complete);
    }
}

/// So slow that a test can act before a download of some MiB ends.
fn slow(config: &mut Config) {
    config.limits.links.download = Some(ByteRate { per_second: 8 << 20, burst: 1 << 20 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_comes_from_one_that_has_it() {
    let nodes = swarm(2, &[TCP]).await;
    let blob = bytes(1, 40 * MIB + 12345);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    let mut heard: Vec<Progress> = vec![];
    nodes[0].handle.download(named, Class::State, &[], PATIENCE, |now| heard.push(now)).await.unwrap();
    assert!(nodes[0].handle.store().get(&named.root).unwrap().unwrap() == blob);
    let last = heard.last().unwrap();
    assert_eq!((last.pieces, last.pieces_all, last.bytes), (41, 41, named.size));
    let (asker, giver) = (nodes[0].handle.traffic(), nodes[1].handle.traffic());
    assert_eq!((asker.state_in.bytes, asker.pieces_good), (named.size, 41));
    assert_eq!((asker.groups_duplicate.count, asker.piece_requests_open, giver.piece_answers_open), (0, 0, 0));
    // Whoever has it needs nobody.
    nodes[0].handle.download(named, Class::State, &[], Duration::ZERO, |_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_veiled_comes_by_no_way_before_it_is_unveiled() {
    let nodes = swarm(2, &[TCP]).await;
    let (asker, giver) = (&nodes[0].handle, &nodes[1].handle);
    let veiled = giver.store().put_veiled("mine-1", &[bytes(15, 900), bytes(16, 3 * MIB)]).unwrap();
    let (small, large) = (veiled[0], veiled[1]);
    let soon = Duration::from_millis(400);
    let hints = [Hint::Uid(Uid::from(1))];
    assert!(asker.fetch(small, &hints, soon).await.is_err());
    assert!(asker.fetch_unsized(large.root, 4 << 20, &hints, soon).await.is_err());
    let other_size = BlobRef { size: 2 * MIB as u64, ..large };
    for blob in [large, other_size] {
        assert!(asker.download(blob, Class::Round, &hints, soon, |_| ()).await.is_err());
        assert!(asker.store().holdings(&blob).is_empty());
    }
    // Asked for while it is veiled, it comes as soon as it no longer is.
    let waiting = tokio::spawn({
        let asker = asker.clone();
        async move { asker.download(large, Class::Round, &[], PATIENCE, |_| ()).await }
    });
    giver.store().unveil("mine-1").unwrap();
    assert!(asker.fetch(small, &hints, PATIENCE).await.unwrap()[..] == bytes(15, 900)[..]);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_size_of_a_right_root_that_is_named_first_does_not_shut_out_the_right_one() {
    let nodes = swarm(2, &[TCP]).await;
    let blob = bytes(21, 5 * MIB);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    let false_size = BlobRef { size: named.size - 3 * MIB as u64, ..named };
    let asker = nodes[0].handle.clone();
    let in_vain = tokio::spawn(async move { asker.download(false_size, Class::Round, &[], PATIENCE, |_| ()).await });
    let asker = &nodes[0].handle;
    while asker.store().partial_blobs() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asker.fetch_as(named, Class::Round, &[], PATIENCE).await.unwrap()[..] == blob[..]);
    let told = in_vain.await.unwrap();
    assert!(matches!(told, Err(FetchError::TwoSizes { other, .. }) if other == named.size), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_comes_over_quic_too() {
    let nodes = swarm(2, &[QUIC]).await;
    let blob = bytes(13, 5 * MIB + 1);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    assert!(nodes[0].handle.fetch_as(named, Class::Data, &[], PATIENCE).await.unwrap()[..] == blob[..]);
    assert_eq!(nodes[0].handle.traffic().data_in.bytes, named.size);
}

#[tokio::test(flavor = "current_thread")]
async fn a_runtime_of_one_thread_fetches_too() {
    let nodes = swarm(2, &[TCP]).await;
    let blob = bytes(14, 4 * MIB);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    assert!(nodes[0].handle.fetch(named, &[], PATIENCE).await.unwrap()[..] == blob[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_hold_a_part_each_give_the_whole() {
    let nodes = swarm(4, &[TCP]).await;
    let source = tempfile::tempdir().unwrap();
    let source = store(source.path());
    let blob = bytes(2, 20 * MIB + 7);
    let named = source.put(&blob, Durability::Buffered).unwrap();
    give(&source, nodes[1].handle.store(), named, |piece| piece % 2 == 1);
    give(&source, nodes[2].handle.store(), named, |piece| piece % 2 == 0 && piece < 12);
    give(&source, nodes[3].handle.store(), named, |piece| piece >= 10);
    let got = nodes[0].handle.fetch(named, &[], PATIENCE).await.unwrap();
    assert!(got[..] == blob[..]);
    for node in &nodes[1..] {
        assert!(node.handle.traffic().round_out.count > 0, "each gave some");
    }
    assert_eq!(nodes[0].handle.traffic().pieces_wrong, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fetches_serves_on_what_it_has() {
    // Its line is the bottleneck: the others have pieces to give long before it has given all.
    let seed = |config: &mut Config| {
        config.limits.governor.upload = Some(ByteRate { per_second: 8 << 20, burst: 1 << 20 });
    };
    let nodes = swarm_of(5, &[TCP], seed).await;
    let blob = bytes(3, 16 * MIB);
    let named = nodes[0].handle.store().put(&blob, Durability::Buffered).unwrap();
    let fetches = nodes[1..].iter().map(|node| node.handle.download(named, Class::Round, &[], PATIENCE, |_| ()));
    for done in futures::future::join_all(fetches).await {
        done.unwrap();
    }
    for node in &nodes[1..] {
        assert!(node.handle.store().get(&named.root).unwrap().unwrap() == blob);
    }
    let served_on: u64 = nodes[1..].iter().map(|node| node.handle.traffic().round_out.count).sum();
    assert!(served_on > 0, "the seed did it all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uid_is_a_hint_and_a_blob_that_appears_later_is_found() {
    let nodes = swarm(2, &[TCP]).await;
    let blob = bytes(4, 3 * MIB);
    let named = BlobRef::of(&blob);
    let handle = nodes[0].handle.clone();
    let fetch = tokio::spawn(async move { handle.fetch(named, &[Hint::Uid(Uid::from(1))], PATIENCE).await });
    // It was asked before it had any.
    while nodes[0].handle.traffic().piece_requests_out == 0 && !fetch.is_finished() {
        nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fetch.await.unwrap().unwrap()[..] == blob[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_want_the_same_fetch_it_once_and_one_may_give_up() {
    let seed = node(&[TCP], &[]).await;
    let mut asker = node_with(&[TCP], &seed.handle.addresses(), slow).await;
    asker.until_connected().await;
    let blob = bytes(5, 6 * MIB);
    let named = seed.handle.store().put(&blob, Durability::Buffered).unwrap();
    let handle = asker.handle.clone();
    let first = tokio::spawn(async move { handle.download(named, Class::Data, &[], PATIENCE, |_| ()).await });
    let handle = asker.handle.clone();
    let second = tokio::spawn(async move { handle.download(named, Class::Data, &[], PATIENCE, |_| ()).await });
    while asker.handle.traffic().pieces_good < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    second.await.unwrap().unwrap();
    assert_eq!(asker.handle.traffic().data_in.bytes, named.size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_that_is_up_is_an_error_and_what_came_stays() {
    let seed = node(&[TCP], &[]).await;
    let mut asker = node_with(&[TCP], &seed.handle.addresses(), slow).await;
    asker.until_connected().await;
    let named = seed.handle.store().put(&bytes(6, 8 * MIB), Durability::Buffered).unwrap();
    let error = asker.handle.download(named, Class::Data, &[], Duration::from_millis(300), |_| ()).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { asked: 1, lacking: 0, connected: 1, .. }), "{error}");
    let held = asker.handle.store().holdings(&named).len();
    asker.handle.download(named, Class::Data, &[], PATIENCE, |_| ()).await.unwrap();
    let came = asker.handle.traffic().data_in.bytes;
    println!("{held} of 8 pieces held; {came} bytes came for {}", named.size);
    assert!(came < named.size + 4 * MIB as u64, "{came} bytes came for {}", named.size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_full_ends_its_download_and_no_other() {
    let nodes = swarm(2, &[TCP]).await;
    let small = tempfile::tempdir().unwrap();
    let (handle, _events) = start(
        config(small.path(), &[], &nodes[0].handle.addresses()),
        Store::open(small.path().join("blobs"), 4 << 20).unwrap(),
    )
    .await
    .unwrap();
    let large = nodes[0].handle.store().put(&bytes(7, 5 * MIB), Durability::Buffered).unwrap();
    let fits = nodes[0].handle.store().put(&bytes(8, 3 * MIB), Durability::Buffered).unwrap();
    let (full, fine) = futures::join!(
        handle.download(large, Class::Data, &[], PATIENCE, |_| ()),
        handle.download(fits, Class::Data, &[], PATIENCE, |_| ()),
    );
    assert!(matches!(full, Err(FetchError::Store(_))), "{full:?}");
    fine.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_half_way_goes_on_where_it_was() {
    let seed = node(&[TCP], &[]).await;
    let named = seed.handle.store().put(&bytes(9, 12 * MIB), Durability::Buffered).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let begin = |runtime: &tokio::runtime::Runtime| {
        let mut config = config(dir.path(), &[], &seed.handle.addresses());
        slow(&mut config);
        runtime.spawn(start(config, store(dir.path())))
    };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let life = runtime();
    let (handle, mut events) = begin(&life).await.unwrap().unwrap();
    let doomed = handle.clone();
    life.spawn(async move { doomed.download(named, Class::State, &[], PATIENCE, |_| ()).await });
    while handle.traffic().pieces_good < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // As a crash would: nothing is told to anybody.
    life.shutdown_background();
    while events.next().await.is_some() {}
    let before = handle.traffic().state_in.bytes;
    drop((handle, events));
    let life = runtime();
    let (handle, _events) = begin(&life).await.unwrap().unwrap();
    let again = handle.clone();
    let done = life.spawn(async move { again.download(named, Class::State, &[], PATIENCE, |_| ()).await });
    done.await.unwrap().unwrap();
    let after = handle.traffic().state_in.bytes;
    println!("{before} bytes before, {after} after, {} in all", named.size);
    assert!(before + after < named.size + 2 * MIB as u64, "{before} before and {after} after");
    drop(handle);
    life.shutdown_background();
}

// A release cannot be told to panic.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_network_costs_a_download_what_was_in_flight() {
    let seed = node(&[TCP], &[]).await;
    let mut asker = node_with(&[TCP], &seed.handle.addresses(), slow).await;
    asker.until_connected().await;
    let named = seed.handle.store().put(&bytes(10, 8 * MIB), Durability::Buffered).unwrap();
    let handle = asker.handle.clone();
    let fetch = tokio::spawn(async move { handle.download(named, Class::Round, &[], PATIENCE, |_| ()).await });
    while asker.handle.traffic().pieces_good < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asker.handle.panic_network().await;
    asker.until("the restart", |event| matches!(event, Event::NetworkRestarted).then_some(())).await;
    fetch.await.unwrap().unwrap();
    let traffic = asker.handle.traffic();
    assert_eq!((traffic.restarts, traffic.piece_requests_open), (1, 0));
}

/// Its own disk may lie to a node: it serves no wrong byte, and the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_gives_nothing_wrong_and_costs_nobody_a_ban() {
    let nodes = swarm(3, &[TCP]).await;
    let blob = bytes(11, 4 * MIB);
    let named = nodes[1].handle.store().put(&blob, Durability::Synced).unwrap();
    nodes[2].handle.store().put(&blob, Durability::Synced).unwrap();
    let hex = named.root.to_string();
    let path = nodes[1].dir.path().join("blobs/blobs").join(&hex[..2]).join(&hex);
    let mut damaged = blob.clone();
    damaged.iter_mut().step_by(64 * 1024).for_each(|byte| *byte ^= 1);
    std::fs::write(path, damaged).unwrap();
    let got = nodes[0].handle.fetch(named, &[Hint::Uid(Uid::from(1))], PATIENCE).await.unwrap();
    assert!(got[..] == blob[..]);
    assert_eq!((nodes[0].handle.traffic().bans, nodes[0].handle.traffic().pieces_wrong), (0, 0));
}

/// For chaos on purpose: what lies is caught at its first group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_is_banned_and_another_serves() {
    let mut nodes = swarm(3, &[TCP]).await;
    // More than either is asked for at first, so that both are asked whoever answers first.
    let blob = bytes(12, 16 * MIB);
    let named = nodes[1].handle.store().put(&blob, Durability::Buffered).unwrap();
    nodes[1].handle.lie(true);
    let liar = nodes[1].handle.peer_id();
    let handle = nodes[0].handle.clone();
    let fetch = tokio::spawn(async move { handle.fetch(named, &[], PATIENCE).await });
    nodes[0].until("its leaving", |e| matches!(e, Event::Disconnected { peer } if peer == liar).then_some(())).await;
    nodes[2].handle.store().put(&blob, Durability::Buffered).unwrap();
    assert!(fetch.await.unwrap().unwrap()[..] == blob[..]);
    let traffic = nodes[0].handle.traffic();
    assert!(traffic.bans == 1 && traffic.pieces_wrong >= 1, "{traffic:?}");
}
