//! Types of subtensor's storage and runtime APIs, in the encoding and with the names of the real ones.

use codec::{Compact, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};
use sp_runtime::AccountId32;

macro_rules! on_chain {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* })*) => {
        $($(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, codec::Encode, codec::Decode, codec::DecodeWithMemTracking, scale_info::TypeInfo)]
        $vis struct $name { $($fields)* })*
    };
}
pub(super) use on_chain;

on_chain! {
    /// Where a member is reached.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct AxonInfo {
        /// The block in which it was said.
        pub block: u64,
        /// The version of whoever listens, as it counts itself.
        pub version: u32,
        /// An IPv4 address in the low 32 bits, or an IPv6 address.
        pub ip: u128,
        /// Of TCP or UDP; not 0.
        pub port: u16,
        /// 4 or 6.
        pub ip_type: u8,
        /// As its owner numbers protocols: nobody reads it, and Bittensor's clients say 4.
        pub protocol: u8,
        /// Nothing so far.
        pub placeholder1: u8,
        /// Nothing so far.
        pub placeholder2: u8,
    }

    /// Where a member's metrics are: nobody says it here.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct PrometheusInfo {
        /// The block in which it was said.
        pub block: u64,
        /// The version of whoever listens.
        pub version: u32,
        /// As of an axon.
        pub ip: u128,
        /// Of TCP.
        pub port: u16,
        /// 4 or 6.
        pub ip_type: u8,
    }

    /// What an owner says of itself.
    pub struct ChainIdentityV2 {
        /// UTF-8, as all of these.
        pub name: Vec<u8>,
        /// Of a page.
        pub url: Vec<u8>,
        /// Of the sources.
        pub github_repo: Vec<u8>,
        /// Of a picture.
        pub image: Vec<u8>,
        /// A handle.
        pub discord: Vec<u8>,
        /// In words.
        pub description: Vec<u8>,
        /// Anything else.
        pub additional: Vec<u8>,
    }

    /// What a subnet says of itself.
    pub struct SubnetIdentityV3 {
        /// UTF-8, as all of these.
        pub subnet_name: Vec<u8>,
        /// Of the sources.
        pub github_repo: Vec<u8>,
        /// Of a person.
        pub subnet_contact: Vec<u8>,
        /// Of a page.
        pub subnet_url: Vec<u8>,
        /// A handle.
        pub discord: Vec<u8>,
        /// In words.
        pub description: Vec<u8>,
        /// Of a picture.
        pub logo_url: Vec<u8>,
        /// Anything else.
        pub additional: Vec<u8>,
    }

    /// 64 binary places after the point, unsigned.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedU128 {
        /// The number times 2⁶⁴.
        pub bits: u128,
    }

    /// 64 binary places after the point.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedI128 {
        /// The number times 2⁶⁴.
        pub bits: i128,
    }

    /// 32 binary places after the point.
    #[derive(Copy, Default, MaxEncodedLen)]
    pub struct FixedI64 {
        /// The number times 2³².
        pub bits: i64,
    }

    /// What trading would give: one for one here.
    #[derive(Copy, Default)]
    pub struct SimSwapResult {
        /// Rao of TAO that go in or come out.
        pub tao_amount: u64,
        /// Rao of alpha that come out or go in.
        pub alpha_amount: u64,
        /// Rao of TAO kept: none.
        pub tao_fee: u64,
        /// Rao of alpha kept: none.
        pub alpha_fee: u64,
    }

    /// What a subnet's owner has set.
    pub struct SubnetHyperparamsV2 {
        /// Steepness of the trust curve.
        pub rho: Compact<u16>,
        /// Share of stake that a consensus needs, of 65,535.
        pub kappa: Compact<u16>,
        /// Blocks during which a newcomer keeps its uid.
        pub immunity_period: Compact<u16>,
        /// Entries that a row of weights must have.
        pub min_allowed_weights: Compact<u16>,
        /// The most that an entry may be, of 65,535.
        pub max_weights_limit: Compact<u16>,
        /// Blocks of an epoch.
        pub tempo: Compact<u16>,
        /// Of registering by work, which nobody does here.
        pub min_difficulty: Compact<u64>,
        /// Likewise.
        pub max_difficulty: Compact<u64>,
        /// The lowest version key of a row.
        pub weights_version: Compact<u64>,
        /// Blocks between two rows of a validator.
        pub weights_rate_limit: Compact<u64>,
        /// Blocks after which prices are set anew.
        pub adjustment_interval: Compact<u16>,
        /// Blocks after which a silent member counts as inactive.
        pub activity_cutoff: Compact<u16>,
        /// Whether newcomers are taken.
        pub registration_allowed: bool,
        /// Registrations of an interval at which the price stays.
        pub target_regs_per_interval: Compact<u16>,
        /// Rao below which the price does not fall.
        pub min_burn: Compact<u64>,
        /// Rao above which it does not rise.
        pub max_burn: Compact<u64>,
        /// Weight of the old in bonds, of a million; there are no bonds here.
        pub bonds_moving_avg: Compact<u64>,
        /// Registrations that a block takes.
        pub max_regs_per_block: Compact<u16>,
        /// Blocks between two axons of a member.
        pub serving_rate_limit: Compact<u64>,
        /// Members that may have a permit.
        pub max_validators: Compact<u16>,
        /// Weight of the old in prices, of 2⁶⁴.
        pub adjustment_alpha: Compact<u64>,
        /// Of registering by work.
        pub difficulty: Compact<u64>,
        /// Epochs from the commit of a row to its opening.
        pub commit_reveal_period: Compact<u64>,
        /// Whether rows are hidden first.
        pub commit_reveal_weights_enabled: bool,
        /// Upper bound of liquid alpha, of 65,535.
        pub alpha_high: Compact<u16>,
        /// Lower bound of liquid alpha, of 65,535.
        pub alpha_low: Compact<u16>,
        /// Whether bonds follow the consensus at a speed of their own; never here.
        pub liquid_alpha_enabled: bool,
        /// Of liquid alpha.
        pub alpha_sigmoid_steepness: FixedI64,
        /// Which consensus: 2.
        pub yuma_version: Compact<u16>,
        /// Whether its alpha can be traded.
        pub subnet_is_active: bool,
        /// Whether stake may be given to others.
        pub transfers_enabled: bool,
        /// Whether a commitment may reset bonds; never here.
        pub bonds_reset_enabled: bool,
        /// Whether others may trade in its pool; there is none here.
        pub user_liquidity_enabled: bool,
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
