//! What the runtime APIs answer: the metagraph, whole or by the numbers of its parts, neurons, hyperparameters.
//!
//! The order of a metagraph's fields is their number in `get_selective_metagraph`.

use super::types::*;
use super::*;
use crate::pallets::commitments;
use codec::{Compact, Encode};
use sp_runtime::AccountId32;
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// A metagraph is built from a subnet's state by one list of fields, for both of its forms.
macro_rules! metagraph {
    ($view:ident; $($number:literal $field:ident: $kind:ty = $value:expr;)* also $($late_number:literal $late:ident: $late_kind:ty = $late_value:expr;)*) => {
        on_chain! {
            /// A subnet with all its members.
            pub struct Metagraph {
                /// Its number.
                pub netuid: Compact<u16>,
                $(
                    /// What it is filled with stands in the list below; lists are by uid.
                    pub $field: $kind,
                )*
            }

            /// The parts of a metagraph that were asked for.
            pub struct SelectiveMetagraph {
                /// Its number.
                pub netuid: Compact<u16>,
                $(
                    /// None: not asked for. What it is filled with stands in the list below; lists are by uid.
                    pub $field: Option<$kind>,
                )*
                $(
                    /// None: not asked for. A part that [`Metagraph`] has not.
                    pub $late: Option<$late_kind>,
                )*
            }
        }

        impl Metagraph {
            fn of<T: Config + commitments::Config>($view: &View<T>) -> Self {
                Self { netuid: Compact($view.netuid), $($field: $value,)* }
            }
        }

        impl SelectiveMetagraph {
            fn of<T: Config + commitments::Config>($view: &View<T>, asked: &[u16]) -> Self {
                let mut graph = Self { netuid: Compact($view.netuid), $($field: None,)* $($late: None,)* };
                for number in asked {
                    match number {
                        $($number => graph.$field = Some($value),)*
                        $($late_number => graph.$late = Some($late_value),)*
                        _ => {}
                    }
                }
                graph
            }
        }
    };
}

/// A subnet's members, read once for all fields.
struct View<T> {
    netuid: u16,
    index: u16,
    hotkeys: Vec<AccountId32>,
    /// Alpha and counted TAO by uid, once they are asked for: the greatest part of the work.
    stakes: OnceCell<Vec<(u64, u64)>>,
    _config: core::marker::PhantomData<T>,
}

impl<T: Config> View<T> {
    fn new(netuid: u16, mecid: u8) -> Option<Self> {
        if !NetworksAdded::<T>::get(netuid) || mecid >= MechanismCountCurrent::<T>::get(netuid) {
            return None;
        }
        let hotkeys: Vec<_> = (0..SubnetworkN::<T>::get(netuid)).map(|uid| Keys::<T>::get(netuid, uid)).collect();
        let index = Pallet::<T>::storage_index(netuid, mecid);
        Some(Self { netuid, index, hotkeys, stakes: OnceCell::new(), _config: core::marker::PhantomData })
    }

    fn each<V>(&self, of: impl Fn(u16, &AccountId32) -> V) -> Vec<V> {
        self.hotkeys.iter().enumerate().map(|(uid, hotkey)| of(uid as u16, hotkey)).collect()
    }

    fn stake(&self, of: impl Fn(u64, u64) -> u64) -> Vec<Compact<u64>> {
        let parts = |hotkey| Pallet::<T>::stake_parts(self.netuid, hotkey);
        let stakes = self.stakes.get_or_init(|| self.hotkeys.iter().map(parts).collect());
        stakes.iter().map(|(alpha, tao)| Compact(of(*alpha, *tao))).collect()
    }

    /// Few members have an axon, so these are gone through instead of asking for each member's.
    fn axons(&self) -> Vec<AxonInfo> {
        let there: BTreeMap<AccountId32, AxonInfo> = Axons::<T>::iter_prefix(self.netuid).collect();
        self.each(|_, hotkey| there.get(hotkey).copied().unwrap_or_default())
    }

    /// All that there are: those of hotkeys that were members once are among them, as on the real chain.
    fn commitments(&self) -> Vec<(AccountId32, Vec<Compact<u8>>)>
    where
        T: commitments::Config,
    {
        let all = commitments::CommitmentOf::<T>::iter_prefix(self.netuid);
        all.map(|(hotkey, slot)| (hotkey, small(&slot.encode()))).collect()
    }
}

fn small(bytes: &[u8]) -> Vec<Compact<u8>> {
    bytes.iter().copied().map(Compact).collect()
}

/// Values by uid, zero where a member is newer than the list.
fn all<V: Copy + Default>(values: &[V], n: usize) -> Vec<Compact<V>> {
    (0..n).map(|at| Compact(values.get(at).copied().unwrap_or_default())).collect()
}

fn flags(values: &[bool], n: usize) -> Vec<bool> {
    (0..n).map(|at| values.get(at).copied().unwrap_or_default()).collect()
}

metagraph! {
    v;
    1 name: Vec<Compact<u8>> = small(b"devnet");
    2 symbol: Vec<Compact<u8>> = small(&TokenSymbol::<T>::get(v.netuid));
    3 identity: Option<SubnetIdentityV3> = None;
    4 network_registered_at: Compact<u64> = Compact(NetworkRegisteredAt::<T>::get(v.netuid));
    5 owner_hotkey: AccountId32 = SubnetOwnerHotkey::<T>::get(v.netuid);
    6 owner_coldkey: AccountId32 = SubnetOwner::<T>::get(v.netuid);
    7 block: Compact<u64> = Compact(Pallet::<T>::now());
    8 tempo: Compact<u16> = Compact(Tempo::<T>::get(v.netuid));
    9 last_step: Compact<u64> = Compact(LastMechansimStepBlock::<T>::get(v.netuid));
    10 blocks_since_last_step: Compact<u64> = Compact(BlocksSinceLastStep::<T>::get(v.netuid));
    11 subnet_emission: Compact<u64> = Compact(0);
    12 alpha_in: Compact<u64> = Compact(0);
    13 alpha_out: Compact<u64> = Compact(0);
    14 tao_in: Compact<u64> = Compact(0);
    15 alpha_out_emission: Compact<u64> = Compact(0);
    16 alpha_in_emission: Compact<u64> = Compact(0);
    17 tao_in_emission: Compact<u64> = Compact(0);
    18 pending_alpha_emission: Compact<u64> = Compact(0);
    19 pending_root_emission: Compact<u64> = Compact(0);
    20 subnet_volume: Compact<u128> = Compact(0);
    21 moving_price: FixedI128 = FixedI128 { bits: 1 << 64 };
    22 rho: Compact<u16> = Compact(Rho::<T>::get(v.netuid));
    23 kappa: Compact<u16> = Compact(Kappa::<T>::get(v.netuid));
    24 min_allowed_weights: Compact<u16> = Compact(MinAllowedWeights::<T>::get(v.netuid));
    25 max_weights_limit: Compact<u16> = Compact(MaxWeightsLimit::<T>::get(v.netuid));
    26 weights_version: Compact<u64> = Compact(WeightsVersionKey::<T>::get(v.netuid));
    27 weights_rate_limit: Compact<u64> = Compact(WeightsSetRateLimit::<T>::get(v.netuid));
    28 activity_cutoff: Compact<u16> = Compact(ActivityCutoff::<T>::get(v.netuid));
    29 max_validators: Compact<u16> = Compact(MaxAllowedValidators::<T>::get(v.netuid));
    30 num_uids: Compact<u16> = Compact(SubnetworkN::<T>::get(v.netuid));
    31 max_uids: Compact<u16> = Compact(MaxAllowedUids::<T>::get(v.netuid));
    32 burn: Compact<u64> = Compact(Burn::<T>::get(v.netuid));
    33 difficulty: Compact<u64> = Compact(u64::MAX);
    34 registration_allowed: bool = NetworkRegistrationAllowed::<T>::get(v.netuid);
    35 pow_registration_allowed: bool = NetworkPowRegistrationAllowed::<T>::get(v.netuid);
    36 immunity_period: Compact<u16> = Compact(ImmunityPeriod::<T>::get(v.netuid));
    37 min_difficulty: Compact<u64> = Compact(u64::MAX);
    38 max_difficulty: Compact<u64> = Compact(u64::MAX);
    39 min_burn: Compact<u64> = Compact(MinBurn::<T>::get(v.netuid));
    40 max_burn: Compact<u64> = Compact(MaxBurn::<T>::get(v.netuid));
    41 adjustment_alpha: Compact<u64> = Compact(0);
    42 adjustment_interval: Compact<u16> = Compact(1);
    43 target_regs_per_interval: Compact<u16> = Compact(MaxRegistrationsPerBlock::<T>::get(v.netuid));
    44 max_regs_per_block: Compact<u16> = Compact(MaxRegistrationsPerBlock::<T>::get(v.netuid));
    45 serving_rate_limit: Compact<u64> = Compact(ServingRateLimit::<T>::get(v.netuid));
    46 commit_reveal_weights_enabled: bool = CommitRevealWeightsEnabled::<T>::get(v.netuid);
    47 commit_reveal_period: Compact<u64> = Compact(RevealPeriodEpochs::<T>::get(v.netuid));
    48 liquid_alpha_enabled: bool = false;
    49 alpha_high: Compact<u16> = Compact(0);
    50 alpha_low: Compact<u16> = Compact(0);
    51 bonds_moving_avg: Compact<u64> = Compact(0);
    52 hotkeys: Vec<AccountId32> = v.hotkeys.clone();
    53 coldkeys: Vec<AccountId32> = v.each(|_, hotkey| Owner::<T>::get(hotkey));
    54 identities: Vec<Option<ChainIdentityV2>> = v.each(|_, _| None);
    55 axons: Vec<AxonInfo> = v.axons();
    56 active: Vec<bool> = flags(&Active::<T>::get(v.netuid), v.hotkeys.len());
    57 validator_permit: Vec<bool> = flags(&ValidatorPermit::<T>::get(v.netuid), v.hotkeys.len());
    58 pruning_score: Vec<Compact<u16>> = all(&[0_u16; 0], v.hotkeys.len());
    59 last_update: Vec<Compact<u64>> = all(&LastUpdate::<T>::get(v.index), v.hotkeys.len());
    60 emission: Vec<Compact<u64>> = all(&Emission::<T>::get(v.netuid), v.hotkeys.len());
    61 dividends: Vec<Compact<u16>> = all(&Dividends::<T>::get(v.netuid), v.hotkeys.len());
    62 incentives: Vec<Compact<u16>> = all(&Incentive::<T>::get(v.index), v.hotkeys.len());
    63 consensus: Vec<Compact<u16>> = all(&Consensus::<T>::get(v.netuid), v.hotkeys.len());
    64 trust: Vec<Compact<u16>> = all(&[0_u16; 0], v.hotkeys.len());
    65 rank: Vec<Compact<u16>> = all(&[0_u16; 0], v.hotkeys.len());
    66 block_at_registration: Vec<Compact<u64>> = v.each(|uid, _| Compact(BlockAtRegistration::<T>::get(v.netuid, uid)));
    67 alpha_stake: Vec<Compact<u64>> = v.stake(|alpha, _| alpha);
    68 tao_stake: Vec<Compact<u64>> = v.stake(|_, tao| tao);
    69 total_stake: Vec<Compact<u64>> = v.stake(u64::saturating_add);
    70 tao_dividends_per_hotkey: Vec<(AccountId32, Compact<u64>)> = Vec::new();
    71 alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<u64>)> = Vec::new();
    also
    72 validators: Vec<Compact<u16>> = {
        let permits = ValidatorPermit::<T>::get(v.netuid);
        (0_u16..).zip(permits).filter(|(_, permit)| *permit).map(|(uid, _)| Compact(uid)).collect()
    };
    73 commitments: Vec<(AccountId32, Vec<Compact<u8>>)> = v.commitments();
}

on_chain! {
    /// A member without weights and bonds.
    pub struct NeuronInfoLite {
        /// Signs for it.
        pub hotkey: AccountId32,
        /// Owns it.
        pub coldkey: AccountId32,
        /// Its place in the subnet.
        pub uid: Compact<u16>,
        /// The subnet.
        pub netuid: Compact<u16>,
        /// Whether it has set weights lately.
        pub active: bool,
        /// Where it is reached; zeros if it never said.
        pub axon_info: AxonInfo,
        /// Where its metrics are; zeros here.
        pub prometheus_info: PrometheusInfo,
        /// Rao by coldkey: one entry, all of the hotkey's stake under its owner.
        pub stake: Vec<(AccountId32, Compact<u64>)>,
        /// Of a consensus that is gone: 0.
        pub rank: Compact<u16>,
        /// Rao of alpha that the last epoch paid.
        pub emission: Compact<u64>,
        /// Share of what miners earn, of 65,535.
        pub incentive: Compact<u16>,
        /// What the validators' rows give it, weighed by stake; the greatest has 65,535.
        pub consensus: Compact<u16>,
        /// Of a consensus that is gone: 0.
        pub trust: Compact<u16>,
        /// 65,535 for a validator whose row was counted, 0 for others.
        pub validator_trust: Compact<u16>,
        /// Share of what validators earn, of 65,535.
        pub dividends: Compact<u16>,
        /// The block in which it last set weights.
        pub last_update: Compact<u64>,
        /// Whether it may set weights.
        pub validator_permit: bool,
        /// 0: who goes when a subnet is full is decided by emission, then by age.
        pub pruning_score: Compact<u16>,
    }

    /// What a coldkey has with a hotkey.
    pub struct StakeInfo {
        /// Whom it is on.
        pub hotkey: AccountId32,
        /// Whose it is.
        pub coldkey: AccountId32,
        /// The subnet.
        pub netuid: Compact<u16>,
        /// Rao of alpha.
        pub stake: Compact<u64>,
        /// Rao that cannot be taken back: none.
        pub locked: Compact<u64>,
        /// Rao of alpha that the last epoch added: not told.
        pub emission: Compact<u64>,
        /// Rao of TAO that it added: not told.
        pub tao_emission: Compact<u64>,
        /// Rao that go out in an epoch: none.
        pub drain: Compact<u64>,
        /// Whether the hotkey is a member of the subnet.
        pub is_registered: bool,
    }
}

impl<T: Config + commitments::Config> Pallet<T> {
    /// A subnet with all its members.
    pub fn metagraph(netuid: u16, mecid: u8) -> Option<Metagraph> {
        View::<T>::new(netuid, mecid).map(|view| Metagraph::of(&view))
    }

    /// The parts of it with these numbers.
    pub fn selective_metagraph(netuid: u16, mecid: u8, asked: &[u16]) -> Option<SelectiveMetagraph> {
        View::<T>::new(netuid, mecid).map(|view| SelectiveMetagraph::of(&view, asked))
    }

    /// Members without weights and bonds, by uid.
    pub fn neurons_lite(netuid: u16) -> Vec<NeuronInfoLite> {
        let Some(view) = View::<T>::new(netuid, 0) else { return Vec::new() };
        let get = |all: &[u16], uid: u16| Compact(all.get(usize::from(uid)).copied().unwrap_or(0));
        let get64 = |all: &[u64], uid: u16| Compact(all.get(usize::from(uid)).copied().unwrap_or(0));
        let flag = |all: &[bool], uid: u16| all.get(usize::from(uid)).copied().unwrap_or(false);
        let (incentive, consensus) = (Incentive::<T>::get(netuid), Consensus::<T>::get(netuid));
        let (dividends, trust) = (Dividends::<T>::get(netuid), ValidatorTrust::<T>::get(netuid));
        let (emission, updates) = (Emission::<T>::get(netuid), LastUpdate::<T>::get(netuid));
        let (active, permits) = (Active::<T>::get(netuid), ValidatorPermit::<T>::get(netuid));
        view.each(|uid, hotkey| {
            let coldkey = Owner::<T>::get(hotkey);
            NeuronInfoLite {
                hotkey: hotkey.clone(),
                coldkey: coldkey.clone(),
                uid: Compact(uid),
                netuid: Compact(netuid),
                active: flag(&active, uid),
                axon_info: Axons::<T>::get(netuid, hotkey).unwrap_or_default(),
                stake: vec![(coldkey, Compact(Self::stake_of(netuid, hotkey)))],
                emission: get64(&emission, uid),
                incentive: get(&incentive, uid),
                consensus: get(&consensus, uid),
                validator_trust: get(&trust, uid),
                dividends: get(&dividends, uid),
                last_update: get64(&updates, uid),
                validator_permit: flag(&permits, uid),
                prometheus_info: PrometheusInfo::default(),
                rank: Compact(0),
                trust: Compact(0),
                pruning_score: Compact(0),
            }
        })
    }

    /// What a subnet's owner has set.
    pub fn hyperparams(netuid: u16) -> Option<SubnetHyperparamsV2> {
        let view = View::<T>::new(netuid, 0)?;
        let graph = Metagraph::of(&view);
        Some(SubnetHyperparamsV2 {
            rho: graph.rho,
            kappa: graph.kappa,
            immunity_period: graph.immunity_period,
            min_allowed_weights: graph.min_allowed_weights,
            max_weights_limit: graph.max_weights_limit,
            tempo: graph.tempo,
            min_difficulty: graph.min_difficulty,
            max_difficulty: graph.max_difficulty,
            weights_version: graph.weights_version,
            weights_rate_limit: graph.weights_rate_limit,
            adjustment_interval: graph.adjustment_interval,
            activity_cutoff: graph.activity_cutoff,
            registration_allowed: graph.registration_allowed,
            target_regs_per_interval: graph.target_regs_per_interval,
            min_burn: graph.min_burn,
            max_burn: graph.max_burn,
            max_regs_per_block: graph.max_regs_per_block,
            serving_rate_limit: graph.serving_rate_limit,
            max_validators: graph.max_validators,
            difficulty: graph.difficulty,
            commit_reveal_period: graph.commit_reveal_period,
            commit_reveal_weights_enabled: graph.commit_reveal_weights_enabled,
            yuma_version: Compact(2),
            subnet_is_active: SubtokenEnabled::<T>::get(netuid),
            transfers_enabled: true,
            bonds_moving_avg: Compact(0),
            adjustment_alpha: Compact(0),
            alpha_high: Compact(0),
            alpha_low: Compact(0),
            liquid_alpha_enabled: false,
            alpha_sigmoid_steepness: FixedI64::default(),
            bonds_reset_enabled: false,
            user_liquidity_enabled: false,
        })
    }

    /// All that a coldkey has staked.
    pub fn stake_of_coldkey(coldkey: &AccountId32) -> Vec<StakeInfo> {
        let mut all = Vec::new();
        for hotkey in StakingHotkeys::<T>::get(coldkey) {
            for ((owner, netuid), shares) in Alpha::<T>::iter_prefix((hotkey.clone(),)) {
                if owner == *coldkey && shares.bits > 0 {
                    all.push(StakeInfo {
                        hotkey: hotkey.clone(),
                        coldkey: coldkey.clone(),
                        netuid: Compact(netuid),
                        stake: Compact((shares.bits >> 64) as u64),
                        is_registered: Uids::<T>::get(netuid, &hotkey).is_some(),
                        locked: Compact(0),
                        emission: Compact(0),
                        tao_emission: Compact(0),
                        drain: Compact(0),
                    });
                }
            }
        }
        all
    }
}
