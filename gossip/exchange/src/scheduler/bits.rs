//! A set of pieces from which one of several can be drawn quickly, and small counters for each piece.

use super::known::Known;

/// Bits in words, and above them a bit for each word that is not zero: looking for a bit that two sets share then costs
/// a step for each word in which this set has any, not for each piece.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    words: Vec<u64>,
    tops: Vec<u64>,
    len: u32,
}

impl Bits {
    pub(super) fn none(count: u32) -> Bits {
        let words = (count as usize).div_ceil(64);
        Bits { words: vec![0; words], tops: vec![0; words.div_ceil(64)], len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn contains(&self, bit: u32) -> bool {
        self.words[bit as usize / 64] >> (bit % 64) & 1 == 1
    }

    pub(super) fn insert(&mut self, bit: u32) {
        self.put(bit as usize / 64, 1 << (bit % 64));
    }

    pub(super) fn remove(&mut self, bit: u32) {
        self.take(bit as usize / 64, 1 << (bit % 64));
    }

    /// Adds some bits of a word.
    pub(super) fn put(&mut self, word: usize, mask: u64) {
        self.len += (mask & !self.words[word]).count_ones();
        self.words[word] |= mask;
        if self.words[word] != 0 {
            self.tops[word / 64] |= 1 << (word % 64);
        }
    }

    /// Takes some bits of a word out: those that were there.
    pub(super) fn take(&mut self, word: usize, mask: u64) -> u64 {
        let taken = self.words[word] & mask;
        if taken != 0 {
            self.words[word] &= !taken;
            self.len -= taken.count_ones();
            if self.words[word] == 0 {
                self.tops[word / 64] &= !(1 << (word % 64));
            }
        }
        taken
    }

    /// A bit that is also in `known`: from the first word at or after a random one that has such, a random one of its.
    /// Bits after a gap are likelier; that is random enough to keep fetchers from asking for the same.
    pub(super) fn draw(&self, known: &Known, random: u64) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let start = (random >> 32) as usize % self.words.len();
        let tops = self.tops.len();
        // The word of `tops` that holds the start is looked at twice: its upper half first, its lower half last.
        for step in 0..=tops {
            let top = (start / 64 + step) % tops;
            let from_start = u64::MAX << (start % 64);
            let mut left = match step {
                0 => self.tops[top] & from_start,
                _ if step == tops => self.tops[top] & !from_start,
                _ => self.tops[top],
            };
            while left != 0 {
                let word = top * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let shared = self.words[word] & known.word(word);
                if shared != 0 {
                    return Some(word as u32 * 64 + nth_bit(shared, random as u32 % shared.count_ones()));
                }
            }
        }
        None
    }
}

fn nth_bit(mut word: u64, n: u32) -> u32 {
    for _ in 0..n {
        word &= word - 1;
    }
    word.trailing_zeros()
}

/// Planes of a counter: it counts to 255.
const PLANES: usize = 8;

/// A small counter for each piece, the counters' bits of equal weight side by side: a word of a set is added to 64 of
/// them at once.
#[derive(Debug)]
pub(super) struct Counts {
    planes: Vec<[u64; PLANES]>,
}

impl Counts {
    pub(super) fn zero(count: u32) -> Counts {
        Counts { planes: vec![[0; PLANES]; (count as usize).div_ceil(64)] }
    }

    /// One more for each bit of the mask. None goes above 255.
    pub(super) fn add(&mut self, word: usize, mask: u64) {
        let mut carry = mask;
        for plane in &mut self.planes[word] {
            let both = *plane & carry;
            *plane ^= carry;
            carry = both;
        }
    }

    /// One less for each bit of the mask, which is above zero.
    pub(super) fn subtract(&mut self, word: usize, mask: u64) {
        let mut borrow = mask;
        for plane in &mut self.planes[word] {
            let lacking = !*plane & borrow;
            *plane ^= borrow;
            borrow = lacking;
        }
    }

    /// Which counters of a word stand at `value`.
    pub(super) fn at(&self, word: usize, value: u8) -> u64 {
        let planes = self.planes[word].iter().enumerate();
        planes.fold(u64::MAX, |same, (weight, plane)| same & if value >> weight & 1 == 1 { *plane } else { !*plane })
    }

    pub(super) fn get(&self, bit: u32) -> u8 {
        let planes = self.planes[bit as usize / 64].iter().enumerate();
        planes.fold(0, |value, (weight, plane)| value | ((plane >> (bit % 64) & 1) as u8) << weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::pieces::PieceSet;
    use covey_proto::random::SplitMix64;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn what_is_drawn_is_in_both_sets_and_everything_shared_can_be(
            count in 1u32..9000, ours in prop::collection::vec(any::<u32>(), 0..80),
            theirs in prop::collection::vec(any::<u32>(), 0..80), seed in any::<u64>(),
        ) {
            let mut bits = Bits::none(count);
            let mut set = PieceSet::none(count);
            ours.iter().for_each(|piece| bits.insert(piece % count));
            theirs.iter().chain(ours.iter().step_by(3)).for_each(|piece| { set.insert(piece % count); });
            let mut left: BTreeSet<u32> = set.iter().filter(|piece| bits.contains(*piece)).collect();
            let known = Known::Some(set);
            let mut chance = SplitMix64::seeded(seed);
            while let Some(drawn) = bits.draw(&known, chance.draw()) {
                prop_assert!(left.remove(&drawn));
                bits.remove(drawn);
            }
            prop_assert!(left.is_empty());
            let rest = bits.len();
            let mut drawn = 0;
            while let Some(piece) = bits.draw(&Known::All, chance.draw()) {
                bits.remove(piece);
                drawn += 1;
            }
            prop_assert_eq!((rest, bits.is_empty()), (drawn, true));
        }

        #[test]
        fn counters_count(steps in prop::collection::vec((any::<u64>(), any::<bool>()), 1..300)) {
            let mut counts = Counts::zero(64);
            let mut plain = [0u8; 64];
            for (mask, up) in steps {
                let can = |at: u32| if up { plain[at as usize] < 255 } else { plain[at as usize] > 0 };
                let mask = (0..64).filter(|at| mask >> at & 1 == 1 && can(*at)).fold(0, |mask, at| mask | 1u64 << at);
                if up { counts.add(0, mask) } else { counts.subtract(0, mask) }
                for (at, value) in plain.iter_mut().enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
                    *value = if up { *value + 1 } else { *value - 1 };
                    prop_assert_eq!(counts.get(at as u32), *value);
                    prop_assert!(counts.at(0, *value) >> at & 1 == 1);
                }
            }
        }
    }
}
