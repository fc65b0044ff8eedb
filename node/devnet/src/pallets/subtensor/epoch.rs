//! When a subnet's epoch runs, by either arithmetic, and what it does: opens hidden weights, weighs validators' rows by
//! stake, pays, gives permits.
//!
//! Until 2026 epochs were a matter of the block's number; since then each subnet remembers its last one. A devnet has
//! one or the other (`Devnet.StatefulEpochs`), and its metadata shows which.

use super::register::set;
use super::*;
use crate::pallets::{commitments, settings};
use sp_runtime::{AccountId32, SaturatedConversion};

/// How a subnet's epochs are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// By block number: an epoch runs where (block + netuid + 1) leaves the tempo when divided by tempo + 1.
    ByNumber {
        /// Blocks of an epoch, less one.
        tempo: u64,
        /// Shifts the subnets against each other.
        netuid: u16,
    },
    /// From the last one: an epoch runs as soon as a tempo of blocks has gone by, or when one was asked for.
    ByMemory {
        /// Blocks of an epoch.
        tempo: u64,
        /// The block of the last epoch.
        last: u64,
        /// A block at which one is due besides; 0 for none.
        pending: u64,
        /// Epochs so far.
        index: u64,
    },
}

impl Schedule {
    /// Whether an epoch runs in a block.
    pub fn runs_at(self, block: u64) -> bool {
        match self {
            Self::ByNumber { tempo, netuid } => tempo > 0 && (block + u64::from(netuid) + 1) % (tempo + 1) == tempo,
            Self::ByMemory { tempo, last, pending, .. } => {
                tempo > 0 && (block.saturating_sub(last) >= tempo || (pending > 0 && block >= pending))
            }
        }
    }

    /// The number of the epoch that a block is in.
    pub fn index_at(self, block: u64) -> u64 {
        match self {
            Self::ByNumber { tempo, netuid } => (block + u64::from(netuid) + 1) / (tempo + 1),
            Self::ByMemory { index, .. } => index,
        }
    }

    /// The first block after `block` in which an epoch runs.
    pub fn next_after(self, block: u64) -> u64 {
        match self {
            Self::ByNumber { tempo, netuid } => {
                let phase = (block + u64::from(netuid) + 1) % (tempo + 1);
                block + if phase < tempo { tempo - phase } else { tempo + 1 }
            }
            Self::ByMemory { tempo, last, pending, .. } => {
                let regular = (last + tempo).max(block + 1);
                if pending > block { pending.min(regular) } else { regular }
            }
        }
    }
}

impl<T: Config> Pallet<T> {
    /// How a subnet's epochs are counted just now.
    pub(crate) fn schedule(netuid: u16) -> Schedule {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        if settings::StatefulEpochs::<T>::get() {
            let (last, pending) = (LastEpochBlock::<T>::get(netuid), PendingEpochAt::<T>::get(netuid));
            Schedule::ByMemory { tempo, last, pending, index: SubnetEpochIndex::<T>::get(netuid) }
        } else {
            Schedule::ByNumber { tempo, netuid }
        }
    }

    /// What happens at the beginning of each block.
    pub(super) fn block_step() {
        let now = Self::now();
        for netuid in Self::subnets() {
            Self::cool(netuid);
            if Self::schedule(netuid).runs_at(now) {
                if settings::StatefulEpochs::<T>::get() {
                    LastEpochBlock::<T>::insert(netuid, now);
                    PendingEpochAt::<T>::remove(netuid);
                    SubnetEpochIndex::<T>::mutate(netuid, |index| *index += 1);
                }
                Self::open_timelocked(netuid);
                Self::run_epoch(netuid, BlocksSinceLastStep::<T>::get(netuid) + 1);
                BlocksSinceLastStep::<T>::insert(netuid, 0);
                LastMechansimStepBlock::<T>::insert(netuid, now);
            } else {
                BlocksSinceLastStep::<T>::mutate(netuid, |blocks| *blocks += 1);
            }
        }
    }

    /// Subnets, root not among them, by number.
    pub(crate) fn subnets() -> Vec<u16> {
        let mut all: Vec<u16> =
            NetworksAdded::<T>::iter().filter(|(id, there)| *there && *id != 0).map(|(id, _)| id).collect();
        all.sort_unstable();
        all
    }

    /// What the rows of permitted validators, weighed by their stake, say of each uid; and the stake of those who have
    /// one. What a row says of a uid that has changed hands since is not counted.
    fn votes(netuid: u16, stakes: &[u64]) -> (Vec<u128>, Vec<u128>) {
        let permits = ValidatorPermit::<T>::get(netuid);
        let updates = LastUpdate::<T>::get(netuid);
        let (mut earned, mut voted) = (vec![0_u128; stakes.len()], vec![0_u128; stakes.len()]);
        let since: Vec<u64> = (0..stakes.len()).map(|uid| BlockAtRegistration::<T>::get(netuid, uid as u16)).collect();
        for (uid, stake) in stakes.iter().enumerate() {
            if !permits.get(uid).copied().unwrap_or(false) {
                continue;
            }
            let set = updates.get(uid).copied().unwrap_or(0);
            let mut row = Weights::<T>::get(netuid, uid as u16);
            row.retain(|(to, _)| since.get(usize::from(*to)).is_some_and(|since| *since < set));
            let sum: u128 = row.iter().map(|(_, weight)| u128::from(*weight)).sum();
            if sum == 0 {
                continue;
            }
            voted[uid] = u128::from(*stake);
            for (to, weight) in row {
                earned[usize::from(to)] += u128::from(*stake) * u128::from(weight) / sum;
            }
        }
        (earned, voted)
    }

    /// Pays for `blocks` blocks: half by the validators' rows, half to the validators by stake; gives permits anew.
    fn run_epoch(netuid: u16, blocks: u64) {
        let stakes = Self::stakes(netuid);
        let (earned, voted) = Self::votes(netuid, &stakes);
        let pot = u128::from(BlockEmission::<T>::get()) * u128::from(blocks) / (Self::subnets().len().max(1) as u128);
        let (miners, validators) = (share(&earned, pot / 2), share(&voted, pot / 2));
        let mut emission = vec![0_u64; stakes.len()];
        for uid in 0..stakes.len() {
            let amount = miners[uid].saturating_add(validators[uid]);
            emission[uid] = amount.saturated_into();
            let hotkey = Keys::<T>::get(netuid, uid as u16);
            Self::credit(&Owner::<T>::get(&hotkey), &hotkey, netuid, emission[uid]);
        }
        let u16s =
            |of: &[u128]| -> Vec<u16> { share(of, u128::from(u16::MAX)).into_iter().map(|x| x as u16).collect() };
        let top = earned.iter().copied().max().unwrap_or(0).max(1);
        let consensus = earned.iter().map(|x| (x * u128::from(u16::MAX) / top) as u16).collect::<Vec<_>>();
        Incentive::<T>::insert(netuid, u16s(&earned));
        Dividends::<T>::insert(netuid, u16s(&voted));
        Consensus::<T>::insert(netuid, consensus);
        let trust: Vec<u16> = voted.iter().map(|stake| if *stake > 0 { u16::MAX } else { 0 }).collect();
        ValidatorTrust::<T>::insert(netuid, trust);
        Emission::<T>::insert(netuid, emission);
        let emissions = miners.into_iter().map(SaturatedConversion::saturated_into).collect();
        Self::deposit_event(Event::IncentiveAlphaEmittedToMiners { netuid, emissions });
        ValidatorPermit::<T>::insert(netuid, Self::permits(netuid, &Self::stakes(netuid)));
        let (now, cutoff) = (Self::now(), u64::from(ActivityCutoff::<T>::get(netuid)));
        let updates = LastUpdate::<T>::get(netuid);
        Active::<T>::mutate(netuid, |all| {
            for (uid, at) in updates.iter().enumerate() {
                set(all, uid as u16, now.saturating_sub(*at) < cutoff);
            }
        });
    }
}

/// Divides `pot` in proportion; nothing where nobody has any.
fn share(of: &[u128], pot: u128) -> Vec<u128> {
    let sum: u128 = of.iter().sum();
    // Stakes are u64s of rao and sums of them: shifting both keeps the product below 2^128.
    let shift = (128 - sum.leading_zeros()).saturating_sub(64);
    let sum = (sum >> shift).max(1);
    of.iter().map(|x| (x >> shift) * pot / sum).collect()
}

impl<T: Config> commitments::Subnets<AccountId32> for Pallet<T> {
    fn is_registered(netuid: u16, hotkey: &AccountId32) -> bool {
        Uids::<T>::get(netuid, hotkey).is_some()
    }

    fn epoch(netuid: u16) -> u64 {
        Self::schedule(netuid).index_at(Self::now())
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn the_next_epoch_is_the_first_block_that_runs_one() {
        for (tempo, netuid) in [(1, 1), (9, 3), (360, 41)] {
            let by_number = Schedule::ByNumber { tempo, netuid };
            let by_memory = Schedule::ByMemory { tempo, last: 40, pending: 0, index: 7 };
            for block in 40..1_200 {
                for schedule in [by_number, by_memory] {
                    let next = schedule.next_after(block);
                    let first = (block + 1..).find(|at| schedule.runs_at(*at));
                    assert_eq!(Some(next), first, "{schedule:?} after {block}");
                }
            }
        }
    }

    #[test]
    fn epochs_by_number_last_a_tempo_and_one() {
        let schedule = Schedule::ByNumber { tempo: 9, netuid: 2 };
        let runs: Vec<u64> = (0..40).filter(|block| schedule.runs_at(*block)).collect();
        assert_eq!(runs, [6, 16, 26, 36]);
        assert_eq!((schedule.index_at(6), schedule.index_at(7)), (0, 1));
    }

    #[test]
    fn an_epoch_that_was_asked_for_comes_first() {
        let schedule = Schedule::ByMemory { tempo: 100, last: 50, pending: 70, index: 0 };
        assert_eq!(schedule.next_after(60), 70);
        assert!(schedule.runs_at(70) && !schedule.runs_at(69));
    }
}
