//! The index on disk, a redb file: order of use, good pieces of partial blobs, pins.
//!
//! It speeds things up and orders them; which blobs are there is for the files' names to say. So one that is damaged is
//! put aside and begun anew, and costs the pins, the order and some hashing, never a blob.

use crate::StoreError;
use crate::files::{Folder, PIN_DIGESTS_MAX};
use covey_proto::Digest;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A blob's root to its size, last use (both u64, little-endian), and its good pieces while it is partial; sealed.
const BLOBS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("blobs");
/// A tag to the roots it stands for, one after the other; sealed.
const PINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pins");

/// Bytes of a seal. redb checks its pages only after a crash, and a flipped bit must not claim a piece.
const SEAL_BYTES: usize = 8;

/// Bytes of redb's cache: the index is read once, at opening, and a swarm has many stores in a process.
const CACHE_BYTES: usize = 256 * 1024;

fn seal(key: &[u8], bytes: &[u8]) -> [u8; SEAL_BYTES] {
    Digest::of(&[&(key.len() as u64).to_le_bytes(), key, bytes].concat()).prefix()
}

fn sealed(key: &[u8], bytes: Vec<u8>) -> Vec<u8> {
    let seal = seal(key, &bytes);
    [bytes, seal.to_vec()].concat()
}

fn unsealed<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StorageError> {
    let (bytes, found) = bytes.split_last_chunk().unwrap_or((&[], &[0; SEAL_BYTES]));
    match *found == seal(key, bytes) {
        true => Ok(bytes),
        false => Err(StorageError::Corrupted("a row is not what was written".to_owned())),
    }
}

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) size: u64,
    pub(super) used: u64,
    /// The bytes of the set of good pieces; empty for a whole blob.
    pub(super) good: Vec<u8>,
}

impl Record {
    fn to_bytes(&self) -> Vec<u8> {
        [self.size.to_le_bytes().as_slice(), &self.used.to_le_bytes(), &self.good].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let (size, rest) = bytes.split_first_chunk()?;
        let (used, good) = rest.split_first_chunk()?;
        Some(Record { size: u64::from_le_bytes(*size), used: u64::from_le_bytes(*used), good: good.to_vec() })
    }
}

/// What the index held at opening.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) blobs: HashMap<Digest, Record>,
    pub(super) pins: Vec<(String, Vec<Digest>)>,
}

/// How the index was found.
#[derive(Debug)]
pub(super) enum Opened {
    /// As it was left.
    Whole(Held),
    /// Not there: a new store, or one from before the index.
    New,
    /// Damaged; put aside.
    Damaged,
}

/// A change to the index.
pub(super) enum Change {
    Blob(Digest, Record),
    Gone(Digest),
    Pin(String, Vec<Digest>),
    Unpin(String),
}

#[derive(Debug)]
pub(super) struct Meta {
    path: PathBuf,
    /// None after it failed: redb refuses everything after an error of the disk. The next commit opens it again.
    database: Mutex<Option<Database>>,
}

/// What redb says, in the one way that matters: damage, or a disk that refuses.
enum Failure {
    Damaged(String),
    Refused(StoreError),
}

impl Meta {
    pub(super) fn open(folder: &Folder) -> Result<(Meta, Opened), StoreError> {
        let path = folder.root().join("index.redb");
        let found = path.is_file();
        let meta = |database| Meta { path: path.clone(), database: Mutex::new(Some(database)) };
        match open_and_read(&path) {
            Ok((database, held)) if found => Ok((meta(database), Opened::Whole(held))),
            Ok((database, _)) => Ok((meta(database), Opened::New)),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Damaged(error)) => {
                let aside = folder.root().join("index.redb.damaged");
                tracing::warn!(
                    index = %path.display(),
                    error,
                    "the blob store's index is damaged; it is put aside, pins are forgotten, and pieces of unfinished blobs will be hashed again"
                );
                std::fs::rename(&path, &aside).map_err(|error| folder.refused("rename", &path, 0, error))?;
                match open_and_read(&path) {
                    Ok((database, _)) => Ok((meta(database), Opened::Damaged)),
                    Err(Failure::Refused(error)) => Err(error),
                    Err(Failure::Damaged(error)) => Err(StoreError::Index { path, error }),
                }
            }
        }
    }

    /// Makes changes, all or none; they are on the disk when this returns.
    pub(super) fn commit(&self, folder: &Folder, changes: &[Change]) -> Result<(), StoreError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // The open file follows a folder that is moved away: what lands there must not be acknowledged here.
        folder.still_there()?;
        let open = match database.take() {
            Some(open) => open,
            None => guarded(|| create(&self.path)).map_err(|failure| self.error(failure))?,
        };
        match guarded(|| write(&open, changes).map_err(|error| failure(&self.path, error))) {
            Ok(()) => {
                *database = Some(open);
                folder.still_there()
            }
            Err(failure) => Err(self.error(failure)),
        }
    }

    fn error(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Refused(error) => error,
            Failure::Damaged(error) => StoreError::Index { path: self.path.clone(), error },
        }
    }
}

/// redb checks what it reads, and panics on some of what it did not expect to: both mean damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Failure::Damaged("it is not what redb expects".to_owned())))
}

fn open_and_read(path: &Path) -> Result<(Database, Held), Failure> {
    guarded(|| {
        let database = create(path)?;
        let held = read(&database).map_err(|error| failure(path, error))?;
        Ok((database, held))
    })
}

fn create(path: &Path) -> Result<Database, Failure> {
    let created = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    created.map_err(|error| match error {
        DatabaseError::Storage(error) => failure(path, error.into()),
        DatabaseError::DatabaseAlreadyOpen => Failure::Refused(StoreError::Locked(path.to_owned())),
        other => Failure::Damaged(other.to_string()),
    })
}

fn failure(path: &Path, error: redb::Error) -> Failure {
    match error {
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => {
                Failure::Damaged(error.to_string())
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Failure::Refused(StoreError::DiskFull { path: path.to_owned(), bytes: 0 })
            }
            _ => Failure::Refused(StoreError::Io { what: "write", path: path.to_owned(), error }),
        },
        other => Failure::Damaged(other.to_string()),
    }
}

fn read(database: &Database) -> Result<Held, redb::Error> {
    let mut held = Held::default();
    let transaction = database.begin_read()?;
    match transaction.open_table(BLOBS) {
        Ok(table) => {
            for row in table.iter()? {
                let (root, record) = row?;
                let record = Record::from_bytes(unsealed(root.value(), record.value())?)
                    .ok_or_else(|| StorageError::Corrupted("a record is too short".to_owned()))?;
                held.blobs.insert(Digest::new(*root.value()), record);
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match transaction.open_table(PINS) {
        Ok(table) => {
            for row in table.iter()? {
                let (tag, roots) = row?;
                let roots =
                    unsealed(tag.value().as_bytes(), roots.value())?.chunks_exact(32).take(PIN_DIGESTS_MAX as usize);
                held.pins.push((tag.value().to_owned(), roots.filter_map(Digest::from_slice).collect()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(held)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut blobs = transaction.open_table(BLOBS)?;
        let mut pins = transaction.open_table(PINS)?;
        for change in changes {
            match change {
                Change::Blob(root, record) => {
                    let row = sealed(root.as_bytes(), record.to_bytes());
                    drop(blobs.insert(root.as_bytes(), row.as_slice())?);
                }
                Change::Gone(root) => drop(blobs.remove(root.as_bytes())?),
                Change::Pin(tag, roots) => {
                    let bytes: Vec<u8> = roots.iter().flat_map(|root| *root.as_bytes()).collect();
                    drop(pins.insert(tag.as_str(), sealed(tag.as_bytes(), bytes).as_slice())?);
                }
                Change::Unpin(tag) => drop(pins.remove(tag.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
