//! The taking of a verified answer: no wrong group is ever accepted, wherever a lie is, and no right one refused.

use super::take;
use covey_blobs::{Durability, Fed, Receive, ReceiveError, Store};
use covey_proto::blob::BlobRef;
use covey_proto::derive;
use covey_proto::pieces::{GROUP_BYTES, Pieces};
use std::ops::Range;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Blobs of an empty group, a part of one, some groups and a part, and two pieces and a group.
const SIZES: [u64; 4] = [0, 1000, 3 * GROUP_BYTES + 777, 33 * GROUP_BYTES];

/// A store that has the blobs, and one that takes them.
struct Rig {
    giver: Store,
    taker: Store,
    blobs: Vec<(BlobRef, Vec<u8>)>,
    _folders: [TempDir; 2],
}

fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let folders = [0, 1].map(|_| tempfile::tempdir().expect("a temporary folder"));
        let [giver, taker] = [0, 1].map(|at| Store::open(folders[at].path(), 1 << 30).expect("a temporary store"));
        let blob = |size: u64| {
            let mut bytes = vec![0; size as usize];
            derive("covey test bytes", &[&size.to_le_bytes()]).fill(&mut bytes);
            (giver.put(&bytes, Durability::Buffered).expect("room for it"), bytes)
        };
        let blobs = SIZES.into_iter().map(blob).collect();
        Rig { giver, taker, blobs, _folders: folders }
    })
}

/// The first byte chooses a blob, two more the groups asked for. What follows changes the right answer: each four bytes
/// are an offset (u24, from the answer's start) and what is added to the byte there; an offset beyond its end cuts it off.
pub(super) fn receive(mut data: &[u8]) -> bool {
    let rig = rig();
    let [which, first, count] = take(&mut data);
    let (blob, bytes) = &rig.blobs[usize::from(which) % rig.blobs.len()];
    let groups = asked(*blob, first, count);
    let mut answer = Vec::new();
    rig.giver.public().encode(blob, groups.clone(), &mut answer).expect("what it has");
    let right = answer.clone();
    for change in data.chunks_exact(4).take(64) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
        match answer.get_mut(at) {
            Some(byte) => *byte = byte.wrapping_add(change[3]),
            None => answer.truncate(at % (right.len() + 1)),
        }
    }
    let partial = rig.taker.begin(*blob).expect("room for it");
    let taken = feed(partial.receive(groups.clone()), &answer, bytes);
    if answer == right {
        assert_eq!(taken, Some(groups.end - groups.start), "a right answer is taken whole");
    } else {
        assert_eq!(taken, None, "a wrong answer is noticed");
    }
    drop(partial);
    rig.taker.forget(&blob.root).expect("a partial blob");
    // A whole one is not forgotten, but removed: the next input begins anew.
    rig.taker.remove(&blob.root).expect("a blob that nobody pins");
    answer == right
}

/// Groups that there are: within one piece, as a request's.
fn asked(blob: BlobRef, first: u8, count: u8) -> Range<u64> {
    let pieces = Pieces::of_blob(&blob).expect("a small blob");
    let first = u64::from(first) % pieces.groups();
    let piece = pieces.groups_of(pieces.piece_of(first));
    first..(first + 1 + u64::from(count)).min(piece.end)
}

/// Feeds an answer item by item: how many groups were taken, or none if it was refused or ended early.
fn feed(mut receive: Receive, mut answer: &[u8], blob: &[u8]) -> Option<u64> {
    let mut taken = 0;
    while let Some(next) = receive.next_len() {
        let (item, rest) = answer.split_at_checked(next)?;
        answer = rest;
        match receive.feed(item) {
            Ok(Fed::Proof) => assert_eq!(item.len(), 64),
            Ok(Fed::Group { group, .. }) => {
                let at = (group * GROUP_BYTES) as usize;
                assert_eq!(item, &blob[at..at + item.len()], "group {group} is not the blob's");
                taken += 1;
            }
            Err(ReceiveError::Wrong { .. }) => {
                assert!(matches!(receive.feed(item), Err(ReceiveError::Over)), "an answer that lied is over");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
    answer.is_empty().then_some(taken)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![vec![0, 0, 0], vec![1, 0, 0], vec![2, 0, 255], vec![2, 1, 1], vec![3, 16, 15], vec![3, 32, 0]]
}
