//! Blobs as files, however large: added, read, written out, checked, listed, removed, in bounded memory.

use crate::files::Kind;
use crate::flush::USED_TIME_MAX;
use crate::serve::Opened;
use crate::tree::{self, PAIR, Take};
use crate::{Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A blob in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name and size.
    pub blob: BlobRef,
    /// Its good pieces; all of them if it is whole.
    pub held: PieceSet,
    /// The tags that pin it, in order.
    pub pins: Vec<String>,
    /// When it was last read, written or served.
    pub used: SystemTime,
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The blob.
    pub blob: BlobRef,
    /// The pieces that are good.
    pub good: PieceSet,
    /// The pieces that were thought good and are not, rising. They count as missing from now on.
    pub damaged: Vec<u32>,
}

/// Reads a blob, checking each piece against the blob's name before any byte of it is handed out. Memory: one piece.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    opened: Opened,
    at: u64,
    /// The piece that `bytes` holds.
    piece: Option<u32>,
    bytes: Vec<u8>,
}

/// Bytes set aside under the quota for what is being written.
struct Promise<'a>(&'a Store, u64);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.index().release_promise(self.1);
    }
}

impl Store {
    /// Adds a file: its bytes are copied in and are on the disk when this returns. `progress` is told the bytes done, now
    /// and then. Memory: 130 KiB, whatever the size.
    ///
    /// # Errors
    /// A file that cannot be read or changes meanwhile, a full disk or quota, a folder that is gone; then nothing is stored.
    pub fn add_file(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<BlobRef, StoreError> {
        let unread = |error| StoreError::Io { what: "read", path: path.to_owned(), error };
        let mut file = File::open(path).map_err(unread)?;
        let about = file.metadata().map_err(unread)?;
        if !about.is_file() {
            return Err(unread(ErrorKind::InvalidInput.into()));
        }
        let size = about.len();
        let pieces = Pieces::of(size).ok_or(StoreError::TooLarge(size))?;
        let promise = {
            let mut index = self.index();
            self.make_room(&mut index, size, &[])?;
            index.promise(size);
            Promise(self, size)
        };
        let mut data = self.folder().write_beside(&[])?;
        let obao = self.folder().write_beside(&[])?;
        let root = tree::outboard(
            pieces,
            &mut |group, buffer| {
                let bytes = pieces.bytes_of(group..group + 1);
                buffer.resize((bytes.end - bytes.start) as usize, 0);
                file.read_exact(buffer).map_err(|error| match error.kind() {
                    ErrorKind::UnexpectedEof => StoreError::Changed(path.to_owned()),
                    _ => StoreError::Io { what: "read", path: path.to_owned(), error },
                })?;
                data.write(buffer)?;
                progress(bytes.end);
                Ok(())
            },
            &mut |at, nodes| obao.write_at(at * PAIR as u64, nodes),
        )?;
        if file.read(&mut [0]).map_err(unread)? != 0 {
            return Err(StoreError::Changed(path.to_owned()));
        }
        data.sync()?;
        let blob = BlobRef { root, size };
        {
            let mut index = self.index();
            if index.touch(&root).is_none() {
                self.end_partial(&mut index, &root)?;
                if pieces.count() > 1 {
                    obao.keep_as(&root, Kind::Outboard)?;
                }
                data.keep_as(&root, Kind::Whole)?;
                index.insert(root, size, None);
                index.mark_unlisted(root);
            }
        }
        drop(promise);
        self.schedule(USED_TIME_MAX);
        self.sync(&[root])?;
        Ok(blob)
    }

    /// Opens a blob that is there whole to be read, piece by piece, each checked. None if it is not.
    ///
    /// # Errors
    /// A disk that failed, or a folder that is gone.
    pub fn reader(&self, root: &Digest) -> Result<Option<Reader>, StoreError> {
        if !self.has(root) {
            return Ok(None);
        }
        let opened = self.open_blob(root)?;
        Ok(opened.map(|opened| Reader { store: self.clone(), opened, at: 0, piece: None, bytes: Vec::new() }))
    }

    /// Writes a blob out to a file, checking it on the way; `progress` is told the bytes done. The file is written beside,
    /// synced and renamed: `path` has all of it or stays what it was.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`], or a file that cannot be written.
    pub fn export(&self, blob: &BlobRef, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let reader = self.reader(&blob.root)?.filter(|reader| reader.opened.blob == *blob);
        let mut reader = reader.ok_or(StoreError::Missing(blob.root))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let beside = PathBuf::from(name);
        let written = write_out(&mut reader, &beside, progress)
            .and_then(|()| fs::rename(&beside, path).map_err(|error| refused("rename", &beside, 0, error)));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Checks all that is held of a blob against its name, at 2 GB/s or more; `progress` is told the bytes done. What is
    /// damaged counts as missing from now on.
    ///
    /// # Errors
    /// A blob that is not there at all, or a folder that is gone.
    pub fn verify(&self, root: &Digest, progress: &mut dyn FnMut(u64)) -> Result<Verified, StoreError> {
        let blob = {
            let index = self.index();
            let entry = index.entry(root).ok_or(StoreError::Missing(*root))?;
            BlobRef { root: *root, size: entry.size }
        };
        let before = self.holdings(&blob);
        let Some(mut opened) = self.open_blob(root)? else {
            // Not even its tree could be made from its bytes.
            return Ok(Verified { blob, good: PieceSet::none(before.count()), damaged: before.iter().collect() });
        };
        let (mut good, mut damaged, mut buffer) = (before.clone(), Vec::new(), Vec::new());
        for piece in before.iter() {
            buffer.clear();
            let groups = opened.pieces.groups_of(piece);
            match self.read_checked(&mut opened, &groups, Take::Bytes, &mut buffer) {
                Ok(()) => {}
                Err(StoreError::Corrupt { piece, .. }) => {
                    good.remove(piece);
                    damaged.push(piece);
                }
                Err(error) => return Err(error),
            }
            progress(opened.pieces.bytes_of_piece(piece).end);
        }
        Ok(Verified { blob, good, damaged })
    }

    /// All blobs, whole or not, least recently used first.
    pub fn list(&self) -> Vec<BlobInfo> {
        let index = self.index();
        let mut tags: std::collections::HashMap<Digest, Vec<String>> = std::collections::HashMap::new();
        for (tag, roots) in index.pins() {
            for root in roots {
                tags.entry(*root).or_default().push(tag.clone());
            }
        }
        let info = |(root, entry): (&Digest, &crate::index::Entry)| {
            let blob = BlobRef { root: *root, size: entry.size };
            let count = Pieces::of_blob(&blob).map_or(0, Pieces::count);
            let held = entry.partial.as_ref().map_or_else(|| PieceSet::all(count), |state| state.good());
            let mut pins = tags.remove(root).unwrap_or_default();
            pins.sort_unstable();
            pins.dedup();
            BlobInfo { blob, held, pins, used: UNIX_EPOCH + Duration::from_micros(entry.used) }
        };
        index.entries().map(info).collect()
    }

    /// Removes a blob, whole or not; whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Pinned`], or a disk that failed.
    pub fn remove(&self, root: &Digest) -> Result<bool, StoreError> {
        let mut index = self.index();
        if let Some((tag, _)) = index.pins().iter().find(|(_, roots)| roots.contains(root)) {
            return Err(StoreError::Pinned { root: *root, tag: tag.clone() });
        }
        let there = index.entry(root).is_some();
        self.remove_entry(&mut index, root)?;
        drop(index);
        self.schedule(USED_TIME_MAX);
        Ok(there)
    }
}

fn refused(what: &'static str, path: &Path, bytes: u64, error: io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path: path.to_owned(), bytes },
        _ => StoreError::Io { what, path: path.to_owned(), error },
    }
}

fn write_out(reader: &mut Reader, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
    let size = reader.opened.blob.size;
    let mut file = File::create(path).map_err(|error| refused("create", path, size, error))?;
    let pieces = reader.opened.pieces;
    for piece in 0..pieces.count() {
        reader.load(piece)?;
        file.write_all(&reader.bytes).map_err(|error| refused("write", path, size, error))?;
        progress(pieces.bytes_of_piece(piece).end);
    }
    file.sync_all().map_err(|error| refused("sync", path, size, error))
}

impl Reader {
    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.opened.blob
    }

    fn load(&mut self, piece: u32) -> Result<(), StoreError> {
        if self.piece == Some(piece) {
            return Ok(());
        }
        self.piece = None;
        self.bytes.clear();
        let groups = self.opened.pieces.groups_of(piece);
        self.store.read_checked(&mut self.opened, &groups, Take::Bytes, &mut self.bytes)?;
        self.piece = Some(piece);
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let pieces = self.opened.pieces;
        if self.at >= pieces.size() {
            return Ok(0);
        }
        let piece = (self.at / pieces.piece_bytes()) as u32;
        self.load(piece).map_err(io::Error::other)?;
        let inside = (self.at - pieces.bytes_of_piece(piece).start) as usize;
        let read = self.bytes.get(inside..).unwrap_or_default().read(into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.opened.blob.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
