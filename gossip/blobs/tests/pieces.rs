//! Blobs come piece by piece, from many senders, and only what is good is kept, counted and served.

mod rig;

use covey_blobs::{Durability, Fed, ReceiveError, ServeError, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::PieceSet;
use rig::{GROUP, PIECE, answer, bytes, damage, feed, path, pieces, send, store};
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
