//! What survives: blocks by hash, the canonical chain by number, the nodes of the states that are kept, in one redb
//! file. A commit is one transaction: after `kill -9` the chain is at a block whose state is whole.
//!
//! Blocks are kept for ever, so that the chain can be executed again from its genesis; states are not.

use super::state::Nodes;
use crate::config::Durability;
use crate::runtime::Header;
use codec::{Decode, DecodeAll, Encode};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use sp_core::H256;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

const BLOCKS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("blocks");
const CANON: TableDefinition<'_, u32, [u8; 32]> = TableDefinition::new("canon");
const NODES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("nodes");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The file in a devnet's folder.
const FILE: &str = "chain.redb";

/// Why the store does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or read.
    #[error("{path}: {error}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no chain to read.
    #[error("{0}: no devnet has kept its chain here")]
    Nothing(PathBuf),
    /// Another process has it open.
    #[error("{0}: another devnet runs in this folder: stop it first, or take another folder")]
    InUse(PathBuf),
    /// The database fails.
    #[error("the devnet's blocks cannot be read or written: {0}")]
    Database(#[from] redb::Error),
    /// Something in it is not what was written.
    #[error("the devnet's store is damaged at {0}: remove its folder to begin anew")]
    Damaged(&'static str),
}

macro_rules! from_redb {
    ($($kind:ident)*) => { $(impl From<redb::$kind> for StoreError {
        fn from(error: redb::$kind) -> Self {
            Self::Database(error.into())
        }
    })* };
}
from_redb!(DatabaseError TransactionError TableError StorageError CommitError);

/// What one commit changes.
#[derive(Default)]
pub(super) struct Batch {
    /// Hash, header and body.
    pub(super) blocks: Vec<(H256, Vec<u8>)>,
    pub(super) nodes: Vec<(H256, Vec<u8>)>,
    pub(super) gone: Vec<H256>,
    /// Numbers from here on are cut before `canon` is written.
    pub(super) cut: Option<u32>,
    pub(super) canon: Vec<(u32, H256)>,
    pub(super) meta: Vec<(&'static str, Vec<u8>)>,
}

/// A block's header and body.
pub(super) type BlockRecord = (Header, Vec<Vec<u8>>);

pub(super) struct Store(Database);

impl Store {
    /// Opens the store of a folder, or begins one; without a folder, in memory.
    pub(super) fn open(dir: Option<&Path>, durability: Durability) -> Result<Self, StoreError> {
        let database = match dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| StoreError::Folder { path: dir.to_owned(), error })?;
                on_disk(&dir.join(FILE), durability)?
            }
            None => Database::builder().create_with_backend(InMemoryBackend::new())?,
        };
        let begin = database.begin_write()?;
        begin.open_table(BLOCKS)?;
        begin.open_table(CANON)?;
        begin.open_table(NODES)?;
        begin.open_table(META)?;
        begin.commit()?;
        Ok(Self(database))
    }

    /// Opens the store of a folder that has one.
    pub(super) fn existing(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(FILE).is_file() {
            return Err(StoreError::Nothing(dir.to_owned()));
        }
        Self::open(Some(dir), Durability::Process)
    }

    pub(super) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let write = self.0.begin_write()?;
        {
            let mut blocks = write.open_table(BLOCKS)?;
            for (hash, block) in &batch.blocks {
                blocks.insert(hash.0, &block[..])?;
            }
            let mut nodes = write.open_table(NODES)?;
            for (hash, node) in &batch.nodes {
                nodes.insert(hash.0, &node[..])?;
            }
            for hash in &batch.gone {
                nodes.remove(hash.0)?;
            }
            let mut canon = write.open_table(CANON)?;
            if let Some(cut) = batch.cut {
                canon.retain_in(cut.., |_, _| false)?;
            }
            for (number, hash) in &batch.canon {
                canon.insert(number, hash.0)?;
            }
            let mut meta = write.open_table(META)?;
            for (name, value) in &batch.meta {
                meta.insert(*name, &value[..])?;
            }
        }
        write.commit()?;
        Ok(())
    }

    pub(super) fn block(&self, hash: &H256) -> Result<Option<BlockRecord>, StoreError> {
        let table = self.0.begin_read()?.open_table(BLOCKS)?;
        let Some(bytes) = table.get(hash.0)? else { return Ok(None) };
        DecodeAll::decode_all(&mut bytes.value()).map(Some).map_err(|_| StoreError::Damaged("a block"))
    }

    pub(super) fn hash(&self, number: u32) -> Result<Option<H256>, StoreError> {
        let table = self.0.begin_read()?.open_table(CANON)?;
        Ok(table.get(number)?.map(|hash| H256(hash.value())))
    }

    /// The newest canonical block.
    pub(super) fn newest(&self) -> Result<Option<(u32, H256)>, StoreError> {
        let table = self.0.begin_read()?.open_table(CANON)?;
        Ok(table.last()?.map(|(number, hash)| (number.value(), H256(hash.value()))))
    }

    /// All nodes that are kept.
    pub(super) fn load(&self, into: &Nodes) -> Result<(), StoreError> {
        let table = self.0.begin_read()?.open_table(NODES)?;
        let all = table.iter()?.map(|entry| entry.map(|(hash, node)| (H256(hash.value()), node.value().to_vec())));
        into.extend(all.collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }

    pub(super) fn meta<V: Decode>(&self, name: &'static str) -> Result<Option<V>, StoreError> {
        let table = self.0.begin_read()?.open_table(META)?;
        let Some(bytes) = table.get(name)? else { return Ok(None) };
        V::decode_all(&mut bytes.value()).map(Some).map_err(|_| StoreError::Damaged(name))
    }
}

/// A block's bytes in the store.
pub(super) fn encode(header: &Header, body: &[Vec<u8>]) -> Vec<u8> {
    (header, body).encode()
}

fn on_disk(path: &Path, durability: Durability) -> Result<Database, StoreError> {
    let opened = match durability {
        Durability::Machine => Database::create(path),
        Durability::Process => {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|error| StoreError::Folder { path: path.to_owned(), error })?;
            Database::builder().create_with_backend(UnsyncedBackend::new(file)?)
        }
    };
    opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.with_file_name("")),
        error => error.into(),
    })
}

/// A file whose writes are in order for whoever reads it next on this machine, and are never waited for: a commit that
/// redb calls durable outlives the process, not the machine.
#[derive(Debug)]
struct UnsyncedBackend(FileBackend);

impl UnsyncedBackend {
    fn new(file: File) -> Result<Self, StoreError> {
        Ok(Self(FileBackend::new(file)?))
    }
}

type BackendResult<V> = Result<V, BackendError>;

impl StorageBackend for UnsyncedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<()> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> BackendResult<bool> {
        self.0.query_lock_range(start, end)
    }
}
