//! Who trains on which samples, and which samples judge the result.
//!
//! A seed that nobody could foresee keys a permutation of the run's samples; each member takes its own stretch of it,
//! so that two members' data are disjoint, and evaluation takes what lies beyond all of them. What a sample *is*
//! (tokens, files) is for others to say: here it is a number below M.

use crate::clock::{beacon, derive_digest};
use covey_proto::chain::ChainView;
use covey_proto::random::finalise;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, RunId, Uid, derive};

/// Rounds of the Feistel network. Four make a pseudo-random permutation of perfect round functions; twice that for ours,
/// which are only well mixed.
const FEISTEL_ROUNDS: usize = 8;
/// Bits of half a block, at least. Below 2⁸ values few keys would give many of the possible permutations.
const HALF_BITS_MIN: u32 = 4;

/// A keyed permutation of `0..len`, without a table: 7 to 55 positions a microsecond.
///
/// - `h` is the least number of bits, 4 or more, with `2^(2h) ≥ len`.
/// - `key[0..8]` are eight u64, little-endian: the 64 bytes of `derive("covey/1/permutation", key digest)`.
/// - One pass over x < 2^(2h): left = x >> h, right = the low h bits; eight times, with i = 0..8,
///   `(left, right) = (right, left ^ f(i, right))`; the result is `left << h | right`.
/// - `f(i, v)`: z = v + key\[i\] (wrapping, as all of these); z = (z ^ z >> 30) · 0xbf58476d1ce4e5b9; z = (z ^ z >> 27) ·
///   0x94d049bb133111eb; z = z ^ z >> 31; the high h bits of z ([`finalise`]).
/// - Cycle walking: passes are repeated until the result is below `len`; at most four are
///   expected (256 ÷ len below 64).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation {
    keys: [u64; FEISTEL_ROUNDS],
    half_bits: u32,
    len: u64,
}

impl Permutation {
    /// The permutation of `0..len` under `key`.
    pub fn new(key: Digest, len: u64) -> Permutation {
        let mut stream = derive("covey/1/permutation", &[key.as_bytes()]);
        let mut word = [0; 8];
        let keys = std::array::from_fn(|_| {
            stream.fill(&mut word);
            u64::from_le_bytes(word)
        });
        let bits = len.saturating_sub(1).checked_ilog2().map_or(0, |highest| highest + 1);
        Permutation { keys, half_bits: bits.div_ceil(2).max(HALF_BITS_MIN), len }
    }

    /// How many values it permutes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it permutes nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `position` goes. Positions count modulo the length.
    ///
    /// # Panics
    /// If there is nothing to permute.
    pub fn at(&self, position: u64) -> u64 {
        assert!(self.len > 0, "a permutation of nothing has no positions");
        let mut value = self.pass(position % self.len);
        // A cycle that starts below len comes back below it: this ends.
        while value >= self.len {
            value = self.pass(value);
        }
        value
    }

    fn pass(&self, value: u64) -> u64 {
        let half = self.half_bits;
        let (mut left, mut right) = (value >> half, value & ((1 << half) - 1));
        for key in self.keys {
            let mixed = finalise(right.wrapping_add(key)) >> (64 - half);
            (left, right) = (right, left ^ mixed);
        }
        left << half | right
    }
}

/// Samples that a member trains on in `round`: n = H · batch.
pub fn samples_per_member(run: &Run, round: Round) -> u64 {
    let steps = u64::try_from(run.inner.steps.count(round)).unwrap_or(u64::MAX);
    steps.saturating_mul(run.inner.batch.into())
}

/// A round's seed: `derive("covey/1/seed", run id ‖ round u32 LE ‖ beacon(A))`.
pub fn seed(run_id: RunId, round: Round, beacon_a: Digest) -> Digest {
    derive_digest("covey/1/seed", &[run_id.0.as_bytes(), &round.0.to_le_bytes(), beacon_a.as_bytes()])
}

/// One round's data: each member's samples, and those that judge.
///
/// The member of rank j (members by uid rising, from 0) takes positions j·n … j·n+n−1 of the permutation, modulo M.
/// While members·n ≤ M these are disjoint; in a smaller data set they overlap.
#[derive(Clone, Debug)]
pub struct Assignment {
    seed: Digest,
    order: Permutation,
    members: Vec<Uid>,
    per_member: u64,
}

impl Assignment {
    /// The assignment of `samples` (M) under `seed` to `members`, in whatever order they come, `per_member` (n) each.
    ///
    /// # Panics
    /// If there are no samples; a checked run has at least one.
    pub fn new(seed: Digest, samples: u64, members: impl IntoIterator<Item = Uid>, per_member: u64) -> Assignment {
        assert!(samples > 0, "a run has at least one sample");
        let mut members: Vec<Uid> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Assignment { seed, order: Permutation::new(seed, samples), members, per_member }
    }

    /// The assignment of `round`, from the state at its anchor.
    pub fn of(run: &Run, run_id: RunId, round: Round, at_a: &ChainView) -> Assignment {
        let seed = seed(run_id, round, beacon(run, run_id, at_a.block, at_a.hash));
        let members = at_a.members.keys().copied();
        Assignment::new(seed, run.data_of(round).samples, members, samples_per_member(run, round))
    }

    /// The round's seed.
    pub fn seed(&self) -> Digest {
        self.seed
    }

    /// n: samples of a member.
    pub fn per_member(&self) -> u64 {
        self.per_member
    }

    /// The member's samples in the order of training, `batch` after `batch`; none for who is no member.
    pub fn samples_of(&self, uid: Uid) -> Option<Samples<'_>> {
        let next = self.start_of(uid)?;
        Some(Samples { order: &self.order, next, left: self.per_member })
    }

    /// The samples that `voter` judges everyone by after C: `count` distinct ones that nobody was assigned.
    ///
    /// A permutation of the positions from members·n on, keyed by `derive("covey/1/eval", seed ‖ beacon(C) ‖ voter u32
    /// LE)`; its first `count`. Where fewer than `count` lie beyond the members' positions, a permutation of *all*
    /// positions instead: such a data set is too small to keep random data apart from assigned. Below `count` samples
    /// in all, they repeat.
    pub fn evaluation(&self, beacon_c: Digest, voter: Uid, count: usize) -> Vec<u64> {
        let assigned = u128::from(self.per_member) * self.members.len() as u128;
        let beyond = u128::from(self.order.len()).saturating_sub(assigned);
        let (first, space) = match u64::try_from(beyond) {
            Ok(beyond) if beyond >= count as u64 && beyond > 0 => (self.order.len() - beyond, beyond),
            _ => (0, self.order.len()),
        };
        let voter = voter.number().to_le_bytes();
        let key = derive_digest("covey/1/eval", &[self.seed.as_bytes(), beacon_c.as_bytes(), &voter]);
        self.pick(key, first, space, count)
    }

    /// Which of the samples of `uid` `voter` judges it by after C: `count` distinct ones; none if it is no member.
    ///
    /// A permutation of its n positions, keyed by `derive("covey/1/own", seed ‖ beacon(C) ‖ voter u32 LE ‖ uid u32
    /// LE)`; the first `count`, or n if that is fewer.
    pub fn own_samples(&self, beacon_c: Digest, voter: Uid, uid: Uid, count: usize) -> Option<Vec<u64>> {
        let first = self.start_of(uid)?;
        let (voter, uid) = (voter.number().to_le_bytes(), uid.number().to_le_bytes());
        let key = derive_digest("covey/1/own", &[self.seed.as_bytes(), beacon_c.as_bytes(), &voter, &uid]);
        let count = usize::try_from(self.per_member).unwrap_or(usize::MAX).min(count);
        Some(self.pick(key, first, self.per_member, count))
    }

    /// The samples at the first `count` of the `space` positions from `first` on, shuffled under `key`.
    fn pick(&self, key: Digest, first: u64, space: u64, count: usize) -> Vec<u64> {
        let shuffle = Permutation::new(key, space);
        let position = |i: usize| (u128::from(first) + u128::from(shuffle.at(i as u64))) % u128::from(self.order.len());
        (0..count).map(|i| self.order.at(position(i) as u64)).collect()
    }

    /// j·n mod M.
    fn start_of(&self, uid: Uid) -> Option<u64> {
        let rank = self.members.binary_search(&uid).ok()?;
        let start = rank as u128 * u128::from(self.per_member) % u128::from(self.order.len());
        u64::try_from(start).ok()
    }
}

/// A member's samples, in the order of training. See [`Assignment::samples_of`].
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    order: &'a Permutation,
    next: u64,
    left: u64,
}

impl Iterator for Samples<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let sample = self.order.at(self.next);
        self.next = if self.next == self.order.len() - 1 { 0 } else { self.next + 1 };
        Some(sample)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match usize::try_from(self.left) {
            Ok(left) => (left, Some(left)),
            Err(_) => (usize::MAX, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn uids(count: u8) -> impl Iterator<Item = Uid> {
        (0..count).map(Uid::from)
    }

    proptest! {
        #[test]
        fn every_key_permutes_every_small_length(key: [u8; 32], len in 1u64..700) {
            let permutation = Permutation::new(Digest::new(key), len);
            let images: BTreeSet<u64> = (0..len).map(|position| permutation.at(position)).collect();
            prop_assert_eq!(images.len() as u64, len);
            prop_assert!(images.last().is_some_and(|last| *last < len));
        }

        #[test]
        fn distant_positions_of_a_large_length_do_not_meet(key: [u8; 32], len in (1u64 << 30)..=u64::MAX, start: u64) {
            let permutation = Permutation::new(Digest::new(key), len);
            let images: BTreeSet<u64> = (0..200).map(|i| permutation.at((start % (len - 200)) + i)).collect();
            prop_assert_eq!(images.len(), 200);
            prop_assert!(images.iter().all(|image| *image < len));
        }

        #[test]
        fn members_data_are_disjoint_when_there_is_enough(
            key: [u8; 32], members in 1u8..20, each in 1u64..40, spare in 0u64..100,
        ) {
            let samples = u64::from(members) * each + spare;
            let assignment = Assignment::new(Digest::new(key), samples, uids(members).map(|u| Uid::from(u.index() as u8 * 3)), each);
            let mut seen = BTreeSet::new();
            for uid in &assignment.members {
                for sample in assignment.samples_of(*uid).unwrap() {
                    prop_assert!(sample < samples);
                    prop_assert!(seen.insert(sample), "sample {sample} was given twice");
                }
            }
            let judged = assignment.evaluation(Digest::of(b"C"), Uid::from(9), spare as usize);
            if spare > 0 {
                prop_assert!(judged.iter().all(|sample| seen.insert(*sample)), "judged by what was assigned");
            }
        }

        #[test]
        fn a_member_is_judged_by_its_own_samples(key: [u8; 32], each in 1u64..60, samples in 1u64..500, count in 0usize..80) {
            let assignment = Assignment::new(Digest::new(key), samples, uids(5), each);
            let own: BTreeSet<u64> = assignment.samples_of(Uid::from(3)).unwrap().collect();
            let judged = assignment.own_samples(Digest::of(b"C"), Uid::from(200), Uid::from(3), count).unwrap();
            prop_assert_eq!(judged.len(), count.min(each as usize));
            prop_assert!(judged.iter().all(|sample| own.contains(sample)));
            if each <= samples {
                prop_assert_eq!(judged.iter().collect::<BTreeSet<_>>().len(), judged.len());
            }
        }
    }

    #[test]
    fn a_data_set_too_small_is_shared_and_judged_everywhere() {
        let assignment = Assignment::new(Digest::of(b"seed"), 10, uids(4), 7);
        assert_eq!(assignment.samples_of(Uid::from(3)).unwrap().count(), 7);
        let judged = assignment.evaluation(Digest::of(b"C"), Uid::from(0), 10);
        assert_eq!(judged.iter().collect::<BTreeSet<_>>().len(), 10);
        assert_eq!(assignment.evaluation(Digest::of(b"C"), Uid::from(0), 25).len(), 25);
    }

    #[test]
    fn every_voter_judges_by_other_samples_and_a_stranger_has_none() {
        let assignment = Assignment::new(Digest::of(b"seed"), 1 << 40, uids(4), 1000);
        let (one, two) = (Uid::from(1), Uid::from(2));
        let at_c = Digest::of(b"C");
        assert_ne!(assignment.evaluation(at_c, one, 8), assignment.evaluation(at_c, two, 8));
        assert_ne!(assignment.own_samples(at_c, one, two, 8), assignment.own_samples(at_c, two, two, 8));
        assert_ne!(assignment.evaluation(at_c, one, 8), assignment.evaluation(Digest::ZERO, one, 8));
        assert!(assignment.samples_of(Uid::from(4)).is_none());
        assert!(assignment.own_samples(at_c, one, Uid::from(4), 8).is_none());
    }

    /// Computed by a second implementation, from the documentation alone. Others check themselves against it.
    #[test]
    fn the_assignment_is_the_documented_one() {
        let seed = seed(RunId(Digest::of(b"run")), Round(7), Digest::of(b"A"));
        assert_eq!(seed.to_string(), "20df9ed9667029bc64aea7ab46467203398a8321ff4fdc98ab721a9310a521e7");
        let assignment = Assignment::new(seed, 1_000_000, [9, 2, 4].map(Uid::from), 120);
        let first: Vec<u64> = assignment.samples_of(Uid::from(4)).unwrap().take(4).collect();
        assert_eq!(first, [425_718, 828_722, 205_631, 138_856]);
        assert_eq!(assignment.evaluation(Digest::of(b"C"), Uid::from(2), 3), [833_373, 678_849, 636_405]);
        let own = assignment.own_samples(Digest::of(b"C"), Uid::from(2), Uid::from(4), 3);
        assert_eq!(own.unwrap(), [185_109, 828_722, 745_941]);
        let five = Permutation::new(seed, 5);
        assert_eq!([0, 1, 2, 3, 4].map(|position| five.at(position)), [0, 1, 2, 4, 3]);
    }

    /// Neighbouring positions go anywhere: chi-squared of 64 bins over 64,000 positions, mean 63, deviation 11.2.
    #[test]
    fn a_members_samples_are_spread_over_the_data() {
        let permutation = Permutation::new(Digest::of(b"spread"), 10_000_000);
        let mut bins = [0f64; 64];
        (0..64_000).for_each(|position| bins[(permutation.at(position) * 64 / 10_000_000) as usize] += 1.0);
        let chi: f64 = bins.iter().map(|count| (count - 1000.0) * (count - 1000.0) / 1000.0).sum();
        assert!((20.0..120.0).contains(&chi), "chi-squared is {chi}");
    }
}
