//! The runtime: which pallets there are, under the numbers that they have on the real chain, with which extensions a
//! transaction is signed, and what it costs. It is executed natively; there is no wasm of it.

// FRAME's macros make public items here that they do not document.
#![allow(missing_docs)]

pub mod apis;
mod extensions;
pub mod metadata;

pub use extensions::{CheckNonce, SubtensorTransactionExtension};

use crate::pallets::{aura, commitments, drand, settings, subtensor};
use frame_support::traits::{ConstU8, ConstU32, ConstU64, Get};
use frame_support::weights::constants::WEIGHT_REF_TIME_PER_SECOND;
use frame_support::weights::{IdentityFee, Weight, WeightToFee};
use frame_support::{derive_impl, parameter_types};
use sp_core::H256;
use sp_runtime::traits::{AccountIdLookup, BlakeTwo256};
use sp_runtime::{AccountId32, MultiAddress, MultiSignature, Perbill, generic};
use std::borrow::Cow;

/// Rao.
pub type Balance = u64;
/// A block's number.
pub type BlockNumber = u32;
/// A block's header.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// What a transaction is signed with besides its call, in the order of the real chain's; its extensions that have no
/// bytes of their own are left out.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    CheckNonce,
    frame_system::CheckWeight<Runtime>,
    pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
    SubtensorTransactionExtension,
    frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
);
/// A transaction.
pub type UncheckedExtrinsic =
    generic::UncheckedExtrinsic<MultiAddress<AccountId32, ()>, RuntimeCall, MultiSignature, TxExtension>;
/// A block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// Runs blocks.
pub type Executive =
    frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;

/// The version that clients are told. The number is above the real chain's of June 2026, to which names and rules
/// belong.
pub const VERSION: sp_version::RuntimeVersion = sp_version::RuntimeVersion {
    spec_name: Cow::Borrowed("node-subtensor"),
    impl_name: Cow::Borrowed("covey-devnet"),
    authoring_version: 1,
    spec_version: 425,
    impl_version: 1,
    apis: apis::VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

parameter_types! {
    /// [`VERSION`].
    pub const Version: sp_version::RuntimeVersion = VERSION;
    /// Of addresses: they begin with a 5, as on every Substrate chain without a prefix of its own.
    pub const Ss58Prefix: u16 = 42;
    /// Blocks whose hash the chain remembers: eight hours at 12 s, the longest that a transaction may live.
    pub const BlockHashCount: BlockNumber = 2_400;
    /// Rao below which an account ceases to be.
    pub const ExistentialDeposit: Balance = 500;
    /// Four seconds of work a block, three quarters of them for ordinary transactions.
    pub BlockWeights: frame_system::limits::BlockWeights = frame_system::limits::BlockWeights::with_sensible_defaults(
        Weight::from_parts(4 * WEIGHT_REF_TIME_PER_SECOND, u64::MAX),
        Perbill::from_percent(75),
    );
}

#[frame_support::runtime]
mod runtime {
    /// The pallets under their numbers on the real chain.
    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask
    )]
    pub struct Runtime;

    /// Accounts, blocks, events.
    #[runtime::pallet_index(0)]
    pub type System = frame_system::Pallet<Runtime>;
    /// The time of a block, in milliseconds since 1970.
    #[runtime::pallet_index(2)]
    pub type Timestamp = pallet_timestamp::Pallet<Runtime>;
    /// The length of a slot.
    #[runtime::pallet_index(3)]
    pub type Aura = crate::pallets::aura::Pallet<Runtime>;
    /// Free balances, in rao.
    #[runtime::pallet_index(5)]
    pub type Balances = pallet_balances::Pallet<Runtime>;
    /// Fees.
    #[runtime::pallet_index(6)]
    pub type TransactionPayment = pallet_transaction_payment::Pallet<Runtime>;
    /// Subnets, members, stake, weights, epochs.
    #[runtime::pallet_index(7)]
    pub type SubtensorModule = crate::pallets::subtensor::Pallet<Runtime>;
    /// What members have committed.
    #[runtime::pallet_index(18)]
    pub type Commitments = crate::pallets::commitments::Pallet<Runtime>;
    /// The beacon.
    #[runtime::pallet_index(26)]
    pub type Drand = crate::pallets::drand::Pallet<Runtime>;
    /// A devnet's settings: the number is one that the real chain has not given away.
    #[runtime::pallet_index(200)]
    pub type Devnet = crate::pallets::settings::Pallet<Runtime>;
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type AccountId = AccountId32;
    type Nonce = u32;
    type Hash = H256;
    type Hashing = BlakeTwo256;
    type Block = Block;
    type Lookup = AccountIdLookup<AccountId32, ()>;
    type BlockHashCount = BlockHashCount;
    type BlockWeights = BlockWeights;
    type Version = Version;
    type SS58Prefix = Ss58Prefix;
    type AccountData = pallet_balances::AccountData<Balance>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Runtime {
    type Balance = Balance;
    type ExistentialDeposit = ExistentialDeposit;
    type AccountStore = System;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxFreezes = ConstU32<50>;
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ConstU32<50>;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = ();
    type MinimumPeriod = ConstU64<1>;
    type WeightInfo = ();
}

/// Rao by length: a plain transfer costs some ten thousandths of a TAO.
pub struct LengthFee;

impl WeightToFee for LengthFee {
    type Balance = Balance;

    fn weight_to_fee(weight: &Weight) -> Balance {
        weight.ref_time().saturating_mul(500)
    }
}

/// Rao by weight.
pub struct WorkFee;

impl WeightToFee for WorkFee {
    type Balance = Balance;

    fn weight_to_fee(weight: &Weight) -> Balance {
        IdentityFee::<Balance>::weight_to_fee(weight) / 5_000
    }
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type OnChargeTransaction = pallet_transaction_payment::FungibleAdapter<Balances, ()>;
    type WeightToFee = WorkFee;
    type LengthToFee = LengthFee;
    type FeeMultiplierUpdate = ();
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightInfo = ();
}

/// Reads the slot's length from the state in which metadata is asked for.
pub struct SlotDuration;

impl Get<u64> for SlotDuration {
    fn get() -> u64 {
        settings::SlotMs::<Runtime>::get()
    }
}

impl aura::Config for Runtime {
    type SlotDuration = SlotDuration;
}

impl settings::Config for Runtime {}
impl drand::Config for Runtime {}
impl subtensor::Config for Runtime {}

impl commitments::Config for Runtime {
    type Subnets = SubtensorModule;
    type MaxFields = commitments::MaxFields;
}
