//! Files that hold keys: who may read them, how long they may be, and how they are written.
//!
//! A secret that others can read is not read at all: whoever has seen it has it. Written is beside, synced, then moved
//! into place, so that a key is there whole or not at all; what is there is replaced only if that is asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of the longest keyfile that is read: btcli's have some 600, in Ansible's kind 2,600.
pub(super) const KEYFILE_BYTES_MAX: usize = 16 << 10;
const OWNER_ONLY: u32 = 0o600;
const OWNER_ONLY_FOLDER: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Why a file is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refuses.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others may read it, or change it.
    #[error("{path} can be read or changed by others (mode {mode:04o}): run chmod 600 {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Too long for a keyfile.
    #[error("{} has more than {KEYFILE_BYTES_MAX} bytes: it is no keyfile", .path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// A key is there.
    #[error("{} is there already: give another name, or --force to replace it (the key in it is then gone)", .path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A secret file's bytes.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let fault = |error| FileError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(fault)?;
    // Of the open file: its name may be another's by now.
    let mode = file.metadata().map_err(fault)?.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(FileError::Open { path: path.to_owned(), mode });
    }
    read(file, path)
}

/// A public file's bytes.
pub(super) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(File::open(path).map_err(|error| FileError::Io { path: path.to_owned(), error })?, path)
}

fn read(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // One more than may be, and room for it from the beginning: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEYFILE_BYTES_MAX + 64));
    let result = file.take(KEYFILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    result.map_err(|error| FileError::Io { path: path.to_owned(), error })?;
    if bytes.len() > KEYFILE_BYTES_MAX {
        return Err(FileError::Long { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Refuses a path that something has.
pub(super) fn must_be_free(path: &Path) -> Result<(), FileError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::Io { path: path.to_owned(), error }),
        Ok(_) => Err(FileError::Taken { path: path.to_owned() }),
    }
}

/// Writes a file that only its owner can read, and its folders if they are missing; what is there stays unless `force`.
pub(super) fn write(path: &Path, bytes: &[u8], force: bool) -> Result<(), FileError> {
    let fault = |error| FileError::Io { path: path.to_owned(), error };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY_FOLDER).create(folder);
    made.map_err(|error| FileError::Io { path: folder.to_owned(), error })?;
    let beside = beside(path);
    let written = write_beside(&beside, bytes).map_err(fault).and_then(|()| put(&beside, path, force));
    if written.is_err() {
        // It may never have been there; the error that counts is told.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)
}

/// A name that no other process writes to.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn write_beside(beside: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a killed process of this number left may have any permissions.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn put(beside: &Path, path: &Path, force: bool) -> Result<(), FileError> {
    let fault = |error| FileError::Io { path: path.to_owned(), error };
    if force {
        return fs::rename(beside, path).map_err(fault);
    }
    // A link, unlike a renamed file, never takes the place of what is there.
    match fs::hard_link(beside, path) {
        Ok(()) => fs::remove_file(beside).map_err(fault),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(FileError::Taken { path: path.to_owned() }),
        // Some file systems have no links.
        Err(_) => must_be_free(path).and_then(|()| fs::rename(beside, path).map_err(fault)),
    }
}
