//! The pool: transactions that wait for a block, in the order that their tags and priorities ask for.
//!
//! A transaction provides tags and may require others (for a nonce: the one before). Of two that provide the same tag
//! the one of higher priority stays. Nothing here reads a state: who submits has validated.

use super::build::Fate;
use crate::runtime::UncheckedExtrinsic;
use sp_core::H256;
use sp_runtime::transaction_validity::ValidTransaction;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

/// Transactions that wait; a real node's default.
const POOL_MAX: usize = 8_192;
/// Bytes of all of them; a real node's default.
const BYTES_MAX: usize = 20 << 20;

type Tag = Vec<u8>;

/// A transaction that waits.
pub(super) struct Waiting {
    pub(super) hash: H256,
    pub(super) bytes: Vec<u8>,
    pub(super) extrinsic: UncheckedExtrinsic,
    provides: Vec<Tag>,
    requires: Vec<Tag>,
    priority: u64,
    /// The last block that may hold it.
    valid_till: u64,
}

/// Why the pool takes no transaction.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// It waits already.
    #[error("Transaction Already Imported")]
    Already(H256),
    /// Another with the same nonce has this priority or more.
    #[error("Priority is too low: ({old} vs {new})")]
    Priority {
        /// Of the one that waits.
        old: u64,
        /// Of this one.
        new: u64,
    },
    /// There is no place.
    #[error("The pool is full: it has {POOL_MAX} transactions or {BYTES_MAX} bytes, as many as it may: make a block")]
    Full,
}

/// Transactions by order of arrival.
#[derive(Default)]
pub(super) struct Pool {
    all: BTreeMap<u64, Waiting>,
    by_hash: HashMap<H256, u64>,
    by_tag: HashMap<Tag, u64>,
    arrivals: u64,
    size: usize,
}

impl Pool {
    /// Adds a transaction, in the place of those whose tags it provides with more priority; says which these were and
    /// whether it waits for others.
    pub(super) fn add(
        &mut self,
        hash: H256,
        bytes: Vec<u8>,
        extrinsic: UncheckedExtrinsic,
        validity: ValidTransaction,
        at: u32,
    ) -> Result<(Vec<H256>, bool), PoolError> {
        if self.by_hash.contains_key(&hash) {
            return Err(PoolError::Already(hash));
        }
        let rivals: HashSet<u64> = validity.provides.iter().filter_map(|tag| self.by_tag.get(tag)).copied().collect();
        for rival in rivals.iter().filter_map(|id| self.all.get(id)) {
            if rival.priority >= validity.priority {
                return Err(PoolError::Priority { old: rival.priority, new: validity.priority });
            }
        }
        let full = self.all.len() >= POOL_MAX || self.size.saturating_add(bytes.len()) > BYTES_MAX;
        if full && rivals.is_empty() {
            return Err(PoolError::Full);
        }
        let usurped = rivals.into_iter().filter_map(|id| self.remove(id)).map(|tx| tx.hash).collect();
        let waits = validity.requires.iter().any(|tag| !self.by_tag.contains_key(tag));
        let id = self.arrivals;
        self.arrivals += 1;
        self.by_hash.insert(hash, id);
        self.size = self.size.saturating_add(bytes.len());
        self.by_tag.extend(validity.provides.iter().map(|tag| (tag.clone(), id)));
        let valid_till = u64::from(at).saturating_add(validity.longevity);
        let ValidTransaction { provides, requires, priority, .. } = validity;
        self.all.insert(id, Waiting { hash, bytes, extrinsic, provides, requires, priority, valid_till });
        Ok((usurped, waits))
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let gone = self.all.remove(&id)?;
        self.by_hash.remove(&gone.hash);
        self.size = self.size.saturating_sub(gone.bytes.len());
        for tag in &gone.provides {
            self.by_tag.remove(tag);
        }
        Some(gone)
    }

    /// Those that can be in the next block, the most urgent first.
    pub(super) fn ready(&self) -> Vec<(u64, UncheckedExtrinsic)> {
        let mut missing: HashMap<u64, usize> = HashMap::new();
        let mut heirs: HashMap<&Tag, Vec<u64>> = HashMap::new();
        let mut heap = BinaryHeap::new();
        for (id, tx) in &self.all {
            if tx.requires.is_empty() {
                heap.push((tx.priority, Reverse(*id)));
            } else {
                missing.insert(*id, tx.requires.len());
                tx.requires.iter().for_each(|tag| heirs.entry(tag).or_default().push(*id));
            }
        }
        let mut ready = Vec::new();
        while let Some((_, Reverse(id))) = heap.pop() {
            let Some(tx) = self.all.get(&id) else { continue };
            ready.push((id, tx.extrinsic.clone()));
            for heir in tx.provides.iter().filter_map(|tag| heirs.get(tag)).flatten() {
                let left = missing.entry(*heir).or_default();
                *left = left.saturating_sub(1);
                if *left == 0
                    && let Some(tx) = self.all.get(heir)
                {
                    heap.push((tx.priority, Reverse(*heir)));
                }
            }
        }
        ready
    }

    /// Takes out what a block has settled; says which were invalid, and which became free to go on.
    pub(super) fn settle(&mut self, fates: &[(u64, Fate)], best: u32) -> Vec<H256> {
        let mut provided: HashSet<Tag> = HashSet::new();
        let mut invalid = Vec::new();
        for (id, fate) in fates {
            match fate {
                Fate::Included => provided.extend(self.remove(*id).into_iter().flat_map(|tx| tx.provides)),
                Fate::Invalid => invalid.extend(self.remove(*id).map(|tx| tx.hash)),
                Fate::Later => {}
            }
        }
        self.all.values_mut().for_each(|tx| tx.requires.retain(|tag| !provided.contains(tag)));
        let late: Vec<u64> =
            self.all.iter().filter(|(_, tx)| tx.valid_till < u64::from(best)).map(|(id, _)| *id).collect();
        invalid.extend(late.into_iter().filter_map(|id| self.remove(id)).map(|tx| tx.hash));
        invalid
    }

    /// Takes all out, in order of arrival.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.by_hash.clear();
        self.by_tag.clear();
        self.size = 0;
        std::mem::take(&mut self.all).into_values().collect()
    }

    /// Whether something provides a tag.
    pub(super) fn provides(&self, tag: &[u8]) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// All bytes, in order of arrival.
    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        self.all.values().map(|tx| tx.bytes.clone()).collect()
    }

    pub(super) fn contains(&self, hash: &H256) -> bool {
        self.by_hash.contains_key(hash)
    }
}
