//! What survives: blocks by hash, the canonical chain by number, the nodes of the states that are kept, in one redb
//! file. A commit is one transaction, synced: after `kill -9` the chain is at a block whose state is whole.

use codec::{Decode, Encode};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sp_core::H256;
use std::path::{Path, PathBuf};

use crate::runtime::Header;

const BLOCKS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("blocks");
const CANON: TableDefinition<'_, u32, [u8; 32]> = TableDefinition::new("canon");
const NODES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("nodes");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Why the store does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or read.
    #[error("{path}: {error}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The database fails, or another process has it open.
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
pub(super) type Stored = (Header, Vec<Vec<u8>>);

pub(super) struct Store(Database);

impl Store {
    pub(super) fn open(dir: Option<&Path>) -> Result<Self, StoreError> {
        let database = match dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| StoreError::Folder { path: dir.to_owned(), error })?;
                Database::create(dir.join("chain.redb"))?
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

    pub(super) fn block(&self, hash: &H256) -> Result<Option<Stored>, StoreError> {
        let table = self.0.begin_read()?.open_table(BLOCKS)?;
        let Some(bytes) = table.get(hash.0)? else { return Ok(None) };
        Decode::decode(&mut bytes.value()).map(Some).map_err(|_| StoreError::Damaged("a block"))
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

    pub(super) fn nodes(&self) -> Result<Vec<(H256, Vec<u8>)>, StoreError> {
        let table = self.0.begin_read()?.open_table(NODES)?;
        let all = table.iter()?.map(|entry| entry.map(|(hash, node)| (H256(hash.value()), node.value().to_vec())));
        Ok(all.collect::<Result<_, _>>()?)
    }

    pub(super) fn meta<V: Decode>(&self, name: &'static str) -> Result<Option<V>, StoreError> {
        let table = self.0.begin_read()?.open_table(META)?;
        let Some(bytes) = table.get(name)? else { return Ok(None) };
        V::decode(&mut bytes.value()).map(Some).map_err(|_| StoreError::Damaged(name))
    }
}

/// A block's bytes in the store.
pub(super) fn encode(header: &Header, body: &[Vec<u8>]) -> Vec<u8> {
    (header, body).encode()
}
