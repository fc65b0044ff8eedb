//! Types of subtensor's storage and runtime APIs, in the encoding and with the names of the real ones.

use codec::{Compact, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use sp_runtime::AccountId32;

macro_rules! on_chain {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* })*) => {
        $($(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, codec::Encode, codec::Decode, codec::DecodeWithMemTracking, scale_info::TypeInfo)]
        #[allow(missing_docs)]
        $vis struct $name { $($fields)* })*
    };
}
pub(super) use on_chain;

on_chain! {
    /// Where a member is reached.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct AxonInfo {
        pub block: u64, pub version: u32, pub ip: u128, pub port: u16, pub ip_type: u8, pub protocol: u8,
        pub placeholder1: u8, pub placeholder2: u8,
    }

    /// Where a member's metrics are: nobody says it here.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct PrometheusInfo { pub block: u64, pub version: u32, pub ip: u128, pub port: u16, pub ip_type: u8, }

    /// What an owner says of itself.
    pub struct ChainIdentityV2 {
        pub name: Vec<u8>, pub url: Vec<u8>, pub github_repo: Vec<u8>, pub image: Vec<u8>, pub discord: Vec<u8>,
        pub description: Vec<u8>, pub additional: Vec<u8>,
    }

    /// What a subnet says of itself.
    pub struct SubnetIdentityV3 {
        pub subnet_name: Vec<u8>, pub github_repo: Vec<u8>, pub subnet_contact: Vec<u8>, pub subnet_url: Vec<u8>,
        pub discord: Vec<u8>, pub description: Vec<u8>, pub logo_url: Vec<u8>, pub additional: Vec<u8>,
    }

    /// 64 binary places after the point, unsigned.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedU128 { pub bits: u128, }

    /// 64 binary places after the point.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedI128 { pub bits: i128, }

    /// 32 binary places after the point.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedI64 { pub bits: i64, }

    /// What trading would give: one for one here.
    #[derive(Copy, Default)]
    pub struct SimSwapResult { pub tao_amount: u64, pub alpha_amount: u64, pub tao_fee: u64, pub alpha_fee: u64, }

    /// What a subnet's owner has set.
    pub struct SubnetHyperparamsV2 {
        pub rho: Compact<u16>, pub kappa: Compact<u16>, pub immunity_period: Compact<u16>,
        pub min_allowed_weights: Compact<u16>, pub max_weights_limit: Compact<u16>, pub tempo: Compact<u16>,
        pub min_difficulty: Compact<u64>, pub max_difficulty: Compact<u64>, pub weights_version: Compact<u64>,
        pub weights_rate_limit: Compact<u64>, pub adjustment_interval: Compact<u16>, pub activity_cutoff: Compact<u16>,
        pub registration_allowed: bool, pub target_regs_per_interval: Compact<u16>, pub min_burn: Compact<u64>,
        pub max_burn: Compact<u64>, pub bonds_moving_avg: Compact<u64>, pub max_regs_per_block: Compact<u16>,
        pub serving_rate_limit: Compact<u64>, pub max_validators: Compact<u16>, pub adjustment_alpha: Compact<u64>,
        pub difficulty: Compact<u64>, pub commit_reveal_period: Compact<u64>, pub commit_reveal_weights_enabled: bool,
        pub alpha_high: Compact<u16>, pub alpha_low: Compact<u16>, pub liquid_alpha_enabled: bool,
        pub alpha_sigmoid_steepness: FixedI64, pub yuma_version: Compact<u16>, pub subnet_is_active: bool,
        pub transfers_enabled: bool, pub bonds_reset_enabled: bool, pub user_liquidity_enabled: bool,
    }
}

/// How an epoch weighs its validators' rows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum EpochConsensus {
    /// By stake, over all permitted validators.
    #[default]
    Yuma,
    /// The one permitted validator's row.
    Null,
}

/// A subnet that is there from the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenesisSubnet {
    /// Its number.
    pub netuid: u16,
    /// Whose it is: a coldkey.
    pub owner: AccountId32,
    /// Blocks of an epoch, less one where epochs are counted by block number.
    pub tempo: u16,
    /// Members at most.
    pub max_uids: u16,
    /// Validators at most.
    pub max_validators: u16,
    /// Blocks during which a newcomer is not pruned.
    pub immunity: u16,
    /// Entries that a row of weights must have.
    pub min_weights: u16,
    /// Blocks between two rows of a validator.
    pub weights_rate_limit: u64,
    /// Blocks between two axons of a member.
    pub serving_rate_limit: u64,
    /// Lowest version key of a row.
    pub version_key: u64,
    /// Whether rows are hidden first.
    pub commit_reveal: bool,
    /// Epochs from a commit to its opening.
    pub reveal_period: u64,
    /// Rao of a registration at first; it stays within the two that follow.
    pub burn: u64,
    /// Its floor.
    pub burn_min: u64,
    /// Its ceiling.
    pub burn_max: u64,
    /// Registrations of one block.
    pub registrations_max: u16,
    /// Members from the beginning.
    pub members: Vec<GenesisMember>,
}

impl Default for GenesisSubnet {
    fn default() -> Self {
        Self {
            netuid: 1,
            owner: AccountId32::new([0; 32]),
            tempo: 360,
            max_uids: 256,
            max_validators: 64,
            immunity: 4_096,
            min_weights: 1,
            weights_rate_limit: 100,
            serving_rate_limit: 50,
            version_key: 0,
            commit_reveal: true,
            reveal_period: 1,
            burn: 500_000,
            burn_min: 500_000,
            burn_max: 100_000_000_000,
            registrations_max: 256,
            members: Vec::new(),
        }
    }
}

/// A member that is there from the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisMember {
    /// Signs for it.
    pub hotkey: AccountId32,
    /// Owns it.
    pub coldkey: AccountId32,
    /// Rao of alpha; whoever has some, within the subnet's number of validators, has a permit at once.
    pub stake: u64,
}
