//! `SubtensorModule`: subnets, their members, stake, weights and epochs.
//!
//! The pallet itself is a table of storage, calls, events and errors under subtensor's names; what the calls do is in
//! the files beside it. Left out: everything that neither Covey nor the clients it is tested with touch (children,
//! takes, swaps, leases, pools: alpha and TAO trade one for one).

mod epoch;
pub mod info;
mod register;
mod stake;
mod storage;
pub mod types;
mod weights;

pub use epoch::Schedule;
pub use pallet::*;
pub use weights::{Preview, WeightsPayload};

use frame_support::pallet_macros::import_section;

/// Rao of an alpha, always.
pub const ALPHA_PRICE: u64 = 1_000_000_000;

/// Subnets a storage index has room for: index = mechanism · 4096 + netuid.
pub const SUBNETS_MAX: u16 = 4_096;

// Docs of events and errors (`///`) become part of the metadata: see `storage`.
#[import_section(storage::entries)]
#[frame_support::pallet(dev_mode)]
#[allow(missing_docs, clippy::too_many_arguments)]
pub mod pallet {
    use super::ALPHA_PRICE;
    use super::types::{AxonInfo, EpochConsensus, FixedU128, GenesisSubnet};
    use crate::pallets::{drand, settings};
    use frame_support::dispatch::{DispatchClass, Pays};
    use frame_support::pallet_prelude::*;
    use frame_support::traits::{ConstBool, ConstU8, ConstU16, ConstU64};
    use frame_system::pallet_prelude::*;
    use sp_core::H256;
    use sp_runtime::AccountId32;
    use std::collections::VecDeque;

    /// A hidden commit: who, at which block, what, opened by which round.
    pub type Timelocked = (AccountId32, u64, BoundedVec<u8, ConstU32<5_000>>, u64);

    /// What the runtime must have besides: accounts, balances in rao, a devnet's settings and its beacon.
    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId32>
        + pallet_balances::Config<Balance = u64>
        + settings::Config
        + drand::Config
    {
    }

    /// Subnets, their members, stake, weights and epochs.
    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    /// Nobody: an absent owner reads as zeros.
    pub struct NoOne;

    impl Get<AccountId32> for NoOne {
        fn get() -> AccountId32 {
            AccountId32::new([0; 32])
        }
    }

    /// A subnet's symbol where none was given.
    pub struct DefaultSymbol;

    impl Get<Vec<u8>> for DefaultSymbol {
        fn get() -> Vec<u8> {
            "α".as_bytes().to_vec()
        }
    }

    #[cfg_attr(doc, doc = "What happened, for whoever follows the chain.")]
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        // Netuid, mechanisms.
        NetworkAdded(u16, u16),
        // Coldkey, hotkey, rao of TAO, rao of alpha, netuid, fee in rao; the next likewise.
        StakeAdded(AccountId32, AccountId32, u64, u64, u16, u64),
        StakeRemoved(AccountId32, AccountId32, u64, u64, u16, u64),
        // Storage index, the validator's uid.
        WeightsSet(u16, u16),
        // Netuid, uid, hotkey.
        NeuronRegistered(u16, u16, AccountId32),
        // Netuid, hotkey.
        AxonServed(u16, AccountId32),
        // Hotkey, storage index, hash of the row; the next likewise.
        WeightsCommitted(AccountId32, u16, H256),
        WeightsRevealed(AccountId32, u16, H256),
        // Hotkey, storage index, hash of the commit, the beacon's round that opens it.
        TimelockedWeightsCommitted(AccountId32, u16, H256, u64),
        // Storage index, hotkey.
        TimelockedWeightsRevealed(u16, AccountId32),
        // Rao of alpha by uid.
        IncentiveAlphaEmittedToMiners { netuid: u16, emissions: Vec<u64> },
    }

    #[cfg_attr(doc, doc = "Why a call changed nothing.")]
    #[pallet::error]
    pub enum Error<T> {
        /// The ip type is neither 4 nor 6.
        InvalidIpType,
        /// An invalid IP address is passed to the serve function.
        InvalidIpAddress,
        /// An invalid port is passed to the serve function.
        InvalidPort,
        /// The hotkey is not registered in subnet.
        HotKeyNotRegisteredInSubNet,
        /// The hotkey does not exist.
        HotKeyAccountNotExists,
        /// The hotkey is not registered in any subnet.
        HotKeyNotRegisteredInNetwork,
        /// Request to stake or register by a coldkey that is not associated with the hotkey account.
        NonAssociatedColdKey,
        /// Stake amount to withdraw is larger than what is there.
        NotEnoughStakeToWithdraw,
        /// The stake is under the threshold for setting weights.
        NotEnoughStakeToSetWeights,
        /// The caller has not the free balance that is asked for.
        NotEnoughBalanceToStake,
        /// The caller is no permitted validator.
        NeuronNoValidatorPermit,
        /// Keys and values are of different length.
        WeightVecNotEqualSize,
        /// A uid occurs twice.
        DuplicateUids,
        /// A uid is not in the metagraph.
        UidVecContainInvalidOne,
        /// There are fewer weights than the subnet asks for.
        WeightVecLengthIsLow,
        /// The block has taken all registrations that it may.
        TooManyRegistrationsThisBlock,
        /// The hotkey is already registered in this subnet.
        HotKeyAlreadyRegisteredInSubNet,
        /// A weight is above the subnet's limit.
        MaxWeightExceeded,
        /// Weights were set less than the rate limit ago.
        SettingWeightsTooFast,
        /// The version key is below the subnet's.
        IncorrectWeightVersionKey,
        /// An axon was served less than the rate limit ago.
        ServingRateLimitExceeded,
        /// There are more uids than members.
        UidsLengthExceedUidsInSubNet,
        /// The subnet takes no registrations.
        SubNetRegistrationDisabled,
        /// Nobody registers on root this way.
        RegistrationNotPermittedOnRootSubnet,
        /// All members are immune.
        NoNeuronIdAvailable,
        /// There is no commit to reveal.
        NoWeightsCommitFound,
        /// What is revealed was not committed.
        InvalidRevealCommitHashNotMatch,
        /// Weights must be committed on this subnet.
        CommitRevealEnabled,
        /// Weights are not committed on this subnet.
        CommitRevealDisabled,
        /// There is no such mechanism.
        MechanismDoesNotExist,
        /// There is no such subnet.
        SubnetNotExists,
        /// More than ten commits are not revealed.
        TooManyUnrevealedCommits,
        /// The epoch in which to reveal is over.
        ExpiredWeightCommit,
        /// The epoch in which to reveal has not begun.
        RevealTooEarly,
        /// Weights were committed less than the rate limit ago.
        CommittingWeightsTooFast,
        /// The amount is zero.
        AmountTooLow,
        /// The price is worse than the limit that the caller gave.
        SlippageTooHigh,
        /// The commit is of another version.
        IncorrectCommitRevealVersion,
        /// The price is above the limit that the caller gave.
        RegistrationPriceLimitExceeded,
    }

    /// What is there from the beginning.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Subnets besides root, with their members.
        pub subnets: Vec<GenesisSubnet>,
        /// Rao of stake below which a hotkey may not set weights.
        pub stake_threshold: u64,
        #[serde(skip)]
        /// Nothing: ties the settings to a runtime.
        pub _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            StakeThreshold::<T>::put(self.stake_threshold);
            for subnet in &self.subnets {
                Pallet::<T>::found(subnet);
            }
        }
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_: BlockNumberFor<T>) -> Weight {
            Self::block_step();
            Weight::zero()
        }
    }

    const FREE: (Weight, DispatchClass, Pays) = (Weight::from_parts(10_000_000, 0), DispatchClass::Normal, Pays::No);
    const PAID: (Weight, DispatchClass, Pays) = (Weight::from_parts(50_000_000, 0), DispatchClass::Normal, Pays::Yes);

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Sets weights in the open.
        #[pallet::call_index(0)]
        #[pallet::weight(FREE)]
        pub fn set_weights(
            origin: OriginFor<T>,
            netuid: u16,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_set_weights(&who, netuid, 0, &dests, &weights, version_key)
        }

        /// Sets a mechanism's weights in the open.
        #[pallet::call_index(119)]
        #[pallet::weight(FREE)]
        pub fn set_mechanism_weights(
            origin: OriginFor<T>,
            netuid: u16,
            mecid: u8,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_set_weights(&who, netuid, mecid, &dests, &weights, version_key)
        }

        /// Commits to weights by their hash.
        #[pallet::call_index(96)]
        #[pallet::weight(FREE)]
        pub fn commit_weights(origin: OriginFor<T>, netuid: u16, commit_hash: H256) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_commit(&who, netuid, 0, commit_hash)
        }

        /// Commits to a mechanism's weights by their hash.
        #[pallet::call_index(115)]
        #[pallet::weight(FREE)]
        pub fn commit_mechanism_weights(
            origin: OriginFor<T>,
            netuid: u16,
            mecid: u8,
            commit_hash: H256,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_commit(&who, netuid, mecid, commit_hash)
        }

        /// Reveals weights whose hash was committed.
        #[pallet::call_index(97)]
        #[pallet::weight(FREE)]
        pub fn reveal_weights(
            origin: OriginFor<T>,
            netuid: u16,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_reveal(&who, netuid, 0, (uids, values, salt, version_key))
        }

        /// Reveals a mechanism's weights whose hash was committed.
        #[pallet::call_index(116)]
        #[pallet::weight(FREE)]
        pub fn reveal_mechanism_weights(
            origin: OriginFor<T>,
            netuid: u16,
            mecid: u8,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_reveal(&who, netuid, mecid, (uids, values, salt, version_key))
        }

        /// Commits to weights that the chain opens itself at a round of the beacon.
        #[pallet::call_index(113)]
        #[pallet::weight(FREE)]
        pub fn commit_timelocked_weights(
            origin: OriginFor<T>,
            netuid: u16,
            commit: BoundedVec<u8, ConstU32<5_000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_commit_timelocked(&who, netuid, 0, commit, reveal_round, commit_reveal_version)
        }

        /// The same for a mechanism.
        #[pallet::call_index(118)]
        #[pallet::weight(FREE)]
        pub fn commit_timelocked_mechanism_weights(
            origin: OriginFor<T>,
            netuid: u16,
            mecid: u8,
            commit: BoundedVec<u8, ConstU32<5_000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_commit_timelocked(&who, netuid, mecid, commit, reveal_round, commit_reveal_version)
        }

        /// Stakes the caller's TAO on a hotkey.
        #[pallet::call_index(2)]
        #[pallet::weight(PAID)]
        pub fn add_stake(origin: OriginFor<T>, hotkey: AccountId32, netuid: u16, amount_staked: u64) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_add_stake(&who, &hotkey, netuid, amount_staked)
        }

        /// Takes stake back.
        #[pallet::call_index(3)]
        #[pallet::weight(PAID)]
        pub fn remove_stake(
            origin: OriginFor<T>,
            hotkey: AccountId32,
            netuid: u16,
            amount_unstaked: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_remove_stake(&who, &hotkey, netuid, amount_unstaked)
        }

        /// Stakes the caller's TAO unless an alpha costs more than the limit, in rao.
        #[pallet::call_index(88)]
        #[pallet::weight(PAID)]
        pub fn add_stake_limit(
            origin: OriginFor<T>,
            hotkey: AccountId32,
            netuid: u16,
            amount_staked: u64,
            limit_price: u64,
            allow_partial: bool,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            let _ = allow_partial; // A price that does not move takes all or nothing.
            ensure!(limit_price >= ALPHA_PRICE, Error::<T>::SlippageTooHigh);
            Self::do_add_stake(&who, &hotkey, netuid, amount_staked)
        }

        /// Takes stake back unless an alpha brings less than the limit, in rao.
        #[pallet::call_index(89)]
        #[pallet::weight(PAID)]
        pub fn remove_stake_limit(
            origin: OriginFor<T>,
            hotkey: AccountId32,
            netuid: u16,
            amount_unstaked: u64,
            limit_price: u64,
            allow_partial: bool,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            let _ = allow_partial; // A price that does not move takes all or nothing.
            ensure!(limit_price <= ALPHA_PRICE, Error::<T>::SlippageTooHigh);
            Self::do_remove_stake(&who, &hotkey, netuid, amount_unstaked)
        }

        /// Takes a uid at the current price.
        #[pallet::call_index(7)]
        #[pallet::weight(PAID)]
        pub fn burned_register(origin: OriginFor<T>, netuid: u16, hotkey: AccountId32) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_register(&who, netuid, &hotkey, None)
        }

        /// Takes a uid unless the price is above the limit.
        #[pallet::call_index(132)]
        #[pallet::weight(PAID)]
        pub fn register_limit(
            origin: OriginFor<T>,
            netuid: u16,
            hotkey: AccountId32,
            limit_price: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::do_register(&who, netuid, &hotkey, Some(limit_price))
        }

        /// Says where a member is reached.
        #[pallet::call_index(4)]
        #[pallet::weight(FREE)]
        pub fn serve_axon(
            origin: OriginFor<T>,
            netuid: u16,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            let axon =
                AxonInfo { block: Self::now(), version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            Self::do_serve_axon(&who, netuid, axon)
        }
    }
}
