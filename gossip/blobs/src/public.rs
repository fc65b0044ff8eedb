//! What strangers may see of a store: everything but what is veiled. Nothing else of the store answers a peer.
//!
//! A contribution is committed by its digest before the deadline and revealed after it: whoever could read it in between
//! could copy it in time. So its blobs are stored under a veil ([`Store::put_veiled`]), which outlives a restart, and to
//! strangers they are as if they were not there until [`Store::unveil`].

use crate::index::VEIL;
use crate::store::check_tag;
use crate::tree::Take;
use crate::{Durability, ServeError, Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::ops::Range;

/// A store as strangers see it.
#[derive(Clone, Copy, Debug)]
pub struct Public<'s>(&'s Store);

impl Store {
    /// The store as strangers see it: for whatever answers them.
    pub fn public(&self) -> Public<'_> {
        Public(self)
    }

    /// Stores blobs that no stranger sees until [`Store::unveil`] is called with this tag, also after a restart. They and
    /// the veil are on the disk when this returns, and nothing evicts them. What is here already, for all to see, is not
    /// veiled. A tag may be used again before it is unveiled: all its blobs are veiled then.
    ///
    /// A damaged index forgets veils, as it forgets pins.
    ///
    /// # Errors
    /// A tag that is none, a full disk or quota, or a folder that is gone. Some blobs may have been stored then, veiled.
    pub fn put_veiled<B: AsRef<[u8]>>(&self, tag: &str, blobs: &[B]) -> Result<Vec<BlobRef>, StoreError> {
        check_tag(tag)?;
        let veil = format!("{VEIL}{tag}");
        let names = blobs.iter().map(|bytes| BlobRef::of(bytes.as_ref()).root);
        // The veil comes first: there is no moment at which a blob is there without it.
        self.add_pin(&veil, |index| names.filter(|root| index.entry(root).is_none()).collect())?;
        self.put_batch(blobs, Durability::Synced)
    }

    /// From now on strangers see the blobs that were stored under this tag. A tag that veils nothing is no error.
    ///
    /// # Errors
    /// A tag that is none, or a disk that failed: they stay veiled then.
    pub fn unveil(&self, tag: &str) -> Result<(), StoreError> {
        check_tag(tag)?;
        self.remove_pin(&format!("{VEIL}{tag}"))
    }

    /// The tags under which something is veiled.
    pub fn veils(&self) -> Vec<String> {
        self.index().pins().keys().filter_map(|tag| tag.strip_prefix(VEIL)).map(str::to_owned).collect()
    }
}

impl Public<'_> {
    fn hides(&self, root: &Digest) -> bool {
        self.0.index().is_veiled(root)
    }

    /// The size of a blob that is here whole, without reading it.
    pub fn size(&self, root: &Digest) -> Option<u64> {
        let index = self.0.index();
        index.size(root).filter(|_| !index.is_veiled(root))
    }

    /// The bytes of a blob, as [`Store::get`].
    ///
    /// # Errors
    /// A disk that failed, or a folder that is gone.
    pub fn get(&self, root: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        if self.hides(root) { Ok(None) } else { self.0.get(root) }
    }

    /// The pieces of a blob that are good here, as [`Store::holdings`].
    pub fn holdings(&self, blob: &BlobRef) -> PieceSet {
        if self.hides(&blob.root) {
            return PieceSet::none(Pieces::of_blob(blob).map_or(0, Pieces::count));
        }
        self.0.holdings(blob)
    }

    /// Appends to `out` what a peer that asks for these groups is sent: exactly [`Pieces::answer_bytes`] bytes, each checked
    /// against the root on the way. On an error, `out` is as it was.
    ///
    /// # Errors
    /// Groups that are not all good here; a disk that no longer holds what it did, which costs the piece; or a folder that
    /// is gone.
    pub fn encode(&self, blob: &BlobRef, groups: Range<u64>, out: &mut Vec<u8>) -> Result<(), ServeError> {
        let pieces = Pieces::of_blob(blob).ok_or(ServeError::NotHeld)?;
        if groups.is_empty() || groups.end > pieces.groups() || self.hides(&blob.root) {
            return Err(ServeError::NotHeld);
        }
        let mut opened =
            self.0.open_blob(&blob.root)?.filter(|opened| opened.blob == *blob).ok_or(ServeError::NotHeld)?;
        if opened.state.as_ref().is_some_and(|state| !state.has(&groups)) {
            return Err(ServeError::NotHeld);
        }
        out.reserve(pieces.answer_bytes(groups.clone()) as usize);
        match self.0.read_checked(&mut opened, &groups, Take::Proven, out) {
            Ok(()) => Ok(()),
            Err(StoreError::Corrupt { root, piece }) => Err(ServeError::Corrupt { root, piece }),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: u64 = 1 << 20;

    fn is_seen(store: &Store, blob: &BlobRef) -> bool {
        let public = store.public();
        let seen = [
            public.size(&blob.root).is_some(),
            public.get(&blob.root).unwrap().is_some(),
            !public.holdings(blob).is_empty(),
            public.encode(blob, 0..1, &mut Vec::new()).is_ok(),
        ];
        assert!(seen.iter().all(|one| *one == seen[0]), "one way shows what another hides: {seen:?}");
        seen[0]
    }

    #[test]
    fn a_veiled_blob_is_shown_by_no_way_until_it_is_unveiled_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), QUOTA).unwrap();
        let blobs = store.put_veiled("mine-7", &[&b"shard"[..], &[7; 70_000]]).unwrap();
        assert!(blobs.iter().all(|blob| !is_seen(&store, blob) && store.has(&blob.root)));
        // Neither a pin nor its end lifts a veil, nor does putting the same bytes again.
        store.pin("mine-7", &[blobs[0].root]).unwrap();
        store.put(b"shard", Durability::Synced).unwrap();
        store.unpin("mine-7").unwrap();
        drop(store);
        let store = Store::open(dir.path(), QUOTA).unwrap();
        assert!(blobs.iter().all(|blob| !is_seen(&store, blob) && store.has(&blob.root)));
        assert_eq!((store.veils(), store.pins().len()), (vec!["mine-7".to_owned()], 0));
        store.unveil("mine-7").unwrap();
        assert!(blobs.iter().all(|blob| is_seen(&store, blob)));
        store.unveil("mine-7").unwrap();
        drop(store);
        let store = Store::open(dir.path(), QUOTA).unwrap();
        assert!(blobs.iter().all(|blob| is_seen(&store, blob)));
    }

    #[test]
    fn a_veil_covers_all_that_came_under_its_tag_and_nothing_that_was_seen_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), QUOTA).unwrap();
        let seen = store.put(b"for all", Durability::Buffered).unwrap();
        let first = store.put_veiled("mine-1", &[&b"for all"[..], b"first"]).unwrap();
        let second = store.put_veiled("mine-1", &[b"second"]).unwrap();
        assert!(is_seen(&store, &seen) && !is_seen(&store, &first[1]) && !is_seen(&store, &second[0]));
        // Another size of a right root shows nothing either.
        assert!(!is_seen(&store, &BlobRef { size: 6_000_000, ..second[0] }));
        store.unveil("mine-1").unwrap();
        assert!(is_seen(&store, &first[1]) && is_seen(&store, &second[0]));
        assert!(matches!(store.pin("veil-mine-1", &[]), Err(StoreError::Tag(_))));
    }

    #[test]
    fn what_is_veiled_is_not_evicted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1000).unwrap();
        let blob = store.put_veiled("mine-1", &[&[1; 600]]).unwrap()[0];
        assert!(matches!(store.put(&[2; 600], Durability::Buffered), Err(StoreError::QuotaFull { .. })));
        store.unveil("mine-1").unwrap();
        store.put(&[2; 600], Durability::Buffered).unwrap();
        assert!(!store.has(&blob.root));
    }
}
