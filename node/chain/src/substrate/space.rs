//! The space that a chain leaves for commitments in an epoch, and whether a run's rounds fit into it.

use covey_round::engine::Roles;
use subxt::ext::scale_decode::DecodeAsType;

/// `Commitments.UsedSpaceOf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct Used {
    /// The epoch that is counted.
    pub(super) last_epoch: u64,
    /// Bytes used in it.
    pub(super) used_space: u64,
}

/// What a hotkey may still commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that a hotkey may commit in an epoch.
    pub max: u64,
    /// Bytes that this one has committed in the epoch of its last commitment; the count begins anew with the next epoch.
    pub used: u64,
    /// Blocks of an epoch.
    pub epoch: u64,
}

/// Bytes that a commitment costs at least, whatever its length.
const SPACE_MIN: u64 = 100;

/// Bytes of a record with a contribution, with a vote, with both.
const RECORDS: [u64; 3] = [46, 78, 114];

/// What a run's commitments of an epoch cost a hotkey, and what the chain allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rounds} rounds of {length} blocks may begin in an epoch of {epoch} blocks; at {round} bytes a round they cost \
     {cost} bytes of commitments, and the chain allows a hotkey {space}: rounds of {needed} blocks or more would fit"
)]
pub struct TooMuchSpace {
    rounds: u64,
    length: u64,
    epoch: u64,
    round: u64,
    cost: u64,
    space: u64,
    needed: u64,
}

/// Checks that a hotkey's commitments of an epoch fit: `⌈epoch ÷ L⌉ · Σ max(100, bytes) ≤ MaxSpace`.
///
/// `length` is the run's blocks a round, `epoch` the subnet's blocks an epoch, `space` the chain's `MaxSpace`. A node
/// commits a contribution a round if it mines and a vote if it validates; with both roles the contribution repeats the
/// last vote.
///
/// # Errors
/// They do not fit, with the sum.
pub fn check_space(length: u32, roles: Roles, epoch: u64, space: u64) -> Result<(), TooMuchSpace> {
    let length = u64::from(length.max(1));
    let [contribution, vote, both] = RECORDS.map(|bytes| bytes.max(SPACE_MIN));
    let round = match (roles.miner, roles.validator) {
        (false, false) => return Ok(()),
        (true, false) => contribution,
        (false, true) => vote,
        (true, true) => both + vote,
    };
    let cost = |length: u64| epoch.div_ceil(length).saturating_mul(round);
    if cost(length) <= space {
        return Ok(());
    }
    let rounds_max = space.checked_div(round).unwrap_or(u64::MAX).max(1);
    let needed = epoch.div_ceil(rounds_max);
    Err(TooMuchSpace { rounds: epoch.div_ceil(length), length, epoch, round, cost: cost(length), space, needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of docs/protocol.md: four rounds an epoch on Bittensor.
    #[test]
    fn a_runs_commitments_fit_the_space_of_an_epoch_or_are_refused_with_the_sum() {
        let of = |miner, validator| Roles { miner, validator };
        assert_eq!(check_space(115, of(true, false), 361, 3_100), Ok(()));
        assert_eq!(check_space(115, of(false, true), 361, 3_100), Ok(()));
        assert_eq!(check_space(115, of(true, true), 361, 3_100), Ok(()));
        let refused = check_space(24, of(true, true), 361, 3_100).unwrap_err();
        assert_eq!((refused.rounds, refused.round, refused.cost), (16, 214, 3_424));
        assert_eq!(check_space(refused.needed as u32, of(true, true), 361, 3_100), Ok(()), "{refused}");
        assert!(check_space(refused.needed as u32 - 1, of(true, true), 361, 3_100).is_err(), "{refused}");
        assert_eq!(check_space(24, of(true, false), 361, 3_100), Ok(()), "a devnet's miner, or its validator");
        assert!(check_space(1, of(true, true), 361, 0).is_err());
    }
}
