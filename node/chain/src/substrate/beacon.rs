//! The beacon that weights are locked to: when which round appears, and which one to lock to. Its key is read from the
//! chain, which opens what was locked.

use subxt::ext::scale_decode::DecodeAsType;

/// `Drand.BeaconConfig`, as far as it matters. On Bittensor it is drand's quicknet; a devnet has a beacon of its own.
#[derive(Clone, Debug, PartialEq, Eq, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct Stored {
    /// A point of G2, compressed: 96 bytes.
    pub(super) public_key: Vec<u8>,
    /// Seconds between two rounds.
    pub(super) period: u32,
    /// Seconds since 1970 of round 1.
    pub(super) genesis_time: u32,
}

/// Seconds between a round's appearance and the block from which on a chain surely has it: validators of Bittensor carry
/// rounds into it, and its own clients allow for 24 rounds of 3 s.
const DELAY_S: u64 = 72;

/// When something is to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// The chain's clock, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// Milliseconds of a block.
    pub(super) slot_ms: u64,
    /// Blocks until the chain opens it.
    pub(super) blocks: u64,
    /// The newest round that the chain has.
    pub(super) newest: u64,
}

impl Stored {
    /// The newest round at a second.
    fn round_at(&self, second: u64) -> u64 {
        let since = second.saturating_sub(self.genesis_time.into());
        (since / u64::from(self.period.max(1))).saturating_add(1)
    }

    /// The round to lock to: the last one that the chain surely has when it opens, and none that it has already. None if
    /// there is no such round, because the beacon is slower than the subnet's epochs.
    pub(super) fn round_for(&self, opening: Opening) -> Option<u64> {
        let Opening { now_ms, slot_ms, blocks, newest } = opening;
        let left_s = blocks.saturating_mul(slot_ms) / 1_000;
        let opens = (now_ms / 1_000).saturating_add(left_s);
        // Where epochs are shorter than that delay, the beacon is a devnet's, whose rounds come with the blocks.
        let delay = DELAY_S.min(left_s / 3);
        let hidden = |round: &u64| *round > newest;
        let safe = Some(self.round_at(opens.saturating_sub(delay))).filter(hidden);
        safe.or_else(|| Some(self.round_at(opens)).filter(hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quicknet() -> Stored {
        Stored { public_key: Vec::new(), period: 3, genesis_time: 1_692_803_367 }
    }

    #[test]
    fn rounds_appear_when_drand_says() {
        assert_eq!(quicknet().round_at(1_692_803_367), 1);
        assert_eq!(quicknet().round_at(1_692_803_369), 1);
        assert_eq!(quicknet().round_at(1_692_803_370), 2);
        assert_eq!(quicknet().round_at(0), 1);
    }

    #[test]
    fn weights_open_when_the_chain_surely_has_the_round_and_not_before() {
        let now = 1_750_000_000;
        let newest = quicknet().round_at(now);
        let opening = |blocks, slot_ms| Opening { now_ms: now * 1_000, slot_ms, blocks, newest };
        // An epoch of Bittensor: 361 blocks of 12 s are 1,444 rounds, less the 24 of the delay.
        assert_eq!(quicknet().round_for(opening(361, 12_000)), Some(newest + 1_444 - 24));
        // A devnet of half-second blocks: 20 blocks are 3 rounds and a third.
        let short = quicknet().round_for(opening(20, 500)).unwrap();
        assert!(short > newest && short <= newest + 3, "{short} after {newest}");
        assert_eq!(quicknet().round_for(opening(3, 500)), None, "a second: no round comes in between");
        assert_eq!(quicknet().round_for(opening(u64::MAX, u64::MAX)).map(|round| round > newest), Some(true));
    }
}
