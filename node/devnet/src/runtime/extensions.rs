//! What is checked of a transaction besides what FRAME checks: nonces of accounts without funds, and calls that can be
//! refused before they are in a block, with the numbers that subtensor's clients know.

use super::{Runtime, RuntimeCall, RuntimeOrigin};
use crate::pallets::subtensor::types::AxonInfo;
use crate::pallets::subtensor::{self, Error, Preview};
use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::dispatch::{DispatchInfo, Pays, PostDispatchInfo};
use scale_info::TypeInfo;
use sp_runtime::traits::{
    AsSystemOriginSigner, DispatchInfoOf, Implication, PostDispatchInfoOf, TransactionExtension, ValidateResult,
};
use sp_runtime::transaction_validity::{
    InvalidTransaction, TransactionLongevity, TransactionSource, TransactionValidityError, ValidTransaction,
};
use sp_runtime::{AccountId32, DispatchResult, Weight};

/// The sender's nonce: like FRAME's, except that an account without funds may send calls that cost nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct CheckNonce(#[codec(compact)] pub u32);

impl TransactionExtension<RuntimeCall> for CheckNonce {
    const IDENTIFIER: &'static str = "CheckNonce";
    type Implicit = ();
    type Val = Option<AccountId32>;
    type Pre = ();

    fn weight(&self, _: &RuntimeCall) -> Weight {
        Weight::zero()
    }

    fn validate(
        &self,
        origin: RuntimeOrigin,
        _: &RuntimeCall,
        info: &DispatchInfo,
        _: usize,
        _: (),
        _: &impl Implication,
        _: TransactionSource,
    ) -> ValidateResult<Self::Val, RuntimeCall> {
        let Some(who) = origin.as_system_origin_signer().cloned() else {
            return Ok((ValidTransaction::default(), None, origin));
        };
        let account = frame_system::Account::<Runtime>::get(&who);
        if info.pays_fee == Pays::Yes && account.providers == 0 && account.sufficients == 0 {
            return Err(InvalidTransaction::Payment.into());
        }
        if self.0 < account.nonce {
            return Err(InvalidTransaction::Stale.into());
        }
        let requires = if account.nonce < self.0 { vec![(&who, self.0 - 1).encode()] } else { vec![] };
        let provides = vec![(&who, self.0).encode()];
        let longevity = TransactionLongevity::MAX;
        Ok((ValidTransaction { priority: 0, requires, provides, longevity, propagate: true }, Some(who), origin))
    }

    fn prepare(
        self,
        who: Option<AccountId32>,
        _: &RuntimeOrigin,
        _: &RuntimeCall,
        _: &DispatchInfo,
        _: usize,
    ) -> Result<(), TransactionValidityError> {
        let Some(who) = who else { return Ok(()) };
        frame_system::Account::<Runtime>::try_mutate(&who, |account| {
            match self.0.cmp(&account.nonce) {
                std::cmp::Ordering::Less => return Err(InvalidTransaction::Stale.into()),
                std::cmp::Ordering::Greater => return Err(InvalidTransaction::Future.into()),
                std::cmp::Ordering::Equal => account.nonce = account.nonce.saturating_add(1),
            }
            Ok(())
        })
    }

    fn post_dispatch_details(
        _: (),
        _: &DispatchInfoOf<RuntimeCall>,
        _: &PostDispatchInfo,
        _: usize,
        _: &DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        Ok(Weight::zero())
    }
}

/// Why the pool refuses a call: the number of "Custom error".
#[derive(Clone, Copy, Debug)]
enum Refusal {
    StakeTooLow = 1,
    BalanceTooLow = 2,
    NoSuchSubnet = 3,
    NoSuchHotkey = 4,
    RateLimit = 6,
    NotInNetwork = 10,
    AxonAddress = 11,
    AxonRate = 12,
    AxonPort = 13,
    NoCommit = 15,
    NotTheEpochToReveal = 16,
    LengthsDiffer = 17,
    NoSuchUid = 18,
    NotInSubnet = 19,
    Other = 255,
}

/// Refuses in the pool what would fail in a block, so that free calls cannot fill blocks with failures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SubtensorTransactionExtension;

type Module = subtensor::Pallet<Runtime>;

fn weights(who: &AccountId32, netuid: u16, mecid: u8) -> Result<(), Refusal> {
    if !subtensor::NetworksAdded::<Runtime>::get(netuid) {
        return Err(Refusal::NoSuchSubnet);
    }
    let uid = subtensor::Uids::<Runtime>::get(netuid, who).ok_or(Refusal::NotInSubnet)?;
    if !Module::has_stake_for_weights(netuid, who) {
        return Err(Refusal::StakeTooLow);
    }
    let index = Module::storage_index(netuid, mecid);
    if !Module::may_update(index, netuid, uid) {
        return Err(Refusal::RateLimit);
    }
    Ok(())
}

fn reveal(who: &AccountId32, netuid: u16, mecid: u8, preview: &Preview) -> Result<(), Refusal> {
    if preview.0.len() != preview.1.len() {
        return Err(Refusal::LengthsDiffer);
    }
    subtensor::Uids::<Runtime>::get(netuid, who).ok_or(Refusal::NoSuchUid)?;
    let hash = Module::commit_hash(who, Module::storage_index(netuid, mecid), preview);
    match Module::find_commit(who, netuid, mecid, hash) {
        Ok(_) => Ok(()),
        Err(Error::NoWeightsCommitFound | Error::InvalidRevealCommitHashNotMatch) => Err(Refusal::NoCommit),
        Err(Error::RevealTooEarly | Error::ExpiredWeightCommit) => Err(Refusal::NotTheEpochToReveal),
        Err(_) => Err(Refusal::Other),
    }
}

fn axon(who: &AccountId32, netuid: u16, ip: u128, port: u16, ip_type: u8) -> Result<(), Refusal> {
    if !Module::reachable(ip_type, ip) || (ip_type != 4 && ip_type != 6) {
        return Err(Refusal::AxonAddress);
    }
    if port == 0 {
        return Err(Refusal::AxonPort);
    }
    if subtensor::Uids::<Runtime>::get(netuid, who).is_none() {
        return Err(Refusal::NotInNetwork);
    }
    let last = subtensor::Axons::<Runtime>::get(netuid, who).map_or(0, |axon: AxonInfo| axon.block);
    if last != 0 && Module::now().saturating_sub(last) < subtensor::ServingRateLimit::<Runtime>::get(netuid) {
        return Err(Refusal::AxonRate);
    }
    Ok(())
}

fn check(who: &AccountId32, call: &RuntimeCall) -> Result<(), Refusal> {
    use subtensor::Call as C;
    match call {
        RuntimeCall::SubtensorModule(call) => match call {
            C::set_weights { netuid, .. }
            | C::commit_weights { netuid, .. }
            | C::commit_timelocked_weights { netuid, .. } => weights(who, *netuid, 0),
            C::set_mechanism_weights { netuid, mecid, .. }
            | C::commit_mechanism_weights { netuid, mecid, .. }
            | C::commit_timelocked_mechanism_weights { netuid, mecid, .. } => weights(who, *netuid, *mecid),
            C::reveal_weights { netuid, uids, values, salt, version_key } => {
                reveal(who, *netuid, 0, &(uids.clone(), values.clone(), salt.clone(), *version_key))
            }
            C::reveal_mechanism_weights { netuid, mecid, uids, values, salt, version_key } => {
                reveal(who, *netuid, *mecid, &(uids.clone(), values.clone(), salt.clone(), *version_key))
            }
            C::serve_axon { netuid, ip, port, ip_type, .. } => axon(who, *netuid, *ip, *port, *ip_type),
            C::burned_register { netuid, .. } | C::register_limit { netuid, .. } => {
                if !subtensor::NetworksAdded::<Runtime>::get(netuid) {
                    return Err(Refusal::NoSuchSubnet);
                }
                let price = subtensor::Burn::<Runtime>::get(netuid);
                let funds = pallet_balances::Pallet::<Runtime>::free_balance(who);
                if funds < price { Err(Refusal::BalanceTooLow) } else { Ok(()) }
            }
            C::add_stake { hotkey, amount_staked, .. } | C::add_stake_limit { hotkey, amount_staked, .. } => {
                if subtensor::Owner::<Runtime>::get(hotkey) == AccountId32::new([0; 32]) {
                    return Err(Refusal::NoSuchHotkey);
                }
                let funds = pallet_balances::Pallet::<Runtime>::free_balance(who);
                if funds < *amount_staked { Err(Refusal::BalanceTooLow) } else { Ok(()) }
            }
            _ => Ok(()),
        },
        // The real chain lets a commitment into a block, where it fails with AccountNotAllowedCommit.
        _ => Ok(()),
    }
}

impl TransactionExtension<RuntimeCall> for SubtensorTransactionExtension {
    const IDENTIFIER: &'static str = "SubtensorTransactionExtension";
    type Implicit = ();
    type Val = ();
    type Pre = ();

    fn weight(&self, _: &RuntimeCall) -> Weight {
        Weight::zero()
    }

    fn validate(
        &self,
        origin: RuntimeOrigin,
        call: &RuntimeCall,
        _: &DispatchInfo,
        _: usize,
        _: (),
        _: &impl Implication,
        _: TransactionSource,
    ) -> ValidateResult<(), RuntimeCall> {
        if let Some(who) = origin.as_system_origin_signer() {
            check(who, call).map_err(|refusal| InvalidTransaction::Custom(refusal as u8))?;
        }
        Ok((ValidTransaction::default(), (), origin))
    }

    fn prepare(
        self,
        _: (),
        _: &RuntimeOrigin,
        _: &RuntimeCall,
        _: &DispatchInfo,
        _: usize,
    ) -> Result<(), TransactionValidityError> {
        Ok(())
    }

    fn post_dispatch_details(
        _: (),
        _: &DispatchInfoOf<RuntimeCall>,
        _: &PostDispatchInfoOf<RuntimeCall>,
        _: usize,
        _: &DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        Ok(Weight::zero())
    }
}
