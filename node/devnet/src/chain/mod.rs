//! The chain: which block is best, which are final, what a reorganisation does, which states are kept.
//!
//! One owner holds it behind a lock; everything here is synchronous and takes about a millisecond.

mod build;
mod pool;
mod state;
mod store;

pub use build::BuildError;
pub use pool::PoolError;
pub use state::{CallError, Nodes, State};
pub use store::StoreError;

use crate::config::{Blocks, Config};
use crate::runtime::{Header, UncheckedExtrinsic};
use build::{Built, Fate};
use codec::{Decode, Encode};
use pool::Pool;
use sp_core::H256;
use sp_runtime::AccountId32;
use sp_runtime::traits::{BlakeTwo256, Hash, Header as _};
use sp_runtime::transaction_validity::{
    TransactionSource, TransactionValidity, TransactionValidityError, ValidTransaction,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::{Batch, Store};
use tokio::sync::{broadcast, mpsc};

/// Blocks whose state is kept, as ordinary nodes do.
pub const STATE_KEPT: u32 = 256;
/// Blocks between two searches for nodes that nothing leads to.
const SWEEP_EVERY: u32 = 64;
/// Events that a slow subscription may be behind; then it is told so, and ends.
const EVENTS_MAX: usize = 4_096;
/// Statuses of one transaction that a watcher may be behind.
const STATUSES_MAX: usize = 64;

/// A block.
#[derive(Debug)]
pub struct Sealed {
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
        retracted: Vec<Arc<Sealed>>,
        /// New.
        enacted: Vec<Arc<Sealed>>,
    },
    /// These blocks cannot be undone any more, oldest first; these, of lost forks, are forgotten.
    Final {
        /// New final ones.
        blocks: Vec<Arc<Sealed>>,
        /// Lost ones.
        pruned: Vec<H256>,
    },
}

/// What becomes of a transaction that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can be in the next block.
    Ready,
    /// It waits for others.
    Future,
    /// It is in a block, at this place.
    InBlock(H256, u32),
    /// The block that it was in is no longer part of the best chain.
    Retracted(H256),
    /// Its block is final.
    Final(H256, u32),
    /// Another took its place.
    Usurped(H256),
    /// It will never be in a block.
    Invalid,
}

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Its bytes are no transaction.
    #[error("Extrinsic has invalid format: {0}")]
    Format(codec::Error),
    /// The runtime refuses it.
    #[error("Invalid Transaction")]
    Refused(TransactionValidityError),
    /// The pool does.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The runtime did not say.
    #[error("Verification Error: {0}")]
    Call(#[from] CallError),
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
    #[error("the folder has a chain of other settings: remove it, or take its settings")]
    OtherChain,
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
    genesis: H256,
    best: Arc<Sealed>,
    finalised: Arc<Sealed>,
    /// Finality stands still.
    pub finality_stalled: bool,
    /// Blocks whose state is kept, those of forks among them.
    recent: HashMap<H256, Arc<Sealed>>,
    /// The newest part of the best chain.
    canon: BTreeMap<u32, H256>,
    pool: Pool,
    fork: u64,
    watchers: HashMap<H256, Vec<mpsc::Sender<Status>>>,
    events: broadcast::Sender<Event>,
}

/// Trie nodes that a block adds, by hash.
type NewNodes = Vec<(H256, Vec<u8>)>;

/// A hash of a transaction's bytes.
pub fn hash_of(bytes: &[u8]) -> H256 {
    BlakeTwo256::hash(bytes)
}

impl Chain {
    /// Opens the chain of a folder, or begins one.
    ///
    /// # Errors
    /// The folder cannot be used, or has a chain of other settings.
    pub fn open(config: &Config) -> Result<Self, ChainError> {
        let store = Store::open(config.dir.as_deref())?;
        let spec = serde_json::to_vec(&config.chain).map_err(|_| StoreError::Damaged("the settings"))?;
        if let Some(before) = store.meta::<Vec<u8>>("spec")? {
            if before != spec {
                return Err(ChainError::OtherChain);
            }
        } else {
            let built = build::genesis(&config.chain, config.chain.nonce.unwrap_or_else(H256::random))?;
            let hash = built.header.hash();
            store.commit(Batch {
                blocks: vec![(hash, store::encode(&built.header, &built.body))],
                nodes: built.nodes,
                canon: vec![(0, hash)],
                meta: vec![("spec", spec.encode()), ("final", 0_u32.encode())],
                ..Batch::default()
            })?;
        }
        let nodes = Nodes::default();
        nodes.extend(store.nodes()?);
        let (newest, _) = store.newest()?.ok_or(StoreError::Damaged("the chain"))?;
        let number = store.meta::<u32>("final")?.ok_or(StoreError::Damaged("final"))?;
        let fork = store.meta::<u64>("fork")?.unwrap_or(0);
        let (mut recent, mut canon) = (HashMap::new(), BTreeMap::new());
        for number in newest.saturating_sub(STATE_KEPT).min(number)..=newest {
            let sealed = load_number(&store, number)?;
            canon.insert(number, sealed.hash);
            recent.insert(sealed.hash, sealed);
        }
        let (best, finalised) = (load_number(&store, newest)?, load_number(&store, number)?);
        let genesis = load_number(&store, 0)?.hash;
        let spec = &config.chain;
        Ok(Self {
            store,
            nodes,
            clock: config.blocks,
            slot_ms: spec.slot_ms.max(1),
            genesis_ms: spec.genesis_ms,
            lag: config.finality_lag,
            genesis,
            best,
            finalised,
            finality_stalled: false,
            recent,
            canon,
            pool: Pool::default(),
            fork,
            watchers: HashMap::new(),
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
    pub fn best(&self) -> &Arc<Sealed> {
        &self.best
    }

    /// The newest final block.
    pub fn finalised(&self) -> &Arc<Sealed> {
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
    pub fn block(&self, hash: &H256) -> Result<Option<Arc<Sealed>>, StoreError> {
        if let Some(sealed) = self.recent.get(hash) {
            return Ok(Some(sealed.clone()));
        }
        Ok(self.store.block(hash)?.map(|(header, body)| Arc::new(Sealed { hash: *hash, header, body })))
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
    pub fn unfinal(&self) -> Vec<Arc<Sealed>> {
        let above = |sealed: &&Arc<Sealed>| sealed.header.number() > self.finalised.header.number();
        let mut all: Vec<_> = self.recent.values().filter(above).cloned().collect();
        all.sort_by_key(|sealed| {
            (*sealed.header.number(), self.canon.get(sealed.header.number()) != Some(&sealed.hash))
        });
        all
    }

    fn state_of(&self, sealed: &Sealed) -> State {
        State::new(self.nodes.clone(), *sealed.header.state_root())
    }

    // ---- transactions ----------------------------------------------------------------------------------------------

    /// Whether the runtime would take a transaction on the newest block.
    ///
    /// # Errors
    /// The bytes are no transaction, or the runtime stopped.
    pub fn validate(&self, bytes: &[u8]) -> Result<(UncheckedExtrinsic, TransactionValidity), SubmitError> {
        let extrinsic = UncheckedExtrinsic::decode(&mut &bytes[..]).map_err(SubmitError::Format)?;
        let args = (TransactionSource::External, &extrinsic, self.best.hash).encode();
        let validity = self.best_state().ask("TaggedTransactionQueue_validate_transaction", &args)?;
        Ok((extrinsic, validity))
    }

    /// Takes a transaction into the pool; where it is to be watched, with all that becomes of it.
    ///
    /// # Errors
    /// The bytes are no transaction, or the runtime or the pool refuses it.
    pub fn submit(&mut self, bytes: &[u8], watch: bool) -> Result<(H256, Option<mpsc::Receiver<Status>>), SubmitError> {
        let hash = hash_of(bytes);
        if self.pool.contains(&hash) {
            return Err(PoolError::Already(hash).into());
        }
        let (extrinsic, validity) = self.validate(bytes)?;
        let validity = validity.map_err(SubmitError::Refused)?;
        let receiver = watch.then(|| {
            let (sender, receiver) = mpsc::channel(STATUSES_MAX);
            self.watchers.entry(hash).or_default().push(sender);
            receiver
        });
        self.add(hash, bytes.to_vec(), extrinsic, validity)?;
        Ok((hash, receiver))
    }

    fn add(
        &mut self,
        hash: H256,
        bytes: Vec<u8>,
        extrinsic: UncheckedExtrinsic,
        validity: ValidTransaction,
    ) -> Result<(), PoolError> {
        let at = *self.best.header.number();
        let (usurped, waits) = self.pool.add(hash, bytes, extrinsic, validity, at)?;
        self.tell(hash, if waits { Status::Future } else { Status::Ready });
        for old in usurped {
            self.tell(old, Status::Usurped(hash));
            self.watchers.remove(&old);
        }
        Ok(())
    }

    /// Bytes that wait for a block.
    pub fn pending(&self) -> Vec<Vec<u8>> {
        self.pool.bytes()
    }

    /// The nonce that an account's next transaction should have, those that wait counted.
    ///
    /// # Errors
    /// The runtime stopped.
    pub fn next_nonce(&self, account: &AccountId32) -> Result<u32, CallError> {
        let mut nonce: u32 = self.best_state().ask("AccountNonceApi_account_nonce", &account.encode())?;
        while self.pool.provides(&(account, nonce).encode()) {
            nonce = nonce.saturating_add(1);
        }
        Ok(nonce)
    }

    fn tell(&mut self, hash: H256, status: Status) {
        if let Some(watchers) = self.watchers.get_mut(&hash) {
            // A watcher that is too far behind is dropped: its stream ends, and it must ask again.
            watchers.retain(|watcher| watcher.try_send(status).is_ok());
            if watchers.is_empty() {
                self.watchers.remove(&hash);
            }
        }
    }

    // ---- blocks ----------------------------------------------------------------------------------------------------

    /// Makes the next block of what waits in the pool.
    ///
    /// # Errors
    /// A fault of the devnet, or the store fails.
    pub fn make_block(&mut self) -> Result<Arc<Sealed>, ChainError> {
        let ready = self.pool.ready();
        let extrinsics: Vec<_> = ready.iter().map(|(_, extrinsic)| extrinsic.clone()).collect();
        let (sealed, nodes, fates) = self.build_on_best(&extrinsics)?;
        let settled: Vec<(u64, Fate)> = ready.iter().map(|(id, _)| *id).zip(fates).collect();
        self.enact(Vec::new(), vec![sealed.clone()], nodes)?;
        for hash in self.pool.settle(&settled, *sealed.header.number()) {
            self.tell(hash, Status::Invalid);
            self.watchers.remove(&hash);
        }
        self.finalise()?;
        Ok(sealed)
    }

    /// Undoes `depth` blocks and makes one more than that instead. The first are empty, as another author's would be
    /// who has not seen our transactions; these are back in the pool, and in the last of the new blocks, unless they
    /// are `lost`.
    ///
    /// # Errors
    /// It would undo final blocks; a fault of the devnet; the store fails.
    pub fn reorganise(&mut self, depth: u32, lost: bool) -> Result<Vec<Arc<Sealed>>, ChainError> {
        let (best, finalised) = (*self.best.header.number(), *self.finalised.header.number());
        if depth == 0 || depth > best - finalised {
            return Err(ChainError::TooDeep { depth, best, finalised });
        }
        let (old_best, mut retracted) = (self.best.clone(), Vec::new());
        while retracted.len() < depth as usize {
            let parent = self.block(self.best.header.parent_hash())?.ok_or(StoreError::Damaged("a parent"))?;
            retracted.push(std::mem::replace(&mut self.best, parent));
        }
        self.fork += 1;
        let (mut enacted, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..depth {
            let (sealed, new, _) = match self.build_on_best(&[]) {
                Ok(built) => built,
                Err(error) => {
                    self.best = old_best;
                    return Err(error);
                }
            };
            self.nodes.extend(new.iter().cloned());
            nodes.extend(new);
            self.best = sealed.clone();
            enacted.push(sealed);
        }
        self.enact(retracted.clone(), enacted.clone(), nodes)?;
        let returned = retracted.iter().rev().flat_map(|block| block.body.iter().skip(1).cloned());
        let waiting = self.pool.drain().into_iter().map(|tx| tx.bytes);
        let again: Vec<_> = if lost { waiting.collect() } else { returned.chain(waiting).collect() };
        for bytes in again {
            let hash = hash_of(&bytes);
            let taken = match self.validate(&bytes) {
                Ok((extrinsic, Ok(validity))) => self.add(hash, bytes, extrinsic, validity).is_ok(),
                _ => false,
            };
            if !taken {
                self.tell(hash, Status::Invalid);
                self.watchers.remove(&hash);
            }
        }
        enacted.push(self.make_block()?);
        Ok(enacted)
    }

    fn build_on_best(
        &mut self,
        extrinsics: &[UncheckedExtrinsic],
    ) -> Result<(Arc<Sealed>, NewNodes, Vec<Fate>), ChainError> {
        let number = self.best.header.number() + 1;
        let virtual_ms = self.genesis_ms + u64::from(number) * self.slot_ms;
        let now_ms = match self.clock {
            Blocks::OnDemand => virtual_ms,
            Blocks::Every(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
        };
        let parent_ms = self.best.body.first().and_then(|time| timestamp(time)).unwrap_or(0);
        let now_ms = now_ms.max(parent_ms + 1);
        let (built, fates) = build::block(&self.best.header, &self.best_state(), now_ms, self.fork, extrinsics)?;
        let Built { header, body, nodes } = built;
        Ok((Arc::new(Sealed { hash: header.hash(), header, body }), nodes, fates))
    }

    /// Makes blocks part of the best chain, in the store first.
    fn enact(
        &mut self,
        retracted: Vec<Arc<Sealed>>,
        enacted: Vec<Arc<Sealed>>,
        nodes: NewNodes,
    ) -> Result<(), ChainError> {
        let place = |sealed: &Arc<Sealed>| (*sealed.header.number(), sealed.hash);
        let cut = retracted.last().map(|sealed| *sealed.header.number());
        self.nodes.extend(nodes.iter().cloned());
        self.store.commit(Batch {
            blocks: enacted.iter().map(|sealed| (sealed.hash, store::encode(&sealed.header, &sealed.body))).collect(),
            nodes,
            cut,
            canon: enacted.iter().map(place).collect(),
            meta: vec![("fork", self.fork.encode())],
            ..Batch::default()
        })?;
        if let Some(cut) = cut {
            self.canon.split_off(&cut);
        }
        for sealed in &enacted {
            self.canon.insert(*sealed.header.number(), sealed.hash);
            self.recent.insert(sealed.hash, sealed.clone());
            self.best = sealed.clone();
        }
        for sealed in &retracted {
            for bytes in &sealed.body {
                self.tell(hash_of(bytes), Status::Retracted(sealed.hash));
            }
        }
        for sealed in &enacted {
            for (at, bytes) in (0_u32..).zip(&sealed.body) {
                self.tell(hash_of(bytes), Status::InBlock(sealed.hash, at));
            }
        }
        // Nobody may be listening.
        let _ = self.events.send(Event::Best { retracted, enacted });
        Ok(())
    }

    /// Makes final what is old enough, and forgets what nobody may ask for any more.
    fn finalise(&mut self) -> Result<(), ChainError> {
        let best = *self.best.header.number();
        let from = *self.finalised.header.number();
        let until = if self.finality_stalled { from } else { best.saturating_sub(self.lag).max(from) };
        let mut blocks = VecDeque::new();
        for number in from + 1..=until {
            let hash = self.hash(number)?.ok_or(StoreError::Damaged("the chain"))?;
            blocks.push_back(self.block(&hash)?.ok_or(StoreError::Damaged("a block"))?);
        }
        let oldest = best.saturating_sub(STATE_KEPT).min(until);
        let lost: Vec<H256> = self
            .recent
            .values()
            .filter(|sealed| {
                let number = sealed.header.number();
                *number <= until && *number > from && self.canon.get(number) != Some(&sealed.hash)
            })
            .map(|sealed| sealed.hash)
            .collect();
        self.recent
            .retain(|hash, sealed| *sealed.header.number() > oldest && !lost.contains(hash) || *hash == self.best.hash);
        self.canon = self.canon.split_off(&(oldest + 1).min(best));
        let mut batch = Batch { meta: vec![("final", until.encode())], ..Batch::default() };
        if best.is_multiple_of(SWEEP_EVERY) {
            let roots: Vec<H256> = self.recent.values().map(|sealed| *sealed.header.state_root()).collect();
            batch.gone = self.nodes.keep_only(&roots);
        }
        if until > from || !batch.gone.is_empty() {
            self.store.commit(batch)?;
        }
        let Some(last) = blocks.back().cloned() else { return Ok(()) };
        self.finalised = last;
        for sealed in &blocks {
            for (at, bytes) in (0_u32..).zip(&sealed.body) {
                let hash = hash_of(bytes);
                self.tell(hash, Status::Final(sealed.hash, at));
                self.watchers.remove(&hash);
            }
        }
        // Nobody may be listening.
        let _ = self.events.send(Event::Final { blocks: blocks.into(), pruned: lost });
        Ok(())
    }
}

fn load_number(store: &Store, number: u32) -> Result<Arc<Sealed>, StoreError> {
    let hash = store.hash(number)?.ok_or(StoreError::Damaged("the chain"))?;
    let (header, body) = store.block(&hash)?.ok_or(StoreError::Damaged("a block"))?;
    Ok(Arc::new(Sealed { hash, header, body }))
}

/// The time that a block's first transaction says.
fn timestamp(bytes: &[u8]) -> Option<u64> {
    use crate::runtime::RuntimeCall;
    match UncheckedExtrinsic::decode(&mut &bytes[..]).ok()?.function {
        RuntimeCall::Timestamp(pallet_timestamp::Call::set { now }) => Some(now),
        _ => None,
    }
}
