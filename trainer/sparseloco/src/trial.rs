//! What one contribution alone would make of a state, in place, and back again to the bit.
//!
//! A validator tries every contribution on the same base. Only parameters that a contribution names are touched; what they
//! were stands where its values were, so that a trial needs no memory but the contribution's own, and no copy of the state.

use crate::SparseShard;
use crate::aggregate::{OuterStep, StepError, stepped};
use covey_proto::layout::Layout;

/// A contribution that is being tried, or none.
#[derive(Debug, Default)]
pub struct Trial {
    /// Its shards, in order; in place of each value the parameter as it was.
    replaced: Vec<SparseShard>,
}

impl Trial {
    /// Makes each parameter that a shard names what [`outer_step`](crate::outer_step) of this contribution alone makes of it:
    /// θ ← θ − α·(factor·v ÷ max(1, ⌈ρ⌉)), to the bit. The step would also make −0 and subnormals +0 elsewhere; a state
    /// that went through one has none. `theta` is f32 `[elements]`; `shards` cover all chunks of the layout, in order, and
    /// may be decoded as they are asked for; `factors` has one a tensor, none where the tensor counts as not sent. What is
    /// on trial already is undone first.
    ///
    /// # Errors
    /// What `shards` say, shards that do not cover the layout, or a parameter that would not be finite. `theta` has the
    /// bits of before then.
    pub fn begin<E: From<StepError>>(
        &mut self,
        layout: &Layout,
        theta: &mut [f32],
        shards: impl Iterator<Item = Result<SparseShard, E>>,
        factors: &[Option<f32>],
        step: OuterStep<'_>,
    ) -> Result<(), E> {
        self.undo(layout, theta);
        if theta.len() != layout.elements() {
            return Err(StepError::Elements { got: theta.len(), need: layout.elements() }.into());
        }
        let outcome = self.replace(layout, theta, shards, factors, step);
        if outcome.is_err() {
            self.undo(layout, theta);
        }
        outcome
    }

    /// Gives the parameters the bits that they had before [`begin`](Trial::begin). Without a trial, nothing.
    ///
    /// # Panics
    /// If `theta` is not the state of the trial, or `layout` another.
    pub fn undo(&mut self, layout: &Layout, theta: &mut [f32]) {
        for shard in self.replaced.drain(..) {
            for number in shard.chunks() {
                let chunk = layout.chunk(number);
                let (indices, before) = shard.chunk(number);
                for (&index, &before) in indices.iter().zip(before) {
                    theta[chunk.position(index.into())] = before;
                }
            }
        }
    }

    /// Forgets the trial: the state it was about is gone.
    pub fn forget(&mut self) {
        self.replaced.clear();
    }

    fn replace<E: From<StepError>>(
        &mut self,
        layout: &Layout,
        theta: &mut [f32],
        shards: impl Iterator<Item = Result<SparseShard, E>>,
        factors: &[Option<f32>],
        step: OuterStep<'_>,
    ) -> Result<(), E> {
        let misfit = || E::from(StepError::Shards { contributors: 1 });
        let mut next = 0;
        for shard in shards {
            let mut shard = shard?;
            let chunks = shard.chunks();
            if chunks.start != next || chunks.end > layout.chunks() {
                return Err(misfit());
            }
            next = chunks.end;
            let outcome = replace_shard(layout, theta, &mut shard, factors, step);
            // Also what was replaced before an error is to be undone.
            self.replaced.push(shard);
            outcome?;
        }
        if next == layout.chunks() { Ok(()) } else { Err(misfit()) }
    }
}

/// Exchanges the shard's values for the parameters as they were. All of them even if one is not finite: [`Trial::undo`]
/// takes every value of a shard for a parameter.
fn replace_shard(
    layout: &Layout,
    theta: &mut [f32],
    shard: &mut SparseShard,
    factors: &[Option<f32>],
    step: OuterStep<'_>,
) -> Result<(), StepError> {
    let (alpha, divisor) = (step.alpha as f32, step.divisor_min(1));
    let mut spoilt = None;
    let mut tensor = layout.tensors().partition_point(|tensor| tensor.chunk_range().end <= shard.chunks().start);
    for number in shard.chunks() {
        while layout.tensors()[tensor].chunk_range().end <= number {
            tensor += 1;
        }
        let chunk = layout.chunk(number);
        let factor = factors.get(tensor).copied().flatten();
        let (indices, values) = shard.chunk_mut(number);
        for (&index, value) in indices.iter().zip(values) {
            let at = chunk.position(index.into());
            let before = theta[at];
            if let Some(factor) = factor {
                // A sum that begins with +0, as the outer step's does.
                let (after, is_finite) = stepped(before, alpha, (0.0 + factor * *value) / divisor);
                theta[at] = after;
                if !is_finite && spoilt.is_none() {
                    spoilt = Some((tensor, at));
                }
            }
            *value = before;
        }
    }
    let Some((tensor, at)) = spoilt else { return Ok(()) };
    let tensor = &layout.tensors()[tensor];
    Err(StepError::NotFinite { tensor: tensor.name.clone(), index: at - tensor.offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(vec![("a".into(), vec![4]), ("b".into(), vec![3])])
    }

    fn shard(first: usize, chunks: &[&[(u16, f32)]]) -> SparseShard {
        let mut shard = SparseShard::with_capacity(first, chunks.len(), 0);
        for values in chunks {
            let (indices, values): (Vec<u16>, Vec<f32>) = values.iter().copied().unzip();
            shard.push_chunk(&indices, &values);
        }
        shard
    }

    const ONES: [Option<f32>; 2] = [Some(1.0); 2];
    const STEP: OuterStep<'static> = OuterStep { alpha: 0.5, rho: 1.0, reach: &[] };

    fn begin(
        trial: &mut Trial,
        theta: &mut [f32],
        shards: &[SparseShard],
        step: OuterStep<'_>,
    ) -> Result<(), StepError> {
        trial.begin(&layout(), theta, shards.iter().cloned().map(Ok::<_, StepError>), &ONES, step)
    }

    #[test]
    fn a_second_trial_undoes_the_first_and_nothing_is_left_of_either() {
        let (mut trial, mut theta) = (Trial::default(), [1.0, -0.0, 1e-40, 4.0, 5.0, 6.0, 7.0f32]);
        let before = theta.map(f32::to_bits);
        let sent = [shard(0, &[&[(1, 2.0), (2, -2.0)]]), shard(1, &[&[(0, 1.0)]])];
        begin(&mut trial, &mut theta, &sent, STEP).unwrap();
        assert_eq!(theta, [1.0, -1.0, 1.0, 4.0, 4.5, 6.0, 7.0]);
        begin(&mut trial, &mut theta, &[shard(0, &[&[(0, 2.0)], &[]])], STEP).unwrap();
        assert_eq!(theta, [0.0, -0.0, 1e-40, 4.0, 5.0, 6.0, 7.0]);
        trial.undo(&layout(), &mut theta);
        trial.undo(&layout(), &mut theta);
        assert_eq!(theta.map(f32::to_bits), before);
    }

    #[test]
    fn a_tensor_that_counts_as_not_sent_is_not_touched() {
        let (mut trial, mut theta) = (Trial::default(), [1.0; 7]);
        let sent = shard(0, &[&[(0, 1.0)], &[(0, 1.0)]]);
        let factors = [None, Some(0.5)];
        trial.begin(&layout(), &mut theta, [Ok::<_, StepError>(sent)].into_iter(), &factors, STEP).unwrap();
        assert_eq!(theta, [1.0, 1.0, 1.0, 1.0, 0.75, 1.0, 1.0]);
        trial.undo(&layout(), &mut theta);
        assert_eq!(theta, [1.0; 7]);
    }

    #[test]
    fn what_cannot_be_tried_leaves_no_trace() {
        let (mut trial, mut theta) = (Trial::default(), [-f32::MAX; 7]);
        let loud = OuterStep { alpha: 1e30, rho: 1.0, reach: &[] };
        let sent = [shard(0, &[&[(0, 1e-30)], &[(1, 1e30), (2, 1.0)]])];
        let error = begin(&mut trial, &mut theta, &sent, loud).unwrap_err();
        assert_eq!(error, StepError::NotFinite { tensor: "b".into(), index: 1 });
        assert_eq!(theta, [-f32::MAX; 7]);
        let misfit = StepError::Shards { contributors: 1 };
        let sends = shard(0, &[&[(0, 1.0)]]);
        for sent in [vec![], vec![sends.clone()], vec![shard(1, &[&[(0, 1.0)]])], vec![sends.clone(), sends]] {
            assert_eq!(begin(&mut trial, &mut theta, &sent, STEP), Err(misfit.clone()));
            assert_eq!(theta, [-f32::MAX; 7]);
        }
    }
}
