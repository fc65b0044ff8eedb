//! How the chain grows: the next block, a reorganisation, finality, and which states are let go of.
//!
//! What a block changes is decided first, kept in the store by one commit, and only then seen by anybody: a process that
//! is killed in between has either all of it or nothing.

use super::build::{self, Built, Fate};
use super::store::{self, Batch};
use super::{Chain, ChainBlock, ChainError, Event, Status, StoreError, hash_of};
use crate::config::Blocks;
use crate::runtime::UncheckedExtrinsic;
use codec::Encode;
use sp_core::H256;
use sp_runtime::traits::Header as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Blocks that are not final, at most: their states are all kept. More than 24 hours of a real chain's.
pub const UNFINAL_MAX: u32 = 8_192;
/// Blocks between two searches for nodes that nothing leads to.
const SWEEP_EVERY: u32 = 64;

/// A block that nobody has seen yet, with the nodes that its state adds, and what became of each transaction.
struct New {
    sealed: Arc<ChainBlock>,
    nodes: Vec<(H256, Vec<u8>)>,
    fates: Vec<Fate>,
}

/// What becomes final with a new best block, and what is forgotten.
struct Ending {
    blocks: Vec<Arc<ChainBlock>>,
    pruned: Vec<H256>,
}

impl Chain {
    /// Makes the next block of what waits in the pool.
    ///
    /// # Errors
    /// A fault of the devnet, the store fails, or too many blocks are not final.
    pub fn make_block(&mut self) -> Result<Arc<ChainBlock>, ChainError> {
        if self.best.header.number() - self.finalised.header.number() >= UNFINAL_MAX {
            return Err(ChainError::Unfinal);
        }
        let ready = self.pool.ready();
        let extrinsics: Vec<_> = ready.iter().map(|(_, extrinsic)| extrinsic.clone()).collect();
        let New { sealed, nodes, fates } = self.build_on(&self.best.clone(), &extrinsics)?;
        self.append(Vec::new(), vec![sealed.clone()], nodes)?;
        let settled: Vec<(u64, Fate)> = ready.iter().map(|(id, _)| *id).zip(fates).collect();
        for (hash, status) in self.pool.settle(&settled, *sealed.header.number()) {
            self.watchers.tell(&hash, status);
        }
        Ok(sealed)
    }

    /// Undoes `depth` blocks and makes one more than that instead. The first are empty, as another author's would be
    /// who has not seen our transactions; these are back in the pool, and in the last of the new blocks, unless they
    /// are `lost`.
    ///
    /// # Errors
    /// It would undo final blocks; a fault of the devnet; the store fails.
    pub fn reorganise(&mut self, depth: u32, lost: bool) -> Result<Vec<Arc<ChainBlock>>, ChainError> {
        let (best, finalised) = (*self.best.header.number(), *self.finalised.header.number());
        if depth == 0 || depth > best - finalised {
            return Err(ChainError::TooDeep { depth, best, finalised });
        }
        let (mut parent, mut retracted) = (self.best.clone(), Vec::new());
        for _ in 0..depth {
            let below = self.block(parent.header.parent_hash())?.ok_or(StoreError::Damaged("a parent"))?;
            retracted.push(std::mem::replace(&mut parent, below));
        }
        self.fork += 1;
        let (mut enacted, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..depth {
            let new = self.build_on(&parent, &[])?;
            // The next one is built on them. Should it fail, the next sweep finds that nothing leads to them.
            self.nodes.extend(new.nodes.iter().cloned());
            nodes.extend(new.nodes);
            parent = new.sealed.clone();
            enacted.push(new.sealed);
        }
        self.append(retracted.clone(), enacted.clone(), nodes)?;
        let returned: Vec<Vec<u8>> =
            retracted.iter().rev().flat_map(|block| block.body.iter().skip(1).cloned()).collect();
        let waiting = self.pool.drain().into_iter().map(|tx| tx.bytes);
        if lost {
            returned.iter().for_each(|bytes| self.watchers.tell(&hash_of(bytes), Status::Dropped));
            self.take_back(waiting.collect());
        } else {
            self.take_back(returned.into_iter().chain(waiting).collect());
        }
        enacted.push(self.make_block()?);
        Ok(enacted)
    }

    fn build_on(&self, parent: &ChainBlock, extrinsics: &[UncheckedExtrinsic]) -> Result<New, ChainError> {
        let number = parent.header.number() + 1;
        let now_ms = match self.clock {
            Blocks::OnDemand => self.genesis_ms.saturating_add(u64::from(number).saturating_mul(self.slot_ms)),
            Blocks::Every(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
        };
        let parent_ms = parent.body.first().and_then(|time| build::timestamp(time)).unwrap_or(0);
        let now_ms = now_ms.max(parent_ms + 1);
        let (built, fates) = build::block(&parent.header, &self.state_of(parent), now_ms, self.fork, extrinsics)?;
        let Built { header, body, nodes } = built;
        Ok(New { sealed: Arc::new(ChainBlock { hash: header.hash(), header, body }), nodes, fates })
    }

    /// Makes blocks part of the best chain in the place of `retracted`, makes final what is old enough, and forgets what
    /// nobody may ask for any more.
    fn append(
        &mut self,
        retracted: Vec<Arc<ChainBlock>>,
        enacted: Vec<Arc<ChainBlock>>,
        nodes: Vec<(H256, Vec<u8>)>,
    ) -> Result<(), ChainError> {
        let Some(best) = enacted.last().cloned() else { return Ok(()) };
        let ending = self.ending(&enacted)?;
        let last_final = ending.blocks.last().unwrap_or(&self.finalised).clone();
        let number = *best.header.number();
        let oldest = number.saturating_sub(self.states_kept).min(*last_final.header.number());
        let forgotten: HashSet<H256> = self
            .recent
            .values()
            .filter(|sealed| *sealed.header.number() < oldest || ending.pruned.contains(&sealed.hash))
            .map(|sealed| sealed.hash)
            .collect();
        self.nodes.extend(nodes.iter().cloned());
        let mut gone = Vec::new();
        if number.is_multiple_of(SWEEP_EVERY) {
            let kept = self.recent.values().filter(|sealed| !forgotten.contains(&sealed.hash)).chain(&enacted);
            let roots: Vec<H256> = kept.map(|sealed| *sealed.header.state_root()).collect();
            gone = self.nodes.keep_only(&roots);
        }
        let cut = retracted.last().map(|sealed| *sealed.header.number());
        let place = |sealed: &Arc<ChainBlock>| (*sealed.header.number(), sealed.hash);
        self.store.commit(Batch {
            blocks: enacted.iter().map(|sealed| (sealed.hash, store::encode(&sealed.header, &sealed.body))).collect(),
            nodes,
            gone,
            cut,
            canon: enacted.iter().map(place).collect(),
            meta: vec![("fork", self.fork.encode()), ("final", last_final.header.number().encode())],
        })?;
        if let Some(cut) = cut {
            self.canon.split_off(&cut);
        }
        self.recent.retain(|hash, _| !forgotten.contains(hash));
        self.recent.extend(enacted.iter().map(|sealed| (sealed.hash, sealed.clone())));
        self.canon = self.canon.split_off(&oldest);
        self.canon.extend(enacted.iter().map(place));
        self.best = best;
        self.finalised = last_final;
        self.tell(retracted, enacted, ending);
        Ok(())
    }

    /// What becomes final when these blocks are the newest.
    fn ending(&self, enacted: &[Arc<ChainBlock>]) -> Result<Ending, ChainError> {
        let best = enacted.last().map_or(0, |sealed| *sealed.header.number());
        let from = *self.finalised.header.number();
        let until = if self.finality_stalled { from } else { best.saturating_sub(self.lag).max(from) };
        let mut blocks = Vec::new();
        for number in from + 1..=until {
            let new = enacted.iter().find(|sealed| *sealed.header.number() == number).cloned();
            blocks.push(match new {
                Some(new) => new,
                None => {
                    let hash = self.hash(number)?.ok_or(StoreError::Damaged("the chain"))?;
                    self.block(&hash)?.ok_or(StoreError::Damaged("a block"))?
                }
            });
        }
        let last: HashSet<H256> = blocks.iter().map(|sealed| sealed.hash).collect();
        let lost = |sealed: &&Arc<ChainBlock>| {
            let number = sealed.header.number();
            *number > from && *number <= until && !last.contains(&sealed.hash)
        };
        let pruned = self.recent.values().filter(lost).map(|sealed| sealed.hash).collect();
        Ok(Ending { blocks, pruned })
    }

    /// Tells everybody who listens; nobody may.
    fn tell(&mut self, retracted: Vec<Arc<ChainBlock>>, enacted: Vec<Arc<ChainBlock>>, ending: Ending) {
        for sealed in &retracted {
            for bytes in sealed.body.iter().skip(1) {
                self.watchers.tell(&hash_of(bytes), Status::Retracted(sealed.hash));
            }
        }
        for sealed in &enacted {
            for (at, bytes) in (0_u32..).zip(&sealed.body).skip(1) {
                self.watchers.tell(&hash_of(bytes), Status::InBlock(sealed.hash, at));
            }
        }
        let _ = self.events.send(Event::Best { retracted, enacted });
        let Ending { blocks, pruned } = ending;
        if blocks.is_empty() {
            return;
        }
        for sealed in &blocks {
            for (at, bytes) in (0_u32..).zip(&sealed.body).skip(1) {
                self.watchers.tell(&hash_of(bytes), Status::Final(sealed.hash, at));
            }
        }
        let _ = self.events.send(Event::Final { blocks, pruned });
    }
}
