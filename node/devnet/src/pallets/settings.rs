//! `Devnet`: what a devnet is told at genesis and the runtime must know. The one pallet that a real chain has not.

pub use pallet::*;

#[frame_support::pallet(dev_mode)]
#[allow(missing_docs)]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_support::traits::ConstU64;
    use sp_core::H256;

    /// Nothing besides a chain.
    #[pallet::config]
    pub trait Config: frame_system::Config {}

    /// A devnet's settings, where the runtime can read them.
    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    /// Whether epochs are counted from `LastEpochBlock` (subtensor since June 2026) or by block number alone.
    #[pallet::storage]
    pub(crate) type StatefulEpochs<T: Config> = StorageValue<_, bool, ValueQuery>;

    /// Milliseconds between two blocks.
    #[pallet::storage]
    pub(crate) type SlotMs<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<12_000>>;

    /// Whether `serve_axon` takes loopback and private addresses, which subtensor refuses.
    #[pallet::storage]
    pub(crate) type LocalAxons<T: Config> = StorageValue<_, bool, ValueQuery>;

    /// The secret scalar of this chain's own drand, little-endian. A devnet keeps no secrets.
    #[pallet::storage]
    pub(crate) type BeaconSecret<T: Config> = StorageValue<_, [u8; 32], ValueQuery>;

    /// Tells two devnets of equal settings apart, so that nothing signed for one is valid on the other.
    #[pallet::storage]
    pub(crate) type Nonce<T: Config> = StorageValue<_, H256, ValueQuery>;

    /// Hash of the runtime's metadata: clients cache metadata by genesis hash, so another runtime is another genesis.
    #[pallet::storage]
    pub(crate) type MetadataHash<T: Config> = StorageValue<_, H256, ValueQuery>;

    /// The settings; each is said at the storage above.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Whether epochs are counted from the last one, or by block number alone.
        pub stateful_epochs: bool,
        /// Milliseconds between two blocks.
        pub slot_ms: u64,
        /// Whether loopback and private addresses may be axons.
        pub local_axons: bool,
        /// A scalar of BLS12-381, little-endian.
        pub beacon_secret: [u8; 32],
        /// Tells two devnets of equal settings apart.
        pub nonce: H256,
        /// BLAKE2b-256 of the metadata, version 15.
        pub metadata_hash: H256,
        /// Nothing: ties the settings to a runtime.
        #[serde(skip)]
        pub _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            StatefulEpochs::<T>::put(self.stateful_epochs);
            SlotMs::<T>::put(self.slot_ms);
            LocalAxons::<T>::put(self.local_axons);
            BeaconSecret::<T>::put(self.beacon_secret);
            Nonce::<T>::put(self.nonce);
            MetadataHash::<T>::put(self.metadata_hash);
        }
    }
}
