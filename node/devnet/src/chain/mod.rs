//! The chain: what it has, and what may be read of it. Which block comes next is `grow`'s, what waits for it `pool`'s,
//! and who is told of it `watch`'s.
//!
//! One owner holds it behind a lock; everything here is synchronous and takes about a millisecond.

mod build;
mod grow;
mod pool;
mod replay;
mod state;
mod store;
mod submit;
mod watch;

pub use build::BuildError;
pub use grow::UNFINAL_MAX;
pub use pool::PoolError;
pub use replay::{Replay, ReplayError, Replayed};
pub use state::{CallError, Nodes, State};
pub use store::StoreError;
pub use submit::{SubmitError, hash_of};
pub use watch::Status;

use crate::config::{Blocks, ChainSpec, Config};
use crate::runtime::Header;
use codec::Encode;
use pool::Pool;
use sp_core::H256;
use sp_runtime::traits::Header as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::{Batch, Store};
use tokio::sync::broadcast;
use watch::Watchers;

/// Events that a slow subscription may be behind; then it goes on from the newest block, or ends.
const EVENTS_MAX: usize = 4_096;

/// A block.
#[derive(Debug)]
pub struct ChainBlock {
    /// Its hash.
    pub hash: H256,
    /// Its header.
    pub header: Header,
    /// Its transactions, the timestamp first.
    pub body: Vec<Vec<u8>>,
}

/// What happens to the chain.
#[derive(Clone, Debug)]
pub enum Event {
    /// The best chain has changed: these blocks are no longer part of it (newest first), these are (oldest first).
    Best {
        /// Left.
        retracted: Vec<Arc<ChainBlock>>,
        /// New.
        enacted: Vec<Arc<ChainBlock>>,
    },
    /// These blocks cannot be undone any more, oldest first; these, of lost forks, are forgotten.
    Final {
        /// New final ones.
        blocks: Vec<Arc<ChainBlock>>,
        /// Lost ones.
        pruned: Vec<H256>,
    },
}

/// Why the chain does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No block was built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Blocks could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder has another chain.
    #[error("the folder has a chain that was begun with another {}: take its settings, or another folder", .0.join(", "))]
    OtherChain(Vec<String>),
    /// The folder has a chain of another runtime.
    #[error("the folder has a chain of another version of the devnet: take that version, or another folder")]
    OtherRuntime,
    /// Final blocks are not undone.
    #[error("a reorganisation of depth {depth} would undo final blocks: best is {best}, final {finalised}")]
    TooDeep {
        /// What was asked for.
        depth: u32,
        /// The best block.
        best: u32,
        /// The newest final one.
        finalised: u32,
    },
    /// There is no room for another block that is not final.
    #[error("{UNFINAL_MAX} blocks are not final, as many as may be: let finality go on")]
    Unfinal,
}

/// Why there is no such state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// There is no such block. The words are a real node's.
    #[error("Client error: UnknownBlock: Header was not found in the database: {0:?}")]
    Unknown(H256),
    /// There was, but its state is no longer kept. Clients look for these words.
    #[error("Client error: UnknownBlock: State already discarded for {0:?}")]
    Discarded(H256),
}

/// The chain.
pub struct Chain {
    store: Store,
    nodes: Nodes,
    clock: Blocks,
    slot_ms: u64,
    genesis_ms: u64,
    lag: u32,
    states_kept: u32,
    genesis: H256,
    best: Arc<ChainBlock>,
    finalised: Arc<ChainBlock>,
    /// Finality stands still.
    pub finality_stalled: bool,
    /// Blocks whose state is kept, those of forks among them.
    recent: HashMap<H256, Arc<ChainBlock>>,
    /// The newest part of the best chain.
    canon: BTreeMap<u32, H256>,
    pool: Pool,
    fork: u64,
    watchers: Watchers,
    events: broadcast::Sender<Event>,
}

impl Chain {
    /// Opens the chain of a folder, or begins one.
    ///
    /// # Errors
    /// The folder cannot be used, or has a chain of other settings.
    pub fn open(config: &Config) -> Result<Self, ChainError> {
        let store = Store::open(config.dir.as_deref(), config.durability)?;
        begin(&store, &config.chain)?;
        let nodes = Nodes::default();
        store.load(&nodes)?;
        let (newest, _) = store.newest()?.ok_or(StoreError::Damaged("the chain"))?;
        let last_final = store.meta::<u32>("final")?.ok_or(StoreError::Damaged("final"))?;
        let fork = store.meta::<u64>("fork")?.unwrap_or(0);
        let (mut recent, mut canon) = (HashMap::new(), BTreeMap::new());
        for number in newest.saturating_sub(config.states_kept).min(last_final)..=newest {
            let sealed = load_number(&store, number)?;
            canon.insert(number, sealed.hash);
            // Before more states were asked for than were then kept, some are no longer there.
            if nodes.has(sealed.header.state_root()) {
                recent.insert(sealed.hash, sealed);
            }
        }
        let (best, finalised) = (load_number(&store, newest)?, load_number(&store, last_final)?);
        let genesis = load_number(&store, 0)?.hash;
        Ok(Self {
            store,
            nodes,
            clock: config.blocks,
            slot_ms: config.chain.slot_ms.max(1),
            genesis_ms: config.chain.genesis_ms,
            lag: config.finality_lag,
            states_kept: config.states_kept,
            genesis,
            best,
            finalised,
            finality_stalled: false,
            recent,
            canon,
            pool: Pool::default(),
            fork,
            watchers: Watchers::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        })
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The hash of block 0.
    pub fn genesis(&self) -> H256 {
        self.genesis
    }

    /// The newest block.
    pub fn best(&self) -> &Arc<ChainBlock> {
        &self.best
    }

    /// The newest final block.
    pub fn finalised(&self) -> &Arc<ChainBlock> {
        &self.finalised
    }

    /// The best chain's block of a number.
    ///
    /// # Errors
    /// The store fails.
    pub fn hash(&self, number: u32) -> Result<Option<H256>, StoreError> {
        match self.canon.get(&number) {
            Some(hash) => Ok(Some(*hash)),
            None => self.store.hash(number),
        }
    }

    /// A block, of the best chain or not.
    ///
    /// # Errors
    /// The store fails.
    pub fn block(&self, hash: &H256) -> Result<Option<Arc<ChainBlock>>, StoreError> {
        if let Some(sealed) = self.recent.get(hash) {
            return Ok(Some(sealed.clone()));
        }
        Ok(self.store.block(hash)?.map(|(header, body)| Arc::new(ChainBlock { hash: *hash, header, body })))
    }

    /// A block's state.
    ///
    /// # Errors
    /// There is no such block, or its state is no longer kept.
    pub fn state(&self, hash: &H256) -> Result<State, StateError> {
        match self.recent.get(hash) {
            Some(sealed) => Ok(self.state_of(sealed)),
            None if self.store.block(hash).ok().flatten().is_some() => Err(StateError::Discarded(*hash)),
            None => Err(StateError::Unknown(*hash)),
        }
    }

    /// The newest block's state.
    pub fn best_state(&self) -> State {
        self.state_of(&self.best)
    }

    /// Blocks above the newest final one: of the best chain and of forks, lower ones first.
    pub fn unfinal(&self) -> Vec<Arc<ChainBlock>> {
        let above = |sealed: &&Arc<ChainBlock>| sealed.header.number() > self.finalised.header.number();
        let mut all: Vec<_> = self.recent.values().filter(above).cloned().collect();
        all.sort_by_key(|sealed| {
            (*sealed.header.number(), self.canon.get(sealed.header.number()) != Some(&sealed.hash))
        });
        all
    }

    fn state_of(&self, sealed: &ChainBlock) -> State {
        State::new(self.nodes.clone(), *sealed.header.state_root())
    }
}

/// Makes sure that a store has the chain of these settings: writes its first block if there is none.
fn begin(store: &Store, spec: &ChainSpec) -> Result<(), ChainError> {
    let encoded = serde_json::to_vec(spec).map_err(|_| StoreError::Damaged("the settings"))?;
    let before = store.meta::<Vec<u8>>("spec")?;
    if let Some(before) = before {
        let differ = differences(&before, &encoded)?;
        if !differ.is_empty() {
            return Err(ChainError::OtherChain(differ));
        }
        let nonce = store.meta("nonce")?.ok_or(StoreError::Damaged("nonce"))?;
        let hash = store.hash(0)?.ok_or(StoreError::Damaged("the chain"))?;
        let same = build::genesis(spec, nonce)?.0.header.hash() == hash;
        return if same { Ok(()) } else { Err(ChainError::OtherRuntime) };
    }
    let nonce = spec.nonce.unwrap_or_else(H256::random);
    let (built, _) = build::genesis(spec, nonce)?;
    let hash = built.header.hash();
    store.commit(Batch {
        blocks: vec![(hash, store::encode(&built.header, &built.body))],
        nodes: built.nodes,
        canon: vec![(0, hash)],
        meta: vec![("spec", encoded.encode()), ("nonce", nonce.encode()), ("final", 0_u32.encode())],
        ..Batch::default()
    })?;
    Ok(())
}

/// The names of the settings in which two chains differ.
fn differences(before: &[u8], now: &[u8]) -> Result<Vec<String>, StoreError> {
    if before == now {
        return Ok(Vec::new());
    }
    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
    let (Ok(before), Ok(now)) = (read(before), read(now)) else { return Err(StoreError::Damaged("spec")) };
    let names = now.keys().chain(before.keys().filter(|name| !now.contains_key(*name)));
    Ok(names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect())
}

fn load_number(store: &Store, number: u32) -> Result<Arc<ChainBlock>, StoreError> {
    let hash = store.hash(number)?.ok_or(StoreError::Damaged("the chain"))?;
    let (header, body) = store.block(&hash)?.ok_or(StoreError::Damaged("a block"))?;
    Ok(Arc::new(ChainBlock { hash, header, body }))
}
