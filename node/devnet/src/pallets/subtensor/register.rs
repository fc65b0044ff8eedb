//! Who becomes a member: founding of subnets, registration at a price, pruning of a full subnet, axons.

use super::types::{AxonInfo, GenesisSubnet};
use super::*;
use crate::pallets::settings;
use frame_support::ensure;
use frame_support::traits::{Currency, ExistenceRequirement, WithdrawReasons};
use sp_core::Get;
use sp_runtime::{AccountId32, DispatchResult, SaturatedConversion};

/// Blocks in which what the price has over its floor halves.
const BURN_HALF_LIFE: u64 = 360;

impl<T: Config> Pallet<T> {
    /// The current block's number.
    pub(crate) fn now() -> u64 {
        frame_system::Pallet::<T>::block_number().saturated_into()
    }

    pub(crate) fn found(subnet: &GenesisSubnet) {
        let netuid = subnet.netuid;
        NetworksAdded::<T>::insert(netuid, true);
        TotalNetworks::<T>::mutate(|n| *n = n.saturating_add(1));
        SubnetOwner::<T>::insert(netuid, &subnet.owner);
        SubtokenEnabled::<T>::insert(netuid, true);
        TokenSymbol::<T>::insert(netuid, DefaultSymbol::get());
        Tempo::<T>::insert(netuid, subnet.tempo.max(1));
        MaxAllowedUids::<T>::insert(netuid, subnet.max_uids.clamp(1, SUBNETS_MAX));
        MaxAllowedValidators::<T>::insert(netuid, subnet.max_validators);
        ImmunityPeriod::<T>::insert(netuid, subnet.immunity);
        MinAllowedWeights::<T>::insert(netuid, subnet.min_weights);
        WeightsSetRateLimit::<T>::insert(netuid, subnet.weights_rate_limit);
        ServingRateLimit::<T>::insert(netuid, subnet.serving_rate_limit);
        WeightsVersionKey::<T>::insert(netuid, subnet.version_key);
        CommitRevealWeightsEnabled::<T>::insert(netuid, subnet.commit_reveal);
        RevealPeriodEpochs::<T>::insert(netuid, subnet.reveal_period.max(1));
        Burn::<T>::insert(netuid, subnet.burn.clamp(subnet.burn_min, subnet.burn_max.max(subnet.burn_min)));
        MinBurn::<T>::insert(netuid, subnet.burn_min);
        MaxBurn::<T>::insert(netuid, subnet.burn_max.max(subnet.burn_min));
        MaxRegistrationsPerBlock::<T>::insert(netuid, subnet.registrations_max);
        for member in subnet.members.iter().take(usize::from(subnet.max_uids)) {
            Self::own(&member.coldkey, &member.hotkey);
            let uid = SubnetworkN::<T>::get(netuid);
            SubnetworkN::<T>::insert(netuid, uid + 1);
            Self::seat(netuid, uid, &member.hotkey);
            Self::credit(&member.coldkey, &member.hotkey, netuid, member.stake);
        }
        let permits = Self::permits(netuid, &Self::stakes(netuid));
        ValidatorPermit::<T>::insert(netuid, permits);
    }

    pub(crate) fn do_register(
        coldkey: &AccountId32,
        netuid: u16,
        hotkey: &AccountId32,
        limit: Option<u64>,
    ) -> DispatchResult {
        ensure!(netuid != 0, Error::<T>::RegistrationNotPermittedOnRootSubnet);
        ensure!(NetworksAdded::<T>::get(netuid), Error::<T>::SubnetNotExists);
        ensure!(NetworkRegistrationAllowed::<T>::get(netuid), Error::<T>::SubNetRegistrationDisabled);
        let taken = RegistrationsThisBlock::<T>::get(netuid);
        ensure!(taken < MaxRegistrationsPerBlock::<T>::get(netuid), Error::<T>::TooManyRegistrationsThisBlock);
        ensure!(Uids::<T>::get(netuid, hotkey).is_none(), Error::<T>::HotKeyAlreadyRegisteredInSubNet);
        let owner = Owner::<T>::get(hotkey);
        ensure!(owner == NoOne::get() || owner == *coldkey, Error::<T>::NonAssociatedColdKey);
        let price = Burn::<T>::get(netuid);
        ensure!(limit.is_none_or(|limit| price <= limit), Error::<T>::RegistrationPriceLimitExceeded);
        let uid = Self::place(netuid).ok_or(Error::<T>::NoNeuronIdAvailable)?;
        drop(
            pallet_balances::Pallet::<T>::withdraw(
                coldkey,
                price,
                WithdrawReasons::FEE,
                ExistenceRequirement::KeepAlive,
            )
            .map_err(|_| Error::<T>::NotEnoughBalanceToStake)?,
        );
        Self::own(coldkey, hotkey);
        if uid == SubnetworkN::<T>::get(netuid) {
            SubnetworkN::<T>::insert(netuid, uid + 1);
        }
        Self::seat(netuid, uid, hotkey);
        RegistrationsThisBlock::<T>::insert(netuid, taken + 1);
        let raised = price.saturating_add(price / 4).clamp(MinBurn::<T>::get(netuid), MaxBurn::<T>::get(netuid));
        Burn::<T>::insert(netuid, raised);
        Self::deposit_event(Event::NeuronRegistered(netuid, uid, hotkey.clone()));
        Ok(())
    }

    /// Lets the price fall towards its floor, and the count of the block's registrations begin anew.
    pub(super) fn cool(netuid: u16) {
        RegistrationsThisBlock::<T>::remove(netuid);
        let (price, floor) = (Burn::<T>::get(netuid), MinBurn::<T>::get(netuid));
        // 2^(-1/360) is 1 - 1/520 to four places.
        let over = price.saturating_sub(floor);
        if over > 0 {
            Burn::<T>::insert(netuid, floor + over - (over / (BURN_HALF_LIFE * 13 / 9)).max(1));
        }
    }

    /// The next free uid, or the one to prune: of those that are no longer immune, the one with the least emission.
    fn place(netuid: u16) -> Option<u16> {
        let n = SubnetworkN::<T>::get(netuid);
        if n < MaxAllowedUids::<T>::get(netuid) {
            return Some(n);
        }
        let emission = Emission::<T>::get(netuid);
        let immunity = u64::from(ImmunityPeriod::<T>::get(netuid));
        let owner = SubnetOwnerHotkey::<T>::get(netuid);
        (0..n)
            .filter(|uid| Keys::<T>::get(netuid, uid) != owner)
            .map(|uid| (uid, BlockAtRegistration::<T>::get(netuid, uid)))
            .filter(|(_, since)| Self::now().saturating_sub(*since) >= immunity)
            .min_by_key(|(uid, since)| (emission.get(usize::from(*uid)).copied().unwrap_or(0), *since, *uid))
            .map(|(uid, _)| uid)
    }

    /// Gives a uid to a hotkey; whoever had it is out, and what was kept by uid begins anew.
    fn seat(netuid: u16, uid: u16, hotkey: &AccountId32) {
        let before = Keys::<T>::get(netuid, uid);
        if before != NoOne::get() {
            Uids::<T>::remove(netuid, &before);
            Axons::<T>::remove(netuid, &before);
            IsNetworkMember::<T>::remove(&before, netuid);
        }
        Keys::<T>::insert(netuid, uid, hotkey);
        Uids::<T>::insert(netuid, hotkey, uid);
        IsNetworkMember::<T>::insert(hotkey, netuid, true);
        BlockAtRegistration::<T>::insert(netuid, uid, Self::now());
        Weights::<T>::remove(netuid, uid);
        Bonds::<T>::remove(netuid, uid);
        Active::<T>::mutate(netuid, |all| set(all, uid, true));
        ValidatorPermit::<T>::mutate(netuid, |all| set(all, uid, false));
        LastUpdate::<T>::mutate(netuid, |all| set(all, uid, Self::now()));
        Incentive::<T>::mutate(netuid, |all| set(all, uid, 0));
        Dividends::<T>::mutate(netuid, |all| set(all, uid, 0));
        Consensus::<T>::mutate(netuid, |all| set(all, uid, 0));
        ValidatorTrust::<T>::mutate(netuid, |all| set(all, uid, 0));
        Emission::<T>::mutate(netuid, |all| set(all, uid, 0));
    }

    /// Ties a hotkey to its coldkey.
    fn own(coldkey: &AccountId32, hotkey: &AccountId32) {
        if Owner::<T>::get(hotkey) == NoOne::get() {
            Owner::<T>::insert(hotkey, coldkey);
            OwnedHotkeys::<T>::mutate(coldkey, |all| all.push(hotkey.clone()));
        }
    }

    pub(crate) fn do_serve_axon(who: &AccountId32, netuid: u16, axon: AxonInfo) -> DispatchResult {
        ensure!(IsNetworkMember::<T>::iter_prefix(who).next().is_some(), Error::<T>::HotKeyNotRegisteredInNetwork);
        ensure!(Uids::<T>::get(netuid, who).is_some(), Error::<T>::HotKeyNotRegisteredInSubNet);
        ensure!(axon.ip_type == 4 || axon.ip_type == 6, Error::<T>::InvalidIpType);
        ensure!(Self::reachable(axon.ip_type, axon.ip), Error::<T>::InvalidIpAddress);
        ensure!(axon.port != 0, Error::<T>::InvalidPort);
        let last = Axons::<T>::get(netuid, who).map_or(0, |axon| axon.block);
        let since = Self::now().saturating_sub(last);
        ensure!(last == 0 || since >= ServingRateLimit::<T>::get(netuid), Error::<T>::ServingRateLimitExceeded);
        Axons::<T>::insert(netuid, who, axon);
        Self::deposit_event(Event::AxonServed(netuid, who.clone()));
        Ok(())
    }

    /// Whether subtensor takes an address: not zero, not broadcast, not loopback unless this devnet is told to.
    pub(crate) fn reachable(ip_type: u8, ip: u128) -> bool {
        let local = settings::LocalAxons::<T>::get();
        match (ip_type, u32::try_from(ip)) {
            (_, Ok(0)) => false,
            (4, Ok(ip)) => ip != u32::MAX && (local || ip >> 24 != 127),
            (4, Err(_)) => false,
            _ => ip != u128::MAX && (local || ip != 1),
        }
    }
}

/// Sets an entry of a list by uid, which grows as uids are given out one after another.
pub(super) fn set<V: Clone + Default>(all: &mut Vec<V>, uid: u16, value: V) {
    let at = usize::from(uid);
    if all.len() <= at {
        all.resize(at + 1, V::default());
    }
    all[at] = value;
}
