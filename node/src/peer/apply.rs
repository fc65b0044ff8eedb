//! The end of a round: aggregate what was selected, take the outer step, write the header; the same bits for everyone.

use super::context::Context;
use crate::contribution::Contribution;
use crate::disk::DiskError;
use crate::misbehave;
use covey_gossip::store::{Durability, StoreError};
use covey_proto::blob::{Header, StateManifest};
use covey_proto::run::Run;
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_sparseloco::{OuterStep, SparseShard, StepError, outer_step_on, state_manifest_on, state_shards};
use std::sync::Arc;

/// A state and where it stands.
#[derive(Clone, Debug)]
pub struct State {
    /// After which round, with which head.
    pub tip: Tip,
    /// The state root.
    pub root: Digest,
    /// The parameters, `[elements]`.
    pub parameters: Arc<Vec<f32>>,
}

/// Why a round could not be applied: a fault of this machine, never of a peer.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The aggregate is not finite.
    #[error(transparent)]
    Aggregate(#[from] StepError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Replaying a header gave another state.
    #[error(
        "round {round}: applying what was selected gives state {mine}; the header says {agreed}. This machine computes wrong, or its disk is damaged: test its memory"
    )]
    OtherRoot {
        /// The round.
        round: Round,
        /// What came out.
        mine: Digest,
        /// What the electorate has.
        agreed: Digest,
    },
}

/// The parameters after `round`: the outer step over the selected, by uid rising, on as many threads.
///
/// # Errors
/// A result that is not finite.
pub fn next_parameters(
    run: &Run,
    layout: &covey_proto::layout::Layout,
    round: Round,
    before: &[f32],
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<Vec<f32>, StepError> {
    let mut parameters = before.to_vec();
    let step = OuterStep { alpha: run.outer.rate.linear(f64::from(round.0)), rho: run.outer.rho };
    let shards: Vec<&[SparseShard]> = selected.iter().map(|contribution| contribution.shards.as_slice()).collect();
    outer_step_on(threads, layout, &mut parameters, &shards, step)?;
    Ok(parameters)
}

/// What a round is settled with.
pub struct Decision {
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
/// The aggregate is not finite.
pub fn step<L>(
    context: &Context<L>,
    before: &State,
    round: Round,
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<Vec<f32>, ApplyError> {
    let mut parameters = next_parameters(&context.run, &context.layout, round, &before.parameters, selected, threads)?;
    if let Some(kind) = context.misbehaviour {
        misbehave::drift(kind, round, &mut parameters);
    }
    Ok(parameters)
}

/// The second half: root and header, and so the head; on disk before it returns.
///
/// # Errors
/// The disk refuses.
pub fn seal<L>(
    context: &Context<L>,
    parameters: Arc<Vec<f32>>,
    decision: &Decision,
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<State, ApplyError> {
    let Decision { round, parent, hashes: [hash_a, hash_c, hash_v] } = *decision;
    let manifest = state_manifest_on(threads, &parameters, context.run.compress.state_elements as usize);
    let root = manifest.root();
    let named = |contribution: &Arc<Contribution>| (contribution.manifest.uid, contribution.digest);
    let header = Header {
        run: context.run_id,
        round,
        parent,
        hash_a,
        hash_c,
        hash_v,
        selected: selected.iter().map(named).collect(),
        state: root,
    };
    let tip = Tip { round: Some(round), head: header.digest() };
    let state = State { tip, root, parameters };
    keep(context, &header, (&state, &manifest), selected)?;
    Ok(state)
}

/// Applies a header that the electorate has agreed on.
///
/// # Errors
/// As [`step`] and [`seal`], or another root than the header's.
pub fn replay<L>(
    context: &Context<L>,
    before: &State,
    header: &Header,
    selected: &[Arc<Contribution>],
    threads: usize,
) -> Result<State, ApplyError> {
    let round = header.round;
    let parameters = next_parameters(&context.run, &context.layout, round, &before.parameters, selected, threads)?;
    let manifest = state_manifest_on(threads, &parameters, context.run.compress.state_elements as usize);
    let root = manifest.root();
    if root != header.state {
        return Err(ApplyError::OtherRoot { round, mine: root, agreed: header.state });
    }
    let tip = Tip { round: Some(round), head: header.digest() };
    let state = State { tip, root, parameters: Arc::new(parameters) };
    keep(context, header, (&state, &manifest), selected)?;
    Ok(state)
}

/// Stores what others may ask for, then the state; forgets rounds that nobody needs any more.
fn keep<L>(
    context: &Context<L>,
    header: &Header,
    (state, manifest): (&State, &StateManifest),
    selected: &[Arc<Contribution>],
) -> Result<(), ApplyError> {
    let store = context.network.store();
    let elements = context.run.compress.state_elements as usize;
    let small = [header.to_bytes(), manifest.to_bytes()];
    let mut names: Vec<Digest> =
        store.put_batch(&small, Durability::Buffered)?.into_iter().map(|blob| blob.root).collect();
    for contribution in selected {
        names.push(contribution.digest);
        names.extend(contribution.manifest.shards.iter().map(|shard| shard.root));
    }
    if is_checkpoint(&context.run, header.round) {
        let shards: Vec<Vec<u8>> = state_shards(&state.parameters, elements).collect();
        names.extend(store.put_batch(&shards, Durability::Buffered)?.into_iter().map(|blob| blob.root));
    }
    // The header and the state's root come first, for `provide_checkpoints`.
    store.pin(&round_tag(header.round), &names)?;
    context.disk.write_state(&state.tip, state.root, &state.parameters)?;
    if is_checkpoint(&context.run, header.round) {
        provide_checkpoints(context, header.round);
    }
    forget(context, header.round)
}

/// Keeps a checkpoint that came from peers as one's own are kept: its blobs, pinned and said to be here, then the state.
/// A store without room for all of it has evicted some by now, and then only the state is kept.
///
/// # Errors
/// The store or the disk refuses.
pub(super) fn hold_checkpoint<L>(
    context: &Context<L>,
    state: &State,
    manifest: &StateManifest,
) -> Result<(), ApplyError> {
    if let Some(round) = state.tip.round {
        let names = [state.tip.head, state.root].into_iter().chain(manifest.shards.iter().map(|shard| shard.root));
        match context.network.store().pin(&round_tag(round), &names.collect::<Vec<_>>()) {
            Ok(()) => provide_checkpoints(context, round),
            Err(error @ StoreError::Missing(_)) => {
                tracing::warn!(node = %context.name, %round, %error, "a checkpoint is not kept for others");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(context.disk.write_state(&state.tip, state.root, &state.parameters)?)
}

/// Tells the network which states this node holds whole, as of `round`: the last two checkpoints, which everybody keeps.
/// An archive has older ones too, and whoever joins asks for none of them.
pub(super) fn provide_checkpoints<L>(context: &Context<L>, round: Round) {
    let period = context.run.electorate.checkpoint;
    let newest = round.0 - round.0 % period;
    let pins = context.network.store().pins();
    // Its header is the first of what is pinned for a round, its state's root the second.
    let root = |back: u32| {
        let of = newest.checked_sub(back.checked_mul(period)?)?;
        pins.get(&round_tag(Round(of)))?.get(1).copied()
    };
    for (back, is_kept) in [(2, false), (1, true), (0, true)] {
        match root(back) {
            Some(root) if is_kept => context.network.provide(root),
            Some(root) => context.network.stop_providing(root),
            None => {}
        }
    }
}

/// Whether the state after a round is kept whole for those who join.
pub fn is_checkpoint(run: &Run, round: Round) -> bool {
    round.0.is_multiple_of(run.electorate.checkpoint)
}

fn round_tag(round: Round) -> String {
    format!("round-{round}")
}

/// Lets go of what is older than P + 4 rounds, and of checkpoints older than the last two. An archive keeps all.
fn forget<L>(context: &Context<L>, round: Round) -> Result<(), ApplyError> {
    let store = context.network.store();
    let checkpoint = context.run.electorate.checkpoint;
    let is_over = |tag: &str| match tag.split_once('-').map(|(kind, number)| (kind, number.parse().map(Round))) {
        Some(("mine", Ok(of))) => of.0 + 2 <= round.0,
        Some(("round", Ok(of))) if is_checkpoint(&context.run, of) => of.0 + 2 * checkpoint <= round.0,
        Some(("round", Ok(of))) => of.0 + checkpoint + 4 <= round.0,
        _ => false,
    };
    for tag in store.pins().into_keys().filter(|tag| is_over(tag)) {
        if !context.archive || !tag.starts_with("round") {
            store.unpin(&tag)?;
        }
    }
    if !context.archive {
        store.gc()?;
    }
    Ok(())
}
