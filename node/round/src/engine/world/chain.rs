//! The world's chain: slots, finality that lags, states that are forgotten; and the seeded randomness of it all.

use covey_proto::chain::{ChainView, Member, Slot};
use covey_proto::random::SplitMix64;
use covey_proto::record::Record;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Digest, Hotkey, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks that finality is behind.
const LAG: u32 = 2;
/// Final blocks of which the chain still has the state.
const STATES_KEPT: u32 = 256;

/// A run with the devnet's clock.
pub(in crate::engine) fn devnet() -> Run {
    let mut run = Run::from_toml(include_str!("../../test_run.toml")).unwrap();
    let clock = &mut run.clock;
    (clock.length, clock.anchor, clock.commit, clock.vote) = (24, 2, 14, 20);
    (clock.commit_margin, clock.announce_margin, clock.vote_margin) = (1, 3, 2);
    let electorate = &mut run.electorate;
    (electorate.window, electorate.contributions_max, electorate.contributions_min) = (2, 8, 1);
    (electorate.stake_min, electorate.electorate_min, electorate.checkpoint) = (1, 1, 4);
    run.chain.start = 10;
    run.checked().unwrap()
}

/// What is left to chance in a world, from its seed.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Rng(SplitMix64);

impl Rng {
    pub(in crate::engine) fn new(seed: u64) -> Rng {
        Rng(SplitMix64::seeded(seed))
    }
    pub(in crate::engine) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }
    /// True once in `times`; never if that is 0.
    pub(in crate::engine) fn once_in(&mut self, times: usize) -> bool {
        times > 0 && self.below(times) == 0
    }
}

/// The chain, as far as engines see it.
pub(super) struct Chain {
    pub(super) best: u32,
    pub(super) members: BTreeMap<Uid, Member>,
    /// What the next block takes.
    pub(super) pool: Vec<(Hotkey, Record)>,
    /// By block, as long as they are kept.
    pub(super) views: BTreeMap<u32, Arc<ChainView>>,
    slots: BTreeMap<Hotkey, Slot>,
    seed: u64,
}

impl Chain {
    pub(super) fn new(seed: u64) -> Chain {
        Chain {
            best: 0,
            members: BTreeMap::new(),
            pool: Vec::new(),
            views: BTreeMap::new(),
            slots: BTreeMap::new(),
            seed,
        }
    }

    pub(super) fn finalised(&self) -> u32 {
        self.best.saturating_sub(LAG)
    }

    pub(super) fn produce(&mut self) {
        self.best += 1;
        let block = BlockNumber(self.best);
        for (hotkey, record) in std::mem::take(&mut self.pool) {
            self.slots.insert(hotkey, Slot { block, bytes: record.to_bytes() });
        }
        self.keep_view();
    }

    pub(super) fn keep_view(&mut self) {
        let block = BlockNumber(self.best);
        let hash = Digest::of(format!("{} {block}", self.seed).as_bytes());
        let view = ChainView { block, hash, members: self.members.clone(), slots: self.slots.clone() };
        self.views.insert(self.best, Arc::new(view));
        let oldest = self.finalised().saturating_sub(STATES_KEPT);
        self.views.retain(|block, _| *block >= oldest);
    }
}
