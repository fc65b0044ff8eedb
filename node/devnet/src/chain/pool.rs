//! The pool: transactions that wait for a block, in the order that their tags and priorities ask for.
//!
//! A transaction provides tags and may require others (for a nonce: the one before). Of two that provide the same tag
//! the one of higher priority stays. Nothing here reads a state: who submits has validated.

use super::build::Fate;
use super::watch::Status;
use crate::runtime::UncheckedExtrinsic;
use sp_core::H256;
use sp_runtime::transaction_validity::ValidTransaction;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

/// Transactions that wait; a real node's default.
const POOL_MAX: usize = 8_192;
/// Bytes of all of them; a real node's default.
const BYTES_MAX: usize = 20 << 20;
/// Of them those that cannot be in the next block, as an earlier nonce is missing; a real node's default. Their nonces
/// may never come, and who signed them need not have funds: the oldest go first.
const FUTURE_MAX: usize = 512;

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

/// What adding a transaction did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Whose place it took.
    pub(super) usurped: Vec<H256>,
    /// Which were dropped because too many wait for others.
    pub(super) dropped: Vec<H256>,
    /// Whether it waits for others itself.
    pub(super) waits: bool,
}

/// Transactions by order of arrival.
#[derive(Default)]
pub(super) struct Pool {
    all: BTreeMap<u64, Waiting>,
    by_hash: HashMap<H256, u64>,
    by_tag: HashMap<Tag, u64>,
    /// Those that cannot be in the next block, directly or because one before them cannot.
    future: BTreeSet<u64>,
    arrivals: u64,
    size: usize,
}

impl Pool {
    /// Adds a transaction, in the place of those whose tags it provides with more priority.
    pub(super) fn add(
        &mut self,
        hash: H256,
        bytes: Vec<u8>,
        extrinsic: UncheckedExtrinsic,
        validity: ValidTransaction,
        at: u32,
    ) -> Result<Admission, PoolError> {
        if self.by_hash.contains_key(&hash) {
            return Err(PoolError::Already(hash));
        }
        let rivals: HashSet<u64> = validity.provides.iter().filter_map(|tag| self.by_tag.get(tag)).copied().collect();
        let mut size = self.size.saturating_add(bytes.len());
        for rival in rivals.iter().filter_map(|id| self.all.get(id)) {
            if rival.priority >= validity.priority {
                return Err(PoolError::Priority { old: rival.priority, new: validity.priority });
            }
            size = size.saturating_sub(rival.bytes.len());
        }
        if self.all.len().saturating_sub(rivals.len()) >= POOL_MAX || size > BYTES_MAX {
            return Err(PoolError::Full);
        }
        let usurped = rivals.into_iter().filter_map(|id| self.remove(id)).map(|tx| tx.hash).collect();
        let id = self.arrivals;
        self.arrivals += 1;
        self.by_hash.insert(hash, id);
        self.size = size;
        self.by_tag.extend(validity.provides.iter().map(|tag| (tag.clone(), id)));
        let valid_till = u64::from(at).saturating_add(validity.longevity);
        let ValidTransaction { provides, requires, priority, .. } = validity;
        let waits = !self.is_free(&requires);
        self.all.insert(id, Waiting { hash, bytes, extrinsic, provides, requires, priority, valid_till });
        if waits {
            self.future.insert(id);
        } else {
            self.free_after(id);
        }
        Ok(Admission { usurped, dropped: self.drop_future(), waits })
    }

    /// Whether all these tags are provided by transactions that can be in the next block.
    fn is_free(&self, requires: &[Tag]) -> bool {
        requires.iter().all(|tag| self.by_tag.get(tag).is_some_and(|id| !self.future.contains(id)))
    }

    /// Those that waited for a transaction, which can now be in the next block, wait no more unless for others; nor do
    /// those that waited for these.
    fn free_after(&mut self, id: u64) {
        let mut free = vec![id];
        while let Some(tx) = free.pop().and_then(|id| self.all.get(&id)) {
            let waits_for_it = |heir: &Waiting| heir.requires.iter().any(|tag| tx.provides.contains(tag));
            let heirs = self.future.iter().filter_map(|id| Some((*id, self.all.get(id)?)));
            let heirs: Vec<u64> = heirs
                .filter(|(_, heir)| waits_for_it(heir) && self.is_free(&heir.requires))
                .map(|(id, _)| id)
                .collect();
            for heir in heirs {
                self.future.remove(&heir);
                free.push(heir);
            }
        }
    }

    /// Takes out the oldest of those that wait for others, as long as there are too many.
    fn drop_future(&mut self) -> Vec<H256> {
        let mut dropped = Vec::new();
        while self.future.len() > FUTURE_MAX
            && let Some(oldest) = self.future.pop_first()
        {
            dropped.extend(self.remove(oldest).map(|tx| tx.hash));
        }
        dropped
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let gone = self.all.remove(&id)?;
        self.by_hash.remove(&gone.hash);
        self.future.remove(&id);
        self.size = self.size.saturating_sub(gone.bytes.len());
        for tag in &gone.provides {
            self.by_tag.remove(tag);
        }
        Some(gone)
    }

    /// Those that can be in the next block, the most urgent first.
    pub(super) fn ready(&self) -> Vec<(u64, UncheckedExtrinsic)> {
        let order = self.order().into_iter();
        order.filter_map(|id| Some((id, self.all.get(&id)?.extrinsic.clone()))).collect()
    }

    fn order(&self) -> Vec<u64> {
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
            ready.push(id);
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

    /// Takes out what a block has settled; says what became of those that are in no block.
    pub(super) fn settle(&mut self, fates: &[(u64, Fate)], best: u32) -> Vec<(H256, Status)> {
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
        // Those that came after one that was invalid have to wait for another in its place.
        let ready: HashSet<u64> = self.order().into_iter().collect();
        self.future = self.all.keys().filter(|id| !ready.contains(id)).copied().collect();
        let dropped = self.drop_future().into_iter().map(|hash| (hash, Status::Dropped));
        invalid.into_iter().map(|hash| (hash, Status::Invalid)).chain(dropped).collect()
    }

    /// Takes all out, in order of arrival.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.by_hash.clear();
        self.by_tag.clear();
        self.future.clear();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

    use super::*;
    use crate::runtime::RuntimeCall;

    /// A transaction of an account with a nonce, whose account has had `had` before.
    fn add(
        pool: &mut Pool,
        who: &str,
        (had, nonce): (u32, u32),
        priority: u64,
        length: usize,
    ) -> Result<Admission, PoolError> {
        let extrinsic =
            UncheckedExtrinsic::new_bare(RuntimeCall::System(frame_system::Call::remark { remark: vec![] }));
        let tag = |nonce: u32| format!("{who} {nonce}").into_bytes();
        let requires = if nonce > had { vec![tag(nonce - 1)] } else { Vec::new() };
        let validity = ValidTransaction { priority, requires, provides: vec![tag(nonce)], ..Default::default() };
        pool.add(hash(who, nonce, priority), vec![0; length], extrinsic, validity, 0)
    }

    fn hash(who: &str, nonce: u32, priority: u64) -> H256 {
        H256(sp_io::hashing::blake2_256(format!("{who} {nonce} {priority}").as_bytes()))
    }

    #[test]
    fn the_oldest_of_those_whose_turn_does_not_come_are_dropped() {
        let mut pool = Pool::default();
        for number in 0..FUTURE_MAX {
            let added = add(&mut pool, &format!("stranger {number}"), (0, 5), 1, 100).unwrap();
            assert_eq!((added.dropped.len(), added.waits), (0, true));
        }
        let ready = add(&mut pool, "honest", (0, 0), 1, 100).unwrap();
        assert_eq!((ready.dropped.len(), ready.waits), (0, false), "what can go on does not count");
        let next = add(&mut pool, "honest", (0, 1), 1, 100).unwrap();
        assert_eq!((next.dropped.len(), next.waits), (0, false), "nor does what follows it");
        let one_more = add(&mut pool, "late", (0, 1), 1, 100).unwrap();
        assert_eq!((one_more.dropped, one_more.waits), (vec![hash("stranger 0", 5, 1)], true));
        assert_eq!((pool.all.len(), pool.size), (FUTURE_MAX + 2, (FUTURE_MAX + 2) * 100));
        assert_eq!(pool.ready().len(), 2);
    }

    #[test]
    fn those_that_waited_go_on_when_the_one_before_them_comes() {
        let mut pool = Pool::default();
        for nonce in [3, 1, 2, 5] {
            assert!(add(&mut pool, "a", (0, nonce), 1, 100).unwrap().waits, "nonce {nonce}");
        }
        assert!(!add(&mut pool, "a", (0, 0), 1, 100).unwrap().waits);
        assert_eq!((pool.ready().len(), pool.future.len()), (4, 1), "nonce 4 is missing");
        assert!(!add(&mut pool, "a", (0, 4), 1, 100).unwrap().waits);
        assert_eq!((pool.ready().len(), pool.future.len()), (6, 0));
        let usurper = add(&mut pool, "a", (0, 2), 2, 100).unwrap();
        assert_eq!((usurper.usurped, usurper.waits), (vec![hash("a", 2, 1)], false));
        assert_eq!((pool.ready().len(), pool.future.len()), (6, 0));
    }

    #[test]
    fn those_after_an_invalid_one_wait_again_and_the_oldest_of_them_are_dropped() {
        let (mut pool, many) = (Pool::default(), 600);
        for nonce in 0..many {
            assert!(!add(&mut pool, "a", (0, nonce), 1, 100).unwrap().waits, "nonce {nonce}");
        }
        let ready = pool.ready();
        assert_eq!(ready.len(), many as usize);
        let told = pool.settle(&[(ready[0].0, Fate::Included), (ready[1].0, Fate::Invalid)], 1);
        assert_eq!(told[0], (hash("a", 1, 1), Status::Invalid));
        let dropped: Vec<_> = (2..many - 512).map(|nonce| (hash("a", nonce, 1), Status::Dropped)).collect();
        assert_eq!(told[1..], dropped);
        assert_eq!((pool.all.len(), pool.future.len(), pool.ready().len()), (FUTURE_MAX, FUTURE_MAX, 0));
    }

    #[test]
    fn one_that_takes_anothers_place_may_not_fill_the_pool_above_its_bytes() {
        let mut pool = Pool::default();
        add(&mut pool, "a", (0, 0), 1, BYTES_MAX - 100).unwrap();
        add(&mut pool, "b", (0, 0), 1, 100).unwrap();
        assert_eq!(add(&mut pool, "b", (0, 0), 2, 101), Err(PoolError::Full));
        assert_eq!(add(&mut pool, "c", (0, 0), 2, 1), Err(PoolError::Full));
        let added = add(&mut pool, "b", (0, 0), 2, 100).unwrap();
        assert_eq!((added.usurped, pool.size), (vec![hash("b", 0, 1)], BYTES_MAX));
    }
}
