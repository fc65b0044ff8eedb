//! A chain to try things on: accounts whose keys everybody knows, and two subnets.

use crate::config::ChainSpec;
use crate::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use sp_core::{Pair, sr25519};
use sp_runtime::AccountId32;

/// Rao of each well-known coldkey: a million TAO.
pub const FUNDS: u64 = 1_000_000_000_000_000;
/// Whose coldkey has funds: `//NAME`. The hotkey of the first three is `//NAME//hotkey`.
pub const NAMES: [&str; 6] = ["Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie"];
/// The well-known chain's subnet whose weights are hidden until a later epoch.
pub const HIDDEN: u16 = 1;
/// The one whose weights are open at once.
pub const OPEN: u16 = 2;

/// The account of a path like `//Alice` under Substrate's development phrase; zeros for text that is no path.
pub fn account(path: &str) -> AccountId32 {
    sr25519::Pair::from_string(path, None).map_or(AccountId32::new([0; 32]), |pair| AccountId32::new(pair.public().0))
}

impl ChainSpec {
    /// The well-known chain: six coldkeys with [`FUNDS`], and two subnets of three members. Alice and Bob have stake
    /// and a permit, Charlie has neither.
    pub fn well_known() -> ChainSpec {
        let member = |name: &str, stake| GenesisMember {
            hotkey: account(&format!("//{name}//hotkey")),
            coldkey: account(&format!("//{name}")),
            stake,
        };
        let subnet = |netuid, commit_reveal| GenesisSubnet {
            netuid,
            owner: account("//Alice"),
            tempo: 10,
            weights_rate_limit: 5,
            commit_reveal,
            members: vec![member("Alice", FUNDS / 1_000), member("Bob", FUNDS / 2_000), member("Charlie", 0)],
            ..GenesisSubnet::default()
        };
        ChainSpec {
            accounts: NAMES.map(|name| (account(&format!("//{name}")), FUNDS)).to_vec(),
            subnets: vec![subnet(HIDDEN, true), subnet(OPEN, false)],
            ..ChainSpec::default()
        }
    }
}
