//! A round in blocks: which block is whose deadline, and which round a block belongs to.
//!
//! Start `S = r0 + r·L`, anchor `A = S − a`, commit deadline `C = S + c`, vote deadline `V = S + v`. Whether a block is
//! final, and what stands in it, is for others to say: here are only numbers, and the [`beacon`] that a block gives.

use covey_proto::run::{Beacon, Run};
use covey_proto::{BlockNumber, Digest, Round, RunId, derive};

/// The blocks of one round. Everybody acts when such a block is final and reads the state at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundBlocks {
    /// The round.
    pub round: Round,
    /// S: the round's first block.
    pub start: BlockNumber,
    /// A: members, stake and the seed of the data come from here.
    pub anchor: BlockNumber,
    /// C: what stands in a slot here is offered.
    pub commit: BlockNumber,
    /// V: what stands in a slot here is the vote.
    pub vote: BlockNumber,
    /// S of the next round.
    pub next_start: BlockNumber,
    /// C − commit_margin: the latest block at which a miner still submits its commitment.
    pub submit_latest: BlockNumber,
    /// V − announce_margin: the last block for an announcement; what comes later gets no vote.
    pub announce_latest: BlockNumber,
    /// V − vote_margin: the block at which a validator submits its vote.
    pub vote_submit: BlockNumber,
}

/// A round whose blocks cannot be numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("round {round} has blocks outside 0 to {max}: the run starts at {start} and a round is {length} blocks", max = u32::MAX)]
pub struct BeyondBlocks {
    /// The round.
    pub round: Round,
    /// r0.
    pub start: u32,
    /// L.
    pub length: u32,
}

impl RoundBlocks {
    /// The blocks of `round`.
    ///
    /// # Errors
    /// A round of which some block lies outside u32: the chain does not live that long.
    pub fn of(run: &Run, round: Round) -> Result<RoundBlocks, BeyondBlocks> {
        Self::checked(run, round).ok_or(BeyondBlocks { round, start: run.chain.start, length: run.clock.length })
    }

    fn checked(run: &Run, round: Round) -> Option<RoundBlocks> {
        let clock = &run.clock;
        let start = round.0.checked_mul(clock.length)?.checked_add(run.chain.start)?;
        let (commit, vote) = (start.checked_add(clock.commit)?, start.checked_add(clock.vote)?);
        Some(RoundBlocks {
            round,
            start: BlockNumber(start),
            anchor: BlockNumber(start.checked_sub(clock.anchor)?),
            commit: BlockNumber(commit),
            vote: BlockNumber(vote),
            next_start: BlockNumber(start.checked_add(clock.length)?),
            submit_latest: BlockNumber(commit.checked_sub(clock.commit_margin)?),
            announce_latest: BlockNumber(vote.checked_sub(clock.announce_margin)?),
            vote_submit: BlockNumber(vote.checked_sub(clock.vote_margin)?),
        })
    }
}

/// The last round whose anchor A is at or before `block`: its members, stake and data are known once `block` is final.
pub fn last_anchored(run: &Run, block: BlockNumber) -> Option<Round> {
    // A = S − a: as far behind as the block that is a later.
    last(run, u64::from(block.0) + u64::from(run.clock.anchor), 0)
}

/// The last round whose commit deadline C is at or before `block`.
pub fn last_committed(run: &Run, block: BlockNumber) -> Option<Round> {
    last(run, block.0.into(), run.clock.commit)
}

/// The last round whose vote deadline V is at or before `block`: its selection is decided once `block` is final.
pub fn last_decided(run: &Run, block: BlockNumber) -> Option<Round> {
    last(run, block.0.into(), run.clock.vote)
}

/// The last round r with `r0 + r·L + offset ≤ block`.
fn last(run: &Run, block: u64, offset: u32) -> Option<Round> {
    let since = block.checked_sub(u64::from(run.chain.start) + u64::from(offset))?;
    let round = since.checked_div(run.clock.length.into())?;
    u32::try_from(round).ok().map(Round)
}

/// The randomness of a block: its hash, or in a run with [`Beacon::Seed`] what the run id and the block's number give,
/// `derive("covey/1/beacon", run id ‖ number u32 LE)`, so that one seed gives one history.
pub fn beacon(run: &Run, run_id: RunId, block: BlockNumber, hash: Digest) -> Digest {
    match run.clock.beacon {
        Beacon::Chain => hash,
        Beacon::Seed => derive_digest("covey/1/beacon", &[run_id.0.as_bytes(), &block.0.to_le_bytes()]),
    }
}

/// The first 32 bytes of [`derive()`].
pub(crate) fn derive_digest(context: &str, parts: &[&[u8]]) -> Digest {
    let mut bytes = [0; 32];
    derive(context, parts).fill(&mut bytes);
    Digest::new(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A run with Bittensor's clock and a toy model.
    pub(crate) fn bittensor() -> Run {
        Run::from_toml(include_str!("test_run.toml")).unwrap()
    }

    #[test]
    fn a_round_on_bittensor_has_the_documented_blocks() {
        let run = bittensor();
        let blocks = RoundBlocks::of(&run, Round(2)).unwrap();
        let start = 1000 + 2 * 115;
        assert_eq!(
            blocks,
            RoundBlocks {
                round: Round(2),
                start: BlockNumber(start),
                anchor: BlockNumber(start - 5),
                commit: BlockNumber(start + 92),
                vote: BlockNumber(start + 108),
                next_start: BlockNumber(start + 115),
                submit_latest: BlockNumber(start + 88),
                announce_latest: BlockNumber(start + 100),
                vote_submit: BlockNumber(start + 105),
            }
        );
    }

    #[test]
    fn a_round_past_the_last_block_is_an_error_that_names_it() {
        let fault = RoundBlocks::of(&bittensor(), Round(u32::MAX / 115)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "round 37347541 has blocks outside 0 to 4294967295: the run starts at 1000 and a round is 115 blocks"
        );
    }

    #[test]
    fn before_the_first_anchor_there_is_no_round() {
        let run = bittensor();
        assert_eq!(last_anchored(&run, BlockNumber(994)), None);
        assert_eq!(last_anchored(&run, BlockNumber(995)), Some(Round(0)));
        assert_eq!(last_decided(&run, BlockNumber(1107)), None);
        assert_eq!(last_decided(&run, BlockNumber(1108)), Some(Round(0)));
    }

    #[test]
    fn a_seeded_beacon_forgets_the_hash_and_a_chain_beacon_is_the_hash() {
        let mut run = bittensor();
        let (id, hash) = (run.id(), Digest::of(b"hash"));
        assert_eq!(beacon(&run, id, BlockNumber(7), hash), hash);
        run.clock.beacon = Beacon::Seed;
        let seeded = beacon(&run, id, BlockNumber(7), hash);
        assert_eq!(seeded, beacon(&run, id, BlockNumber(7), Digest::ZERO));
        assert_ne!(seeded, beacon(&run, id, BlockNumber(8), hash));
        // Computed by a second implementation.
        let pinned = beacon(&run, RunId(Digest::of(b"run")), BlockNumber(9), hash);
        assert_eq!(pinned.to_string(), "d67296efabc1d114444026226dd0073cdafe79288ca56e9e57c23b73c03535b8");
    }

    proptest! {
        #[test]
        fn the_inverse_questions_agree_with_the_rounds_blocks(round in 0u32..30_000_000) {
            let run = bittensor();
            let round = Round(round);
            let blocks = RoundBlocks::of(&run, round).unwrap();
            type Inverse = fn(&Run, BlockNumber) -> Option<Round>;
            let questions: [(BlockNumber, Inverse); 3] =
                [(blocks.anchor, last_anchored), (blocks.commit, last_committed), (blocks.vote, last_decided)];
            for (block, inverse) in questions {
                prop_assert_eq!(inverse(&run, block), Some(round));
                prop_assert_eq!(inverse(&run, BlockNumber(block.0 - 1)), round.previous());
            }
        }

        #[test]
        fn no_block_and_no_round_panics(block: u32, round: u32) {
            let run = bittensor();
            for question in [last_anchored, last_committed, last_decided] {
                let _ = question(&run, BlockNumber(block));
            }
            let _ = RoundBlocks::of(&run, Round(round));
        }
    }
}
