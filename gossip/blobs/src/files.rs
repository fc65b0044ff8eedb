//! The store's folder: every path, and every call to the file system but those on a partial blob's open files. Knows
//! names, not policy.
//!
//! A name says what a file is: `HEX` is a whole blob, `HEX.partial` one that is being fetched, as long as the blob and
//! with holes, `HEX.obao` the outboard of either. So what is there can be told without any index.

use super::StoreError;
use covey_proto::Digest;
use covey_proto::pieces::Pieces;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Digests of one pin, at most: 32 MiB of names. Guards the reading of a pin file that something else wrote.
pub(super) const PIN_DIGESTS_MAX: u64 = 1 << 20;

/// How long an opening waits for one who is just letting go: a last commit and its fsync.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Held for its lock.
    _lock: File,
    beside: AtomicU64,
    /// Whether `blobs/` has folders that may not have reached the disk.
    unsynced: AtomicBool,
}

/// A blob's file.
pub(super) struct Found {
    pub(super) root: Digest,
    pub(super) size: u64,
    pub(super) written: SystemTime,
    pub(super) partial: bool,
}

/// The files of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Partial,
    Outboard,
}

impl Kind {
    fn of(suffix: &str) -> Option<Kind> {
        match suffix {
            "" => Some(Kind::Whole),
            ".partial" => Some(Kind::Partial),
            ".obao" => Some(Kind::Outboard),
            _ => None,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Kind::Whole => "",
            Kind::Partial => ".partial",
            Kind::Outboard => ".obao",
        }
    }
}

/// Whether a blob of this size has its outboard in a file: one of a piece is read whole and has it made anew.
pub(super) fn has_outboard(size: u64) -> bool {
    Pieces::of(size).is_some_and(|pieces| pieces.count() > 1)
}

pub(super) fn fault<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path: path.to_owned(), bytes: 0 },
        _ => StoreError::Io { what, path: path.to_owned(), error },
    }
}

fn create(path: &Path) -> Result<(), StoreError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(fault("create the folder", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fault("open", &path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Locked(root.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(fault("lock", &path)(error)),
        }
    }
}

impl Folder {
    /// Creates what is missing, locks it, and clears what a crash left half-written.
    pub(super) fn open(root: PathBuf) -> Result<Folder, StoreError> {
        create(&root)?;
        let root = root.canonicalize().map_err(fault("open", &root))?;
        let lock = lock(&root)?;
        for part in ["blobs", "tmp"] {
            create(&root.join(part))?;
        }
        let folder = Folder {
            root,
            _lock: lock,
            beside: AtomicU64::new(0),
            // A crash may have come between a folder and its sync.
            unsynced: AtomicBool::new(true),
        };
        folder.clear_leftovers()?;
        sync_folder(&folder.root).map_err(fault("sync", &folder.root))?;
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn clear_leftovers(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(fault("list", &tmp))? {
            let path = entry.map_err(fault("list", &tmp))?.path();
            fs::remove_file(&path).map_err(fault("remove the leftover", &path))?;
        }
        Ok(())
    }

    fn prefix(&self, prefix: u8) -> PathBuf {
        self.root.join("blobs").join(format!("{prefix:02x}"))
    }

    pub(super) fn path(&self, root: &Digest, kind: Kind) -> PathBuf {
        self.prefix(root.as_bytes()[0]).join(format!("{root}{}", kind.suffix()))
    }

    /// The blobs that are there by name and size, in no order; a whole one hides a partial one. Outboards without a blob
    /// are removed. Other files are left alone.
    pub(super) fn blobs(&self) -> Result<Vec<Found>, StoreError> {
        let mut found: HashMap<Digest, Found> = HashMap::new();
        for prefix in 0..=u8::MAX {
            let path = self.prefix(prefix);
            let entries = match fs::read_dir(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(fault("list", &path))?,
            };
            let mut outboards = HashSet::new();
            for entry in entries {
                let entry = entry.map_err(fault("list", &path))?;
                let name = entry.file_name();
                let Some((root, kind)) = name.to_str().and_then(parse).filter(|(root, _)| root.as_bytes()[0] == prefix)
                else {
                    continue;
                };
                if kind == Kind::Outboard {
                    outboards.insert(root);
                    continue;
                }
                let data = entry.metadata().map_err(fault("look at", &path))?;
                let partial = kind == Kind::Partial;
                let hidden = found.get(&root).is_some_and(|other| partial && !other.partial);
                if data.is_file() && !hidden {
                    let written = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.insert(root, Found { root, size: data.len(), written, partial });
                }
            }
            for root in outboards.into_iter().filter(|root| !found.contains_key(root)) {
                self.remove(&root, Kind::Outboard)?;
            }
        }
        Ok(found.into_values().collect())
    }

    pub(super) fn has(&self, root: &Digest, kind: Kind) -> bool {
        self.path(root, kind).is_file()
    }

    /// Opens a file to read; none if there is none under a root that is still there.
    pub(super) fn open_to_read(&self, root: &Digest, kind: Kind) -> Result<Option<File>, StoreError> {
        let path = self.path(root, kind);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.still_there().map(|()| None),
            Err(error) => Err(fault("open", &path)(error)),
        }
    }

    /// Opens a file of a partial blob to read and write; it is created, all hole, if it is not there in this `size`.
    /// Whether it was there comes with it.
    pub(super) fn open_to_write(&self, root: &Digest, kind: Kind, size: u64) -> Result<(File, bool), StoreError> {
        let path = self.path(root, kind);
        let refused = |error| self.refused("open", &path, size, error);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) if file.metadata().map_err(refused)?.len() == size => return Ok((file, true)),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        // Beside and renamed: the length under this name is the blob's, whatever happens.
        let beside = self.write_beside(&[])?;
        beside.file.set_len(size).map_err(refused)?;
        beside.keep_as(root, kind)?;
        OpenOptions::new().read(true).write(true).open(&path).map(|file| (file, false)).map_err(refused)
    }

    pub(super) fn rename(&self, root: &Digest, from: Kind, to: Kind) -> Result<(), StoreError> {
        let path = self.path(root, from);
        fs::rename(&path, self.path(root, to)).map_err(|error| self.refused("rename", &path, 0, error))
    }

    pub(super) fn remove(&self, root: &Digest, kind: Kind) -> Result<(), StoreError> {
        self.remove_file(&self.path(root, kind))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.still_there(),
            Err(error) => Err(fault("remove", path)(error)),
        }
    }

    pub(super) fn still_there(&self) -> Result<(), StoreError> {
        match self.root.join("blobs").is_dir() {
            true => Ok(()),
            false => Err(StoreError::Gone(self.root.clone())),
        }
    }

    /// What a failed write means.
    pub(super) fn refused(&self, what: &'static str, path: &Path, bytes: u64, error: io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path: path.to_owned(), bytes },
            ErrorKind::NotFound if !self.root.is_dir() => StoreError::Gone(self.root.clone()),
            _ => fault(what, path)(error),
        }
    }

    /// Bytes that the disk has room for.
    pub(super) fn room(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.root).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Writes a file that is no blob yet. It vanishes if it is not kept.
    pub(super) fn write_beside(&self, bytes: &[u8]) -> Result<Beside<'_>, StoreError> {
        let path = self.root.join("tmp").join(self.beside.fetch_add(1, Ordering::Relaxed).to_string());
        let refused = |error| self.refused("write", &path, bytes.len() as u64, error);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(refused)?;
        let mut beside = Beside { folder: self, path, file, kept: false };
        beside.write(bytes)?;
        Ok(beside)
    }

    pub(super) fn sync_blob(&self, root: &Digest) -> Result<(), StoreError> {
        let path = self.path(root, Kind::Whole);
        match File::open(&path) {
            Ok(file) => file.sync_all().map_err(fault("sync", &path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.still_there()?;
                Err(StoreError::Missing(*root))
            }
            Err(error) => Err(fault("open", &path)(error)),
        }
    }

    /// Makes the names in folders of blobs, and the folders' own, outlive a power cut.
    pub(super) fn sync_prefixes(&self, prefixes: impl IntoIterator<Item = u8>) -> Result<(), StoreError> {
        let sync = |path: PathBuf| sync_folder(&path).map_err(|error| self.refused("sync", &path, 0, error));
        prefixes.into_iter().try_for_each(|prefix| sync(self.prefix(prefix)))?;
        if self.unsynced.swap(false, Ordering::AcqRel) {
            let synced = sync(self.root.join("blobs"));
            self.unsynced.fetch_or(synced.is_err(), Ordering::Release);
            return synced;
        }
        Ok(())
    }

    /// The pins of a store from before the index: `pins/TAG`, digests of 32 bytes.
    pub(super) fn old_pins(&self) -> Result<Vec<(String, Vec<Digest>)>, StoreError> {
        let folder = self.root.join("pins");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fault("list", &folder))?,
        };
        let mut pins = Vec::new();
        for entry in entries {
            let path = entry.map_err(fault("list", &folder))?.path();
            let Some(tag) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let file = File::open(&path).map_err(fault("open", &path))?;
            let mut bytes = Vec::new();
            file.take(PIN_DIGESTS_MAX * 32).read_to_end(&mut bytes).map_err(fault("read", &path))?;
            pins.push((tag.to_owned(), bytes.chunks_exact(32).filter_map(Digest::from_slice).collect()));
        }
        Ok(pins)
    }

    /// Removes such pins, once the index has them.
    pub(super) fn remove_old_pins(&self, pins: &[(String, Vec<Digest>)]) -> Result<(), StoreError> {
        let folder = self.root.join("pins");
        pins.iter().try_for_each(|(tag, _)| self.remove_file(&folder.join(tag)))?;
        match fs::remove_dir(&folder) {
            // What else lies in it is not ours.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(fault("remove the folder", &folder)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The blob and kind of a file's name.
fn parse(name: &str) -> Option<(Digest, Kind)> {
    let (hex, suffix) = name.split_at_checked(64)?;
    let root: Digest = hex.parse().ok()?;
    // One name a blob: capitals would be a second one.
    (!hex.contains(|c: char| c.is_ascii_uppercase())).then_some((root, Kind::of(suffix)?))
}

/// A file in `tmp/`, removed unless it is kept.
pub(super) struct Beside<'a> {
    folder: &'a Folder,
    path: PathBuf,
    pub(super) file: File,
    kept: bool,
}

impl Beside<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let refused = |error| self.folder.refused("write", &self.path, bytes.len() as u64, error);
        (&self.file).write_all(bytes).map_err(refused)
    }

    pub(super) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        use std::os::unix::fs::FileExt;
        let refused = |error| self.folder.refused("write", &self.path, bytes.len() as u64, error);
        self.file.write_all_at(bytes, at).map_err(refused)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.folder.refused("sync", &self.path, 0, error))
    }

    pub(super) fn keep_as(mut self, root: &Digest, kind: Kind) -> Result<(), StoreError> {
        let prefix = self.folder.prefix(root.as_bytes()[0]);
        if !prefix.is_dir() {
            // Not create_dir_all: a root that is gone stays gone.
            match fs::create_dir(&prefix) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(self.folder.refused("create the folder", &prefix, 0, error));
                }
                _ => {}
            }
            self.folder.unsynced.store(true, Ordering::Release);
        }
        let refused = |error| self.folder.refused("rename", &self.path, 0, error);
        fs::rename(&self.path, self.folder.path(root, kind)).map_err(refused)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now goes at the next opening.
            let _ = fs::remove_file(&self.path);
        }
    }
}
