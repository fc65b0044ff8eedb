//! Blobs as files: in, out, looked at, checked, removed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use covey_blobs::{Durability, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use rig::{GROUP, PIECE, answer, bytes, damage, path, pieces, send, store};
use std::fs;
use std::io::{Read, Seek, SeekFrom};

#[test]
fn a_file_goes_in_and_comes_out_as_it_was() {
    let (dir, store) = store(1 << 30);
    for size in [0, 1, GROUP, PIECE, PIECE + 1, 7 * PIECE + 3 * GROUP + 9] {
        let bytes = bytes(size, 1);
        let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
        fs::write(&original, &bytes).unwrap();
        let mut told = Vec::new();
        let blob = store.add_file(&original, &mut |done| told.push(done)).unwrap();
        assert_eq!(blob, BlobRef::of(&bytes));
        assert_eq!(told.last(), Some(&size));
        assert!(told.is_sorted());
        assert_eq!(store.get(&blob.root).unwrap().as_ref(), Some(&bytes));
        told.clear();
        store.export(&blob, &copy, &mut |done| told.push(done)).unwrap();
        assert!(fs::read(&copy).unwrap() == bytes, "{size} bytes");
        assert_eq!(told.last(), Some(&size));
        // It is served like one that was put.
        let last = pieces(&blob).groups() - 1;
        let served = answer(&store, &blob, last..last + 1);
        let (_b, other) = rig::store(1 << 30);
        other.put(&bytes, Durability::Buffered).unwrap();
        assert_eq!(answer(&other, &blob, last..last + 1), served);
    }
    let again = store.add_file(&dir.path().join("original"), &mut |_| {}).unwrap();
    assert_eq!(store.list().iter().filter(|info| info.blob == again).count(), 1);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_added_leaves_nothing() {
    let (dir, store) = store(PIECE);
    let file = dir.path().join("file");
    assert!(matches!(store.add_file(&file, &mut |_| {}), Err(StoreError::Io { .. })));
    assert!(matches!(store.add_file(dir.path(), &mut |_| {}), Err(StoreError::Io { .. })));
    fs::write(&file, bytes(PIECE + 1, 2)).unwrap();
    assert!(matches!(store.add_file(&file, &mut |_| {}), Err(StoreError::QuotaFull { .. })));
    // A file that shrinks, or grows, while it is read.
    for size in [2 * GROUP, 8 * GROUP] {
        fs::write(&file, bytes(4 * GROUP, 3)).unwrap();
        let changed = store.add_file(&file, &mut |done| {
            if done == GROUP {
                fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(size).unwrap();
            }
        });
        assert!(matches!(changed, Err(StoreError::Changed(_))), "{changed:?}");
    }
    assert_eq!((store.bytes(), fs::read_dir(store.root().join("tmp")).unwrap().count()), (0, 0));
    // What was promised to them is free again.
    store.put(&bytes(PIECE, 4), Durability::Buffered).unwrap();
}

#[test]
fn a_reader_goes_anywhere_and_hands_out_nothing_that_is_damaged() {
    let (_a, store) = store(1 << 30);
    let bytes = bytes(3 * PIECE + 100, 5);
    let blob = store.put(&bytes, Durability::Synced).unwrap();
    let mut reader = store.reader(&blob.root).unwrap().unwrap();
    let mut tail = Vec::new();
    reader.seek(SeekFrom::End(-200)).unwrap();
    reader.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, bytes[bytes.len() - 200..]);
    let mut middle = vec![0; 2 << 20];
    reader.seek(SeekFrom::Start(PIECE - 5)).unwrap();
    reader.read_exact(&mut middle).unwrap();
    assert!(middle == bytes[PIECE as usize - 5..][..2 << 20]);
    damage(&path(&store, &blob, ""), PIECE + 3);
    reader.rewind().unwrap();
    let mut before = Vec::new();
    let error = reader.read_to_end(&mut before).unwrap_err();
    assert!(error.to_string().contains("piece 1"), "{error}");
    assert!(before.len() as u64 == PIECE && before == bytes[..PIECE as usize]);
    assert!(!store.has(&blob.root));
    assert!(store.reader(&blob.root).unwrap().is_none());
}

#[test]
fn an_export_that_fails_leaves_the_old_file() {
    let (dir, store) = store(1 << 30);
    let blob = store.put(&bytes(3 * PIECE, 6), Durability::Synced).unwrap();
    let out = dir.path().join("out");
    fs::write(&out, b"old").unwrap();
    damage(&path(&store, &blob, ""), 2 * PIECE);
    let refused = store.export(&blob, &out, &mut |_| {});
    assert!(matches!(refused, Err(StoreError::Corrupt { piece: 2, .. })), "{refused:?}");
    assert!(matches!(store.export(&blob, &out, &mut |_| {}), Err(StoreError::Missing(_))));
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert!(!dir.path().join("out.part").exists());
    let other = BlobRef { size: 1, ..store.put(b"x2", Durability::Buffered).unwrap() };
    assert!(matches!(store.export(&other, &out, &mut |_| {}), Err(StoreError::Missing(_))));
}

#[test]
fn a_check_finds_each_damaged_piece_and_only_those() {
    let ((_a, from), (_b, store)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(6 * PIECE, 7);
    let blob = from.put(&bytes, Durability::Synced).unwrap();
    store.put(&bytes, Durability::Synced).unwrap();
    let fine = store.verify(&blob.root, &mut |_| {}).unwrap();
    assert!(fine.damaged.is_empty() && fine.good.is_full());
    for piece in [1, 4] {
        damage(&path(&store, &blob, ""), piece * PIECE + 77);
    }
    let mut told = 0;
    let found = store.verify(&blob.root, &mut |done| told = done).unwrap();
    assert_eq!((found.damaged, found.good.len(), told), (vec![1, 4], 4, blob.size));
    let partial = store.begin(blob).unwrap();
    send(&from, &partial, 1);
    damage(&path(&store, &blob, ".partial"), 0);
    assert_eq!(store.verify(&blob.root, &mut |_| {}).unwrap().damaged, [0]);
    assert_eq!(partial.held().iter().collect::<Vec<_>>(), [1, 2, 3, 5]);
    assert!(matches!(store.verify(&Digest::of(b"?"), &mut |_| {}), Err(StoreError::Missing(_))));
    // A file that was cut short.
    let cut = fs::OpenOptions::new().write(true).open(path(&from, &blob, "")).unwrap();
    cut.set_len(4 * PIECE + 5).unwrap();
    assert_eq!(from.verify(&blob.root, &mut |_| {}).unwrap().damaged, [4, 5]);
}

#[test]
fn a_list_says_what_is_there_in_the_order_in_which_it_would_go() {
    let ((_a, from), (dir, store)) = (store(1 << 30), store(1 << 30));
    let names: Vec<BlobRef> = (0..4u64).map(|n| store.put(&bytes(100, n), Durability::Buffered).unwrap()).collect();
    store.get(&names[1].root).unwrap();
    store.pin("b", &[names[2].root, names[0].root]).unwrap();
    store.pin("a", &[names[2].root]).unwrap();
    let large = from.put(&bytes(3 * PIECE, 9), Durability::Buffered).unwrap();
    let partial = store.begin(large).unwrap();
    send(&from, &partial, 2);
    let order: Vec<BlobRef> = [0, 2, 3, 1].map(|n: usize| names[n]).into_iter().chain([large]).collect();
    let check = |store: &Store| {
        let list = store.list();
        assert_eq!(list.iter().map(|info| info.blob).collect::<Vec<_>>(), order);
        assert_eq!(list[1].pins, ["a", "b"]);
        assert_eq!((list[0].pins.len(), list[2].pins.len()), (1, 0));
        assert_eq!(list[4].held.iter().collect::<Vec<_>>(), [2]);
        assert!(list[..4].iter().all(|info| info.held.is_full()));
        assert!(list.windows(2).all(|pair| pair[0].used < pair[1].used));
        list
    };
    let before = check(&store);
    drop((store, partial));
    assert_eq!(check(&Store::open(dir.path().join("store"), 1 << 30).unwrap()), before, "also after reopening");
}

#[test]
fn what_is_pinned_is_not_removed() {
    let (_a, store) = store(1 << 30);
    let blob = store.put(&bytes(2 * PIECE, 10), Durability::Buffered).unwrap();
    store.pin("tag", &[blob.root]).unwrap();
    assert!(matches!(store.remove(&blob.root), Err(StoreError::Pinned { tag, .. }) if tag == "tag"));
    store.unpin("tag").unwrap();
    assert!(store.remove(&blob.root).unwrap());
    assert!(!store.remove(&blob.root).unwrap());
    assert!(!path(&store, &blob, "").exists() && !path(&store, &blob, ".obao").exists());
}

/// Peak memory of this process, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "writes 3 GB, and measures the whole process: run it alone, with --ignored"]
fn a_large_blob_needs_no_more_memory_than_a_small_one() {
    let ((dir, from), (_b, to)) = (store(1 << 40), store(1 << 40));
    let file = dir.path().join("file");
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    let before = peak();
    let blob = from.add_file(&file, &mut |_| {}).unwrap();
    let partial = to.begin(blob).unwrap();
    rig::send_all(&from, &partial);
    assert!(to.verify(&blob.root, &mut |_| {}).unwrap().good.is_full());
    to.export(&blob, &file, &mut |_| {}).unwrap();
    println!("1 GiB was added, served, received, checked and written out in {} KiB", peak() - before);
    assert!(peak() - before < 24 << 10);
}
