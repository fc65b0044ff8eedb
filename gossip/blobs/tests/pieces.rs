//! Blobs come piece by piece, from many senders, and only what is good is kept, counted and served.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use covey_blobs::{Durability, Fed, ReceiveError, ServeError, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::PieceSet;
use rig::{GROUP, PIECE, answer, bytes, damage, feed, path, pieces, send, send_all, store};
use std::fs;

#[test]
fn a_blob_goes_from_store_to_store_and_on_from_there_before_it_is_whole() {
    for size in [0, 1, GROUP, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7, 5 * PIECE + 3 * GROUP] {
        let ((_a, first), (_b, second), (_c, third)) = (store(1 << 30), store(1 << 30), store(1 << 30));
        let bytes = bytes(size, 1);
        let blob = first.put(&bytes, Durability::Buffered).unwrap();
        let (here, there) = (second.begin(blob).unwrap(), third.begin(blob).unwrap());
        // There is nothing to fetch of an empty blob.
        assert_eq!((here.held().is_full(), second.has(&blob.root)), (size == 0, size == 0));
        let count = pieces(&blob).count();
        for piece in (0..count).rev() {
            assert!(size == 0 || !second.holdings(&blob).contains(piece));
            let received = send(&first, &here, piece);
            assert_eq!((received.piece_complete, received.blob_complete), (true, piece == 0), "{size} bytes");
            assert!(second.holdings(&blob).contains(piece));
            send(&second, &there, piece);
        }
        for store in [&second, &third] {
            assert!(store.holdings(&blob).is_full() && store.has(&blob.root));
            assert_eq!(store.get(&blob.root).unwrap().as_ref(), Some(&bytes), "{size} bytes");
            store.pin("kept", &[blob.root]).unwrap();
            assert!(path(store, &blob, "").is_file() && !path(store, &blob, ".partial").exists());
        }
    }
}

#[test]
fn a_fetch_goes_on_where_it_was_after_reopening() {
    let ((_a, from), (dir, to)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(5 * PIECE + 7, 2);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    for piece in [1, 4, 5] {
        send(&from, &partial, piece);
    }
    drop((partial, to));
    let to = Store::open(dir.path().join("store"), 1 << 30).unwrap();
    assert_eq!(to.holdings(&blob).iter().collect::<Vec<_>>(), [1, 4, 5]);
    assert_eq!(answer(&to, &blob, 16..32), answer(&from, &blob, 16..32));
    let partial = to.begin(blob).unwrap();
    for piece in [0, 2, 3] {
        send(&from, &partial, piece);
    }
    assert_eq!(to.get(&blob.root).unwrap().unwrap(), bytes);
}

#[test]
fn a_wrong_item_is_noticed_wherever_it_is_and_what_came_before_it_is_kept() {
    let (_a, from) = store(1 << 30);
    let bytes = bytes(PIECE + 5 * GROUP + 100, 3);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    let groups = pieces(&blob).groups_of(1);
    let answer = answer(&from, &blob, groups.clone());
    let mut wrong = 0;
    loop {
        let (_b, to) = store(1 << 30);
        let partial = to.begin(blob).unwrap();
        let (mut receive, mut rest, mut fresh) = (partial.receive(groups.clone()), &answer[..], 0);
        for _ in 0..wrong {
            let (item, after) = rest.split_at(receive.next_len().unwrap());
            rest = after;
            fresh += u64::from(matches!(receive.feed(item).unwrap(), Fed::Group { .. }));
        }
        let Some(len) = receive.next_len() else { break };
        let mut item = rest[..len].to_vec();
        item[(wrong * 7919) % len] ^= 0x10;
        assert!(matches!(receive.feed(&item), Err(ReceiveError::Wrong { root, .. }) if root == blob.root));
        assert_eq!(receive.next_len(), None, "such an answer is over");
        assert!(matches!(receive.feed(&rest[..len]), Err(ReceiveError::Over)));
        assert!(to.holdings(&blob).is_empty());
        let missing: u64 = partial.missing(1).iter().map(|run| run.end - run.start).sum();
        assert_eq!(missing, groups.end - groups.start - fresh);
        let file = fs::read(path(&to, &blob, ".partial")).unwrap();
        let first = (groups.start + fresh) as usize * GROUP as usize;
        assert!(file[first..].iter().all(|byte| *byte == 0), "an unverified byte was stored");
        // Another sender finishes what this one began.
        let (again, received) = feed(&partial, groups.clone(), &answer);
        assert_eq!((again, received.piece_complete, received.blob_complete), (missing, true, false));
        wrong += 1;
    }
    assert!(wrong > 10);
}

#[test]
fn right_bytes_of_another_place_or_length_are_wrong() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(4 * PIECE, 4), Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    let other = answer(&from, &blob, 16..32);
    let mut receive = partial.receive(0..16);
    let mut rest = &other[..];
    let wrong = loop {
        let (item, after) = rest.split_at(receive.next_len().unwrap());
        rest = after;
        if let Err(error) = receive.feed(item) {
            break error;
        }
    };
    assert!(matches!(wrong, ReceiveError::Wrong { group: 0, .. }), "{wrong}");
    for len in [0, 63, 65] {
        assert!(matches!(partial.receive(0..16).feed(&other[..len]), Err(ReceiveError::Wrong { .. })), "{len}");
    }
    assert!(partial.held().is_empty());
    assert_eq!(partial.receive(64..99).next_len(), None, "there are no such groups");
}

#[test]
fn answers_may_overlap_and_come_on_many_threads_at_once() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(24 * PIECE + 3, 5);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    let groups = pieces(&blob).groups();
    let fresh: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let (from, partial) = (&from, partial.clone());
                scope.spawn(move || {
                    let mut fresh = 0;
                    // Runs of 9 groups, from another place each: across pieces, and half of them double.
                    for at in 0..groups.div_ceil(9) {
                        let start = (at * 9 + thread * 100) % groups;
                        if (at + thread) % 4 < 2 || thread == 3 {
                            let run = start..(start + 9).min(groups);
                            fresh += feed(&partial, run.clone(), &answer(from, &blob, run)).0;
                        }
                    }
                    fresh
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let missing: u64 = (0..25).flat_map(|piece| partial.missing(piece)).map(|run| run.end - run.start).sum();
    assert!(fresh + missing >= groups, "{fresh} came first, {missing} are missing, of {groups}");
    for run in (0..25).flat_map(|piece| partial.missing(piece)) {
        feed(&partial, run.clone(), &answer(&from, &blob, run));
    }
    assert!(partial.held().is_full());
    assert!(to.get(&blob.root).unwrap().unwrap() == bytes);
}

#[test]
fn a_damaged_disk_costs_the_piece_and_is_not_served() {
    let ((_a, from), (dir, to)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(3 * PIECE + 7, 6);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    to.put(&bytes, Durability::Synced).unwrap();
    damage(&path(&to, &blob, ""), PIECE + 5 * GROUP + 1);
    let mut out = b"before".to_vec();
    to.public().encode(&blob, 0..16, &mut out).unwrap();
    out.truncate(6);
    let refused = to.public().encode(&blob, 16..32, &mut out);
    assert!(matches!(refused, Err(ServeError::Corrupt { piece: 1, .. })), "{refused:?}");
    assert_eq!(out, b"before");
    assert!(matches!(to.public().encode(&blob, 16..32, &mut out), Err(ServeError::NotHeld)));
    assert!(!to.has(&blob.root));
    assert_eq!(to.holdings(&blob).iter().collect::<Vec<_>>(), [0, 2, 3]);
    drop(to);
    let to = Store::open(dir.path().join("store"), 1 << 30).unwrap();
    assert_eq!(to.holdings(&blob).iter().collect::<Vec<_>>(), [0, 2, 3]);
    let partial = to.begin(blob).unwrap();
    assert!(send(&from, &partial, 1).blob_complete);
    assert!(to.get(&blob.root).unwrap().unwrap() == bytes);
    // All of it was damaged once more, at a place that get notices.
    to.sync(&[blob.root]).unwrap();
    damage(&path(&to, &blob, ""), 2 * PIECE);
    assert_eq!(to.get(&blob.root).unwrap(), None);
    assert_eq!(to.holdings(&blob).iter().collect::<Vec<_>>(), [0, 1, 3]);
}

#[test]
fn a_blob_of_one_piece_that_is_damaged_is_gone() {
    let (_a, store) = store(1 << 30);
    let blob = store.put(&bytes(3 * GROUP, 7), Durability::Buffered).unwrap();
    damage(&path(&store, &blob, ""), GROUP);
    assert!(matches!(store.public().encode(&blob, 0..3, &mut Vec::new()), Err(ServeError::Corrupt { piece: 0, .. })));
    assert!(!store.has(&blob.root) && !path(&store, &blob, "").exists());
    assert_eq!(store.holdings(&blob), PieceSet::none(1));
}

#[test]
fn an_outboard_that_is_damaged_or_gone_is_made_anew_from_a_whole_blob() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(5 * PIECE, 8);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    let right = answer(&from, &blob, 0..16);
    damage(&path(&from, &blob, ".obao"), 3);
    assert_eq!(answer(&from, &blob, 0..16), right);
    fs::remove_file(path(&from, &blob, ".obao")).unwrap();
    assert_eq!(answer(&from, &blob, 0..16), right);
    // Of a partial one, the nodes come again with the piece.
    let partial = to.begin(blob).unwrap();
    for piece in [0, 1, 2] {
        send(&from, &partial, piece);
    }
    damage(&path(&to, &blob, ".obao"), 64 * 3);
    assert!(matches!(to.public().encode(&blob, 0..16, &mut Vec::new()), Err(ServeError::Corrupt { piece: 0, .. })));
    send(&from, &partial, 0);
    for piece in [0, 1, 2] {
        assert_eq!(
            answer(&to, &blob, pieces(&blob).groups_of(piece)),
            answer(&from, &blob, pieces(&blob).groups_of(piece))
        );
    }
    // Without its outboard and damaged, nothing of a whole blob can be told good.
    fs::remove_file(path(&from, &blob, ".obao")).unwrap();
    damage(&path(&from, &blob, ""), 0);
    assert!(matches!(from.public().encode(&blob, 16..17, &mut Vec::new()), Err(ServeError::NotHeld)));
    assert!(!from.has(&blob.root));
}

#[test]
fn what_is_not_held_is_not_served() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(3 * PIECE, 9), Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    feed(&partial, 0..15, &answer(&from, &blob, 0..15));
    let other = BlobRef { size: blob.size + 1, ..blob };
    let unknown = BlobRef { root: Digest::of(b"?"), ..blob };
    for (blob, groups) in [(blob, 0..15), (blob, 15..16), (other, 0..1), (unknown, 0..1)] {
        assert!(matches!(to.public().encode(&blob, groups, &mut Vec::new()), Err(ServeError::NotHeld)));
    }
    for groups in [0..0, 47..49, 48..49, 0..u64::MAX] {
        assert!(matches!(from.public().encode(&blob, groups, &mut Vec::new()), Err(ServeError::NotHeld)));
    }
    assert_eq!((to.holdings(&other).len(), to.holdings(&unknown).len()), (0, 0));
    assert_eq!(from.holdings(&BlobRef { size: u64::MAX, ..blob }), PieceSet::none(0));
}

#[test]
fn a_size_that_is_not_the_blobs_is_refused_or_never_whole() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(3 * PIECE, 10), Durability::Buffered).unwrap();
    let larger = BlobRef { size: 3 * PIECE + 1, ..blob };
    assert!(matches!(from.begin(larger), Err(StoreError::SizeDiffers { known, .. }) if known == blob.size));
    let lied = to.begin(larger).unwrap();
    assert!(matches!(to.begin(blob), Err(StoreError::SizeDiffers { .. })));
    let answer = answer(&from, &blob, 0..16);
    assert!(matches!(lied.receive(0..16).feed(&answer[..64]), Ok(Fed::Proof) | Err(ReceiveError::Wrong { .. })));
    drop(lied);
    // Nobody fetches it under the other size any more.
    let partial = to.begin(blob).unwrap();
    send_all(&from, &partial);
    assert!(to.has(&blob.root));
    assert!(matches!(to.begin(BlobRef { size: u64::MAX, ..blob }), Err(StoreError::TooLarge(u64::MAX))));
}

#[test]
fn a_fetch_has_its_room_from_the_start_and_keeps_it_while_it_lives() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(5 * PIECE));
    let [a, b] = [11, 12].map(|seed| from.put(&bytes(3 * PIECE, seed), Durability::Buffered).unwrap());
    let old = to.put(&bytes(PIECE, 13), Durability::Buffered).unwrap();
    let pinned = to.put(&bytes(PIECE, 14), Durability::Buffered).unwrap();
    to.pin("here", &[pinned.root]).unwrap();
    let partial = to.begin(a).unwrap();
    assert_eq!(to.bytes(), 5 * PIECE);
    let full = to.begin(b);
    assert!(
        matches!(full, Err(StoreError::QuotaFull { needed, pinned, .. }) if needed == 3 * PIECE && pinned == 4 * PIECE)
    );
    assert!(to.has(&old.root) && to.has(&pinned.root), "what cannot fit evicts nothing");
    send(&from, &partial, 0);
    drop(partial);
    let partial = to.begin(b).unwrap();
    assert!(to.holdings(&a).is_empty() && !path(&to, &a, ".partial").exists() && !path(&to, &a, ".obao").exists());
    send_all(&from, &partial);
    assert!(to.has(&b.root));
}

#[test]
fn a_fetch_that_is_forgotten_leaves_nothing_and_takes_nothing_more() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let blob = from.put(&bytes(3 * PIECE, 15), Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    send(&from, &partial, 0);
    to.forget(&blob.root).unwrap();
    assert_eq!((to.bytes(), to.holdings(&blob).len()), (0, 0));
    assert!(!path(&to, &blob, ".partial").exists() && !path(&to, &blob, ".obao").exists());
    let mut receive = partial.receive(16..17);
    let bytes = answer(&from, &blob, 16..17);
    let (proof, group) = bytes.split_at(bytes.len() - GROUP as usize);
    for item in proof.chunks(64) {
        receive.feed(item).unwrap();
    }
    assert!(matches!(receive.feed(group), Err(ReceiveError::Store(StoreError::Missing(_)))));
    // A whole blob is not what is forgotten.
    from.forget(&blob.root).unwrap();
    assert!(from.has(&blob.root));
    // And it can be begun again.
    let again = to.begin(blob).unwrap();
    send_all(&from, &again);
    assert!(to.has(&blob.root));
}

#[test]
fn a_blob_that_is_put_while_it_is_fetched_is_whole_for_who_fetches_it() {
    let ((_a, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let bytes = bytes(3 * PIECE, 16);
    let blob = from.put(&bytes, Durability::Buffered).unwrap();
    let partial = to.begin(blob).unwrap();
    send(&from, &partial, 0);
    to.put(&bytes, Durability::Synced).unwrap();
    assert!(partial.held().is_full());
    let (fresh, received) = feed(&partial, 16..32, &answer(&from, &blob, 16..32));
    assert_eq!((fresh, received.blob_complete), (0, true));
    assert!(!path(&to, &blob, ".partial").exists());
    drop(partial);
    assert!(to.begin(blob).unwrap().held().is_full());
    assert_eq!(to.bytes(), blob.size);
}

/// Prints what verification costs; run with --nocapture, and --release for figures that count.
#[test]
fn verification_has_a_price() {
    let ((dir, from), (_b, to)) = (store(1 << 30), store(1 << 30));
    let size = 128 * PIECE;
    let file = dir.path().join("file");
    fs::write(&file, bytes(size, 17)).unwrap();
    // Of this thread, as Linux tells it: other tests run beside.
    let cpu = || {
        let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        told.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0)
    };
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let start: f64 = cpu();
        work();
        println!("{what}: {:.2} GB a second of one core", size as f64 / (cpu() - start));
    };
    let mut blob = None;
    timed("add_file, synced", &mut || blob = Some(from.add_file(&file, &mut |_| {}).unwrap()));
    let blob = blob.unwrap();
    let mut answers: Vec<Vec<u8>> = vec![Vec::new(); 128];
    timed("encode, first touch of memory", &mut || {
        for (piece, out) in answers.iter_mut().enumerate() {
            from.public().encode(&blob, pieces(&blob).groups_of(piece as u32), out).unwrap();
        }
    });
    timed("encode", &mut || {
        for (piece, out) in answers.iter_mut().enumerate() {
            out.clear();
            from.public().encode(&blob, pieces(&blob).groups_of(piece as u32), out).unwrap();
        }
    });
    let partial = to.begin(blob).unwrap();
    timed("receive", &mut || {
        for (piece, answer) in answers.iter().enumerate() {
            feed(&partial, pieces(&blob).groups_of(piece as u32), answer);
        }
    });
    let mut plain = fs::File::create(dir.path().join("plain")).unwrap();
    timed("writing as much to a file, without a check", &mut || {
        for group in answers.iter().flat_map(|answer| answer.chunks(GROUP as usize)) {
            std::io::Write::write_all(&mut plain, group).unwrap();
        }
    });
    timed("receive what is there", &mut || {
        for (piece, answer) in answers.iter().enumerate() {
            feed(&partial, pieces(&blob).groups_of(piece as u32), answer);
        }
    });
    timed("sync", &mut || to.sync(&[blob.root]).unwrap());
    timed("get", &mut || drop(to.get(&blob.root).unwrap().unwrap()));
    timed("verify", &mut || assert!(to.verify(&blob.root, &mut |_| {}).unwrap().damaged.is_empty()));
    timed("export, synced", &mut || to.export(&blob, &dir.path().join("out"), &mut |_| {}).unwrap());
}
