//! The outer step and what names its result. Blocks and computes; holds one state at a time, which it changes in place.

use super::super::context::Context;
use super::super::states::{Base, Sealed, State};
use super::{ApplyError, keep};
use crate::chain::Ledger;
use crate::compute::Cancel;
use crate::contribution::{Blobs, Contribution, ShardError};
use crate::misbehave;
use covey_proto::blob::Header;
use covey_proto::layout::Layout;
use covey_proto::run::Run;
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_round::reach::reach;
use covey_sparseloco::{OuterStep, SparseShard, StepError, outer_step_decoding, outer_step_on, state_manifest_on};
use std::sync::Arc;

/// Why an outer step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepFault {
    /// The aggregate is not finite, or contributions do not fit.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A contribution's bytes are gone.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

/// Makes `theta` the parameters after `round`: the outer step over the selected, by uid rising, on as many threads, in
/// place. What is not in memory decoded is decoded from its blobs, a few shards at a time.
///
/// # Errors
/// A result that is not finite, or bytes that are gone: `theta` is spoilt.
pub fn next_parameters(
    run: &Run,
    layout: &Layout,
    round: Round,
    theta: &mut [f32],
    (selected, blobs): (&[Arc<Contribution>], &Blobs<'_>),
    threads: usize,
) -> Result<(), StepFault> {
    let reach = reach(run, layout, round);
    let step = OuterStep { alpha: run.outer.rate.linear(f64::from(round.0)), rho: run.outer.rho, reach: &reach };
    let decoded: Option<Vec<&[SparseShard]>> = selected.iter().map(|contribution| contribution.decoded()).collect();
    if let Some(decoded) = decoded {
        return Ok(outer_step_on(threads, layout, theta, &decoded, step)?);
    }
    let size = (selected.len(), run.compress.shard_chunks as usize);
    outer_step_decoding(threads, layout, theta, size, step, |contributor, shard| -> Result<_, StepFault> {
        Ok(selected[contributor].shard(run, layout, blobs, shard)?)
    })
}

/// What a round is settled with.
pub(in crate::peer) struct Decision {
    /// The round.
    pub round: Round,
    /// head(round − 1).
    pub parent: Digest,
    /// Hashes of the anchor, commit and vote blocks.
    pub hashes: [Digest; 3],
}

/// The first half of applying a round: its parameters. The next round can be trained from them.
///
/// # Errors
/// The base cannot be read, or [`next_parameters`] fails.
pub(in crate::peer) fn step<L: Ledger>(
    context: &Context<L>,
    before: Base,
    round: Round,
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<Vec<f32>, ApplyError> {
    // The only one who has them, but for a training that was stopped and does not know it yet.
    let mut theta = Arc::unwrap_or_clone(before.parameters(&context.disk, context.layout.elements())?);
    let blobs = |root: &Digest| context.network.store().get(root);
    next_parameters(&context.run, &context.layout, round, &mut theta, (selected, &blobs), threads)?;
    if let Some(kind) = context.misbehaviour {
        misbehave::drift(kind, round, &mut theta);
    }
    Ok(theta)
}

/// The second half: root and header, and so the head; on disk before it returns.
///
/// # Errors
/// The disk refuses, or nobody wants it any more.
pub(in crate::peer) fn seal<L: Ledger>(
    context: &Context<L>,
    parameters: Arc<Vec<f32>>,
    decision: &Decision,
    (selected, cancel): (&[Arc<Contribution>], &Cancel),
    threads: usize,
) -> Result<State, ApplyError> {
    let Decision { round, parent, hashes: [hash_a, hash_c, hash_v] } = *decision;
    let named = |contribution: &Arc<Contribution>| (contribution.manifest.uid, contribution.digest);
    let header = |state: Digest| Header {
        run: context.run_id,
        round,
        parent,
        hash_a,
        hash_c,
        hash_v,
        selected: selected.iter().map(named).collect(),
        state,
    };
    name_and_keep(context, parameters, selected, threads, |root| match cancel.is_wanted() {
        true => Ok(header(root)),
        false => Err(ApplyError::GivenUp),
    })
}

/// Applies a header that the electorate has agreed on: both halves at once, and the root must be the header's.
///
/// # Errors
/// As [`step`] and [`seal`], or another root than the header's.
pub(in crate::peer) fn replay<L: Ledger>(
    context: &Context<L>,
    before: Base,
    header: &Header,
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<State, ApplyError> {
    let (round, agreed) = (header.round, header.state);
    let mut theta = Arc::unwrap_or_clone(before.parameters(&context.disk, context.layout.elements())?);
    let blobs = |root: &Digest| context.network.store().get(root);
    next_parameters(&context.run, &context.layout, round, &mut theta, (selected, &blobs), threads)?;
    name_and_keep(context, Arc::new(theta), selected, threads, |root| match root == agreed {
        true => Ok(header.clone()),
        false => Err(ApplyError::OtherRoot { round, mine: root, agreed }),
    })
}

/// Hashes a state, and keeps it under the header that `header` gives for its root.
fn name_and_keep<L: Ledger>(
    context: &Context<L>,
    parameters: Arc<Vec<f32>>,
    selected: &[Arc<Contribution>],
    threads: usize,
    header: impl FnOnce(Digest) -> Result<Header, ApplyError>,
) -> Result<State, ApplyError> {
    let manifest = state_manifest_on(threads, &parameters, context.run.compress.state_elements as usize);
    let root = manifest.root();
    let header = header(root)?;
    let tip = Tip { round: Some(header.round), head: header.digest() };
    let state = State { sealed: Sealed { tip, root }, parameters };
    keep::keep(context, &header, (&state, &manifest), selected)?;
    Ok(state)
}
