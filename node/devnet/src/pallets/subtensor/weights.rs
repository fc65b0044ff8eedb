//! Weights: set in the open, committed by hash and revealed, or locked to a round of the beacon and opened by the chain.

use super::*;
use crate::pallets::drand;
use codec::{Decode, Encode};
use covey_timelock as timelock;
use frame_support::BoundedVec;
use frame_support::ensure;
use frame_support::traits::ConstU32;
use sp_core::H256;
use sp_runtime::traits::{BlakeTwo256, Hash};
use sp_runtime::{AccountId32, DispatchError, DispatchResult};

/// Commits of one hotkey that wait for their reveal.
const UNREVEALED_MAX: usize = 10;

/// uids, values, salt, version key.
pub type Preview = (Vec<u16>, Vec<u16>, Vec<u16>, u64);

/// What is locked to a round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WeightsPayload {
    /// Whose weights: another's, copied, are dropped.
    pub hotkey: Vec<u8>,
    /// Whom they judge.
    pub uids: Vec<u16>,
    /// How much each is worth.
    pub values: Vec<u16>,
    /// The subnet's version key or above.
    pub version_key: u64,
}

impl<T: Config> Pallet<T> {
    /// Where a mechanism's weights, updates and commits are kept.
    pub(crate) fn storage_index(netuid: u16, mecid: u8) -> u16 {
        u16::from(mecid).saturating_mul(SUBNETS_MAX).saturating_add(netuid)
    }

    fn check_mechanism(netuid: u16, mecid: u8) -> DispatchResult {
        ensure!(NetworksAdded::<T>::get(netuid), Error::<T>::SubnetNotExists);
        ensure!(mecid < MechanismCountCurrent::<T>::get(netuid), Error::<T>::MechanismDoesNotExist);
        Ok(())
    }

    /// Whether enough blocks have gone by since a uid's last weights or commit; 0 means never.
    pub(crate) fn may_update(index: u16, netuid: u16, uid: u16) -> bool {
        let last = LastUpdate::<T>::get(index).get(usize::from(uid)).copied().unwrap_or(0);
        last == 0 || Self::now().saturating_sub(last) >= WeightsSetRateLimit::<T>::get(netuid)
    }

    pub(crate) fn has_stake_for_weights(netuid: u16, hotkey: &AccountId32) -> bool {
        Self::stake_of(netuid, hotkey) >= StakeThreshold::<T>::get()
    }

    pub(crate) fn do_set_weights(
        who: &AccountId32,
        netuid: u16,
        mecid: u8,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        ensure!(!CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealEnabled);
        Self::set_row(who, netuid, mecid, uids, values, version_key, true)
    }

    /// Checks a row and sets it. A row that was committed to was held to the rate limit then.
    fn set_row(
        who: &AccountId32,
        netuid: u16,
        mecid: u8,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
        limited: bool,
    ) -> DispatchResult {
        Self::check_mechanism(netuid, mecid)?;
        let n = SubnetworkN::<T>::get(netuid);
        ensure!(uids.len() == values.len(), Error::<T>::WeightVecNotEqualSize);
        ensure!(uids.len() <= usize::from(n), Error::<T>::UidsLengthExceedUidsInSubNet);
        let uid = Uids::<T>::get(netuid, who).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        ensure!(Self::has_stake_for_weights(netuid, who), Error::<T>::NotEnoughStakeToSetWeights);
        ensure!(version_key >= WeightsVersionKey::<T>::get(netuid), Error::<T>::IncorrectWeightVersionKey);
        let index = Self::storage_index(netuid, mecid);
        ensure!(!limited || Self::may_update(index, netuid, uid), Error::<T>::SettingWeightsTooFast);
        let own = uids == [uid];
        let permitted = ValidatorPermit::<T>::get(netuid).get(usize::from(uid)).copied().unwrap_or(false);
        let owner = SubnetOwnerHotkey::<T>::get(netuid) == *who;
        ensure!(own || owner || permitted, Error::<T>::NeuronNoValidatorPermit);
        let mut sorted = uids.to_vec();
        sorted.sort_unstable();
        ensure!(sorted.windows(2).all(|pair| pair[0] != pair[1]), Error::<T>::DuplicateUids);
        ensure!(sorted.last().is_none_or(|last| *last < n), Error::<T>::UidVecContainInvalidOne);
        let least = usize::from(MinAllowedWeights::<T>::get(netuid)).min(usize::from(n));
        ensure!(own || uids.len() >= least, Error::<T>::WeightVecLengthIsLow);
        let top = u64::from(values.iter().copied().max().unwrap_or(0));
        let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
        let limit = u64::from(MaxWeightsLimit::<T>::get(netuid));
        ensure!(own || top * u64::from(u16::MAX) <= limit * sum, Error::<T>::MaxWeightExceeded);
        let upscaled = |value: u16| match top {
            0 => 0,
            top => (u64::from(value) * u64::from(u16::MAX) / top) as u16,
        };
        let row: Vec<(u16, u16)> = uids.iter().zip(values).map(|(to, value)| (*to, upscaled(*value))).collect();
        Weights::<T>::insert(index, uid, row);
        if limited {
            LastUpdate::<T>::mutate(index, |all| super::register::set(all, uid, Self::now()));
        }
        Self::deposit_event(Event::WeightsSet(index, uid));
        Ok(())
    }

    /// What a commit of any kind needs; marks the uid as updated.
    fn begin_commit(who: &AccountId32, netuid: u16, mecid: u8) -> Result<u16, DispatchError> {
        Self::check_mechanism(netuid, mecid)?;
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        let uid = Uids::<T>::get(netuid, who).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        let index = Self::storage_index(netuid, mecid);
        ensure!(Self::may_update(index, netuid, uid), Error::<T>::CommittingWeightsTooFast);
        LastUpdate::<T>::mutate(index, |all| super::register::set(all, uid, Self::now()));
        Ok(index)
    }

    pub(crate) fn do_commit(who: &AccountId32, netuid: u16, mecid: u8, hash: H256) -> DispatchResult {
        let index = Self::begin_commit(who, netuid, mecid)?;
        let (epoch, period) = (Self::epoch_now(netuid), RevealPeriodEpochs::<T>::get(netuid));
        let mut commits = WeightCommits::<T>::get(index, who).unwrap_or_default();
        while commits.front().is_some_and(|commit| Self::commit_epoch(netuid, commit) + period < epoch) {
            commits.pop_front();
        }
        ensure!(commits.len() < UNREVEALED_MAX, Error::<T>::TooManyUnrevealedCommits);
        commits.push_back(match Self::schedule(netuid) {
            Schedule::ByNumber { tempo, netuid } => {
                let first = ((epoch + period) * (tempo + 1)).saturating_sub(u64::from(netuid) + 1);
                (hash, Self::now(), first, first + tempo)
            }
            Schedule::ByMemory { .. } => (hash, epoch, Self::now(), 0),
        });
        WeightCommits::<T>::insert(index, who, commits);
        Self::deposit_event(Event::WeightsCommitted(who.clone(), index, hash));
        Ok(())
    }

    fn epoch_now(netuid: u16) -> u64 {
        Self::schedule(netuid).index_at(Self::now())
    }

    /// The epoch of a commit: kept as its block where epochs go by number, as itself where they are remembered.
    fn commit_epoch(netuid: u16, commit: &(H256, u64, u64, u64)) -> u64 {
        match Self::schedule(netuid) {
            by_number @ Schedule::ByNumber { .. } => by_number.index_at(commit.1),
            Schedule::ByMemory { .. } => commit.1,
        }
    }

    /// The hash that a commit to `preview` has.
    pub(crate) fn commit_hash(who: &AccountId32, index: u16, preview: &Preview) -> H256 {
        let (uids, values, salt, version_key) = preview;
        BlakeTwo256::hash_of(&(who, index, uids, values, salt, version_key))
    }

    /// Where in its queue a commit is, and whether this is the epoch to reveal it in.
    pub(crate) fn find_commit(who: &AccountId32, netuid: u16, mecid: u8, hash: H256) -> Result<usize, Error<T>> {
        let commits =
            WeightCommits::<T>::get(Self::storage_index(netuid, mecid), who).ok_or(Error::<T>::NoWeightsCommitFound)?;
        let at = commits.iter().position(|commit| commit.0 == hash);
        let at = at.ok_or(Error::<T>::InvalidRevealCommitHashNotMatch)?;
        let due = Self::commit_epoch(netuid, &commits[at]) + RevealPeriodEpochs::<T>::get(netuid);
        match Self::epoch_now(netuid).cmp(&due) {
            std::cmp::Ordering::Less => Err(Error::<T>::RevealTooEarly),
            std::cmp::Ordering::Equal => Ok(at),
            std::cmp::Ordering::Greater => Err(Error::<T>::ExpiredWeightCommit),
        }
    }

    pub(crate) fn do_reveal(who: &AccountId32, netuid: u16, mecid: u8, preview: Preview) -> DispatchResult {
        Self::check_mechanism(netuid, mecid)?;
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        let index = Self::storage_index(netuid, mecid);
        let hash = Self::commit_hash(who, index, &preview);
        let at = Self::find_commit(who, netuid, mecid, hash)?;
        WeightCommits::<T>::mutate_exists(index, who, |commits| {
            if let Some(all) = commits {
                all.drain(..=at);
            }
            if commits.as_ref().is_some_and(|all| all.is_empty()) {
                *commits = None;
            }
        });
        let (uids, values, _, version_key) = preview;
        Self::set_row(who, netuid, mecid, &uids, &values, version_key, false)?;
        Self::deposit_event(Event::WeightsRevealed(who.clone(), index, hash));
        Ok(())
    }

    pub(crate) fn do_commit_timelocked(
        who: &AccountId32,
        netuid: u16,
        mecid: u8,
        commit: BoundedVec<u8, ConstU32<5_000>>,
        round: u64,
        version: u16,
    ) -> DispatchResult {
        ensure!(version == CommitRevealWeightsVersion::<T>::get(), Error::<T>::IncorrectCommitRevealVersion);
        let index = Self::begin_commit(who, netuid, mecid)?;
        let mut commits = TimelockedWeightCommits::<T>::get(index, Self::epoch_now(netuid));
        let waiting = commits.iter().filter(|commit| commit.0 == *who).count();
        ensure!(waiting < UNREVEALED_MAX, Error::<T>::TooManyUnrevealedCommits);
        let hash = BlakeTwo256::hash(&commit);
        commits.push_back((who.clone(), Self::now(), commit, round));
        TimelockedWeightCommits::<T>::insert(index, Self::epoch_now(netuid), commits);
        Self::deposit_event(Event::TimelockedWeightsCommitted(who.clone(), index, hash, round));
        Ok(())
    }

    /// Opens, at the start of an epoch, what was locked `period` epochs ago; what is older is thrown away. A commit
    /// whose round has not come stays for the rest of the epoch's life, which is until the next one.
    pub(super) fn open_timelocked(netuid: u16) {
        let due = Self::epoch_now(netuid).checked_sub(RevealPeriodEpochs::<T>::get(netuid));
        let Some(due) = due else { return };
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = Self::storage_index(netuid, mecid);
            let old: Vec<u64> = TimelockedWeightCommits::<T>::iter_prefix(index).map(|(epoch, _)| epoch).collect();
            for epoch in old.into_iter().filter(|epoch| *epoch < due) {
                TimelockedWeightCommits::<T>::remove(index, epoch);
            }
            let mut later = std::collections::VecDeque::new();
            for entry in TimelockedWeightCommits::<T>::take(index, due) {
                let Some(signature) = drand::Pallet::<T>::signature(entry.3) else {
                    later.push_back(entry);
                    continue;
                };
                let (who, _, sealed, _) = entry;
                let payload = timelock::open(&sealed, &signature);
                let payload = payload.and_then(|bytes| WeightsPayload::decode(&mut &bytes[..]).ok());
                let Some(payload) =
                    payload.filter(|payload| payload.hotkey == <AccountId32 as AsRef<[u8]>>::as_ref(&who))
                else {
                    continue;
                };
                let WeightsPayload { uids, values, version_key, .. } = payload;
                if Self::set_row(&who, netuid, mecid, &uids, &values, version_key, false).is_ok() {
                    Self::deposit_event(Event::TimelockedWeightsRevealed(index, who));
                }
            }
            if !later.is_empty() {
                TimelockedWeightCommits::<T>::insert(index, due, later);
            }
        }
    }
}
