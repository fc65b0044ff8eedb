//! Keeps what was verified: blobs in files named by their BLAKE3, pins that survive a crash, a quota.
//!
//! Decides what a crash, a full disk or an outside hand may do to a blob: never more than lose it. Which blobs matter is
//! for whoever pins them. Every operation blocks on the disk: call it from `spawn_blocking`, not from a task.
//!
//! Layout under the root: `blobs/AA/HEX` (AA: the first two digits of HEX), `pins/TAG` (digests, 32 bytes each),
//! `tmp/` (written beside, then renamed into place; emptied at opening), `lock`. Every operation finds its path anew
//! from the root, and the root is never created again: once it is moved away, operations fail.

mod files;
mod index;

use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use files::Folder;
use index::Index;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Characters of a pin's tag.
pub const TAG_CHARACTERS_MAX: usize = 64;

/// How sure it must be that bytes outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On the disk before the call returns: for what a commitment or a vote depends on.
    Synced,
    /// Handed to the kernel, which survives a crash of the process but not of the machine. A blob that was lost or torn
    /// so is noticed when it is read. [`Store::pin`] brings buffered blobs to the disk.
    Buffered,
}

/// Why the store failed. Nothing that was stored before is harmed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open, or another `Store` of this one.
    #[error("the blob store at {} is in use; stop what uses it, or choose another folder", .0.display())]
    Locked(PathBuf),
    /// The root is not there any more.
    #[error("the blob store at {} is gone; it was moved or removed while in use", .0.display())]
    Gone(PathBuf),
    /// The disk has no room.
    #[error("no room on the disk for {bytes} bytes at {}; free some, or move the store", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Everything that could be removed was, and the quota still has no room.
    #[error("no room for {needed} bytes: {pinned} of the quota's {quota} are pinned; raise the quota")]
    QuotaFull {
        /// Bytes to store.
        needed: u64,
        /// Bytes that are pinned.
        pinned: u64,
        /// Bytes that the store may hold.
        quota: u64,
    },
    /// A blob that should be pinned is not there.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// Not a tag.
    #[error("{0:?} is no tag: 1 to {TAG_CHARACTERS_MAX} of a-z, 0-9, '-', '_'")]
    Tag(String),
    /// The system refused.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// A blob store. Clones share it; the last one to go unlocks the folder.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    quota: u64,
    /// Renames and unlinks happen under this lock, so that the index never disagrees with the disk.
    index: Mutex<Index>,
}

impl Store {
    /// Opens the store at `root`, which is created if its parent is there. It holds at most `quota` bytes.
    ///
    /// # Errors
    /// A folder in use, or one that cannot be read or written.
    pub fn open(root: impl Into<PathBuf>, quota: u64) -> Result<Store, StoreError> {
        let folder = Folder::open(root.into())?;
        let mut index = Index::default();
        for found in folder.blobs()? {
            index.insert(found.root, found.size);
        }
        for (tag, digests) in folder.pins()? {
            index.pin(tag, digests);
        }
        let index = Mutex::new(index);
        Ok(Store(Arc::new(Inner { folder, quota, index })))
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        self.0.folder.root()
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    /// Stores `bytes`; least recently used blobs that are not pinned make room.
    ///
    /// # Errors
    /// A full disk or quota, or a folder that is gone; then nothing is stored.
    pub fn put(&self, bytes: &[u8], durability: Durability) -> Result<BlobRef, StoreError> {
        let blob = BlobRef::of(bytes);
        self.put_named(&[(blob, bytes)], durability)?;
        Ok(blob)
    }

    /// Stores several blobs, with one fsync for each of them and one for each folder, all at the end.
    ///
    /// # Errors
    /// As [`Store::put`]; some of them may have been stored.
    pub fn put_batch<B: AsRef<[u8]>>(&self, blobs: &[B], durability: Durability) -> Result<Vec<BlobRef>, StoreError> {
        let named: Vec<_> = blobs.iter().map(|bytes| (BlobRef::of(bytes.as_ref()), bytes.as_ref())).collect();
        self.put_named(&named, durability)?;
        Ok(named.into_iter().map(|(blob, _)| blob).collect())
    }

    fn put_named(&self, named: &[(BlobRef, &[u8])], durability: Durability) -> Result<(), StoreError> {
        let folder = &self.0.folder;
        let present: Vec<Digest> = {
            let mut index = self.index();
            named.iter().map(|(blob, _)| blob.root).filter(|root| index.touch(root).is_some()).collect()
        };
        // An entry whose file an outside hand took is no reason to skip the write.
        let present: HashSet<Digest> = present.into_iter().filter(|root| folder.has(root)).collect();
        let missing = named.iter().filter(|(blob, _)| !present.contains(&blob.root));
        let mut written = Vec::new();
        for (blob, bytes) in missing {
            written.push((*blob, folder.write_beside(bytes)?));
        }
        if durability == Durability::Synced {
            written.iter().try_for_each(|(_, beside)| beside.sync())?;
        }
        let roots: Vec<Digest> = named.iter().map(|(blob, _)| blob.root).collect();
        for (blob, beside) in written {
            let mut index = self.index();
            self.make_room(&mut index, blob.size, &roots)?;
            beside.keep_as(&blob.root)?;
            index.insert(blob.root, blob.size);
            if durability == Durability::Buffered {
                index.mark_dirty(blob.root);
            } else {
                index.mark_unlisted(blob.root);
            }
        }
        match durability {
            Durability::Synced => self.sync(&roots),
            Durability::Buffered => Ok(()),
        }
    }

    /// Evicts until `needed` bytes fit the quota. `spare` are about to be wanted and stay.
    fn make_room(&self, index: &mut Index, needed: u64, spare: &[Digest]) -> Result<(), StoreError> {
        while index.bytes().saturating_add(needed) > self.0.quota {
            let Some(victim) = index.oldest_unpinned(spare) else {
                return Err(StoreError::QuotaFull { needed, pinned: index.pinned_bytes(), quota: self.0.quota });
            };
            self.0.folder.remove(&victim)?;
            index.remove(&victim);
        }
        Ok(())
    }

    /// Brings blobs that were put as buffered to the disk.
    ///
    /// # Errors
    /// A blob that is not there, or a disk that failed.
    pub fn sync(&self, roots: &[Digest]) -> Result<(), StoreError> {
        let (dirty, unlisted) = self.index().unsynced(roots);
        for root in &dirty {
            self.0.folder.sync_blob(root)?;
        }
        let prefixes: BTreeSet<u8> = dirty.iter().chain(&unlisted).map(|root| root.as_bytes()[0]).collect();
        if !prefixes.is_empty() {
            self.0.folder.sync_prefixes(prefixes)?;
        }
        self.index().mark_synced(&dirty, &unlisted);
        Ok(())
    }

    /// The bytes of a blob, checked against its name. A file that does not hold them is removed and counts as missing.
    ///
    /// # Errors
    /// A disk that failed, or a folder that is gone.
    pub fn get(&self, root: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        if self.index().touch(root).is_none() {
            return Ok(None);
        }
        let read = self.0.folder.read(root)?;
        if let Some(bytes) = read.filter(|bytes| Digest::of(bytes) == *root) {
            return Ok(Some(bytes));
        }
        let mut index = self.index();
        self.0.folder.remove(root)?;
        index.remove(root);
        // Once a blob: peers that ask for it again find none.
        tracing::warn!(blob = %root, "a stored blob was missing or corrupt; it is forgotten and will be fetched again");
        Ok(None)
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
        let before = {
            let mut index = self.index();
            if let Some(missing) = roots.iter().find(|root| index.size(root).is_none()) {
                return Err(StoreError::Missing(*missing));
            }
            // Held from now on, so that nothing is evicted while the disk works.
            index.pin(tag.to_owned(), roots.to_vec())
        };
        let done = self.sync(roots).and_then(|()| self.0.folder.write_pin(tag, roots));
        if done.is_err() {
            let mut index = self.index();
            match before {
                Some(before) => drop(index.pin(tag.to_owned(), before)),
                None => drop(index.unpin(tag)),
            }
        }
        done
    }

    /// Lets go of what `tag` stood for. A tag that is not set is no error.
    ///
    /// # Errors
    /// A tag that is none, or a disk that failed.
    pub fn unpin(&self, tag: &str) -> Result<(), StoreError> {
        check_tag(tag)?;
        self.0.folder.remove_pin(tag)?;
        self.index().unpin(tag);
        Ok(())
    }

    /// The tags, with what each stands for.
    pub fn pins(&self) -> HashMap<String, Vec<Digest>> {
        self.index().pins().clone()
    }

    /// Removes least recently used blobs that are not pinned until the quota holds. Returns the bytes freed.
    ///
    /// # Errors
    /// A disk that failed.
    pub fn gc(&self) -> Result<u64, StoreError> {
        let before = self.bytes();
        let mut index = self.index();
        match self.make_room(&mut index, 0, &[]) {
            // Pins may hold more than a quota that was lowered: that is for whoever pins.
            Ok(()) | Err(StoreError::QuotaFull { .. }) => Ok(before.saturating_sub(index.bytes())),
            Err(error) => Err(error),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_tag(tag: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if tag.is_empty() || tag.len() > TAG_CHARACTERS_MAX || !tag.chars().all(plain) {
        return Err(StoreError::Tag(tag.chars().take(2 * TAG_CHARACTERS_MAX).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
