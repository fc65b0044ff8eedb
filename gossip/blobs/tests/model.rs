//! The store does what a page of plain collections does, whatever is done to it in whatever order.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use covey_blobs::{Durability, Partial, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use proptest::prelude::*;
use rig::{GROUP, PIECE, answer, bytes, pieces, send, store};
use std::collections::{BTreeMap, BTreeSet};

const QUOTA: u64 = 9 * PIECE;
/// Small ones, ones of a few pieces, and one that needs nearly all the room.
const SIZES: [u64; 8] = [0, 100, GROUP + 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7, 8 * PIECE];

#[derive(Clone, Debug)]
enum Move {
    Put(usize, bool),
    Begin(usize),
    Send(usize, u32),
    Leave(usize),
    Get(usize),
    Serve(usize, u32),
    Pin(u8, Vec<usize>),
    Unpin(u8),
    Forget(usize),
    Remove(usize),
    Gc,
    Reopen,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let blob = 0..SIZES.len();
    let one = prop_oneof![
        3 => (blob.clone(), any::<bool>()).prop_map(|(blob, synced)| Move::Put(blob, synced)),
        4 => blob.clone().prop_map(Move::Begin),
        8 => (blob.clone(), 0..8u32).prop_map(|(blob, piece)| Move::Send(blob, piece)),
        2 => blob.clone().prop_map(Move::Leave),
        2 => blob.clone().prop_map(Move::Get),
        2 => (blob.clone(), 0..8u32).prop_map(|(blob, piece)| Move::Serve(blob, piece)),
        2 => (0..2u8, prop::collection::vec(blob.clone(), 0..3)).prop_map(|(tag, blobs)| Move::Pin(tag, blobs)),
        1 => (0..2u8).prop_map(Move::Unpin),
        1 => blob.clone().prop_map(Move::Forget),
        1 => blob.prop_map(Move::Remove),
        1 => Just(Move::Gc),
        1 => Just(Move::Reopen),
    ];
    prop::collection::vec(one, 1..60)
}

/// What the store should be.
#[derive(Default)]
struct Model {
    /// The good pieces of each blob that is there.
    held: BTreeMap<usize, BTreeSet<u32>>,
    /// Least recently used first.
    order: Vec<usize>,
    live: BTreeSet<usize>,
    pins: BTreeMap<u8, Vec<usize>>,
}

impl Model {
    fn count(blob: usize) -> u32 {
        SIZES[blob].div_ceil(PIECE).max(1) as u32
    }

    fn is_whole(&self, blob: usize) -> bool {
        self.held.get(&blob).is_some_and(|held| held.len() as u32 == Model::count(blob))
    }

    fn touch(&mut self, blob: usize) {
        if self.held.contains_key(&blob) {
            self.order.retain(|other| *other != blob);
            self.order.push(blob);
        }
    }

    fn insert(&mut self, blob: usize, held: BTreeSet<u32>) {
        self.held.insert(blob, held);
        self.touch(blob);
    }

    fn remove(&mut self, blob: usize) {
        self.held.remove(&blob);
        self.order.retain(|other| *other != blob);
    }

    fn bytes(&self) -> u64 {
        self.held.keys().map(|blob| SIZES[*blob]).sum()
    }

    fn is_pinned(&self, blob: usize) -> bool {
        self.pins.values().flatten().any(|other| *other == blob)
    }

    /// Evicts if that makes room enough; whether it does.
    fn make_room(&mut self, needed: u64, spare: usize) -> bool {
        let free = |blob: &usize| *blob != spare && !self.is_pinned(*blob) && !self.live.contains(blob);
        let (mut bytes, mut victims) = (self.bytes() + needed, Vec::new());
        for victim in self.order.iter().copied().filter(free) {
            if bytes <= QUOTA {
                break;
            }
            bytes -= SIZES[victim];
            victims.push(victim);
        }
        if bytes <= QUOTA {
            victims.into_iter().for_each(|victim| self.remove(victim));
        }
        bytes <= QUOTA
    }
}

struct World {
    dir: tempfile::TempDir,
    from: Store,
    store: Option<Store>,
    partials: BTreeMap<usize, Partial>,
    blobs: Vec<BlobRef>,
    model: Model,
}

impl World {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn make(&mut self, a_move: &Move) {
        match a_move {
            Move::Put(n, synced) => self.put(*n, *synced),
            Move::Begin(n) => self.begin(*n),
            Move::Send(n, piece) => self.send(*n, *piece),
            Move::Leave(n) => self.leave(*n),
            Move::Get(n) => {
                let got = self.store().get(&self.blobs[*n].root).unwrap();
                assert_eq!(got.is_some(), self.model.is_whole(*n));
                self.model.touch(*n);
            }
            Move::Serve(n, piece) => {
                let groups = pieces(&self.blobs[*n]).groups_of(*piece);
                let served = self.store().public().encode(&self.blobs[*n], groups.clone(), &mut Vec::new());
                let held = self.model.held.get(n).is_some_and(|held| held.contains(piece));
                assert_eq!(served.is_ok(), held, "{served:?}");
                if !groups.is_empty() {
                    self.model.touch(*n);
                }
            }
            Move::Pin(tag, blobs) => {
                let roots: Vec<Digest> = blobs.iter().map(|n| self.blobs[*n].root).collect();
                let pinned = self.store().pin(&tag.to_string(), &roots);
                assert_eq!(pinned.is_ok(), blobs.iter().all(|n| self.model.is_whole(*n)), "{pinned:?}");
                if pinned.is_ok() {
                    self.model.pins.insert(*tag, blobs.clone());
                }
            }
            Move::Unpin(tag) => {
                self.store().unpin(&tag.to_string()).unwrap();
                self.model.pins.remove(tag);
            }
            Move::Forget(n) => {
                self.store().forget(&self.blobs[*n].root).unwrap();
                if !self.model.is_whole(*n) {
                    self.gone(*n);
                }
            }
            Move::Remove(n) => {
                let removed = self.store().remove(&self.blobs[*n].root);
                match removed {
                    Ok(there) => assert_eq!(there, self.model.held.contains_key(n)),
                    Err(StoreError::Pinned { .. }) => assert!(self.model.is_pinned(*n)),
                    Err(error) => panic!("{error}"),
                }
                if !self.model.is_pinned(*n) {
                    self.gone(*n);
                }
            }
            Move::Gc => assert_eq!(self.store().gc().unwrap(), 0, "the quota always holds"),
            Move::Reopen => {
                self.partials.clear();
                self.model.live.clear();
                self.store = None;
                self.store = Some(Store::open(self.dir.path().join("store"), QUOTA).unwrap());
            }
        }
    }

    fn gone(&mut self, n: usize) {
        self.model.remove(n);
        self.leave(n);
    }

    fn leave(&mut self, n: usize) {
        self.partials.remove(&n);
        self.model.live.remove(&n);
    }

    fn put(&mut self, n: usize, synced: bool) {
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        let put = self.store().put(&bytes(SIZES[n], n as u64), durability);
        if self.model.is_whole(n) {
            self.model.touch(n);
            assert!(put.is_ok());
            return;
        }
        self.model.remove(n);
        let room = self.model.make_room(SIZES[n], n);
        assert_eq!(put.is_ok(), room, "{put:?}");
        if room {
            self.model.insert(n, (0..Model::count(n)).collect());
        }
        // Who fetched it finds it whole; it is fetched no more.
        if let Some(partial) = self.partials.get(&n) {
            assert!(partial.held().is_full());
        }
        self.leave(n);
    }

    fn begin(&mut self, n: usize) {
        let begun = self.store().begin(self.blobs[n]);
        let there = self.model.held.contains_key(&n);
        self.model.touch(n);
        let room = there || self.model.make_room(SIZES[n], n);
        assert_eq!(begun.is_ok(), room, "{begun:?}");
        let Ok(partial) = begun else { return };
        if !there {
            // Of an empty blob there is nothing to fetch.
            let held = if SIZES[n] == 0 { BTreeSet::from([0]) } else { BTreeSet::new() };
            self.model.insert(n, held);
        }
        if !self.model.is_whole(n) {
            self.model.live.insert(n);
            self.partials.insert(n, partial);
        }
    }

    fn send(&mut self, n: usize, piece: u32) {
        let Some(partial) = self.partials.get(&n) else { return };
        if piece >= Model::count(n) {
            return;
        }
        send(&self.from, partial, piece);
        self.model.held.get_mut(&n).unwrap().insert(piece);
        if self.model.is_whole(n) {
            self.leave(n);
        }
    }

    fn check(&self) {
        let store = self.store();
        assert_eq!(store.bytes(), self.model.bytes());
        let order: Vec<BlobRef> = self.model.order.iter().map(|n| self.blobs[*n]).collect();
        let list = store.list();
        assert_eq!(list.iter().map(|info| info.blob).collect::<Vec<_>>(), order);
        for (n, blob) in self.blobs.iter().enumerate() {
            let held: BTreeSet<u32> = store.holdings(blob).iter().collect();
            assert_eq!(held, self.model.held.get(&n).cloned().unwrap_or_default(), "blob {n}");
            assert_eq!(store.has(&blob.root), self.model.is_whole(n), "blob {n}");
        }
        for (tag, blobs) in &self.model.pins {
            let roots: Vec<Digest> = blobs.iter().map(|n| self.blobs[*n].root).collect();
            assert_eq!(store.pins()[&tag.to_string()], roots);
        }
        assert_eq!(store.pins().len(), self.model.pins.len());
    }
}

thread_local! {
    /// Where the pieces come from: the same for every case.
    static SOURCE: (tempfile::TempDir, Store, Vec<BlobRef>) = {
        let (dir, from) = store(1 << 30);
        let put = |(n, size): (usize, &u64)| from.put(&bytes(*size, n as u64), Durability::Buffered).unwrap();
        let blobs = SIZES.iter().enumerate().map(put).collect();
        (dir, from, blobs)
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_store_does_what_its_model_does(moves in moves()) {
        let (from, blobs) = SOURCE.with(|source| (source.1.clone(), source.2.clone()));
        let dir = tempfile::tempdir().unwrap();
        let store = Some(Store::open(dir.path().join("store"), QUOTA).unwrap());
        let mut world = World { dir, from, store, partials: BTreeMap::new(), blobs, model: Model::default() };
        for (at, a_move) in moves.iter().enumerate() {
            println!("{at}: {a_move:?}");
            world.make(a_move);
            world.check();
        }
        // Whatever is held at the end is good.
        for (n, held) in &world.model.held {
            for piece in held {
                answer(world.store(), &world.blobs[*n], pieces(&world.blobs[*n]).groups_of(*piece));
            }
        }
    }
}
