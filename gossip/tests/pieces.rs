//! Peers that speak the exchange as they like, against a real node: what they send, and what becomes of it.

// HAVE carries runs, often one.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

mod rig;

use covey_exchange::frames::{Answer, Asked, Frame, HOLDINGS, Holding, Order, PIECES, Reject, Wish};
use covey_gossip::store::{Durability, Store};
use covey_gossip::{Class, Config};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PIECED_BLOB_BYTES_MAX, PieceSet, Pieces};
use rig::raw::{Peer, Wire};
use rig::*;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn bytes(seed: u8, count: u64) -> Vec<u8> {
    let mut bytes = vec![0; count as usize];
    covey_proto::derive("covey test bytes", &[&[seed]]).fill(&mut bytes);
    bytes
}

/// Impatient, so that what takes seconds elsewhere takes a test's time.
fn impatient(config: &mut Config) {
    let limits = &mut config.limits;
    limits.scheduler.stall = Duration::from_millis(300);
    limits.scheduler.request_stall = Duration::from_millis(600);
    limits.scheduler.slow_over = Duration::from_millis(500);
    limits.scheduler.rest = Duration::from_millis(500);
    limits.links.write_timeout = Duration::from_millis(400);
    limits.links.news_each = Duration::from_millis(50);
}

async fn victim() -> Node {
    node_with(&[TCP], &[], impatient).await
}

/// A blob in a store of its own, for villains that know it.
struct Known {
    _dir: TempDir,
    store: Store,
    blob: BlobRef,
    bytes: Vec<u8>,
}

impl Known {
    fn new(seed: u8, size: u64) -> Arc<Known> {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let bytes = bytes(seed, size);
        let blob = store.put(&bytes, Durability::Buffered).unwrap();
        Arc::new(Known { _dir: dir, store, blob, bytes })
    }

    fn count(&self) -> u32 {
        Pieces::of_blob(&self.blob).unwrap().count()
    }

    /// The right answer to a request, head and all.
    fn answer(&self, asked: &Asked) -> Vec<u8> {
        let mut out = vec![];
        Answer::Piece { id: asked.id, bytes: asked.answer_bytes() }.encode(&mut out);
        self.store.public().encode(&asked.blob, asked.groups.clone(), &mut out).unwrap();
        out
    }

    /// A node that has it, of which the victim knows.
    async fn honest(&self, victim: &mut Node) -> Node {
        let honest = node(&[], &victim.handle.addresses()).await;
        honest.handle.store().put(&self.bytes, Durability::Buffered).unwrap();
        victim.until_connected().await;
        honest
    }
}

/// What a villain does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A bit is wrong at the end.
    Flip,
    /// The right bytes of another place.
    Elsewhere,
    /// A byte now and then.
    Drip,
    /// Nothing.
    Silent,
    /// It has none of what it says it has.
    Deny,
    /// A frame as large as can be said.
    Oversized,
    /// Fewer bytes than were asked for.
    Short,
    /// An answer to what nobody asked.
    Unasked,
    /// The right answer, twice.
    Twice,
    /// Something of another side.
    Foreign,
}

impl Way {
    const ALL: [Way; 10] = [
        Way::Flip,
        Way::Elsewhere,
        Way::Drip,
        Way::Silent,
        Way::Deny,
        Way::Oversized,
        Way::Short,
        Way::Unasked,
        Way::Twice,
        Way::Foreign,
    ];

    /// Whether what it does cannot be an accident.
    fn is_proof(self) -> bool {
        !matches!(self, Way::Drip | Way::Silent | Way::Deny)
    }
}

async fn answer(wire: &mut Wire, known: &Known, asked: Asked, way: Way) -> std::io::Result<()> {
    let mut right = known.answer(&asked);
    match way {
        Way::Flip => {
            *right.last_mut().unwrap() ^= 1;
            wire.send_bytes(&right).await
        }
        Way::Elsewhere => {
            let count = asked.groups.end - asked.groups.start;
            let first = if asked.groups.start == 0 { 16 } else { 0 };
            let mut other = known.answer(&Asked { groups: first..first + count, ..asked });
            other.resize(right.len(), 0);
            other[..9].copy_from_slice(&right[..9]);
            wire.send_bytes(&other).await
        }
        Way::Drip => {
            for byte in right {
                wire.send_bytes(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
        Way::Silent => Ok(()),
        Way::Deny => wire.send(&[Answer::Reject { id: asked.id, why: Reject::NotHeld }]).await,
        Way::Oversized => wire.send_bytes(&[0xff, 0xff, 0xff, 0xff, 0x13, 0, 0, 0, 0]).await,
        Way::Short => wire.send(&[Answer::Piece { id: asked.id, bytes: asked.answer_bytes() - 1 }]).await,
        Way::Unasked => wire.send(&[Answer::Piece { id: asked.id.wrapping_add(77), bytes: 100 }]).await,
        Way::Twice => {
            wire.send_bytes(&right).await?;
            wire.send_bytes(&right).await
        }
        Way::Foreign => wire.send(&[Order::Cancel(asked.id)]).await,
    }
}

/// Says that it holds everything that it is asked about, and answers requests in its way.
async fn provide(mut peer: Peer, known: Arc<Known>, way: Way) {
    while let Some((name, mut wire)) = peer.next().await {
        let known = known.clone();
        tokio::spawn(async move {
            if name == HOLDINGS {
                while let Some(wish) = wire.next::<Wish>().await {
                    if let Wish::Want(BlobRef { root, .. }) = wish {
                        let set = PieceSet::all(known.count()).as_bytes().to_vec();
                        drop(wire.send(&[Holding::Bitfield { root, set }]).await);
                    }
                }
                return;
            }
            while let Some(order) = wire.next::<Order>().await {
                if let Order::Request(asked) = order
                    && answer(&mut wire, &known, asked, way).await.is_err()
                {
                    return;
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_one_peer_sends_the_blob_comes_whole_from_another() {
    for way in Way::ALL {
        let mut victim = victim().await;
        let known = Known::new(1, 6 * MIB + 5);
        let peer = Peer::of(&victim).await;
        let key = peer.key;
        victim.until_connected().await;
        let villain = tokio::spawn(provide(peer, known.clone(), way));
        // Nobody else is there: it is what is asked.
        let handle = victim.handle.clone();
        let blob = known.blob;
        let fetch = tokio::spawn(async move { handle.fetch(blob, &[key.into()], PATIENCE).await });
        if way.is_proof() {
            victim
                .until("its leaving", |event| {
                    matches!(event, covey_gossip::Event::Disconnected { peer } if peer == key).then_some(())
                })
                .await;
        } else {
            while victim.handle.traffic().piece_requests_out == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let _honest = known.honest(&mut victim).await;
        let got = fetch.await.unwrap().unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert!(got[..] == known.bytes[..], "{way:?}");
        let traffic = victim.handle.traffic();
        assert_eq!(traffic.bans, u64::from(way.is_proof()), "{way:?}: {traffic:?}");
        let wrong = matches!(way, Way::Flip | Way::Elsewhere);
        assert_eq!(traffic.pieces_wrong, u64::from(wrong), "{way:?}");
        villain.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_honest_seeder_among_eight_is_enough() {
    let mut victim = victim().await;
    let known = Known::new(2, 8 * MIB);
    let mut villains = vec![];
    for way in [Way::Flip, Way::Elsewhere, Way::Drip, Way::Silent, Way::Deny, Way::Short, Way::Unasked] {
        let peer = Peer::of(&victim).await;
        villains.push(tokio::spawn(provide(peer, known.clone(), way)));
    }
    let _honest = known.honest(&mut victim).await;
    let got = victim.handle.fetch(known.blob, &[], PATIENCE).await.unwrap();
    assert!(got[..] == known.bytes[..]);
    villains.iter().for_each(|villain| villain.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_what_is_held_and_what_is_new() {
    let victim = victim().await;
    let known = Known::new(3, 3 * MIB);
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(HOLDINGS).await.unwrap();
    wire.send(&[Wish::Want(known.blob)]).await.unwrap();
    let root = known.blob.root;
    assert_eq!(wire.next::<Holding>().await, Some(Holding::Bitfield { root, set: vec![0] }));
    victim.handle.store().put(&known.bytes, Durability::Buffered).unwrap();
    assert_eq!(wire.next::<Holding>().await, Some(Holding::Have { root, runs: vec![0..3] }));
    // Of another size there is none.
    let other = BlobRef { size: known.blob.size + MIB, ..known.blob };
    wire.send(&[Wish::Unwant(root), Wish::Want(other)]).await.unwrap();
    assert_eq!(wire.next::<Holding>().await, Some(Holding::Bitfield { root, set: vec![0] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_to_hear_of_too_much_hears_no_more() {
    let victim = victim().await;
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(HOLDINGS).await.unwrap();
    let wants: Vec<Wish> =
        (0..300u32).map(|n| Wish::Want(BlobRef { root: Digest::of(&n.to_le_bytes()), size: 2 * MIB })).collect();
    wire.send(&wants).await.unwrap();
    wire.until_closed().await;
    // Its place is free again.
    let mut again = peer.open(HOLDINGS).await.unwrap();
    again.send(&wants[..256]).await.unwrap();
    for _ in 0..256 {
        assert!(matches!(again.next::<Holding>().await, Some(Holding::Bitfield { .. })));
    }
    assert_eq!(victim.handle.traffic().bans, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_two_mebibytes_of_sets_are_kept_for_a_peer() {
    let victim = victim().await;
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(HOLDINGS).await.unwrap();
    let huge = |n: u32| BlobRef { root: Digest::of(&n.to_le_bytes()), size: PIECED_BLOB_BYTES_MAX };
    for n in 0..32 {
        wire.send(&[Wish::Want(huge(n))]).await.unwrap();
        assert!(matches!(wire.next::<Holding>().await, Some(Holding::Bitfield { set, .. }) if set.len() == 64 << 10));
    }
    wire.send(&[Wish::Want(huge(32))]).await.unwrap();
    wire.until_closed().await;
    assert_eq!(victim.handle.traffic().bans, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_one_stream_of_holdings_and_three_of_pieces() {
    let victim = victim().await;
    let peer = Peer::of(&victim).await;
    for (name, most) in [(HOLDINGS, 1), (PIECES, 3)] {
        let mut open = vec![];
        for _ in 0..most {
            open.push(peer.open(name).await.unwrap());
        }
        peer.open(name).await.unwrap().until_closed().await;
        // Another may be opened once one of them has ended.
        drop(open.pop());
        let mut wire = loop {
            let mut wire = peer.open(name).await.unwrap();
            let unknown = BlobRef { root: Digest::ZERO, size: 2 * MIB };
            let answered = if name == HOLDINGS {
                drop(wire.send(&[Wish::Want(unknown)]).await);
                wire.next::<Holding>().await.is_some()
            } else {
                let asked = Asked::new(1, unknown, 0, 1).unwrap();
                drop(wire.send(&[Order::Hello(Class::Data), Order::Request(asked)]).await);
                wire.next::<Answer>().await.is_some()
            };
            if answered {
                break wire;
            }
        };
        assert!(peer.is_connected());
        wire.send_bytes(&[]).await.unwrap();
    }
}

async fn until_nothing_is_answered(node: &Node) {
    let wait = async {
        while node.handle.traffic().piece_answers_open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("every answer ends");
}

async fn requests(wire: &mut Wire, blob: BlobRef, ids: std::ops::Range<u32>) {
    let count = Pieces::of_blob(&blob).unwrap().count();
    let asked = |id: u32| Order::Request(Asked::new(id, blob, u64::from(id % count) * 16, 16).unwrap());
    let orders: Vec<Order> = ids.map(asked).collect();
    // It may be thrown out in the middle.
    drop(wire.send(&orders).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_once_also_when_it_is_taken_back() {
    let victim = victim().await;
    let known = Known::new(4, 4 * MIB);
    victim.handle.store().put(&known.bytes, Durability::Buffered).unwrap();
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(PIECES).await.unwrap();
    wire.send(&[Order::Hello(Class::State)]).await.unwrap();
    requests(&mut wire, known.blob, 0..20).await;
    let cancels: Vec<Order> = (0..20).map(Order::Cancel).collect();
    wire.send(&cancels).await.unwrap();
    let (mut answered, mut cancelled) = (std::collections::BTreeSet::new(), 0);
    while answered.len() < 20 {
        let id = match wire.next::<Answer>().await.unwrap() {
            Answer::Piece { id, bytes } => {
                let asked = Asked::new(id, known.blob, u64::from(id % 4) * 16, 16).unwrap();
                assert_eq!(wire.body(bytes).await, known.answer(&asked)[9..]);
                id
            }
            Answer::Reject { id, why } => {
                assert_eq!(why, Reject::Cancelled);
                cancelled += 1;
                id
            }
        };
        assert!(answered.insert(id), "{id} twice");
    }
    println!("{cancelled} of 20 were cancelled in time");
    // Cancels of what is over are nothing.
    requests(&mut wire, known.blob, 20..21).await;
    let Some(Answer::Piece { id: 20, bytes }) = wire.next::<Answer>().await else { panic!("it is answered") };
    wire.body(bytes).await;
    until_nothing_is_answered(&victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_is_refused_and_then_disconnected() {
    let mut victim = victim().await;
    let known = Known::new(5, 4 * MIB);
    victim.handle.store().put(&known.bytes, Durability::Buffered).unwrap();
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(PIECES).await.unwrap();
    wire.send(&[Order::Hello(Class::State)]).await.unwrap();
    requests(&mut wire, known.blob, 0..400).await;
    peer.until_thrown_out().await;
    assert!(victim.handle.traffic().piece_requests_refused > 0);
    // Nothing of it is left, and others are served.
    victim.until("its leaving", |event| matches!(event, covey_gossip::Event::Disconnected { .. }).then_some(())).await;
    let other = node(&[], &victim.handle.addresses()).await;
    victim.until_connected().await;
    assert!(other.handle.fetch(known.blob, &[], PATIENCE).await.unwrap()[..] == known.bytes[..]);
    until_nothing_is_answered(&victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_disconnected_and_holds_up_nobody() {
    let victim = victim().await;
    let known = Known::new(6, 4 * MIB);
    victim.handle.store().put(&known.bytes, Durability::Buffered).unwrap();
    let other = node(&[], &victim.handle.addresses()).await;
    let peer = Peer::of(&victim).await;
    let mut wire = peer.open(PIECES).await.unwrap();
    wire.send(&[Order::Hello(Class::Round)]).await.unwrap();
    requests(&mut wire, known.blob, 0..16).await;
    assert!(other.handle.fetch(known.blob, &[], PATIENCE).await.unwrap()[..] == known.bytes[..]);
    peer.until_thrown_out().await;
    drop(wire);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_protocol_ban_their_sender() {
    let hello = |class| {
        let mut bytes = vec![];
        Order::Hello(class).encode(&mut bytes);
        bytes
    };
    let asked = Asked::new(1, BlobRef { root: Digest::ZERO, size: 9 * MIB }, 0, 4).unwrap();
    let mut request = vec![];
    Order::Request(asked).encode(&mut request);
    let mut beyond = [hello(Class::Data), request.clone()].concat();
    let last = beyond.len() - 2;
    beyond[last] = 65;
    let cases: [(&str, Vec<u8>); 8] = [
        (HOLDINGS, vec![0xff; 64]),
        (HOLDINGS, vec![0, 0, 0, 0, 1]),
        (HOLDINGS, vec![33, 0, 0, 0, 0x03]),
        (PIECES, request),
        (PIECES, [hello(Class::Data), hello(Class::Data)].concat()),
        (PIECES, vec![3, 0, 0, 0, 0x10, 9, 0]),
        (PIECES, [hello(Class::Data), vec![0xff, 0xff, 0xff, 0x7f, 0x11]].concat()),
        (PIECES, beyond),
    ];
    for (name, bytes) in cases {
        let victim = victim().await;
        let peer = Peer::of(&victim).await;
        let mut wire = peer.open(name).await.unwrap();
        drop(wire.send_bytes(&bytes).await);
        peer.until_thrown_out().await;
        assert_eq!(victim.handle.traffic().bans, 1, "{name} {bytes:02x?}");
    }
}

/// A set that is none of the blob's, and pieces beyond its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holdings_that_cannot_be_ban_their_sender() {
    let root = Known::new(7, 3 * MIB).blob.root;
    let cases = [
        Holding::Bitfield { root, set: vec![0xff] },
        Holding::Bitfield { root, set: vec![7, 0] },
        Holding::Have { root, runs: vec![2..4] },
    ];
    for holding in cases {
        let mut victim = victim().await;
        let mut peer = Peer::of(&victim).await;
        victim.until_connected().await;
        let handle = victim.handle.clone();
        let blob = BlobRef { root, size: 3 * MIB };
        let fetch = tokio::spawn(async move { handle.fetch(blob, &[], PATIENCE).await });
        let (_, mut wire) = peer.next().await.unwrap();
        assert_eq!(wire.next::<Wish>().await, Some(Wish::Want(blob)));
        wire.send(&[holding]).await.unwrap();
        peer.until_thrown_out().await;
        assert_eq!(victim.handle.traffic().bans, 1);
        fetch.abort();
    }
}
