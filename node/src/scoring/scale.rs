//! How loud a contribution counts in its round: as applying it would have it, so that shouting earns nothing.
//!
//! What is selected is scaled, tensor by tensor, to the lower median of the selected, and no further than the reach
//! (docs/protocol.md, 15). An evaluation does the same: a contribution that is ten times as long is tried at the length that it
//! would be applied at, beside those that were.

use covey_proto::Round;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_round::reach::reach;
use covey_sparseloco::{NormAccumulator, SparseShard, factors_by, references};

/// The norms that a round's tensors are scaled down to.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    references: Vec<f64>,
}

impl Scale {
    /// Of a round whose selected contributions have these norms, `[contributions][tensors]`. Without any, only the reach
    /// counts.
    pub fn new(run: &Run, layout: &Layout, round: Round, norms: &[Vec<f64>]) -> Scale {
        let reach = reach(run, layout, round);
        Scale { references: if norms.is_empty() { reach } else { references(norms, &reach) } }
    }

    /// What each tensor of a contribution with these norms is multiplied by; none where it counts as not sent.
    pub fn factors(&self, norms: &[f64]) -> Vec<Option<f32>> {
        factors_by(&self.references, norms)
    }
}

/// The norms of a contribution's tensors, in the layout's order. `shards` are all of its shards, decoded as they are asked
/// for.
///
/// # Errors
/// The first shard's that is not to be had.
pub fn norms<E>(layout: &Layout, shards: impl Iterator<Item = Result<SparseShard, E>>) -> Result<Vec<f64>, E> {
    let mut accumulator = NormAccumulator::new(layout, 1);
    for shard in shards {
        accumulator.add_shard(0, &shard?);
    }
    Ok(accumulator.norms(0))
}
