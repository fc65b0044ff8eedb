//! A devnet's chain executed once more, from its genesis: every block gives the state and the hash that it gave then,
//! or the first that does not is named. For audits: states of long ago are not kept, but blocks are.

use super::state::Nodes;
use super::store::Store;
use super::{ChainBlock, ChainError, State, StoreError, build, load_number};
use crate::config::ChainSpec;
use crate::runtime::UncheckedExtrinsic;
use build::{BuildError, Fate};
use codec::DecodeAll;
use sp_core::H256;
use sp_runtime::traits::Header as _;
use std::path::Path;
use std::sync::Arc;

/// Blocks between two searches for nodes that the newest state does not need.
const SWEEP_EVERY: u32 = 256;

/// Why a chain is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime stopped.
    #[error("block {number}: {error}")]
    Build {
        /// At which block.
        number: u32,
        /// Why.
        error: BuildError,
    },
    /// A block has a transaction that is none, or that cannot be in it.
    #[error("block {number}: its transaction {at} cannot be there")]
    Transaction {
        /// In which block.
        number: u32,
        /// At which place.
        at: usize,
    },
    /// A block gives another hash than it has.
    #[error("block {number} is {stored:?}, but gives {executed:?} when it is executed")]
    Differs {
        /// Which.
        number: u32,
        /// Its hash in the store.
        stored: H256,
        /// The hash that it gives.
        executed: H256,
    },
}

/// A block with its state.
pub struct Replayed {
    /// The block.
    pub block: Arc<ChainBlock>,
    /// Its state. It can be read until the iterator has gone on by some hundred blocks.
    pub state: State,
}

/// The best chain of a folder, block by block from number 0, each executed when it is asked for: about a millisecond.
pub struct Replay {
    store: Store,
    spec: ChainSpec,
    nonce: H256,
    nodes: Nodes,
    parent: Option<Arc<ChainBlock>>,
    newest: u32,
    finalised: u32,
    failed: bool,
}

impl Replay {
    /// Opens the chain of a folder in which no devnet runs.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ChainError> {
        let store = Store::existing(dir)?;
        let spec: Vec<u8> = store.meta("spec")?.ok_or_else(|| StoreError::Nothing(dir.to_owned()))?;
        let spec = serde_json::from_slice(&spec).map_err(|_| StoreError::Damaged("spec"))?;
        let nonce = store.meta("nonce")?.ok_or(StoreError::Damaged("nonce"))?;
        let finalised = store.meta("final")?.ok_or(StoreError::Damaged("final"))?;
        let (newest, _) = store.newest()?.ok_or(StoreError::Damaged("the chain"))?;
        let nodes = Nodes::default();
        Ok(Self { store, spec, nonce, nodes, parent: None, newest, finalised, failed: false })
    }

    /// What the chain was begun with.
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// The number of the newest block.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The number of the newest final block.
    pub fn finalised(&self) -> u32 {
        self.finalised
    }

    fn step(&mut self, number: u32) -> Result<Replayed, ReplayError> {
        let block = load_number(&self.store, number)?;
        let build = |error| ReplayError::Build { number, error };
        let built = match &self.parent {
            None => build::genesis(&self.spec, self.nonce).map_err(build)?.0,
            Some(parent) => {
                let state = State::new(self.nodes.clone(), *parent.header.state_root());
                let (time, transactions) = opened(number, &block)?;
                let fork = build::fork(&block.header).unwrap_or(0);
                let (built, fates) = build::block(&parent.header, &state, time, fork, &transactions).map_err(build)?;
                if let Some(at) = fates.iter().position(|fate| *fate != Fate::Included) {
                    return Err(ReplayError::Transaction { number, at: at + 1 });
                }
                built
            }
        };
        let executed = built.header.hash();
        if executed != block.hash || built.body != block.body {
            return Err(ReplayError::Differs { number, stored: block.hash, executed });
        }
        self.nodes.extend(built.nodes);
        if number.is_multiple_of(SWEEP_EVERY) {
            self.nodes.keep_only(&[*block.header.state_root()]);
        }
        let state = State::new(self.nodes.clone(), *block.header.state_root());
        self.parent = Some(block.clone());
        Ok(Replayed { block, state })
    }
}

impl Iterator for Replay {
    type Item = Result<Replayed, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.parent.as_ref().map_or(0, |parent| parent.header.number().saturating_add(1));
        if self.failed || number > self.newest {
            return None;
        }
        let step = self.step(number);
        self.failed = step.is_err();
        Some(step)
    }
}

/// The time that a block says, and its transactions.
fn opened(number: u32, block: &ChainBlock) -> Result<(u64, Vec<UncheckedExtrinsic>), ReplayError> {
    let (first, rest) = block.body.split_first().ok_or(ReplayError::Transaction { number, at: 0 })?;
    let time = build::timestamp(first).ok_or(ReplayError::Transaction { number, at: 0 })?;
    let decoded = rest.iter().enumerate().map(|(at, bytes)| {
        UncheckedExtrinsic::decode_all(&mut &bytes[..]).map_err(|_| ReplayError::Transaction { number, at: at + 1 })
    });
    Ok((time, decoded.collect::<Result<_, _>>()?))
}
