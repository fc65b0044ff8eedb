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

#[frame_support::pallet(dev_mode)]
#[allow(missing_docs)]
pub mod pallet {
    use super::{CommitmentInfo, Registration, Subnets, UsageTracker};
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;
    use sp_runtime::SaturatedConversion;

    /// Bytes that the smallest commitment counts for.
    const SPACE_MIN: u64 = 100;

    #[pallet::config]
    pub trait Config: frame_system::Config {
        /// Who may commit, and when space is counted anew.
        type Subnets: Subnets<Self::AccountId>;
        /// Fields of one commitment.
        #[pallet::constant]
        type MaxFields: Get<u32>;
    }

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        Commitment { netuid: u16, who: T::AccountId },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// Account passed too many additional fields to their commitment.
        TooManyFieldsInCommitmentInfo,
        /// Account is not allowed to make commitments to the chain.
        AccountNotAllowedCommit,
        /// Space limit exceeded for the current interval.
        SpaceLimitExceeded,
    }

    #[pallet::storage]
    pub type CommitmentOf<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, Registration, OptionQuery>;

    #[pallet::storage]
    pub type LastCommitment<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, BlockNumberFor<T>, OptionQuery>;

    #[pallet::storage]
    pub type RevealedCommitments<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, Vec<(Vec<u8>, u64)>, OptionQuery>;

    #[pallet::storage]
    pub type UsedSpaceOf<T: Config> =
        StorageDoubleMap<_, Identity, u16, Twox64Concat, T::AccountId, UsageTracker, OptionQuery>;

    #[pallet::storage]
    pub type MaxSpace<T: Config> = StorageValue<_, u32, ValueQuery, ConstU32<3_100>>;

    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Bytes that a hotkey may commit on a subnet in an epoch.
        pub max_space: u32,
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
