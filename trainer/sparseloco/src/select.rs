//! Top-k of a chunk by magnitude: which elements are sent.
//!
//! Exact: the k elements of largest |a|, ties to the lower index, whatever the machine. Magnitudes are compared by their
//! bits (for finite floats they order alike). A threshold that a few more than k elements reach is found first, from a
//! sample; then the exact one among those, by bisection. Both only count, which vector instructions do well.

use crate::simd::{group_maxima, largest, magnitudes, marks, reaching};
use covey_proto::layout::CHUNK;

/// The first step down from the largest magnitude: one octave of f32.
const OCTAVE: u32 = 1 << 23;

/// Chooses elements of chunks; holds the scratch that this needs.
#[derive(Debug)]
pub struct Selector {
    sample: Vec<u32>,
    marks: [u64; CHUNK / 64],
    /// Candidates, by rising index: magnitude and index.
    magnitudes: Vec<u32>,
    indices: Vec<u16>,
    /// The last chunk's floor: where the search begins. Neighbours are alike; what is found does not depend on it.
    hint: u32,
}

impl Default for Selector {
    fn default() -> Selector {
        Selector {
            sample: vec![0; CHUNK],
            marks: [0; CHUNK / 64],
            magnitudes: vec![0; CHUNK],
            indices: vec![0; CHUNK],
            hint: 0,
        }
    }
}

impl Selector {
    /// Scratch for chunks of at most 4,096 elements.
    pub fn new() -> Selector {
        Selector::default()
    }

    /// Writes into `chosen` the indices of the `count` elements of largest magnitude, ascending; among equal magnitudes
    /// the lower index is taken first. `dense` must be finite. Source: SparseLoCo (arXiv 2508.15706), top-k.
    ///
    /// # Panics
    /// If `dense` has more than 4,096 elements or fewer than `count`.
    pub fn choose(&mut self, dense: &[f32], count: usize, chosen: &mut Vec<u16>) {
        assert!(dense.len() <= CHUNK && count <= dense.len(), "{count} of {} elements", dense.len());
        chosen.clear();
        if count == dense.len() {
            chosen.extend(0..count as u16);
            return;
        }
        if count == 0 {
            return;
        }
        let floor = self.floor(dense, count);
        let candidates = self.keep(dense, floor);
        let least = threshold(&self.magnitudes[..candidates], count, 0, (floor, 0));
        // One place more than are chosen: where the rest are written without a branch.
        chosen.resize(count + 1, 0);
        let kept = &self.magnitudes[..candidates];
        let mut ties = count - reaching(kept, least + 1);
        let mut next = 0;
        for (&magnitude, &index) in kept.iter().zip(&self.indices) {
            let is_tie = magnitude == least && ties > 0;
            chosen[next] = index;
            next += usize::from(magnitude > least || is_tie);
            ties -= usize::from(is_tie);
        }
        chosen.truncate(count);
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
        self.hint = threshold(sample, count, count / 8, (0, self.hint));
        self.hint
    }

    /// Packs the elements that reach `floor` into `magnitudes` and `indices`, by rising index; returns how many.
    fn keep(&mut self, dense: &[f32], floor: u32) -> usize {
        marks(dense, floor, &mut self.marks);
        let mut kept = 0;
        for ((word, elements), first) in self.marks.iter().zip(dense.chunks(64)).zip((0..).step_by(64)) {
            let mut word = *word;
            while word != 0 {
                let at = word.trailing_zeros();
                word &= word - 1;
                self.magnitudes[kept] = elements[at as usize].abs().to_bits();
                self.indices[kept] = first + at as u16;
                kept += 1;
            }
        }
        kept
    }
}

/// A threshold that `count` of the magnitudes reach, or as many as `spare` more; where equal magnitudes leave none, the
/// largest that enough reach. All of them must reach `low`, and they must be `count` or more. `hint` is tried first.
fn threshold(magnitudes: &[u32], count: usize, spare: usize, (mut low, hint): (u32, u32)) -> u32 {
    // `over` reach `low`, at least `count`; `under` reach `high`, fewer.
    let (mut over, mut under) = (magnitudes.len(), 0);
    let mut high = largest(magnitudes) + 1;
    if over <= count + spare {
        return low;
    }
    let hinted = low < hint && hint < high;
    let mut down = if hinted { OCTAVE / 16 } else { OCTAVE };
    for step in 0.. {
        let span = high - low;
        if span <= 1 {
            break;
        }
        // From the top in growing steps, since what is sought is within a few octaves of the largest; then where a straight
        // line would cross, and every third time the middle, lest a bend make that slow.
        let middle = if hinted && step == 0 {
            hint
        } else if low == 0 && down < high {
            high - down
        } else if step % 3 == 2 {
            low + span / 2
        } else {
            let share = (over - count - spare / 2) as f32 / (over - under) as f32;
            low + ((span as f32 * share) as u32).clamp(1, span - 1)
        };
        down = if hinted && step == 0 { down } else { down.saturating_mul(4) };
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
