//! `Commitments`: one slot a hotkey and subnet, overwritten by each new one, within the space that an epoch allows.

mod data;

pub use data::{CommitmentInfo, Data, MaxFields, Registration, UsageTracker};
pub use pallet::*;

/// What `Commitments` asks of the chain's subnets.
pub trait Subnets<AccountId> {
    /// Whether the hotkey has a uid on the subnet.
    fn is_registered(netuid: u16, hotkey: &AccountId) -> bool;
    /// The subnet's current epoch: space is counted anew in each.
    fn epoch(netuid: u16) -> u64;
}

// Why storage, events and errors have plain comments: `pallets/subtensor/storage.rs`.
#[frame_support::pallet(dev_mode)]
#[allow(missing_docs)]
pub mod pallet {
    use super::{CommitmentInfo, Registration, Subnets, UsageTracker};
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use sp_runtime::SaturatedConversion;

    /// Bytes that the smallest commitment counts for.
    const SPACE_MIN: u64 = 100;

    /// What the runtime must say of its subnets and limits.
    #[pallet::config]
    pub trait Config: frame_system::Config {
        /// Who may commit, and when space is counted anew.
        type Subnets: Subnets<Self::AccountId>;
        /// Fields of one commitment.
        #[pallet::constant]
        type MaxFields: Get<u32>;
    }

    /// A slot a hotkey and subnet.
    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[cfg_attr(doc, doc = "What happened, for whoever follows the chain.")]
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        // The hotkey's slot has something new in it.
        Commitment { netuid: u16, who: T::AccountId },
    }

    #[cfg_attr(doc, doc = "Why a commitment was not taken.")]
    #[pallet::error]
    pub enum Error<T> {
        /// Account passed too many additional fields to their commitment.
        TooManyFieldsInCommitmentInfo,
        /// Account is not allowed to make commitments to the chain.
        AccountNotAllowedCommit,
        /// Space limit exceeded for the current interval.
        SpaceLimitExceeded,
    }

    // What a hotkey has committed on a subnet, by netuid and hotkey: the newest alone.
    #[pallet::storage]
    pub(crate) type CommitmentOf<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, Registration, OptionQuery>;

    // The block of it.
    #[pallet::storage]
    pub(crate) type LastCommitment<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, BlockNumberFor<T>, OptionQuery>;

    // What the beacon has opened of a hotkey, each with its block. Always empty here.
    #[pallet::storage]
    pub(crate) type RevealedCommitments<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, Vec<(Vec<u8>, u64)>, OptionQuery>;

    // Bytes that a hotkey has committed in the current epoch, by netuid and hotkey.
    #[pallet::storage]
    pub(crate) type UsedSpaceOf<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, UsageTracker, OptionQuery>;

    // Bytes that a hotkey may commit on a subnet in an epoch.
    #[pallet::storage]
    pub(crate) type MaxSpace<T: Config> = StorageValue<_, u32, ValueQuery, ConstU32<3_100>>;

    /// What is there from the beginning.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Bytes that a hotkey may commit on a subnet in an epoch.
        pub max_space: u32,
        /// Nothing: ties the settings to a runtime.
        #[serde(skip)]
        pub _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            MaxSpace::<T>::put(self.max_space);
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Overwrites the hotkey's commitment on a subnet.
        #[pallet::call_index(0)]
        #[pallet::weight((Weight::from_parts(10_000_000, 0), DispatchClass::Operational, Pays::No))]
        pub fn set_commitment(origin: OriginFor<T>, netuid: u16, info: Box<CommitmentInfo>) -> DispatchResult {
            let who = ensure_signed(origin)?;
            ensure!(T::Subnets::is_registered(netuid, &who), Error::<T>::AccountNotAllowedCommit);
            ensure!(info.fields.len() as u32 <= T::MaxFields::get(), Error::<T>::TooManyFieldsInCommitmentInfo);
            let epoch = T::Subnets::epoch(netuid);
            let mut usage = UsedSpaceOf::<T>::get(netuid, &who).unwrap_or_default();
            if usage.last_epoch != epoch {
                usage = UsageTracker { last_epoch: epoch, used_space: 0 };
            }
            let bytes: u64 = info.fields.iter().map(|field| field.space()).sum();
            usage.used_space = usage.used_space.saturating_add(bytes.max(SPACE_MIN));
            ensure!(usage.used_space <= u64::from(MaxSpace::<T>::get()), Error::<T>::SpaceLimitExceeded);
            UsedSpaceOf::<T>::insert(netuid, &who, usage);
            let now = frame_system::Pallet::<T>::block_number();
            let block: u32 = now.saturated_into();
            CommitmentOf::<T>::insert(netuid, &who, Registration { deposit: 0, block, info: *info });
            LastCommitment::<T>::insert(netuid, &who, now);
            Self::deposit_event(Event::Commitment { netuid, who });
            Ok(())
        }
    }
}
