//! Tests of the store as a whole that need what is private to it.

use super::*;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use std::fs;
use std::path::PathBuf;

fn store(quota: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store"), quota).unwrap();
    (dir, store)
}

fn blob_path(store: &Store, root: &Digest) -> PathBuf {
    let name = root.to_string();
    store.root().join("blobs").join(&name[..2]).join(name)
}

#[test]
fn what_was_put_is_got_again_also_after_reopening() {
    let (dir, store) = store(1 << 20);
    let a = store.put(b"alpha", Durability::Synced).unwrap();
    let b = store.put(b"beta", Durability::Buffered).unwrap();
    assert_eq!(store.get(&a.root).unwrap().unwrap(), b"alpha");
    assert_eq!(store.get(&Digest::of(b"gamma")).unwrap(), None);
    drop(store);
    let store = Store::open(dir.path().join("store"), 1 << 20).unwrap();
    assert_eq!(store.get(&b.root).unwrap().unwrap(), b"beta");
    assert_eq!(store.bytes(), 9);
}

#[test]
fn a_batch_is_stored_whole_and_duplicates_in_it_do_no_harm() {
    let (_dir, store) = store(1 << 20);
    let blobs: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n % 40; 100]).collect();
    let named = store.put_batch(&blobs, Durability::Synced).unwrap();
    for (blob, bytes) in named.iter().zip(&blobs) {
        assert_eq!(store.get(&blob.root).unwrap().as_ref(), Some(bytes));
    }
    assert_eq!(store.bytes(), 4000);
}

#[test]
fn leftovers_of_a_crash_are_removed_and_never_served() {
    let (dir, store) = store(1 << 20);
    drop(store);
    let root = dir.path().join("store");
    fs::write(root.join("tmp").join("17"), b"half a bl").unwrap();
    let store = Store::open(&root, 1 << 20).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_corrupt_file_is_removed_and_counts_as_missing() {
    let (_dir, store) = store(1 << 20);
    let blob = store.put(b"precious", Durability::Synced).unwrap();
    fs::write(blob_path(&store, &blob.root), b"precioux").unwrap();
    assert_eq!(store.get(&blob.root).unwrap(), None);
    assert!(!store.has(&blob.root));
    assert!(!blob_path(&store, &blob.root).exists());
    store.put(b"precious", Durability::Synced).unwrap();
    assert_eq!(store.get(&blob.root).unwrap().unwrap(), b"precious");
}

#[test]
fn a_file_that_vanished_is_written_again() {
    let (_dir, store) = store(1 << 20);
    let blob = store.put(b"here", Durability::Buffered).unwrap();
    fs::remove_file(blob_path(&store, &blob.root)).unwrap();
    store.put(b"here", Durability::Buffered).unwrap();
    assert_eq!(store.get(&blob.root).unwrap().unwrap(), b"here");
}

#[test]
fn the_least_recently_used_blob_makes_room_and_pinned_ones_stay() {
    let (_dir, store) = store(300);
    let [a, b, c] = [1u8, 2, 3].map(|n| store.put(&[n; 100], Durability::Buffered).unwrap().root);
    store.pin("keep", &[a]).unwrap();
    store.get(&b).unwrap();
    let d = store.put(&[4; 100], Durability::Buffered).unwrap().root;
    assert_eq!([a, b, c, d].map(|root| store.has(&root)), [true, true, false, true]);
    store.pin("keep", &[a, b, d]).unwrap();
    let full = store.put(&[5; 100], Durability::Buffered);
    assert!(matches!(full, Err(StoreError::QuotaFull { needed: 100, pinned: 300, quota: 300 })), "{full:?}");
    store.unpin("keep").unwrap();
    store.put(&[5; 100], Durability::Buffered).unwrap();
}

#[test]
fn what_cannot_fit_however_much_is_evicted_evicts_nothing() {
    let (_dir, store) = store(100);
    let pinned = store.put(&[1; 60], Durability::Synced).unwrap();
    store.pin("state", &[pinned.root]).unwrap();
    let other = store.put(&[2; 30], Durability::Synced).unwrap();
    assert!(matches!(store.put(&[3; 50], Durability::Synced), Err(StoreError::QuotaFull { .. })));
    let large = BlobRef { root: Digest::of(b"large"), size: 50 };
    assert!(matches!(store.begin(large), Err(StoreError::QuotaFull { .. })));
    assert!(store.has(&other.root), "it could not have made room");
}

#[test]
fn pins_survive_a_crash_and_a_smaller_quota() {
    let (dir, store) = store(1 << 20);
    let [a, b] = [1u8, 2].map(|n| store.put(&[n; 100], Durability::Buffered).unwrap().root);
    store.pin("round-7", &[b]).unwrap();
    drop(store);
    let store = Store::open(dir.path().join("store"), 50).unwrap();
    assert_eq!(store.pins()["round-7"], [b]);
    assert_eq!(store.gc().unwrap(), 100);
    assert_eq!([a, b].map(|root| store.has(&root)), [false, true]);
}

#[test]
fn a_pin_of_what_is_missing_changes_nothing() {
    let (_dir, store) = store(1 << 20);
    let a = store.put(b"a", Durability::Buffered).unwrap().root;
    store.pin("tag", &[a]).unwrap();
    let missing = Digest::of(b"nowhere");
    assert!(matches!(store.pin("tag", &[missing]), Err(StoreError::Missing(root)) if root == missing));
    assert_eq!(store.pins()["tag"], [a]);
    assert!(matches!(store.pin("../evil", &[a]), Err(StoreError::Tag(_))));
}

#[test]
fn a_folder_that_was_moved_away_fails_and_is_not_created_again() {
    let (dir, store) = store(1 << 20);
    let a = store.put(b"a", Durability::Buffered).unwrap().root;
    let root = dir.path().join("store");
    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    assert!(matches!(store.put(b"b", Durability::Buffered), Err(StoreError::Gone(_))));
    assert!(matches!(store.get(&a), Err(StoreError::Gone(_))));
    assert!(matches!(store.pin("tag", &[a]), Err(StoreError::Gone(_))));
    assert!(!root.exists());
    fs::rename(dir.path().join("elsewhere"), &root).unwrap();
    assert_eq!(store.get(&a).unwrap().unwrap(), b"a");
}

#[test]
fn one_folder_has_one_user() {
    let (dir, store) = store(1 << 20);
    let root = dir.path().join("store");
    assert!(matches!(Store::open(&root, 1), Err(StoreError::Locked(_))));
    drop(store);
    Store::open(&root, 1).unwrap();
}

/// Prints what durability costs on this disk; run with --nocapture.
#[test]
fn durability_has_a_price() {
    let (_dir, store) = store(1 << 30);
    let blobs = |kind: u8| (0..16u8).map(|n| [vec![kind, n], vec![0; 150_000]].concat()).collect::<Vec<_>>();
    let timed = |what: &str, work: &dyn Fn()| {
        let start = std::time::Instant::now();
        work();
        println!("16 blobs of 150 kB, {what}: {:?} each", start.elapsed() / 16);
    };
    let put_each = |kind: u8, durability: Durability| {
        for blob in blobs(kind) {
            store.put(&blob, durability).unwrap();
        }
    };
    timed("buffered", &|| put_each(0, Durability::Buffered));
    timed("synced one by one", &|| put_each(1, Durability::Synced));
    timed("synced as a batch", &|| assert_eq!(store.put_batch(&blobs(2), Durability::Synced).unwrap().len(), 16));
    let roots: Vec<Digest> = blobs(0).iter().map(|blob| Digest::of(blob)).collect();
    timed("pinned after buffering", &|| store.pin("all", &roots).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let open = |what: &str| {
        let start = std::time::Instant::now();
        let store = Store::open(dir.path().join("another"), 1 << 30).unwrap();
        println!("{what}: {:?}", start.elapsed());
        store.put(b"one", Durability::Buffered).unwrap();
        let start = std::time::Instant::now();
        drop(store);
        println!("closing it: {:?}", start.elapsed());
    };
    ["creating a store", "opening it"].into_iter().for_each(open);
}
