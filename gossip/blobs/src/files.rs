//! The store's folder: every path, and every call to the file system. Knows names, not policy.

use super::StoreError;
use covey_proto::Digest;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// Digests of one pin, at most: 32 MiB of names. Guards the reading of a pin file that something else wrote.
const PIN_DIGESTS_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Held for its lock.
    _lock: File,
    beside: AtomicU64,
    /// Whether `blobs/` has folders that may not have reached the disk.
    unsynced: AtomicBool,
}

pub(super) struct Found {
    pub(super) root: Digest,
    pub(super) size: u64,
}

fn fault<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| StoreError::Io { what, path: path.to_owned(), error }
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

impl Folder {
    /// Creates what is missing, locks it, and clears what a crash left half-written.
    pub(super) fn open(root: PathBuf) -> Result<Folder, StoreError> {
        create(&root)?;
        let root = root.canonicalize().map_err(fault("open", &root))?;
        let lock = root.join("lock");
        let file = OpenOptions::new().create(true).append(true).open(&lock).map_err(fault("open", &lock))?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::Locked(root.clone()),
            fs::TryLockError::Error(error) => fault("lock", &lock)(error),
        })?;
        for part in ["blobs", "pins", "tmp"] {
            create(&root.join(part))?;
        }
        let folder = Folder {
            root,
            _lock: file,
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

    fn blob(&self, root: &Digest) -> PathBuf {
        self.prefix(root.as_bytes()[0]).join(root.to_string())
    }

    /// The blobs that are there by name and size, least recently written first. Other files are left alone.
    pub(super) fn blobs(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for prefix in 0..=u8::MAX {
            let path = self.prefix(prefix);
            let entries = match fs::read_dir(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(fault("list", &path))?,
            };
            for entry in entries {
                let entry = entry.map_err(fault("list", &path))?;
                let Some(root) = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                    continue;
                };
                let data = entry.metadata().map_err(fault("look at", &path))?;
                if data.is_file() && root.as_bytes()[0] == prefix {
                    let written = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((written, Found { root, size: data.len() }));
                }
            }
        }
        found.sort_by_key(|(written, _)| *written);
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }

    pub(super) fn has(&self, root: &Digest) -> bool {
        self.blob(root).is_file()
    }

    /// The file's bytes; none if there is no file under a root that is still there.
    pub(super) fn read(&self, root: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob(root);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.still_there().map(|()| None),
            Err(error) => Err(fault("read", &path)(error)),
        }
    }

    pub(super) fn remove(&self, root: &Digest) -> Result<(), StoreError> {
        self.remove_file(&self.blob(root))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.still_there(),
            Err(error) => Err(fault("remove", path)(error)),
        }
    }

    fn still_there(&self) -> Result<(), StoreError> {
        match self.root.join("blobs").is_dir() {
            true => Ok(()),
            false => Err(StoreError::Gone(self.root.clone())),
        }
    }

    /// What a failed write means.
    fn refused(&self, what: &'static str, path: &Path, bytes: usize, error: io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { path: path.to_owned(), bytes: bytes as u64 }
            }
            ErrorKind::NotFound if !self.root.is_dir() => StoreError::Gone(self.root.clone()),
            _ => fault(what, path)(error),
        }
    }

    /// Writes a file that is no blob yet. It vanishes if it is not kept.
    pub(super) fn write_beside(&self, bytes: &[u8]) -> Result<Beside<'_>, StoreError> {
        let path = self.root.join("tmp").join(self.beside.fetch_add(1, Ordering::Relaxed).to_string());
        let refused = |error| self.refused("write", &path, bytes.len(), error);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(refused)?;
        let mut beside = Beside { folder: self, path: path.clone(), file, kept: false };
        beside.file.write_all(bytes).map_err(refused)?;
        Ok(beside)
    }

    pub(super) fn sync_blob(&self, root: &Digest) -> Result<(), StoreError> {
        let path = self.blob(root);
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

    pub(super) fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, StoreError> {
        let folder = self.root.join("pins");
        let mut pins = Vec::new();
        for entry in fs::read_dir(&folder).map_err(fault("list", &folder))? {
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

    pub(super) fn write_pin(&self, tag: &str, roots: &[Digest]) -> Result<(), StoreError> {
        let bytes: Vec<u8> = roots.iter().flat_map(|root| *root.as_bytes()).collect();
        let beside = self.write_beside(&bytes)?;
        beside.sync()?;
        let pins = self.root.join("pins");
        beside.rename(&pins.join(tag))?;
        sync_folder(&pins).map_err(fault("sync", &pins))
    }

    pub(super) fn remove_pin(&self, tag: &str) -> Result<(), StoreError> {
        let pins = self.root.join("pins");
        self.remove_file(&pins.join(tag))?;
        sync_folder(&pins).map_err(|error| self.refused("sync", &pins, 0, error))
    }
}

/// A file in `tmp/`, removed unless it is kept.
pub(super) struct Beside<'a> {
    folder: &'a Folder,
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Beside<'_> {
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.folder.refused("sync", &self.path, 0, error))
    }

    pub(super) fn keep_as(self, root: &Digest) -> Result<(), StoreError> {
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
        let path = self.folder.blob(root);
        self.rename(&path)
    }

    fn rename(mut self, to: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, to).map_err(|error| self.folder.refused("rename", &self.path, 0, error))?;
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
