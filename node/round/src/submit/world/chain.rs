//! The world's chain, with the client in front of it: nonces in order, a pool that may lose calls, blocks that may be
//! undone until they are final, eras after which a call is dead.

use super::super::message::{Content, Fate, SignedCall, Trouble};
use super::Dice;
use covey_proto::BlockNumber;
use covey_proto::record::Record;
use std::collections::BTreeMap;

/// Blocks that finality is behind.
const LAG: u32 = 2;
/// Blocks for which a call may come into one.
const ERA: u32 = 10;
/// Blocks for which the client keeps a nonce for a call that is signed and not handed over.
const RESERVED: u32 = 3;
/// Calls that a block takes.
const BLOCK_CALLS_MAX: usize = 2;

/// What goes wrong on the chain, once in so many times; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct ChainFaults {
    /// A block takes nothing.
    pub(in super::super) empty: usize,
    /// The pool loses all that waits.
    pub(in super::super) forget: usize,
    /// The blocks that are not final are undone; what was in them may be lost.
    pub(in super::super) reorganise: usize,
    /// Another process with the same hotkey takes the next nonce.
    pub(in super::super) rival: usize,
    /// A call is in a block and is not done.
    pub(in super::super) fail: usize,
}

#[derive(Clone, Debug)]
struct Call {
    nonce: u64,
    /// None: a rival's, which touches neither slot nor weights.
    content: Option<Content>,
    /// The first block that cannot hold it.
    dies: u32,
    failed: bool,
}

pub(in super::super) struct Chain {
    /// What each block took; the first is the genesis.
    blocks: Vec<Vec<usize>>,
    calls: Vec<Call>,
    pool: BTreeMap<u64, usize>,
    finalised: u32,
    /// The client's memory, which ends with its process: what it handed over, and the nonces that it keeps until a block.
    live: BTreeMap<u64, usize>,
    reserved: BTreeMap<u64, u32>,
}

impl Chain {
    pub(super) fn new() -> Chain {
        Chain {
            blocks: vec![Vec::new()],
            calls: Vec::new(),
            pool: BTreeMap::new(),
            finalised: 0,
            live: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }

    pub(in super::super) fn best(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    pub(in super::super) fn finalised(&self) -> u32 {
        self.finalised
    }

    fn included(&self, block: u32) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.blocks.iter().take(block as usize + 1).flatten().copied()
    }

    /// The nonce that the account's next call has after a block.
    fn nonce_at(&self, block: u32) -> u64 {
        self.included(block).count() as u64
    }

    /// The calls of final blocks in their order, of which something came.
    pub(super) fn done(&self) -> Vec<Content> {
        let done = self.included(self.finalised).filter(|call| !self.calls[*call].failed);
        done.filter_map(|call| self.calls[call].content.clone()).collect()
    }

    /// The record in the slot after a final block.
    pub(in super::super) fn slot_at(&self, block: u32) -> Option<Record> {
        self.included(block).rev().find_map(|call| match &self.calls[call] {
            Call { content: Some(Content::Record(record)), failed: false, .. } => Some(*record),
            _ => None,
        })
    }

    /// A block, and with it what the faults bring.
    pub(super) fn produce(&mut self, dice: &mut Dice, faults: ChainFaults) {
        if dice.once_in(faults.reorganise) {
            let undone = self.blocks.split_off(self.finalised as usize + 1);
            for call in undone.into_iter().flatten() {
                if !dice.once_in(2) {
                    self.pool.entry(self.calls[call].nonce).or_insert(call);
                }
            }
        }
        if dice.once_in(faults.forget) {
            self.pool.clear();
        }
        let (number, mut nonce) = (self.best() + 1, self.nonce_at(self.best()));
        let mut block = Vec::new();
        if dice.once_in(faults.rival) {
            self.calls.push(Call { nonce, content: None, dies: u32::MAX, failed: false });
            block.push(self.calls.len() - 1);
            nonce += 1;
        }
        self.pool.retain(|_, call| self.calls[*call].dies > number);
        while block.len() < BLOCK_CALLS_MAX
            && !dice.once_in(faults.empty)
            && let Some(call) = self.pool.remove(&nonce)
        {
            self.calls[call].failed = dice.once_in(faults.fail);
            block.push(call);
            nonce += 1;
        }
        self.pool.retain(|waiting, _| *waiting >= nonce);
        self.blocks.push(block);
        self.finalised = self.finalised.max(number.saturating_sub(LAG));
        self.keep_on_their_way();
    }

    /// The client hands over again what the pool has lost, and forgets what is settled.
    fn keep_on_their_way(&mut self) {
        let (settled, next) = (self.nonce_at(self.finalised), self.nonce_at(self.best()));
        self.live.retain(|nonce, call| *nonce >= settled && self.finalised + 1 < self.calls[*call].dies);
        for (nonce, call) in self.live.range(next..) {
            self.pool.entry(*nonce).or_insert(*call);
        }
    }

    /// The client's process ended.
    pub(super) fn forget_client(&mut self) {
        self.live.clear();
        self.reserved.clear();
    }

    /// The pool's process ended.
    pub(super) fn forget_pool(&mut self) {
        self.pool.clear();
    }

    pub(super) fn sign(&mut self, content: Content) -> SignedCall {
        let best = self.best();
        self.reserved.retain(|_, until| *until > best);
        let next = self.nonce_at(best);
        let is_taken = |nonce: &u64| {
            [&self.pool, &self.live].iter().any(|known| known.contains_key(nonce)) || self.reserved.contains_key(nonce)
        };
        let nonce = (next..).find(|nonce| !is_taken(nonce)).unwrap();
        self.reserved.insert(nonce, best + RESERVED);
        self.calls.push(Call { nonce, content: Some(content), dies: best + ERA, failed: false });
        SignedCall((self.calls.len() as u32 - 1).to_le_bytes().to_vec())
    }

    fn index(&self, call: &SignedCall) -> usize {
        u32::from_le_bytes(call.0[..].try_into().unwrap()) as usize
    }

    pub(super) fn submit(&mut self, bytes: &SignedCall) -> Result<(), Trouble> {
        let index = self.index(bytes);
        let Call { nonce, dies, .. } = self.calls[index];
        let refused = |why: &str| Err(Trouble::Refused(why.into()));
        let waiting = self.pool.get(&nonce).copied();
        let result = match waiting {
            _ if nonce < self.nonce_at(self.best()) => refused("its nonce was used"),
            _ if dies <= self.best() + 1 => refused("its time is over"),
            Some(waiting) if waiting != index => refused("another call of this nonce waits"),
            _ => Ok(()),
        };
        self.reserved.remove(&nonce);
        if result.is_ok() {
            self.pool.insert(nonce, index);
            self.live.insert(nonce, index);
        }
        result
    }

    pub(super) fn fate(&self, bytes: &SignedCall, block: BlockNumber) -> Fate {
        let index = self.index(bytes);
        let Call { nonce, dies, failed, .. } = self.calls[index];
        if self.included(block.0).any(|call| call == index) {
            return if failed { Fate::Failed("it failed".into()) } else { Fate::Done };
        }
        match nonce < self.nonce_at(block.0) || block.0 + 1 >= dies {
            true => Fate::Lost,
            false => Fate::Open,
        }
    }
}
