//! Top-k of a chunk by magnitude: which elements are sent.
//!
//! Exact: the k elements of largest |a|, ties to the lower index, whatever the machine. A magnitude is compared by its
//! bits (for finite floats they order alike), packed above the inverted index, so that no two keys are equal.

use covey_proto::layout::CHUNK;

const MAGNITUDE: u32 = 0x7fff_ffff;

/// Chooses elements of chunks; holds the scratch that this needs.
#[derive(Debug)]
pub struct Selector {
    maxima: Vec<u32>,
    kept: Vec<u64>,
    ranked: Vec<u64>,
}

impl Default for Selector {
    fn default() -> Selector {
        Selector { maxima: Vec::with_capacity(CHUNK), kept: vec![0; CHUNK], ranked: Vec::with_capacity(CHUNK) }
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
        let kept = self.keep(dense, floor);
        let kept = &self.kept[..kept];
        self.ranked.clear();
        self.ranked.extend_from_slice(kept);
        let (_, &mut least, _) = self.ranked.select_nth_unstable(kept.len() - count);
        chosen.extend(kept.iter().filter(|&&key| key >= least).map(|&key| index_of(key)));
    }

    /// A magnitude that at least `count` elements reach: the count-th of the maxima of groups, each of which is reached
    /// by its own group. Twice as many groups as values leave about 1.4 candidates a value.
    fn floor(&mut self, dense: &[f32], count: usize) -> u32 {
        let groups = (count * 2).next_power_of_two().max(64);
        if groups * 2 > dense.len() {
            return 0;
        }
        self.maxima.clear();
        self.maxima.resize(groups, 0);
        for row in dense.chunks(groups) {
            for (most, value) in self.maxima.iter_mut().zip(row) {
                *most = (*most).max(value.to_bits() & MAGNITUDE);
            }
        }
        *self.maxima.select_nth_unstable(groups - count).1
    }

    /// Packs the elements that reach `floor` into `kept`, by rising index, without a branch; returns how many.
    fn keep(&mut self, dense: &[f32], floor: u32) -> usize {
        let mut kept = 0;
        for (index, value) in dense.iter().enumerate() {
            let magnitude = value.to_bits() & MAGNITUDE;
            self.kept[kept] = key_of(magnitude, index as u16);
            kept += usize::from(magnitude >= floor);
        }
        kept
    }
}

fn key_of(magnitude: u32, index: u16) -> u64 {
    u64::from(magnitude) << 16 | u64::from(!index)
}

fn index_of(key: u64) -> u16 {
    !(key as u16)
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
