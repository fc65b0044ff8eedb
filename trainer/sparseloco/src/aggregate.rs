//! The outer step: what the selected contributions add up to, and what that makes of the state. Same bits everywhere.
//!
//! The rules are in docs/protocol.md, 15. Two passes over the shards: the first ([`NormAccumulator`]) finds how much each
//! tensor of each contributor is scaled down, the second adds up and steps. [`outer_step`] is given all shards decoded;
//! [`outer_step_decoding`] asks for each when it needs it, and holds few. Who is selected is decided elsewhere; contributors
//! are told apart by their place, by rising uid. What one contribution alone would do, [`crate::trial`] finds out.

use crate::SparseShard;
use crate::split::{self, Band};
use covey_proto::layout::{CHUNK, Chunk, Layout};
use std::collections::VecDeque;

/// A tensor scaled below this counts as not sent: 2⁻²⁰. It keeps every product far from the subnormals.
const FACTOR_MIN: f32 = 1.0 / 1_048_576.0;

/// The numbers of one outer step: θ ← θ − α·ḡ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OuterStep<'r> {
    /// α, rounded to f32 once.
    pub alpha: f64,
    /// ρ: a coordinate's sum is divided by max(hits, ⌈ρR⌉). 1 is the SparseLoCo paper's, 0 Templar's code.
    pub rho: f64,
    /// The largest norm that a tensor is let in with, by the layout's tensors; none at all where this is empty.
    pub reach: &'r [f64],
}

impl OuterStep<'_> {
    /// ⌈ρR⌉, at least 1: a coordinate that nobody sent has g = +0 whatever divides it.
    pub(crate) fn divisor_min(self, contributors: usize) -> f32 {
        (self.rho * contributors as f64).ceil().max(1.0) as f32
    }
}

/// θ − α·g, with what is subnormal and −0 made +0; and whether it is finite.
#[inline(always)]
pub(crate) fn stepped(theta: f32, alpha: f32, mean: f32) -> (f32, bool) {
    let stepped = theta - alpha * mean;
    (if stepped.abs() < f32::MIN_POSITIVE { 0.0 } else { stepped }, stepped.abs() <= f32::MAX)
}

/// Why a step was not taken, or must not be used: a fault of this machine or of its caller, never a peer's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StepError {
    /// Another number of elements than the layout's.
    #[error("the state has {got} elements; the layout has {need}")]
    Elements {
        /// Elements that came.
        got: usize,
        /// Elements of the layout.
        need: usize,
    },
    /// The contributors' shards do not cover the same chunks, or are not one a contributor.
    #[error("{contributors} contributors need a shard each, of the same chunks of the layout")]
    Shards {
        /// Contributors whose norms were taken.
        contributors: usize,
    },
    /// The state is spoilt: halt, keep the evidence, restore the last state.
    #[error("element {index} of {tensor} is not finite after the outer step: halt")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The element, row-major inside the tensor.
        index: usize,
    },
}

/// Norms of tensors, shard by shard. Keeps 8 bytes a chunk and contributor.
#[derive(Clone, Debug)]
pub struct NormAccumulator<'l> {
    layout: &'l Layout,
    /// Sums of squares, `[contributors][chunks]`.
    squares: Vec<Vec<f64>>,
}

impl<'l> NormAccumulator<'l> {
    /// For as many contributors as were selected.
    pub fn new(layout: &'l Layout, contributors: usize) -> NormAccumulator<'l> {
        NormAccumulator { layout, squares: vec![vec![0.0; layout.chunks()]; contributors] }
    }

    /// Takes a shard of the contributor at that place by rising uid. Any order, any size; a shard taken twice counts once, one never
    /// taken as if it sent nothing: the caller sees to it that all were.
    ///
    /// # Panics
    /// If there is no such contributor or chunk.
    pub fn add_shard(&mut self, contributor: usize, shard: &SparseShard) {
        self.squares[contributor][shard.chunks()].copy_from_slice(&squares_of(shard));
    }

    /// Norms of the contributor's tensors, in the layout's order.
    ///
    /// # Panics
    /// If there is no such contributor.
    pub fn norms(&self, contributor: usize) -> Vec<f64> {
        let squares = &self.squares[contributor];
        self.layout.tensors().iter().map(|tensor| tree_sum(&squares[tensor.chunk_range()]).sqrt()).collect()
    }

    /// How much each tensor of each contributor is scaled: min(1, [the norm to go by](references) ÷ its norm).
    pub fn factors(&self, reach: &[f64]) -> Factors {
        let norms: Vec<Vec<f64>> = (0..self.squares.len()).map(|contributor| self.norms(contributor)).collect();
        let references = references(&norms, reach);
        let of = |norms: &Vec<f64>| norms.iter().zip(&references).map(|(norm, by)| factor(*by, *norm)).collect();
        Factors { of: norms.iter().map(of).collect() }
    }
}

/// The norm that each tensor is scaled down to: the lower median of the contributors' norms of it, `[contributors][tensors]`,
/// and no more than the tensor's `reach`, if there is one. Nothing if there are no contributors.
pub fn references(norms: &[Vec<f64>], reach: &[f64]) -> Vec<f64> {
    let tensors = norms.first().map_or(0, Vec::len);
    let lower_median = |tensor: usize| {
        let mut sorted: Vec<f64> = norms.iter().map(|norms| norms[tensor]).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) / 2].min(reach.get(tensor).copied().unwrap_or(f64::INFINITY))
    };
    (0..tensors).map(lower_median).collect()
}

/// What each tensor with such norms is multiplied by to be let in beside these [`references`]; none where it counts as not
/// sent.
pub fn factors_by(references: &[f64], norms: &[f64]) -> Vec<Option<f32>> {
    references.iter().zip(norms).map(|(by, norm)| Some(factor(*by, *norm)).filter(|factor| *factor > 0.0)).collect()
}

/// Each chunk's sum of squares, by rising index.
fn squares_of(shard: &SparseShard) -> Vec<f64> {
    let square = |sum: f64, &value: &f32| sum + f64::from(value) * f64::from(value);
    shard.chunks().map(|number| shard.chunk(number).1.iter().fold(0.0, square)).collect()
}

/// 0 where the tensor counts as not sent.
fn factor(reference: f64, norm: f64) -> f32 {
    if norm == 0.0 {
        return 0.0;
    }
    match (reference / norm).min(1.0) as f32 {
        tiny if tiny < FACTOR_MIN => 0.0,
        factor => factor,
    }
}

/// Adds by a binary tree over `values` padded with +0 to a power of two: an order that does not depend on how many are
/// known at a time. Adding +0 to what is not negative changes no bit, so the padding is never made.
fn tree_sum(values: &[f64]) -> f64 {
    match values {
        [] => 0.0,
        [value] => *value,
        _ => {
            let half = values.len().next_power_of_two() / 2;
            tree_sum(&values[..half]) + tree_sum(&values[half..])
        }
    }
}

/// What each tensor of each contributor is multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `[contributors][tensors]`; 0: counts as not sent.
    of: Vec<Vec<f32>>,
}

impl Factors {
    /// Contributors.
    pub fn contributors(&self) -> usize {
        self.of.len()
    }

    /// All factors of a contributor, in the order of the layout's tensors.
    ///
    /// # Panics
    /// If there is no such contributor.
    pub fn of_contributor(&self, contributor: usize) -> Vec<Option<f32>> {
        (0..self.of[contributor].len()).map(|tensor| self.get(contributor, tensor)).collect()
    }

    /// The factor of a contributor's tensor, both by place: 2⁻²⁰ to 1; none if the tensor counts as not sent.
    ///
    /// # Panics
    /// If there is no such contributor or tensor.
    pub fn get(&self, contributor: usize, tensor: usize) -> Option<f32> {
        let factor = self.of[contributor][tensor];
        (factor > 0.0).then_some(factor)
    }
}

/// Applies whole contributions: `contributions[c]` holds the shards of the contributor at place c by rising uid, in order.
/// Without contributors nothing changes, as in a void round. `theta` is the whole state, f32 `[elements]`.
///
/// A coordinate: g = +0; by rising uid g ← g + factor·v; g ← g ÷ max(hits, ⌈ρR⌉); θ ← θ − α·g; then |θ| < 2⁻¹²⁶ and −0
/// become +0. All f32.
///
/// # Errors
/// Contributions that do not cover the whole layout in the same shards (nothing has changed), or an element that is not
/// finite (`theta` is spoilt).
pub fn outer_step<C: AsRef<[SparseShard]>>(
    layout: &Layout,
    theta: &mut [f32],
    contributions: &[C],
    step: OuterStep<'_>,
) -> Result<(), StepError> {
    outer_step_on(1, layout, theta, contributions, step)
}

/// [`outer_step`] on as many threads: their number changes no bit.
///
/// # Errors
/// As [`outer_step`]'s.
pub fn outer_step_on<C: AsRef<[SparseShard]>>(
    threads: usize,
    layout: &Layout,
    theta: &mut [f32],
    contributions: &[C],
    step: OuterStep<'_>,
) -> Result<(), StepError> {
    let contributions: Vec<&[SparseShard]> = contributions.iter().map(AsRef::as_ref).collect();
    let Some(first) = contributions.first() else {
        return Ok(());
    };
    let mismatch = StepError::Shards { contributors: contributions.len() };
    let mut next = 0;
    for (number, shard) in first.iter().enumerate() {
        let chunks = shard.chunks();
        let same = |other: &&[SparseShard]| other.get(number).is_some_and(|other| other.chunks() == chunks);
        if chunks.start != next || !contributions.iter().all(same) {
            return Err(mismatch);
        }
        next = chunks.end;
    }
    if next != layout.chunks() || contributions.iter().any(|other| other.len() != first.len()) {
        return Err(mismatch);
    }
    if theta.len() != layout.elements() {
        return Err(StepError::Elements { got: theta.len(), need: layout.elements() });
    }
    let mut norms = NormAccumulator::new(layout, contributions.len());
    for (contributor, shards) in contributions.iter().enumerate() {
        shards.iter().for_each(|shard| norms.add_shard(contributor, shard));
    }
    let factors = norms.factors(step.reach);
    let bands = split::bands(layout);
    let pieces = split::pieces(&bands);
    let jobs = pieces.iter().copied().zip(split::cut(theta, &pieces)).collect();
    let shard_of = |number: usize| first.partition_point(|shard| shard.chunks().end <= number);
    let sent = |contributor: usize, number: usize| contributions[contributor][shard_of(number)].chunk(number);
    let new_work = || Work::new(contributions.len(), step);
    split::on_threads(threads, jobs, new_work, |work, (piece, theta)| {
        work.piece(layout, piece, theta, &factors, sent)
    })?;
    Ok(())
}

/// [`outer_step`] of contributions that are too large to hold decoded, in place, on as many threads: shard n of the layout's
/// shards of `shard_chunks`, of the contributor at place c by rising uid, is what `decode(c, n)` gives. It is asked for
/// twice, once for its norms and once for its values, which must be the same. Neither threads nor shards change a bit.
///
/// Held at a time, however large the model: 8 bytes a chunk and contributor; while norms are taken, a shard a thread; then
/// of each contributor the shards of a million elements a thread, 6 bytes a value.
///
/// # Errors
/// What `decode` says (`theta` may have been stepped in part), and as [`outer_step`]'s.
///
/// # Panics
/// If a shard has no chunks.
pub fn outer_step_decoding<E: From<StepError> + Send>(
    threads: usize,
    layout: &Layout,
    theta: &mut [f32],
    (contributors, shard_chunks): (usize, usize),
    step: OuterStep<'_>,
    decode: impl Fn(usize, usize) -> Result<SparseShard, E> + Sync,
) -> Result<(), E> {
    if contributors == 0 {
        return Ok(());
    }
    if theta.len() != layout.elements() {
        return Err(StepError::Elements { got: theta.len(), need: layout.elements() }.into());
    }
    let decode = |contributor: usize, number: usize| -> Result<SparseShard, E> {
        let shard = decode(contributor, number)?;
        let fits = shard.chunks() == layout.shard(number, shard_chunks);
        if fits { Ok(shard) } else { Err(StepError::Shards { contributors }.into()) }
    };
    let shards = layout.shards(shard_chunks);
    let mut norms = NormAccumulator::new(layout, contributors);
    for contributor in 0..contributors {
        let all = (0..shards).collect();
        let squares = split::on_threads(
            threads,
            all,
            || (),
            |(), number| decode(contributor, number).map(|shard| squares_of(&shard)),
        );
        norms.squares[contributor] = squares?.concat();
    }
    let factors = norms.factors(step.reach);
    let bands = split::bands(layout);
    let pieces = split::pieces(&bands);
    let mut parts = pieces.iter().copied().zip(split::cut(theta, &pieces)).collect::<VecDeque<_>>();
    // The shards that the pieces at hand need, `[shards][contributors]`, and the number of the first.
    let (mut held, mut first) = (VecDeque::<Vec<SparseShard>>::new(), 0);
    while !parts.is_empty() {
        let jobs: Vec<_> = parts.drain(..parts.len().min(threads.max(1))).collect();
        let chunks =
            jobs[0].0[0].first_chunk..jobs.iter().flat_map(|(piece, _)| *piece).fold(0, |_, band| band.chunks().end);
        while first < chunks.start / shard_chunks {
            held.pop_front();
            first += 1;
        }
        let missing = first + held.len()..chunks.end.div_ceil(shard_chunks);
        let wanted = missing.flat_map(|number| (0..contributors).map(move |contributor| (contributor, number)));
        let decoded = split::on_threads(
            threads,
            wanted.collect(),
            || (),
            |(), (contributor, number)| decode(contributor, number),
        )?;
        let mut decoded = decoded.into_iter();
        while decoded.len() > 0 {
            held.push_back(decoded.by_ref().take(contributors).collect());
        }
        let sent = |contributor: usize, number: usize| held[number / shard_chunks - first][contributor].chunk(number);
        let new_work = || Work::new(contributors, step);
        split::on_threads(threads, jobs, new_work, |work, (piece, theta)| {
            work.piece(layout, piece, theta, &factors, sent)
        })?;
    }
    Ok(())
}

/// One chunk's sums.
struct Work {
    alpha: f32,
    /// [`OuterStep::divisor_min`].
    divisor_min: f32,
    sum: [f32; CHUNK],
    hits: [f32; CHUNK],
}

impl Work {
    fn new(contributors: usize, step: OuterStep<'_>) -> Work {
        let divisor_min = step.divisor_min(contributors);
        Work { alpha: step.alpha as f32, divisor_min, sum: [0.0; CHUNK], hits: [0.0; CHUNK] }
    }

    /// Steps the chunks of adjacent bands, whose elements are `theta`.
    fn piece<'s>(
        &mut self,
        layout: &Layout,
        bands: &[Band],
        theta: &mut [f32],
        factors: &Factors,
        sent: impl Fn(usize, usize) -> (&'s [u16], &'s [f32]),
    ) -> Result<(), StepError> {
        let origin = bands[0].offset;
        for band in bands {
            let tensor = layout.tensors().partition_point(|tensor| tensor.range().end <= band.offset);
            for number in band.chunks() {
                let of = (0..factors.contributors()).map(|place| (factors.get(place, tensor), sent(place, number)));
                self.chunk(layout, (&layout.chunk(number), tensor), origin, theta, of)?;
            }
        }
        Ok(())
    }

    /// Steps a chunk of the tensor at that place; `theta` begins with element `origin`.
    fn chunk<'s>(
        &mut self,
        layout: &Layout,
        (chunk, tensor): (&Chunk, usize),
        origin: usize,
        theta: &mut [f32],
        sent: impl Iterator<Item = (Option<f32>, (&'s [u16], &'s [f32]))>,
    ) -> Result<(), StepError> {
        let within = Chunk { offset: chunk.offset - origin, ..*chunk };
        self.sum(&within, sent);
        if self.step(&within, theta) {
            return Ok(());
        }
        let index = within.row_ranges().flatten().find(|&at| !theta[at].is_finite()).unwrap_or(within.offset);
        let tensor = &layout.tensors()[tensor];
        Err(StepError::NotFinite { tensor: tensor.name.clone(), index: origin + index - tensor.offset })
    }

    /// Adds the contributors' values up, in their order, each with its factor.
    fn sum<'s>(&mut self, chunk: &Chunk, sent: impl Iterator<Item = (Option<f32>, (&'s [u16], &'s [f32]))>) {
        let elements = chunk.len();
        self.sum[..elements].fill(0.0);
        self.hits[..elements].fill(0.0);
        for (factor, (indices, values)) in sent {
            let Some(factor) = factor else { continue };
            for (&index, &value) in indices.iter().zip(values) {
                let index = usize::from(index);
                self.sum[index] += factor * value;
                self.hits[index] += 1.0;
            }
        }
    }

    /// Steps the chunk's elements; false if one is not finite.
    fn step(&self, chunk: &Chunk, theta: &mut [f32]) -> bool {
        let (alpha, divisor_min) = (self.alpha, self.divisor_min);
        let rows = self.sum.chunks(chunk.columns).zip(self.hits.chunks(chunk.columns));
        let mut finite = true;
        for (range, (sum, hits)) in chunk.row_ranges().zip(rows) {
            for ((theta, &sum), &hits) in theta[range].iter_mut().zip(sum).zip(hits) {
                let divisor = if hits > divisor_min { hits } else { divisor_min };
                let (after, is_finite) = stepped(*theta, alpha, sum / divisor);
                *theta = after;
                finite &= is_finite;
            }
        }
        finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(vec![("a".into(), vec![4]), ("b".into(), vec![3])])
    }

    fn contribution(a: &[(u16, f32)], b: &[(u16, f32)]) -> Vec<SparseShard> {
        let mut shard = SparseShard::with_capacity(0, 2, 0);
        for values in [a, b] {
            let (indices, values): (Vec<u16>, Vec<f32>) = values.iter().copied().unzip();
            shard.push_chunk(&indices, &values);
        }
        vec![shard]
    }

    #[test]
    fn a_lone_contribution_is_subtracted_as_it_is() {
        for rho in [0.0, 0.3, 1.0] {
            let mut theta = [1.0; 7];
            let sent = contribution(&[(1, 0.5), (3, -2.0)], &[]);
            outer_step(&layout(), &mut theta, &[sent], OuterStep { alpha: 0.5, rho, reach: &[] }).unwrap();
            assert_eq!(theta, [1.0, 0.75, 1.0, 2.0, 1.0, 1.0, 1.0]);
        }
    }

    #[test]
    fn rho_says_who_a_coordinate_is_divided_among() {
        let sent = [
            contribution(&[(0, 4.0)], &[]),
            contribution(&[(1, 4.0)], &[]),
            contribution(&[(1, 4.0)], &[]),
            contribution(&[(2, 4.0)], &[]),
        ];
        for (rho, expected) in [(0.0, [-4.0, -4.0, -4.0]), (0.5, [-2.0, -4.0, -2.0]), (1.0, [-1.0, -2.0, -1.0])] {
            let mut theta = [0.0; 7];
            outer_step(&layout(), &mut theta, &sent, OuterStep { alpha: 1.0, rho, reach: &[] }).unwrap();
            assert_eq!(theta[..3], expected, "rho {rho}");
        }
    }

    /// Whoever is in the majority sets the median, but goes no further than the reach.
    #[test]
    fn no_majority_goes_further_than_the_reach() {
        let norms = [vec![1.0, 3.0], vec![1e6, 3.0], vec![1e6, 3.0]];
        assert_eq!(references(&norms, &[]), [1e6, 3.0]);
        let by = references(&norms, &[2.0, 9.0]);
        assert_eq!(by, [2.0, 3.0]);
        assert_eq!(factors_by(&by, &norms[0]), [Some(1.0), Some(1.0)]);
        assert_eq!(factors_by(&by, &norms[1]), [Some(2e-6), Some(1.0)]);
        assert_eq!(factors_by(&by, &[1e9, 0.0]), [None, None]);
        assert!(references(&[], &[2.0]).is_empty());
    }

    #[test]
    fn a_loud_contributor_is_scaled_to_the_lower_median_tensor_by_tensor() {
        let sent = [
            contribution(&[(0, 8.0)], &[(0, 1.0)]),
            contribution(&[(1, 2.0)], &[(1, 1.0)]),
            contribution(&[(2, 4.0)], &[(2, 1.0)]),
            contribution(&[(3, 1.0)], &[(0, 1.0)]),
        ];
        let mut theta = [0.0; 7];
        outer_step(&layout(), &mut theta, &sent, OuterStep { alpha: 1.0, rho: 0.0, reach: &[] }).unwrap();
        assert_eq!(theta, [-2.0, -2.0, -2.0, -1.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn a_tensor_scaled_away_is_no_hit() {
        let layout = layout();
        let huge = 1_048_576.0;
        let sent =
            [contribution(&[(0, huge)], &[(0, 1.0)]), contribution(&[(0, 0.5)], &[]), contribution(&[(0, 0.5)], &[])];
        let mut norms = NormAccumulator::new(&layout, 3);
        for (contributor, shards) in sent.iter().enumerate() {
            norms.add_shard(contributor, &shards[0]);
        }
        assert_eq!(norms.norms(0), [1_048_576.0, 1.0]);
        let factors = norms.factors(&[]);
        assert_eq!((factors.get(0, 0), factors.get(1, 0)), (None, Some(1.0)), "2^-21 is too little");
        assert_eq!((factors.get(0, 1), factors.get(1, 1)), (None, None), "most sent nothing of b");
        let mut theta = [0.0; 7];
        outer_step(&layout, &mut theta, &sent, OuterStep { alpha: 1.0, rho: 0.0, reach: &[] }).unwrap();
        assert_eq!(theta, [-0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_stepped_state_has_no_subnormals_and_no_minus_zero() {
        let mut theta = [-0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, 0.5, -0.5, 1.0];
        let sent = contribution(&[], &[(0, 0.5)]);
        outer_step(&layout(), &mut theta, &[sent], OuterStep { alpha: 1.0, rho: 1.0, reach: &[] }).unwrap();
        let expected = [0.0, 0.0, 0.0, f32::MIN_POSITIVE, 0.0, -0.5, 1.0];
        assert_eq!(theta.map(f32::to_bits), expected.map(f32::to_bits));
    }

    #[test]
    fn a_state_that_is_not_finite_is_named() {
        let mut theta = [0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0];
        let sent = [contribution(&[(0, 1.0)], &[])];
        let step = OuterStep { alpha: 1.0, rho: 1.0, reach: &[] };
        let error = outer_step(&layout(), &mut theta, &sent, step).unwrap_err();
        assert_eq!(error, StepError::NotFinite { tensor: "b".into(), index: 1 });
        let mut theta = [-f32::MAX; 7];
        let sent = [contribution(&[(3, 1_048_576.0)], &[])];
        let loud = OuterStep { alpha: 1e30, rho: 1.0, reach: &[] };
        let error = outer_step(&layout(), &mut theta, &sent, loud).unwrap_err();
        assert_eq!(error, StepError::NotFinite { tensor: "a".into(), index: 3 });
    }

    #[test]
    fn contributions_that_do_not_fit_together_change_nothing() {
        let step = OuterStep { alpha: 1.0, rho: 1.0, reach: &[] };
        let whole = contribution(&[(0, 1.0)], &[]);
        let mut part = SparseShard::with_capacity(0, 1, 0);
        part.push_chunk(&[0], &[1.0]);
        let mut theta = [1.0; 7];
        for sent in
            [vec![whole.clone(), vec![part.clone()]], vec![vec![part]], vec![whole.clone(), vec![]], vec![vec![]]]
        {
            let contributors = sent.len();
            assert_eq!(outer_step(&layout(), &mut theta, &sent, step), Err(StepError::Shards { contributors }));
        }
        assert_eq!(
            outer_step(&layout(), &mut theta[..6], &[whole], step),
            Err(StepError::Elements { got: 6, need: 7 })
        );
        assert_eq!(outer_step::<Vec<SparseShard>>(&layout(), &mut theta, &[], step), Ok(()));
        assert_eq!(theta, [1.0; 7]);
    }

    #[test]
    fn the_tree_pads_with_zeros() {
        let values = [1.0, 1e16, -0.0, 3.0, 1.0, 7.0, 1e-3];
        let pairs = ((1.0 + 1e16) + 3.0) + ((1.0f64 + 7.0) + (1e-3 + 0.0));
        assert_eq!(tree_sum(&values), pairs);
        assert_eq!(tree_sum(&[]), 0.0);
    }
}
