//! What a devnet is told: its chain, which stays as it began, and how it is run, which may change at each start.

use crate::pallets::subtensor::types::GenesisSubnet;
use serde::{Deserialize, Serialize};
use sp_core::H256;
use sp_runtime::AccountId32;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A devnet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients reach it; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it keeps its blocks; none keeps them in memory.
    pub dir: Option<PathBuf>,
    /// The chain.
    pub chain: ChainSpec,
    /// When blocks are made.
    pub blocks: Blocks,
    /// Blocks between the newest and the newest final one.
    pub finality_lag: u32,
    /// Blocks whose state can be asked for, from the newest back; an ordinary node keeps 256, an archive all.
    pub states_kept: u32,
    /// What a block that was made outlives.
    pub durability: Durability,
    /// Connections at a time; one more is refused.
    pub connections_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: None,
            chain: ChainSpec::default(),
            blocks: Blocks::OnDemand,
            finality_lag: 2,
            states_kept: 256,
            durability: Durability::default(),
            connections_max: 1_024,
        }
    }
}

/// What a block that was made outlives. Either way the chain is whole after `kill -9` at any instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The process: what it wrote is in the system's memory, and reaches the disk when the system pleases. A devnet has
    /// nothing that is worth a sync a block.
    #[default]
    Process,
    /// The machine: each block is synced before anybody hears of it.
    Machine,
}

/// When blocks are made, and what time they say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// When asked for; time is a slot a block.
    OnDemand,
    /// At this interval; time is the machine's.
    Every(Duration),
}

/// A chain: it stays as it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainSpec {
    /// Makes two chains of the same settings two chains; none: drawn when the chain begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<H256>,
    /// Milliseconds between blocks, as clients are told, and by which time goes on demand.
    pub slot_ms: u64,
    /// Milliseconds since 1970 of the genesis, and of the beacon's first round.
    pub genesis_ms: u64,
    /// Whether epochs are counted from the last one (subtensor since 2026) or by block number.
    pub stateful_epochs: bool,
    /// Whether axons may be on loopback.
    pub local_axons: bool,
    /// What the beacon's secret is derived from: no secret.
    pub beacon_seed: String,
    /// Seconds between two rounds of the beacon.
    pub beacon_period_s: u32,
    /// Stake below which nobody sets weights.
    pub stake_threshold: u64,
    /// Bytes of commitments of a hotkey in an epoch.
    pub max_space: u32,
    /// Rao of each account.
    pub accounts: Vec<(AccountId32, u64)>,
    /// Subnets besides root.
    pub subnets: Vec<GenesisSubnet>,
}

impl Default for ChainSpec {
    fn default() -> Self {
        Self {
            nonce: None,
            slot_ms: 12_000,
            genesis_ms: 1_750_000_000_000,
            stateful_epochs: true,
            local_axons: true,
            beacon_seed: "covey devnet".into(),
            beacon_period_s: 3,
            stake_threshold: 0,
            max_space: 3_100,
            accounts: Vec::new(),
            subnets: vec![GenesisSubnet::default()],
        }
    }
}
