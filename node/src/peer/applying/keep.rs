//! What of a round is kept for others and for the next life, and for how long.

use super::ApplyError;
use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::contribution::Contribution;
use crate::peer::context::Context;
use crate::peer::states::State;
use covey_gossip::store::{Durability, Store, StoreError};
use covey_proto::blob::{Header, StateManifest};
use covey_proto::run::Run;
use covey_proto::{Digest, Round};
use covey_sparseloco::{state_manifest, state_shards};
use std::sync::Arc;

/// Pins what a round applies, which brings it to the disk: it is read again while the round is applied.
///
/// # Errors
/// The store refuses, or has evicted some of it.
pub(in crate::peer) async fn pin_selected<L: Ledger>(
    context: &Arc<Context<L>>,
    round: Round,
    selected: &[Arc<Contribution>],
) -> Result<(), StoreError> {
    let names: Vec<Digest> = selected.iter().flat_map(|contribution| contribution.blobs()).collect();
    let store = context.network.store().clone();
    let pin = move || store.pin(&applying_tag(round), &names);
    off_the_queue(pin).await
}

/// Stores what others may ask for, then the state; forgets rounds that nobody needs any more.
///
/// # Errors
/// The store or the disk refuses.
pub(super) fn keep<L>(
    context: &Context<L>,
    header: &Header,
    (state, manifest): (&State, &StateManifest),
    selected: &[Arc<Contribution>],
) -> Result<(), ApplyError> {
    let (store, round) = (context.network.store(), header.round);
    let small = [header.to_bytes(), manifest.to_bytes()];
    // The header and the state's root come first, for `provide_checkpoints`.
    let mut names: Vec<Digest> =
        store.put_batch(&small, Durability::Buffered)?.into_iter().map(|blob| blob.root).collect();
    names.extend(selected.iter().flat_map(|contribution| contribution.blobs()));
    if is_checkpoint(&context.run, round) {
        put_shards(store, state, context.run.compress.state_elements as usize, &mut names)?;
    }
    store.pin(&round_tag(round), &names)?;
    store.unpin(&applying_tag(round))?;
    context.disk.write_state(&state.sealed.tip, state.sealed.root, &state.parameters)?;
    if is_checkpoint(&context.run, round) {
        provide_checkpoints(context, round);
    }
    forget(context, round)
}

/// Stores a state's shards, one at a time: none but that is in memory twice.
fn put_shards(store: &Store, state: &State, elements: usize, names: &mut Vec<Digest>) -> Result<(), StoreError> {
    for shard in state_shards(&state.parameters, elements) {
        names.push(store.put(&shard, Durability::Buffered)?.root);
    }
    Ok(())
}

/// Keeps a checkpoint that came from peers as one's own are kept: its blobs, pinned and said to be here, then the state.
/// A store without room for all of it has evicted some by now, and then only the state is kept.
///
/// # Errors
/// The store or the disk refuses.
pub(in crate::peer) fn hold_checkpoint<L>(
    context: &Context<L>,
    state: &State,
    manifest: &StateManifest,
) -> Result<(), ApplyError> {
    let (tip, root) = (state.sealed.tip, state.sealed.root);
    let (tag, mut names) = match tip.round {
        Some(round) => (round_tag(round), vec![tip.head, root]),
        None => (GENESIS_TAG.to_owned(), vec![root]),
    };
    names.extend(manifest.shards.iter().map(|shard| shard.root));
    match (context.network.store().pin(&tag, &names), tip.round) {
        (Ok(()), Some(round)) => provide_checkpoints(context, round),
        (Ok(()), None) => context.network.provide(root),
        (Err(error @ StoreError::Missing(_)), _) => {
            tracing::warn!(node = %context.name, what = tag, %error, "a state is not kept for others");
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(context.disk.write_state(&tip, root, &state.parameters)?)
}

/// Keeps the state that the run begins with, where it was given and not drawn, and says that it is here: the others have
/// it from whoever does.
///
/// # Errors
/// The store or the disk refuses.
pub(in crate::peer) fn hold_genesis<L>(context: &Context<L>, state: &State) -> Result<(), ApplyError> {
    let (store, cut) = (context.network.store(), context.run.compress.state_elements as usize);
    if provide_genesis(context) {
        return Ok(());
    }
    let manifest = state_manifest(&state.parameters, cut);
    store.put(&manifest.to_bytes(), Durability::Buffered)?;
    put_shards(store, state, cut, &mut Vec::new())?;
    hold_checkpoint(context, state, &manifest)
}

/// Tells the network that the run's first state is here, if it is kept: says whether it is.
pub(in crate::peer) fn provide_genesis<L>(context: &Context<L>) -> bool {
    let is_kept = context.network.store().pins().contains_key(GENESIS_TAG);
    if is_kept {
        context.network.provide(context.run.chain.genesis_state);
    }
    is_kept
}

/// Tells the network which states this node holds whole, as of `round`: the last two checkpoints, which everybody keeps.
/// An archive has older ones too, and whoever joins asks for none of them.
pub(in crate::peer) fn provide_checkpoints<L>(context: &Context<L>, round: Round) {
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
pub(in crate::peer) fn is_checkpoint(run: &Run, round: Round) -> bool {
    round.0.is_multiple_of(run.electorate.checkpoint)
}

/// Of the state before round 0, where it is none that everybody draws.
const GENESIS_TAG: &str = "genesis-0";

fn round_tag(round: Round) -> String {
    format!("round-{round}")
}

/// Of what is being applied, until the round's own tag holds it.
fn applying_tag(round: Round) -> String {
    format!("apply-{round}")
}

/// Lets go of what nobody needs any more after `round`. An archive keeps every round.
fn forget<L>(context: &Context<L>, round: Round) -> Result<(), ApplyError> {
    let store = context.network.store();
    let checkpoint = context.run.electorate.checkpoint;
    for tag in store.pins().into_keys().filter(|tag| is_over(tag, round, checkpoint)) {
        if context.archive && (tag.starts_with("round") || tag == GENESIS_TAG) {
            continue;
        }
        store.unpin(&tag)?;
        if tag == GENESIS_TAG {
            context.network.stop_providing(context.run.chain.genesis_state);
        }
    }
    // Of contributions that were never revealed.
    for tag in store.veils().iter().filter(|tag| is_over(tag, round, checkpoint)) {
        store.unveil(tag)?;
    }
    if !context.archive {
        store.gc()?;
    }
    Ok(())
}

/// Whether what a tag holds is of no use any more after `round`, where every `checkpoint`-th state is kept: rounds older
/// than that and four more, checkpoints but for the last two, own contributions but for the last.
fn is_over(tag: &str, round: Round, checkpoint: u32) -> bool {
    let Some((kind, Ok(of))) = tag.split_once('-').map(|(kind, number)| (kind, number.parse::<u32>())) else {
        return false;
    };
    let kept = match kind {
        "mine" => 2,
        // Whoever comes later joins by a checkpoint.
        "genesis" => checkpoint,
        "round" if of.is_multiple_of(checkpoint) => 2 * checkpoint,
        "round" => checkpoint + 4,
        // Of a life that ended before the round was applied.
        "apply" => 0,
        _ => return false,
    };
    of.saturating_add(kept) <= round.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_checkpoints_and_own_contributions_are_kept_as_long_as_somebody_may_ask() {
        let over = |tag: &str, round| is_over(tag, Round(round), 10);
        for (tag, last) in [("round-21", 34), ("round-20", 39), ("mine-21", 22), ("apply-21", 20), (GENESIS_TAG, 9)] {
            assert!(!over(tag, last) && over(tag, last + 1), "{tag}");
        }
        for tag in ["offer-1-5", "fork-3", "round-x", "round", "other-3"] {
            assert!(!over(tag, 1000), "{tag}");
        }
        assert!(!over("round-4294967295", u32::MAX - 1), "no overflow");
    }
}
