//! States: all of them in one map of trie nodes, so that an old block's or a fork's costs nothing to have; calls into
//! the runtime on any of them.
//!
//! The runtime panics at arguments that do not decode, as FRAME's generated code does. That is caught here, and is not
//! printed: whoever calls with bad arguments must not fill the log.

use crate::runtime::apis;
use codec::{Compact, Decode, DecodeAll};
use hash_db::Prefix;
use sp_core::H256;
use sp_core::storage::StateVersion;
use sp_externalities::set_and_run_with_externalities;
use sp_runtime::traits::BlakeTwo256;
use sp_state_machine::{
    Backend, Ext, IterArgs, OverlayedChanges, StorageChanges, TrieBackend, TrieBackendBuilder, TrieBackendStorage,
};
use sp_trie::cache::{CacheSize, LocalTrieCache, SharedTrieCache};
use sp_trie::{DBValue, LayoutV1, NodeCodec};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once, PoisonError, RwLock};
use trie_db::NodeCodec as _;
use trie_db::node::{NodeHandlePlan, NodePlan, ValuePlan};

/// How values lie in the trie.
pub(super) const VERSION: StateVersion = StateVersion::V1;

/// Bytes of decoded nodes and of values that are kept at hand: some hundred states of a subnet of 256 members, most of
/// which they share.
const CACHE_MAX: usize = 64 << 20;

/// Trie nodes by hash, of every state that is kept.
#[derive(Clone)]
pub struct Nodes(Arc<Inner>);

struct Inner {
    all: RwLock<HashMap<H256, DBValue>>,
    /// The same, decoded: a read costs a third of what it does without.
    decoded: SharedTrieCache<BlakeTwo256>,
}

impl Default for Nodes {
    fn default() -> Self {
        let decoded = SharedTrieCache::new(CacheSize::new(CACHE_MAX), None);
        Self(Arc::new(Inner { all: RwLock::default(), decoded }))
    }
}

/// A state as the runtime sees it.
pub(super) type Trie = TrieBackend<Nodes, BlakeTwo256, LocalTrieCache<BlakeTwo256>>;

/// The root of a state with nothing in it.
pub(super) fn empty_root() -> H256 {
    sp_trie::empty_trie_root::<LayoutV1<BlakeTwo256>>()
}

impl Nodes {
    /// Adds nodes.
    pub(super) fn extend(&self, nodes: impl IntoIterator<Item = (H256, DBValue)>) {
        self.0.all.write().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }

    /// Removes every node that none of `roots` leads to, and says which.
    pub(super) fn keep_only(&self, roots: &[H256]) -> Vec<H256> {
        let mut nodes = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashSet::new();
        let mut todo = roots.to_vec();
        while let Some(hash) = todo.pop() {
            if seen.insert(hash)
                && let Some(bytes) = nodes.get(&hash)
            {
                children(bytes, &mut todo);
            }
        }
        let gone: Vec<H256> = nodes.keys().filter(|hash| !seen.contains(hash)).copied().collect();
        gone.iter().for_each(|hash| drop(nodes.remove(hash)));
        gone
    }

    /// Whether a node is there.
    pub(super) fn has(&self, hash: &H256) -> bool {
        self.0.all.read().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The hashes that a node names itself. A value's own bytes are no node, so they lead nowhere: they fail to decode, or decode
/// to hashes that are not there.
fn children(bytes: &[u8], into: &mut Vec<H256>) {
    let Ok(plan) = NodeCodec::<BlakeTwo256>::decode_plan(bytes) else { return };
    let hash = |range: &std::ops::Range<usize>| bytes.get(range.clone()).map(H256::from_slice);
    let mut value = |plan: &ValuePlan| {
        if let ValuePlan::Node(range) = plan {
            into.extend(hash(range));
        }
    };
    let handles: Vec<NodeHandlePlan> = match plan {
        NodePlan::Empty => Vec::new(),
        NodePlan::Leaf { value: of, .. } => {
            value(&of);
            Vec::new()
        }
        NodePlan::Extension { child, .. } => vec![child],
        NodePlan::Branch { value: of, children } | NodePlan::NibbledBranch { value: of, children, .. } => {
            of.iter().for_each(&mut value);
            children.into_iter().flatten().collect()
        }
    };
    for handle in handles {
        // A node inside another is shorter than a hash, so it names none; what is longer is a value's bytes, which
        // whoever wrote them may have nested as deep as they like.
        if let NodeHandlePlan::Hash(range) = handle {
            into.extend(hash(&range));
        }
    }
}

impl TrieBackendStorage<BlakeTwo256> for Nodes {
    fn get(&self, key: &H256, _: Prefix<'_>) -> Result<Option<DBValue>, String> {
        // The empty trie is not stored: it has the root of one zero byte.
        if *key == empty_root() {
            return Ok(Some(vec![0]));
        }
        Ok(self.0.all.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }
}

/// Why the runtime gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such function; clients look for these words.
    #[error("Exported method {0} is not found")]
    NotFound(String),
    /// It stopped, most often because its arguments did not decode.
    #[error("Runtime panicked in {0}: bad arguments, or a fault of the runtime")]
    Panicked(String),
    /// It is not for clients.
    #[error("{0} is not answered here: a devnet executes no blocks of others")]
    NotForClients(String),
    /// An argument says that it is longer than it is.
    #[error("{0}: a transaction that is shorter than it says")]
    Short(String),
    /// The state was let go of meanwhile. Clients look for these words.
    #[error("State already discarded")]
    Gone,
    /// It answered something else than it should.
    #[error("{0} answered what is not its type")]
    Answer(&'static str),
}

/// One state.
#[derive(Clone)]
pub struct State {
    nodes: Nodes,
    root: H256,
}

/// Changes on top of a state.
pub(super) type Overlay = OverlayedChanges<BlakeTwo256>;

impl State {
    pub(super) fn new(nodes: Nodes, root: H256) -> Self {
        Self { nodes, root }
    }

    pub(super) fn backend(&self) -> Trie {
        let decoded = self.nodes.0.decoded.local_cache_trusted();
        TrieBackendBuilder::new_with_cache(self.nodes.clone(), self.root, decoded).build()
    }

    /// The root, which names all that is in it.
    pub fn root(&self) -> H256 {
        self.root
    }

    /// A value.
    ///
    /// # Errors
    /// The state is no longer kept.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        self.backend().storage(key).map_err(|_| CallError::Gone)
    }

    /// Keys that begin with `prefix`, in order, those after `start` if given, at most `count`.
    ///
    /// # Errors
    /// The state is no longer kept.
    pub fn keys(&self, prefix: &[u8], start: Option<&[u8]>, count: usize) -> Result<Vec<Vec<u8>>, CallError> {
        let mut args = IterArgs::default();
        args.prefix = Some(prefix);
        args.start_at = start.filter(|start| !start.is_empty());
        args.start_at_exclusive = true;
        let backend = self.backend();
        let keys = backend.keys(args).map_err(|_| CallError::Gone)?;
        keys.take(count).collect::<Result<_, _>>().map_err(|_| CallError::Gone)
    }

    /// The hash of a value.
    ///
    /// # Errors
    /// The state is no longer kept.
    pub fn hash(&self, key: &[u8]) -> Result<Option<H256>, CallError> {
        self.backend().storage_hash(key).map_err(|_| CallError::Gone)
    }

    /// Calls a runtime API. What it changes is thrown away.
    ///
    /// # Errors
    /// No such function, or it stopped.
    pub fn call(&self, method: &str, args: &[u8]) -> Result<Vec<u8>, CallError> {
        let transaction = match method {
            "TransactionPaymentApi_query_info" | "TransactionPaymentApi_query_fee_details" => Some(args),
            "BlockBuilder_apply_extrinsic" => Some(args),
            "TaggedTransactionQueue_validate_transaction" => args.get(1..),
            "Core_execute_block" | "BlockBuilder_check_inherents" => {
                return Err(CallError::NotForClients(method.to_owned()));
            }
            _ => None,
        };
        if transaction.is_some_and(|bytes| !has_its_length(bytes)) {
            return Err(CallError::Short(method.to_owned()));
        }
        let mut overlay = Overlay::default();
        run(&self.backend(), &mut overlay, || apis::api::dispatch(method, args))
            .ok_or_else(|| CallError::Panicked(method.to_owned()))?
            .ok_or_else(|| CallError::NotFound(method.to_owned()))
    }

    /// The same, decoded.
    ///
    /// # Errors
    /// As [`call`](Self::call), or an answer of another type.
    pub fn ask<V: Decode>(&self, method: &'static str, args: &[u8]) -> Result<V, CallError> {
        V::decode_all(&mut &self.call(method, args)?[..]).map_err(|_| CallError::Answer(method))
    }
}

/// Whether as many bytes follow as a transaction's first ones say. FRAME allocates what they say before it looks further:
/// four bytes ask for a gigabyte.
pub(super) fn has_its_length(mut transaction: &[u8]) -> bool {
    Compact::<u32>::decode(&mut transaction).is_ok_and(|length| length.0 as usize <= transaction.len())
}

/// Runs something of the runtime on a state with changes; none if it panics. What it began in `overlay` and has not
/// ended is then undone.
pub(super) fn run<R>(backend: &Trie, overlay: &mut Overlay, what: impl FnOnce() -> R) -> Option<R> {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if QUIET.get() {
                tracing::debug!("the runtime panicked: {panic}");
            } else {
                loud(panic);
            }
        }));
    });
    let depth = overlay.transaction_depth();
    let before = QUIET.replace(true);
    let outcome = {
        let mut ext = Ext::new(overlay, backend, None);
        catch_unwind(AssertUnwindSafe(|| set_and_run_with_externalities(&mut ext, what)))
    };
    QUIET.set(before);
    if outcome.is_err() {
        while overlay.transaction_depth() > depth && overlay.rollback_transaction().is_ok() {}
    }
    outcome.ok()
}

thread_local! {
    /// Whether this thread runs what may panic at whatever a client sends.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The new nodes of a set of changes, by hash: their keys are the way to them and then their hash.
pub(super) fn new_nodes(mut changes: StorageChanges<BlakeTwo256>) -> (H256, Vec<(H256, DBValue)>) {
    let nodes = changes.transaction.drain().into_iter().filter(|(_, (_, count))| *count > 0);
    let nodes = nodes.map(|(key, (value, _))| (H256::from_slice(&key[key.len() - 32..]), value)).collect();
    (changes.transaction_storage_root, nodes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

    use super::*;
    use codec::Encode;

    /// A branch of one child, which is a hash if it has 32 bytes.
    fn branch(child: &[u8]) -> Vec<u8> {
        [vec![0x80, 1, 0], Compact(child.len() as u32).encode(), child.to_vec()].concat()
    }

    #[test]
    fn a_value_that_is_nested_like_nodes_leads_nowhere() {
        let mut hashes = Vec::new();
        children(&branch(&[7; 32]), &mut hashes);
        assert_eq!(hashes, [H256([7; 32])]);
        hashes.clear();
        // Each layer is put around a place where the next one goes: a million bytes, some hundred thousand deep.
        let mut layers = Vec::new();
        let mut length = 36_u32;
        while length < 1 << 20 {
            layers.push([vec![0x80, 1, 0], Compact(length).encode()].concat());
            length += layers.last().unwrap().len() as u32;
        }
        let nested = [layers.into_iter().rev().flatten().collect(), branch(&[7; 32])].concat();
        assert!(matches!(NodeCodec::<BlakeTwo256>::decode_plan(&nested), Ok(NodePlan::NibbledBranch { .. })));
        children(&nested, &mut hashes);
        assert_eq!(hashes, []);
    }

    #[test]
    fn every_node_of_a_state_is_kept_and_every_other_is_not() {
        let nodes = Nodes::default();
        let state = State::new(nodes.clone(), empty_root());
        // Values of all lengths around those at which a value, or a node, no longer lies inside another.
        let pairs: Vec<(Vec<u8>, Vec<u8>)> =
            (0..=255_u8).map(|at| (vec![at >> 4, at, at.wrapping_mul(7)], vec![at; usize::from(at % 48)])).collect();
        let all = pairs.iter().map(|(key, value)| (&key[..], Some(&value[..])));
        let (root, mut changes) = state.backend().storage_root(all, VERSION);
        let new = changes.drain().into_iter().filter(|(_, (_, count))| *count > 0);
        nodes.extend(new.map(|(key, (value, _))| (H256::from_slice(&key[key.len() - 32..]), value)));
        nodes.extend([(H256([9; 32]), branch(&[7; 32]))]);
        assert_eq!(nodes.keep_only(&[root]), [H256([9; 32])]);
        let state = State::new(nodes, root);
        for (key, value) in pairs {
            assert_eq!(state.get(&key).unwrap(), Some(value), "{key:?}");
        }
    }
}
