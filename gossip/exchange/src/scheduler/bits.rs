//! A set of pieces from which one of several can be drawn quickly, and the scheduler's source of chance.

use super::table::Known;

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain a number, good enough to break ties.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

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
        let word = bit as usize / 64;
        if !self.contains(bit) {
            self.words[word] |= 1 << (bit % 64);
            self.tops[word / 64] |= 1 << (word % 64);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, bit: u32) {
        let word = bit as usize / 64;
        if self.contains(bit) {
            self.words[word] &= !(1 << (bit % 64));
            if self.words[word] == 0 {
                self.tops[word / 64] &= !(1 << (word % 64));
            }
            self.len -= 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::pieces::PieceSet;
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
            let mut chance = Chance::new(seed);
            while let Some(drawn) = bits.draw(&known, chance.next()) {
                prop_assert!(left.remove(&drawn));
                bits.remove(drawn);
            }
            prop_assert!(left.is_empty());
            let rest = bits.len();
            let mut drawn = 0;
            while let Some(piece) = bits.draw(&Known::All, chance.next()) {
                bits.remove(piece);
                drawn += 1;
            }
            prop_assert_eq!((rest, bits.is_empty()), (drawn, true));
        }
    }
}
