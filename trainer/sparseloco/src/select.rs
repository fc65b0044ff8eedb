//! Top-k of a chunk by magnitude: which elements are sent.
//!
//! Exact: the k elements of largest |a|, ties to the lower index, whatever the machine. Magnitudes are compared by their
//! bits (for finite floats they order alike). A threshold that a few more than k elements reach comes from the chunk before,
//! or, if too few reach that, from a sample; then the exact one is found among those, by bisection. All of it only compares
//! and counts, which vector instructions do well.

use crate::simd::{Ahead, MAGNITUDE, Packed, group_maxima, largest, magnitudes, pack, reaching};
use covey_proto::layout::CHUNK;
use covey_simd::vectorised;

/// The first step down from the largest magnitude: one octave of f32.
const OCTAVE: u32 = 1 << 23;

/// Chooses elements of chunks; holds the scratch that this needs.
#[derive(Debug)]
pub struct Selector {
    sample: Vec<u32>,
    candidates: Packed,
    guess: Guess,
}

impl Default for Selector {
    fn default() -> Selector {
        Selector { sample: vec![0; CHUNK], candidates: Packed::new(), guess: Guess::default() }
    }
}

/// A floor for the next chunk, from those before. Neighbours are alike; what is chosen does not depend on it.
#[derive(Debug, Default)]
struct Guess {
    /// The floor; 0 if there is none yet.
    floor: u32,
    /// Candidates wanted beyond those chosen, as a share of these.
    spare: f32,
}

impl Guess {
    /// The fewest spare candidates that are wanted, and the most.
    const SPARE: (f32, f32) = (0.35, 4.0);

    /// Learns from a chunk of which `candidates` reached `floor`, and `count` `least`.
    fn learn(&mut self, floor: u32, candidates: usize, least: u32, count: usize) {
        self.spare = f32::max(self.spare * 0.97, Guess::SPARE.0);
        // As if candidates lay evenly from one to the other; between a 64th and half of an octave below, where few tell.
        let spare = self.spare * count as f32;
        let each = if candidates > count { (least - floor) as f32 / (candidates - count) as f32 } else { 0.0 };
        let each = each.clamp(OCTAVE as f32 / 64.0 / spare, OCTAVE as f32 / 2.0 / spare);
        self.floor = least.saturating_sub((each * spare) as u32);
    }

    /// The floor was too high.
    fn missed(&mut self) {
        self.spare = f32::min(self.spare * 2.0, Guess::SPARE.1);
    }
}

impl Selector {
    /// Scratch for chunks of at most 4,096 elements.
    pub fn new() -> Selector {
        Selector::default()
    }

    /// Writes into `chosen` the indices of the `count` elements of largest magnitude, ascending; among equal magnitudes
    /// the lower index is taken first. What is not finite counts as larger than what is. Source: SparseLoCo (arXiv
    /// 2508.15706), top-k.
    ///
    /// # Panics
    /// If `dense` has more than 4,096 elements or fewer than `count`.
    pub fn choose(&mut self, dense: &[f32], count: usize, chosen: &mut Vec<u16>) {
        self.choose_and_fetch(dense, count, chosen, &mut Ahead::nothing());
    }

    /// [`choose`](Selector::choose), which asks for the memory that comes next besides.
    pub(crate) fn choose_and_fetch(&mut self, dense: &[f32], count: usize, chosen: &mut Vec<u16>, ahead: &mut Ahead) {
        assert!(dense.len() <= CHUNK && count <= dense.len(), "{count} of {} elements", dense.len());
        chosen.clear();
        if count == dense.len() {
            chosen.extend(0..count as u16);
            return;
        }
        if count == 0 {
            return;
        }
        let mut floor = self.guess.floor;
        if floor > 0 {
            pack(dense, floor, &mut self.candidates, ahead);
        }
        if floor == 0 || self.candidates.len() < count {
            self.guess.missed();
            floor = self.floor(dense, count);
            pack(dense, floor, &mut self.candidates, ahead);
        }
        let least = pick(&self.candidates, count, floor, chosen, ahead);
        self.guess.learn(floor, self.candidates.len(), least, count);
    }

    /// A magnitude that at least `count` elements reach, and not many more. Of few values, the maxima of groups are the
    /// sample: each is reached in its own group, and twice as many groups as values leave about 1.4 candidates a value.
    fn floor(&mut self, dense: &[f32], count: usize) -> u32 {
        let groups = (count * 2).next_power_of_two().max(64);
        let sample = if groups * 4 <= dense.len() {
            let sample = &mut self.sample[..groups];
            group_maxima(dense, sample);
            sample
        } else {
            let sample = &mut self.sample[..dense.len()];
            magnitudes(dense, sample);
            sample
        };
        threshold(sample, count, count / 8, 0)
    }
}

vectorised! {
    /// Writes the indices of the `count` largest candidates into `chosen`, and returns the magnitude that these reach. There
    /// must be as many, and all must reach `floor`.
    fn pick(candidates: &Packed, count: usize, floor: u32, chosen: &mut Vec<u16>, ahead: &mut Ahead) -> u32 {
        let magnitudes = candidates.magnitudes();
        let least = bisect(magnitudes, count, 0, floor);
        // What is not finite may have the largest bits of all.
        let above = if least < MAGNITUDE { reaching(magnitudes, least + 1) } else { 0 };
        let mut ties = count - above;
        // One place more than are chosen: where the rest are written without a branch.
        chosen.resize(count + 1, 0);
        let mut next = 0;
        for (&magnitude, &index) in magnitudes.iter().zip(candidates.indices()) {
            ahead.fetch(1);
            let is_tie = magnitude == least && ties > 0;
            chosen[next] = index;
            next += usize::from(magnitude > least || is_tie);
            ties -= usize::from(is_tie);
        }
        chosen.truncate(count);
        least
    }

    /// [`bisect`], by itself.
    fn threshold(magnitudes: &[u32], count: usize, spare: usize, low: u32) -> u32 {
        bisect(magnitudes, count, spare, low)
    }
}

/// A threshold that `count` of the magnitudes reach, or as many as `spare` more; where equal magnitudes leave none, the
/// largest that enough reach. All of them must reach `low`, and they must be `count` or more.
#[inline(always)]
fn bisect(magnitudes: &[u32], count: usize, spare: usize, mut low: u32) -> u32 {
    // `over` reach `low`, at least `count`; `under` reach `high`, fewer.
    let (mut over, mut under) = (magnitudes.len(), 0);
    let mut high = largest(magnitudes) + 1;
    if over <= count + spare {
        return low;
    }
    let mut down = OCTAVE;
    for step in 0.. {
        let span = high - low;
        if span <= 1 {
            break;
        }
        // From the top in growing steps, since what is sought is within a few octaves of the largest; then where a straight
        // line would cross, and every third time the middle, lest a bend make that slow.
        let middle = if low == 0 && down < high {
            high - down
        } else if step % 3 == 2 {
            low + span / 2
        } else {
            let share = (over - count - spare / 2) as f32 / (over - under) as f32;
            low + ((span as f32 * share) as u32).clamp(1, span - 1)
        };
        down = down.saturating_mul(4);
        let reach = reaching(magnitudes, middle);
        if reach < count {
            (high, under) = (middle, reach);
        } else if reach <= count + spare {
            return middle;
        } else {
            (low, over) = (middle, reach);
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(dense: &[f32], count: usize) -> Vec<u16> {
        let mut order: Vec<u16> = (0..dense.len() as u16).collect();
        order.sort_by(|&a, &b| dense[b as usize].abs().total_cmp(&dense[a as usize].abs()).then(a.cmp(&b)));
        order.truncate(count);
        order.sort();
        order
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn chooses_what_a_stable_sort_chooses(
            dense in proptest::collection::vec(prop_oneof![-3i32..3, -1000i32..1000], 1..=CHUNK), share in 0.0f64..=1.0,
        ) {
            let dense: Vec<f32> = dense.into_iter().map(|value| value as f32 / 8.0).collect();
            let count = (dense.len() as f64 * share * share) as usize;
            let mut chosen = vec![7; 3];
            Selector::new().choose(&dense, count, &mut chosen);
            prop_assert_eq!(chosen, reference(&dense, count));
        }

        #[test]
        fn what_was_chosen_before_does_not_matter(
            chunks in proptest::collection::vec((any::<u64>(), 1usize..=CHUNK, -100i32..100, 1usize..2000), 1..6),
        ) {
            let (mut selector, mut chosen) = (Selector::new(), Vec::new());
            for (seed, elements, octave, count) in chunks {
                let noise = crate::common::noise(seed, elements);
                let dense: Vec<f32> = noise.into_iter().map(|value| value * 2f32.powi(octave)).collect();
                let count = count.min(elements);
                selector.choose(&dense, count, &mut chosen);
                prop_assert_eq!(&chosen, &reference(&dense, count));
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_chosen_first() {
        for special in [f32::NAN, f32::from_bits(u32::MAX), f32::INFINITY, f32::NEG_INFINITY] {
            let mut dense = vec![1.0; CHUNK];
            dense[..2000].fill(special);
            for count in [1, 64, 1999, 2001] {
                let mut chosen = Vec::new();
                Selector::new().choose(&dense, count, &mut chosen);
                assert_eq!(chosen, (0..count as u16).collect::<Vec<u16>>());
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let mut chosen = Vec::new();
        let dense: Vec<f32> = (0..CHUNK).map(|index| if index % 2 == 0 { 1.0 } else { -1.0 }).collect();
        Selector::new().choose(&dense, 64, &mut chosen);
        assert_eq!(chosen, (0..64).collect::<Vec<u16>>());
        Selector::new().choose(&[0.0; CHUNK], 3, &mut chosen);
        assert_eq!(chosen, [0, 1, 2]);
    }
}
