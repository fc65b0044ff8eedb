//! Stake: TAO becomes alpha one for one; what counts when validators vote.

use super::*;
use frame_support::ensure;
use frame_support::traits::{Currency, ExistenceRequirement, WithdrawReasons};
use sp_core::Get;
use sp_runtime::{AccountId32, DispatchResult};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_add_stake(
        coldkey: &AccountId32,
        hotkey: &AccountId32,
        netuid: u16,
        amount: u64,
    ) -> DispatchResult {
        ensure!(netuid == 0 || NetworksAdded::<T>::get(netuid), Error::<T>::SubnetNotExists);
        ensure!(Owner::<T>::get(hotkey) != NoOne::get(), Error::<T>::HotKeyAccountNotExists);
        ensure!(amount > 0, Error::<T>::AmountTooLow);
        drop(
            pallet_balances::Pallet::<T>::withdraw(
                coldkey,
                amount,
                WithdrawReasons::TRANSFER,
                ExistenceRequirement::KeepAlive,
            )
            .map_err(|_| Error::<T>::NotEnoughBalanceToStake)?,
        );
        Self::credit(coldkey, hotkey, netuid, amount);
        Self::deposit_event(Event::StakeAdded(coldkey.clone(), hotkey.clone(), amount, amount, netuid, 0));
        Ok(())
    }

    pub(crate) fn do_remove_stake(
        coldkey: &AccountId32,
        hotkey: &AccountId32,
        netuid: u16,
        amount: u64,
    ) -> DispatchResult {
        ensure!(amount > 0, Error::<T>::AmountTooLow);
        let key = (hotkey.clone(), coldkey.clone(), netuid);
        let mut shares = Alpha::<T>::get(&key);
        let taken = u128::from(amount) << 64;
        ensure!(shares.bits >= taken, Error::<T>::NotEnoughStakeToWithdraw);
        shares.bits -= taken;
        Alpha::<T>::insert(&key, shares);
        TotalHotkeyAlpha::<T>::mutate(hotkey, netuid, |all| *all = all.saturating_sub(amount));
        TotalStake::<T>::mutate(|all| *all = all.saturating_sub(amount));
        drop(pallet_balances::Pallet::<T>::deposit_creating(coldkey, amount));
        Self::deposit_event(Event::StakeRemoved(coldkey.clone(), hotkey.clone(), amount, amount, netuid, 0));
        Ok(())
    }

    /// Adds alpha to what a coldkey has with a hotkey.
    pub(super) fn credit(coldkey: &AccountId32, hotkey: &AccountId32, netuid: u16, amount: u64) {
        if amount == 0 {
            return;
        }
        Alpha::<T>::mutate((hotkey.clone(), coldkey.clone(), netuid), |shares| {
            shares.bits = shares.bits.saturating_add(u128::from(amount) << 64);
        });
        TotalHotkeyAlpha::<T>::mutate(hotkey, netuid, |all| *all = all.saturating_add(amount));
        TotalStake::<T>::mutate(|all| *all = all.saturating_add(amount));
        StakingHotkeys::<T>::mutate(coldkey, |all| {
            if !all.contains(hotkey) {
                all.push(hotkey.clone());
            }
        });
    }

    /// A hotkey's alpha on a subnet, and its TAO on root as far as that counts.
    pub(crate) fn stake_parts(netuid: u16, hotkey: &AccountId32) -> (u64, u64) {
        let root = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, 0));
        let counted = (root * u128::from(TaoWeight::<T>::get())) >> 64;
        (TotalHotkeyAlpha::<T>::get(hotkey, netuid), u64::try_from(counted).unwrap_or(u64::MAX))
    }

    /// What a hotkey's word weighs on a subnet.
    pub(crate) fn stake_of(netuid: u16, hotkey: &AccountId32) -> u64 {
        let (alpha, tao) = Self::stake_parts(netuid, hotkey);
        alpha.saturating_add(tao)
    }

    /// The same for every uid.
    pub(crate) fn stakes(netuid: u16) -> Vec<u64> {
        (0..SubnetworkN::<T>::get(netuid)).map(|uid| Self::stake_of(netuid, &Keys::<T>::get(netuid, uid))).collect()
    }

    /// Who may set weights: those with the most stake, as many as the subnet has places, if they have any.
    pub(super) fn permits(netuid: u16, stakes: &[u64]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..stakes.len()).filter(|uid| stakes[*uid] > 0).collect();
        order.sort_by_key(|uid| (std::cmp::Reverse(stakes[*uid]), *uid));
        let mut permits = vec![false; stakes.len()];
        for uid in order.into_iter().take(usize::from(MaxAllowedValidators::<T>::get(netuid))) {
            permits[uid] = true;
        }
        permits
    }
}
