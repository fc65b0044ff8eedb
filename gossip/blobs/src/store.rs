//! The store itself: opening, whole blobs in memory, pins, what makes room.

use crate::files::{Folder, Found, Kind, has_outboard};
use crate::flush::{Shared, USED_TIME_MAX};
use crate::index::{Index, VEIL};
use crate::meta::{Change, Held, Meta, Opened, Record};
use crate::state::{Over, State};
use crate::tree;
use crate::{StoreError, TAG_CHARACTERS_MAX};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// How sure it must be that bytes outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On the disk before the call returns: for what a commitment or a vote depends on.
    Synced,
    /// Handed to the kernel, which survives a crash of the process but not of the machine. A blob that was lost or torn
    /// so is noticed when it is read. [`Store::pin`] brings buffered blobs to the disk.
    Buffered,
}

/// A blob store. Clones share it; the last one to go unlocks the folder.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner(Arc<Shared>);

impl Drop for Inner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A blob to be stored, its bytes, and its outboard if it has one.
type Named<'a> = (BlobRef, &'a [u8], Vec<u8>);

fn named(bytes: &[u8]) -> Named<'_> {
    let size = bytes.len() as u64;
    match Pieces::of(size).filter(|_| has_outboard(size)) {
        Some(pieces) => {
            let (root, nodes) = tree::outboard_of(bytes, pieces);
            (BlobRef { root, size }, bytes, nodes)
        }
        None => (BlobRef::of(bytes), bytes, Vec::new()),
    }
}

impl Store {
    /// Opens the store at `root`, which is created if its parent is there. It holds at most `quota` bytes. A store from
    /// before the index is taken over.
    ///
    /// # Errors
    /// A folder in use, or one that cannot be read or written.
    pub fn open(root: impl Into<PathBuf>, quota: u64) -> Result<Store, StoreError> {
        let folder = Folder::open(root.into())?;
        let (meta, opened) = Meta::open(&folder)?;
        let files = folder.blobs()?;
        let old_pins = folder.old_pins()?;
        let mut held = match opened {
            Opened::Whole(held) => held,
            Opened::New => Held::default(),
            Opened::Damaged => Held::default(),
        };
        // Pins of a store from before the index, or of an import that a crash cut short.
        held.pins.retain(|(tag, _)| !old_pins.iter().any(|(old, _)| old == tag));
        let imported: Vec<Change> = old_pins.iter().cloned().map(|(tag, roots)| Change::Pin(tag, roots)).collect();
        if !imported.is_empty() {
            meta.commit(&folder, &imported)?;
        }
        folder.remove_old_pins(&old_pins)?;
        let mut index = Index::default();
        for (tag, digests) in held.pins.drain(..).chain(old_pins) {
            index.pin(tag, digests);
        }
        restore(&mut index, &folder, files, &mut held)?;
        Ok(Store(Arc::new(Inner(Arc::new(Shared::new(folder, meta, quota, index))))))
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.0.0.folder
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.0.0.index()
    }

    pub(crate) fn schedule(&self, after: Duration) {
        self.0.0.schedule(after);
    }

    pub(crate) fn disclaim(&self, root: &Digest) -> Result<(), StoreError> {
        self.0.0.disclaim(root)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        self.folder().root()
    }

    /// Bytes that it may hold.
    pub fn quota(&self) -> u64 {
        self.0.0.quota
    }

    /// Bytes of all blobs, those that are being fetched in full.
    pub fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    /// How many blobs are there in part.
    pub fn partial_blobs(&self) -> usize {
        self.index().partials().len()
    }

    /// Stores `bytes`; least recently used blobs that are not pinned make room.
    ///
    /// # Errors
    /// A full disk or quota, or a folder that is gone; then nothing is stored.
    pub fn put(&self, bytes: &[u8], durability: Durability) -> Result<BlobRef, StoreError> {
        let named = named(bytes);
        let blob = named.0;
        self.put_named(&[named], durability)?;
        Ok(blob)
    }

    /// Stores several blobs, with one fsync for each of them and one for each folder, all at the end.
    ///
    /// # Errors
    /// As [`Store::put`]; some of them may have been stored.
    pub fn put_batch<B: AsRef<[u8]>>(&self, blobs: &[B], durability: Durability) -> Result<Vec<BlobRef>, StoreError> {
        let named: Vec<_> = blobs.iter().map(|bytes| named(bytes.as_ref())).collect();
        self.put_named(&named, durability)?;
        Ok(named.into_iter().map(|(blob, ..)| blob).collect())
    }

    fn put_named(&self, named: &[Named<'_>], durability: Durability) -> Result<(), StoreError> {
        let folder = self.folder();
        let present: Vec<(Digest, Kind)> = {
            let mut index = self.index();
            let whole = |(blob, ..): &Named<'_>| {
                index.touch(&blob.root)?;
                let partial = index.entry(&blob.root)?.partial.is_some();
                Some((blob.root, if partial { Kind::Partial } else { Kind::Whole }))
            };
            named.iter().filter_map(whole).collect()
        };
        // An entry whose file an outside hand took is no reason to skip the write.
        let there = present.into_iter().filter(|(root, kind)| folder.has(root, *kind));
        let present: HashSet<Digest> = there.map(|(root, _)| root).collect();
        let missing = named.iter().filter(|(blob, ..)| !present.contains(&blob.root));
        let mut written = Vec::new();
        for (blob, bytes, nodes) in missing {
            let obao = if nodes.is_empty() { None } else { Some(folder.write_beside(nodes)?) };
            written.push((*blob, folder.write_beside(bytes)?, obao));
        }
        if durability == Durability::Synced {
            // Not the outboards: one that is damaged is made anew.
            written.iter().try_for_each(|(_, beside, _)| beside.sync())?;
        }
        let roots: Vec<Digest> = named.iter().map(|(blob, ..)| blob.root).collect();
        for (blob, beside, obao) in written {
            let mut index = self.index();
            self.end_partial(&mut index, &blob.root)?;
            self.make_room(&mut index, blob.size, &roots)?;
            if let Some(obao) = obao {
                obao.keep_as(&blob.root, Kind::Outboard)?;
            }
            beside.keep_as(&blob.root, Kind::Whole)?;
            index.insert(blob.root, blob.size, None);
            if durability == Durability::Buffered {
                index.mark_dirty(blob.root);
            } else {
                index.mark_unlisted(blob.root);
            }
        }
        self.schedule(USED_TIME_MAX);
        match durability {
            Durability::Synced => self.sync(&roots),
            Durability::Buffered => Ok(()),
        }
    }

    /// A blob that was being fetched has come by another way: whoever fetches it finds it whole.
    pub(crate) fn end_partial(&self, index: &mut Index, root: &Digest) -> Result<(), StoreError> {
        let Some(state) = index.entry(root).and_then(|entry| entry.partial.clone()) else {
            return Ok(());
        };
        self.remove_entry(index, root)?;
        state.end(Over::Whole);
        Ok(())
    }

    /// Evicts until `needed` bytes fit the quota, or nothing if that cannot be. `spare` are about to be wanted and stay.
    pub(crate) fn make_room(&self, index: &mut Index, needed: u64, spare: &[Digest]) -> Result<(), StoreError> {
        if !index.could_fit(needed, self.quota(), spare) {
            return Err(StoreError::QuotaFull { needed, pinned: index.pinned_bytes(), quota: self.quota() });
        }
        self.evict(index, needed, spare)
    }

    fn evict(&self, index: &mut Index, needed: u64, spare: &[Digest]) -> Result<(), StoreError> {
        while !index.fits(needed, self.quota()) {
            let Some(victim) = index.oldest_unpinned(spare) else {
                return Err(StoreError::QuotaFull { needed, pinned: index.pinned_bytes(), quota: self.quota() });
            };
            self.remove_entry(index, &victim)?;
        }
        Ok(())
    }

    /// Removes a blob, whole or not, and its files.
    pub(crate) fn remove_entry(&self, index: &mut Index, root: &Digest) -> Result<(), StoreError> {
        let Some(entry) = index.entry(root) else {
            return Ok(());
        };
        let kind = if entry.partial.is_some() { Kind::Partial } else { Kind::Whole };
        let obao = has_outboard(entry.size);
        self.folder().remove(root, kind)?;
        if let Some(state) = index.remove(root).and_then(|entry| entry.partial) {
            state.end(Over::Forgotten);
        }
        match obao {
            true => self.folder().remove(root, Kind::Outboard),
            false => Ok(()),
        }
    }

    /// Brings blobs that were put as buffered, or just fetched, to the disk.
    ///
    /// # Errors
    /// A blob that is not there, or a disk that failed.
    pub fn sync(&self, roots: &[Digest]) -> Result<(), StoreError> {
        let fetched: Vec<Arc<State>> = {
            let index = self.index();
            let partial = |root| index.entry(root).and_then(|entry: &crate::index::Entry| entry.partial.clone());
            roots.iter().filter_map(partial).filter(|state| state.is_whole()).collect()
        };
        fetched.iter().try_for_each(|state| self.0.0.flush_partial(state))?;
        let (dirty, unlisted) = self.index().unsynced(roots);
        for root in &dirty {
            self.folder().sync_blob(root)?;
        }
        let prefixes: BTreeSet<u8> = dirty.iter().chain(&unlisted).map(|root| root.as_bytes()[0]).collect();
        if !prefixes.is_empty() {
            self.folder().sync_prefixes(prefixes)?;
        }
        self.index().mark_synced(&dirty, &unlisted);
        Ok(())
    }

    /// The bytes of a blob, checked against its name. A file that does not hold them counts as missing, whole or in the
    /// pieces that are damaged. For blobs that fit memory; see [`Store::reader`].
    ///
    /// # Errors
    /// A disk that failed, or a folder that is gone.
    pub fn get(&self, root: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut file) = self.open_whole(root)? else {
            return Ok(None);
        };
        let path = self.folder().path(root, Kind::Whole);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).map_err(crate::files::fault("read", &path))?;
        if Digest::of(&bytes) == *root {
            return Ok(Some(bytes));
        }
        if has_outboard(bytes.len() as u64) {
            // Not all of it is lost.
            self.verify(root, &mut |_| {})?;
        } else {
            self.drop_damaged(root)?;
        }
        Ok(None)
    }

    fn open_whole(&self, root: &Digest) -> Result<Option<std::fs::File>, StoreError> {
        let mut index = self.index();
        if index.touch(root).is_none() {
            return Ok(None);
        }
        let partial = index.entry(root).is_some_and(|entry| entry.partial.is_some());
        let kind = if partial { Kind::Partial } else { Kind::Whole };
        let file = self.folder().open_to_read(root, kind)?;
        if file.is_none() {
            tracing::warn!(blob = %root, "a stored blob's file vanished; it is forgotten and will be fetched again");
            self.remove_entry(&mut index, root)?;
        }
        drop(index);
        self.schedule(USED_TIME_MAX);
        Ok(file)
    }

    /// Whether a blob is there, without reading it.
    pub fn has(&self, root: &Digest) -> bool {
        self.size(root).is_some()
    }

    /// The size of a blob, without reading it.
    pub fn size(&self, root: &Digest) -> Option<u64> {
        self.index().size(root)
    }

    /// Makes `tag` stand for exactly these blobs, which stay until it is unpinned or set anew. They and the pin are on
    /// the disk when this returns, however they were put.
    ///
    /// # Errors
    /// A tag that is none, a blob that is not there, or a disk that failed; then the tag stands for what it did.
    pub fn pin(&self, tag: &str, roots: &[Digest]) -> Result<(), StoreError> {
        check_tag(tag)?;
        let _one = self.0.0.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut index = self.index();
            if let Some(missing) = roots.iter().find(|root| index.size(root).is_none()) {
                return Err(StoreError::Missing(*missing));
            }
            // Held from now on, so that nothing is evicted while the disk works.
            index.pin(tag.to_owned(), roots.to_vec())
        };
        let pin = [Change::Pin(tag.to_owned(), roots.to_vec())];
        let done = self.sync(roots).and_then(|()| self.0.0.meta.commit(self.folder(), &pin));
        if done.is_err() {
            self.index().restore_pin(tag, before);
        }
        done
    }

    /// Lets go of what `tag` stood for. A tag that is not set is no error.
    ///
    /// # Errors
    /// A tag that is none, or a disk that failed.
    pub fn unpin(&self, tag: &str) -> Result<(), StoreError> {
        check_tag(tag)?;
        self.remove_pin(tag)
    }

    pub(crate) fn remove_pin(&self, tag: &str) -> Result<(), StoreError> {
        let _one = self.0.0.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.index().pins().contains_key(tag) {
            return self.folder().still_there();
        }
        self.0.0.meta.commit(self.folder(), &[Change::Unpin(tag.to_owned())])?;
        self.index().unpin(tag);
        Ok(())
    }

    /// Adds what `roots` chooses to what a tag stands for, whether or not it is there yet; on the disk when this returns.
    pub(crate) fn add_pin(&self, tag: &str, roots: impl FnOnce(&Index) -> Vec<Digest>) -> Result<(), StoreError> {
        let _one = self.0.0.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, all) = {
            let mut index = self.index();
            let before = index.pins().get(tag).cloned();
            let all = [before.clone().unwrap_or_default(), roots(&index)].concat();
            index.pin(tag.to_owned(), all.clone());
            (before, all)
        };
        let done = self.0.0.meta.commit(self.folder(), &[Change::Pin(tag.to_owned(), all)]);
        if done.is_err() {
            self.index().restore_pin(tag, before);
        }
        done
    }

    /// The tags, with what each stands for.
    pub fn pins(&self) -> HashMap<String, Vec<Digest>> {
        let index = self.index();
        let pins = index.pins().iter().filter(|(tag, _)| !tag.starts_with(VEIL));
        pins.map(|(tag, roots)| (tag.clone(), roots.clone())).collect()
    }

    /// Removes least recently used blobs that are not pinned until the quota holds. Returns the bytes freed.
    ///
    /// # Errors
    /// A disk that failed.
    pub fn gc(&self) -> Result<u64, StoreError> {
        let mut index = self.index();
        let before = index.bytes();
        match self.evict(&mut index, 0, &[]) {
            // Pins may hold more than a quota that was lowered: that is for whoever pins.
            Ok(()) | Err(StoreError::QuotaFull { .. }) => Ok(before.saturating_sub(index.bytes())),
            Err(error) => Err(error),
        }
    }
}

/// Fills the index with what lies in the folder, in the order of use.
fn restore(index: &mut Index, folder: &Folder, files: Vec<Found>, held: &mut Held) -> Result<(), StoreError> {
    let claims = |(root, record): (&Digest, &Record)| (!record.good.is_empty()).then_some(*root);
    held.blobs.iter().filter_map(claims).for_each(|root| index.mark_claimed(root, true));
    let mut found: Vec<(u64, Found, Option<Record>)> = Vec::new();
    for file in files {
        let record = held.blobs.remove(&file.root).filter(|record| record.size == file.size);
        // What the index does not know was put, or begun, since its last commit: its use is its writing.
        let written = file.written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        found.push((record.as_ref().map_or(written, |record| record.used), file, record));
    }
    found.sort_by_key(|(used, ..)| *used);
    for (used, file, record) in found {
        let blob = BlobRef { root: file.root, size: file.size };
        if !file.partial {
            let known = record.is_some_and(|record| record.good.is_empty());
            index.restore(blob.root, blob.size, used, None);
            if !known {
                index.mark_changed([blob.root]);
            }
            continue;
        }
        let Some(pieces) = Pieces::of_blob(&blob) else {
            folder.remove(&blob.root, Kind::Partial)?;
            continue;
        };
        let good = record.and_then(|record| PieceSet::from_bytes(&record.good, pieces.count()));
        let good = good.unwrap_or_else(|| PieceSet::none(pieces.count()));
        index.restore(blob.root, blob.size, used, Some(Arc::new(State::new(blob, pieces, good))));
    }
    index.mark_changed(held.blobs.drain().map(|(root, _)| root));
    Ok(())
}

pub(crate) fn check_tag(tag: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if tag.is_empty() || tag.len() > TAG_CHARACTERS_MAX || !tag.chars().all(plain) || tag.starts_with(VEIL) {
        return Err(StoreError::Tag(tag.chars().take(2 * TAG_CHARACTERS_MAX).collect()));
    }
    Ok(())
}
