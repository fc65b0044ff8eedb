//! What the tests of the store share: bytes from a seed, and sending a piece from one store to another.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use covey_blobs::{Fed, Partial, Received, Store};
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, PIECE_BYTES, Pieces};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

pub(crate) const GROUP: u64 = GROUP_BYTES;
pub(crate) const PIECE: u64 = PIECE_BYTES;

/// Bytes that no two seeds share.
pub(crate) fn bytes(size: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn store(quota: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), quota).unwrap();
    (dir, store)
}

pub(crate) fn pieces(blob: &BlobRef) -> Pieces {
    Pieces::of_blob(blob).unwrap()
}

/// The path of one of a blob's files.
pub(crate) fn path(store: &Store, blob: &BlobRef, suffix: &str) -> PathBuf {
    let name = blob.root.to_string();
    store.root().join("blobs").join(&name[..2]).join(name + suffix)
}

/// Flips a bit of a file, in place.
pub(crate) fn damage(path: &PathBuf, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The answer of a store that has them.
pub(crate) fn answer(from: &Store, blob: &BlobRef, groups: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    from.public().encode(blob, groups.clone(), &mut out).unwrap();
    assert_eq!(out.len() as u64, pieces(blob).answer_bytes(groups));
    out
}

/// Feeds an answer, item by item; how many groups were fresh, and how things stand.
pub(crate) fn feed(partial: &Partial, groups: Range<u64>, mut answer: &[u8]) -> (u64, Received) {
    let (mut receive, mut fresh) = (partial.receive(groups), 0);
    while let Some(len) = receive.next_len() {
        let (item, rest) = answer.split_at(len);
        answer = rest;
        if let Fed::Group { fresh: true, .. } = receive.feed(item).unwrap() {
            fresh += 1;
        }
    }
    assert!(answer.is_empty());
    (fresh, receive.finish().unwrap())
}

/// Sends a piece from one store to another.
pub(crate) fn send(from: &Store, to: &Partial, piece: u32) -> Received {
    let blob = to.blob();
    let groups = pieces(&blob).groups_of(piece);
    feed(to, groups.clone(), &answer(from, &blob, groups)).1
}

/// Sends every piece that is missing.
pub(crate) fn send_all(from: &Store, to: &Partial) {
    let held = to.held();
    for piece in (0..held.count()).filter(|piece| !held.contains(*piece)) {
        send(from, to, piece);
    }
}
