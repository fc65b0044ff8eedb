//! `Drand`: a beacon of this chain's own, in the form of drand's quicknet: which round there is at which second, and
//! its signature, which opens what was locked to it.
//!
//! A real chain is told pulses by its validators. Here the secret is in the state, so a pulse is made when something
//! that waits for its round asks; the newest round that there could be is always in `LastStoredRound`.

pub use pallet::*;

// Why storage has plain comments: `pallets/subtensor/storage.rs`.
#[frame_support::pallet(dev_mode)]
#[allow(missing_docs)]
pub mod pallet {
    use crate::pallets::settings;
    use codec::DecodeWithMemTracking;
    use covey_timelock as timelock;
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::*;

    /// The beacon tells the time by `Timestamp`, in milliseconds.
    #[pallet::config]
    pub trait Config: frame_system::Config + settings::Config + pallet_timestamp::Config<Moment = u64> {}

    /// A beacon of randomness of this chain's own.
    #[pallet::pallet]
    pub struct Pallet<T>(_);

    /// What drand says of a beacon besides its key.
    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
    pub struct Metadata {
        /// Its name, UTF-8: `quicknet`.
        pub beacon_id: BoundedVec<u8, ConstU32<32>>,
    }

    /// Everything that one needs to lock something to a round of the beacon.
    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
    pub struct BeaconConfiguration {
        /// A point of G2, compressed: 96 bytes.
        pub public_key: BoundedVec<u8, ConstU32<96>>,
        /// Seconds between two rounds.
        pub period: u32,
        /// Seconds since 1970 of round 1.
        pub genesis_time: u32,
        /// Of the beacon's parameters. Empty here: nobody looks at it.
        pub hash: BoundedVec<u8, ConstU32<32>>,
        /// Of the group that signs. Empty here.
        pub group_hash: BoundedVec<u8, ConstU32<32>>,
        /// How a round is signed, UTF-8: `bls-unchained-g1-rfc9380`, signatures in G1 over the round alone.
        pub scheme_id: BoundedVec<u8, ConstU32<32>>,
        /// The beacon's name.
        pub metadata: Metadata,
    }

    impl Default for BeaconConfiguration {
        fn default() -> Self {
            Self {
                public_key: BoundedVec::new(),
                period: 3,
                genesis_time: 1_692_803_367,
                hash: BoundedVec::new(),
                group_hash: BoundedVec::new(),
                scheme_id: BoundedVec::truncate_from(b"bls-unchained-g1-rfc9380".to_vec()),
                metadata: Metadata { beacon_id: BoundedVec::truncate_from(b"quicknet".to_vec()) },
            }
        }
    }

    /// A round's signature, a point of G1 (48 bytes), and its SHA-256.
    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
    pub struct Pulse {
        /// Counted from 1.
        pub round: u64,
        /// SHA-256 of the signature.
        pub randomness: BoundedVec<u8, ConstU32<32>>,
        /// A point of G1, compressed: 48 bytes.
        pub signature: BoundedVec<u8, ConstU32<144>>,
    }

    // The beacon that this chain follows: its own.
    #[pallet::storage]
    pub(crate) type BeaconConfig<T: Config> = StorageValue<_, BeaconConfiguration, ValueQuery>;

    // Rounds that something has asked for, by number.
    #[pallet::storage]
    pub(crate) type Pulses<T: Config> = StorageMap<_, Blake2_128Concat, u64, Pulse, OptionQuery>;

    // The newest round whose time has come at the newest block.
    #[pallet::storage]
    pub(crate) type LastStoredRound<T: Config> = StorageValue<_, u64, ValueQuery>;

    // The oldest round that is kept: 0, since none is dropped here.
    #[pallet::storage]
    pub(crate) type OldestStoredRound<T: Config> = StorageValue<_, u64, ValueQuery>;

    /// What is there from the beginning.
    #[pallet::genesis_config]
    #[derive(frame_support::DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// A point of G2, compressed: 96 bytes.
        pub public_key: Vec<u8>,
        /// Seconds between two rounds, 1 or more.
        pub period: u32,
        /// Seconds since 1970 of round 1.
        pub genesis_time: u32,
        /// Nothing: ties the settings to a runtime.
        #[serde(skip)]
        pub _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            BeaconConfig::<T>::put(BeaconConfiguration {
                public_key: BoundedVec::truncate_from(self.public_key.clone()),
                period: self.period.max(1),
                genesis_time: self.genesis_time,
                ..Default::default()
            });
        }
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_finalize(_: BlockNumberFor<T>) {
            let config = BeaconConfig::<T>::get();
            let seconds = pallet_timestamp::Now::<T>::get() / 1_000;
            if let Some(since) = seconds.checked_sub(u64::from(config.genesis_time)) {
                LastStoredRound::<T>::put(since / u64::from(config.period.max(1)) + 1);
            }
        }
    }

    impl<T: Config> Pallet<T> {
        /// The signature of a round, if it has come; kept from then on.
        pub fn signature(round: u64) -> Option<Vec<u8>> {
            if let Some(pulse) = Pulses::<T>::get(round) {
                return Some(pulse.signature.into_inner());
            }
            if round > LastStoredRound::<T>::get() {
                return None;
            }
            let signature = timelock::sign_round(&settings::BeaconSecret::<T>::get(), round)?;
            let randomness = sp_io::hashing::sha2_256(&signature);
            let pulse = Pulse {
                round,
                randomness: BoundedVec::truncate_from(randomness.to_vec()),
                signature: BoundedVec::truncate_from(signature.clone()),
            };
            Pulses::<T>::insert(round, pulse);
            Some(signature)
        }
    }
}
