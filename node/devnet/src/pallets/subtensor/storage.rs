//! What `SubtensorModule` keeps: its storage, under subtensor's names, hashers and defaults. A section of the pallet: FRAME
//! copies it into `pallet`.
//!
//! Some entries have docs (`///`), others comments. Docs become part of the metadata, and the metadata's hash part of the
//! genesis, so that one word more would make another chain of every devnet, and a swarm of yesterday could not be audited:
//! those that had docs keep them, and what is new to say is said in comments.

#[frame_support::pallet_macros::pallet_section]
mod entries {
    // ---- subnets: what their owners set ----------------------------------------------------------------------------
    // Which subnets there are, by netuid; root is 0.
    #[pallet::storage]
    pub(crate) type NetworksAdded<T: Config> = StorageMap<_, Identity, u16, bool, ValueQuery>;
    // How many subnets were founded.
    #[pallet::storage]
    pub(crate) type TotalNetworks<T: Config> = StorageValue<_, u16, ValueQuery>;

    /// Members of a subnet: uids 0 to n − 1.
    #[pallet::storage]
    pub(crate) type SubnetworkN<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery>;
    // The block in which a subnet was founded.
    #[pallet::storage]
    pub(crate) type NetworkRegisteredAt<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;
    // The coldkey that owns a subnet; zeros for nobody.
    #[pallet::storage]
    pub(crate) type SubnetOwner<T: Config> = StorageMap<_, Identity, u16, AccountId32, ValueQuery, NoOne>;
    // The owner's hotkey on its own subnet; zeros for nobody.
    #[pallet::storage]
    pub(crate) type SubnetOwnerHotkey<T: Config> = StorageMap<_, Identity, u16, AccountId32, ValueQuery, NoOne>;
    // The symbol of a subnet's alpha, UTF-8.
    #[pallet::storage]
    pub(crate) type TokenSymbol<T: Config> = StorageMap<_, Identity, u16, Vec<u8>, ValueQuery, DefaultSymbol>;
    // Mechanisms of a subnet: each has weights and incentives of its own, and all share the members.
    #[pallet::storage]
    pub(crate) type MechanismCountCurrent<T: Config> = StorageMap<_, Twox64Concat, u16, u8, ValueQuery, ConstU8<1>>;
    // How a subnet's epoch weighs the rows of its validators.
    #[pallet::storage]
    pub(crate) type SubnetEpochConsensus<T: Config> = StorageMap<_, Identity, u16, EpochConsensus, ValueQuery>;
    // Blocks of an epoch, less one where epochs go by block number; 1 or more.
    #[pallet::storage]
    pub(crate) type Tempo<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<360>>;
    // Members that a subnet has room for; a newcomer to a full one takes the place of the weakest.
    #[pallet::storage]
    pub(crate) type MaxAllowedUids<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<4096>>;
    // Members that may have a permit, those with the most stake.
    #[pallet::storage]
    pub(crate) type MaxAllowedValidators<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<128>>;
    // Blocks during which a newcomer keeps its uid.
    #[pallet::storage]
    pub(crate) type ImmunityPeriod<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<4096>>;
    // Entries that a row of weights must have; one for oneself is enough.
    #[pallet::storage]
    pub(crate) type MinAllowedWeights<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<1024>>;
    // The most that one entry may be of a row whose sum is 65,535.
    #[pallet::storage]
    pub(crate) type MaxWeightsLimit<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<65535>>;
    // Blocks after which a member that set no weights counts as inactive (`Active`), which costs it nothing here.
    #[pallet::storage]
    pub(crate) type ActivityCutoff<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<5000>>;
    // The share of stake, of 65,535, that a consensus needs: shown, and decides nothing here.
    #[pallet::storage]
    pub(crate) type Kappa<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<32767>>;
    // The steepness of the trust curve: shown, and decides nothing here.
    #[pallet::storage]
    pub(crate) type Rho<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<10>>;
    // Blocks between two rows of a validator.
    #[pallet::storage]
    pub(crate) type WeightsSetRateLimit<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery, ConstU64<100>>;
    // Blocks between two axons of a member.
    #[pallet::storage]
    pub(crate) type ServingRateLimit<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery, ConstU64<50>>;
    // The lowest version key that a row may bring.
    #[pallet::storage]
    pub(crate) type WeightsVersionKey<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;
    // Whether rows are hidden first, and opened an epoch or more later.
    #[pallet::storage]
    pub(crate) type CommitRevealWeightsEnabled<T: Config> =
        StorageMap<_, Identity, u16, bool, ValueQuery, ConstBool<true>>;
    // Epochs from the commit of a row to its opening.
    #[pallet::storage]
    pub(crate) type RevealPeriodEpochs<T: Config> = StorageMap<_, Twox64Concat, u16, u64, ValueQuery, ConstU64<1>>;
    // The one version of hidden rows that is taken.
    #[pallet::storage]
    pub(crate) type CommitRevealWeightsVersion<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<4>>;

    /// Stake below which a hotkey may not set weights.
    #[pallet::storage]
    pub(crate) type StakeThreshold<T: Config> = StorageValue<_, u64, ValueQuery>;
    // Whether a subnet takes newcomers for a burn.
    #[pallet::storage]
    pub(crate) type NetworkRegistrationAllowed<T: Config> =
        StorageMap<_, Identity, u16, bool, ValueQuery, ConstBool<true>>;
    // Whether a subnet takes newcomers for work: shown, and never so here.
    #[pallet::storage]
    pub(crate) type NetworkPowRegistrationAllowed<T: Config> = StorageMap<_, Identity, u16, bool, ValueQuery>;
    // Rao that the next registration costs.
    #[pallet::storage]
    pub(crate) type Burn<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery, ConstU64<100_000_000>>;
    // Rao below which the price does not fall.
    #[pallet::storage]
    pub(crate) type MinBurn<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery, ConstU64<500_000>>;
    // Rao above which the price does not rise.
    #[pallet::storage]
    pub(crate) type MaxBurn<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery, ConstU64<100_000_000_000>>;
    // Registrations that one block takes.
    #[pallet::storage]
    pub(crate) type MaxRegistrationsPerBlock<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery, ConstU16<1>>;
    // Registrations that the current block has taken so far.
    #[pallet::storage]
    pub(crate) type RegistrationsThisBlock<T: Config> = StorageMap<_, Identity, u16, u16, ValueQuery>;
    // Whether a subnet's alpha can be traded.
    #[pallet::storage]
    pub(crate) type SubtokenEnabled<T: Config> = StorageMap<_, Identity, u16, bool, ValueQuery>;

    // ---- members ---------------------------------------------------------------------------------------------------
    // A member's uid, by netuid and hotkey.
    #[pallet::storage]
    pub(crate) type Uids<T: Config> =
        StorageDoubleMap<_, Identity, u16, Blake2_128Concat, AccountId32, u16, OptionQuery>;
    // A member's hotkey, by netuid and uid; zeros for nobody.
    #[pallet::storage]
    pub(crate) type Keys<T: Config> = StorageDoubleMap<_, Identity, u16, Identity, u16, AccountId32, ValueQuery, NoOne>;

    /// The coldkey of a hotkey; zero where there is none.
    #[pallet::storage]
    pub(crate) type Owner<T: Config> = StorageMap<_, Blake2_128Concat, AccountId32, AccountId32, ValueQuery, NoOne>;
    // The hotkeys of a coldkey.
    #[pallet::storage]
    pub(crate) type OwnedHotkeys<T: Config> =
        StorageMap<_, Blake2_128Concat, AccountId32, Vec<AccountId32>, ValueQuery>;
    // The hotkeys on which a coldkey has staked.
    #[pallet::storage]
    pub(crate) type StakingHotkeys<T: Config> =
        StorageMap<_, Blake2_128Concat, AccountId32, Vec<AccountId32>, ValueQuery>;
    // Whether a hotkey is a member of a subnet.
    #[pallet::storage]
    pub(crate) type IsNetworkMember<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, AccountId32, Identity, u16, bool, ValueQuery>;
    // The block in which a uid was taken by its present hotkey, by netuid and uid.
    #[pallet::storage]
    pub(crate) type BlockAtRegistration<T: Config> = StorageDoubleMap<_, Identity, u16, Identity, u16, u64, ValueQuery>;
    // Where a member is reached, by netuid and hotkey.
    #[pallet::storage]
    pub(crate) type Axons<T: Config> =
        StorageDoubleMap<_, Identity, u16, Blake2_128Concat, AccountId32, AxonInfo, OptionQuery>;
    // By uid: whether the member has set weights within the activity cutoff, as of the last epoch.
    #[pallet::storage]
    pub(crate) type Active<T: Config> = StorageMap<_, Identity, u16, Vec<bool>, ValueQuery>;
    // By uid: whether the member may set weights.
    #[pallet::storage]
    pub(crate) type ValidatorPermit<T: Config> = StorageMap<_, Identity, u16, Vec<bool>, ValueQuery>;

    /// By index, not by netuid.
    #[pallet::storage]
    pub(crate) type LastUpdate<T: Config> = StorageMap<_, Identity, u16, Vec<u64>, ValueQuery>;

    /// By index, not by netuid.
    #[pallet::storage]
    pub(crate) type Incentive<T: Config> = StorageMap<_, Identity, u16, Vec<u16>, ValueQuery>;
    // By uid: its part of what validators earn, of 65,535.
    #[pallet::storage]
    pub(crate) type Dividends<T: Config> = StorageMap<_, Identity, u16, Vec<u16>, ValueQuery>;
    // By uid: what the validators' rows give it, weighed by stake; the greatest has 65,535.
    #[pallet::storage]
    pub(crate) type Consensus<T: Config> = StorageMap<_, Identity, u16, Vec<u16>, ValueQuery>;
    // By uid: 65,535 for a validator whose row was counted, 0 for others.
    #[pallet::storage]
    pub(crate) type ValidatorTrust<T: Config> = StorageMap<_, Identity, u16, Vec<u16>, ValueQuery>;
    // By uid: rao of alpha that the last epoch paid.
    #[pallet::storage]
    pub(crate) type Emission<T: Config> = StorageMap<_, Identity, u16, Vec<u64>, ValueQuery>;

    /// By index and uid: the row that a validator set, greatest entry 65,535.
    #[pallet::storage]
    pub(crate) type Weights<T: Config> = StorageDoubleMap<_, Identity, u16, Identity, u16, Vec<(u16, u16)>, ValueQuery>;
    // By index and uid: what a validator has invested in others, as their uids and shares. Always empty here.
    #[pallet::storage]
    pub(crate) type Bonds<T: Config> = StorageDoubleMap<_, Identity, u16, Identity, u16, Vec<(u16, u16)>, ValueQuery>;

    // ---- stake -----------------------------------------------------------------------------------------------------

    /// What each validator has on a subnet, from all coldkeys.
    #[pallet::storage]
    pub(crate) type TotalHotkeyAlpha<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, AccountId32, Identity, u16, u64, ValueQuery>;

    /// Shares by hotkey, coldkey and subnet; a share is one alpha here.
    #[pallet::storage]
    pub(crate) type Alpha<T: Config> = StorageNMap<
        _,
        (NMapKey<Blake2_128Concat, AccountId32>, NMapKey<Blake2_128Concat, AccountId32>, NMapKey<Identity, u16>),
        FixedU128,
        ValueQuery,
    >;
    // Rao staked, on all subnets and by everybody.
    #[pallet::storage]
    pub(crate) type TotalStake<T: Config> = StorageValue<_, u64, ValueQuery>;

    /// Of a TAO on root in the voting weight, as a fraction of u64::MAX: 0.0527.
    #[pallet::storage]
    pub(crate) type TaoWeight<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<971_718_665_099_567_868>>;

    /// Rao of a block, shared by the subnets.
    #[pallet::storage]
    pub(crate) type BlockEmission<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<1_000_000_000>>;

    // ---- epochs and hidden weights ---------------------------------------------------------------------------------
    // Blocks since the last epoch of a subnet.
    #[pallet::storage]
    pub(crate) type BlocksSinceLastStep<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;

    /// The spelling is the chain's.
    #[pallet::storage]
    pub(crate) type LastMechansimStepBlock<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;

    /// Only with stateful epochs.
    #[pallet::storage]
    pub(crate) type LastEpochBlock<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;

    /// Only with stateful epochs.
    #[pallet::storage]
    pub(crate) type PendingEpochAt<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;

    /// Only with stateful epochs.
    #[pallet::storage]
    pub(crate) type SubnetEpochIndex<T: Config> = StorageMap<_, Identity, u16, u64, ValueQuery>;

    /// By index and hotkey: hash, block, first and last block to reveal in.
    #[pallet::storage]
    pub(crate) type WeightCommits<T: Config> =
        StorageDoubleMap<_, Twox64Concat, u16, Twox64Concat, AccountId32, VecDeque<(H256, u64, u64, u64)>, OptionQuery>;

    /// By index and epoch of the commit.
    #[pallet::storage]
    pub(crate) type TimelockedWeightCommits<T: Config> =
        StorageDoubleMap<_, Twox64Concat, u16, Twox64Concat, u64, VecDeque<Timelocked>, ValueQuery>;
}
