//! How a node that is behind, new, or contradicted comes to stand where the electorate does.
//!
//! The agreed head is all that is trusted: headers are walked back from it, by hash, to a state that this node has, to a
//! checkpoint that peers have, or to the run's beginning; then every header's selection is applied again and its root
//! compared. No peer is believed for any of it.

use super::applying::{ApplyError, hold_checkpoint, is_checkpoint, pin_selected, replay};
use super::context::Context;
use super::obtain::{ObtainError, obtain};
use super::states::{Base, Sealed, State};
use crate::chain::Ledger;
use crate::compute::off_the_queue;
use crate::contribution::Contribution;
use crate::disk::{DiskError, StateFile};
use covey_gossip::store::StoreError;
use covey_gossip::{Class, FetchError, Hint};
use covey_proto::blob::{DecodeError, HEADER_BYTES_MAX, Header, LIST_BYTES_MAX, StateManifest};
use covey_proto::message::BLOB_BYTES_MAX;
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_sparseloco::{Assembly, StateError, state_root};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);
/// How long one blob is looked for before the whole attempt starts again.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Shards of a state fetched at once: enough to keep a line full while one of them ends, and that many at most are in
/// memory beside the state.
const STATE_FETCHES_MAX: usize = 8;
/// How long each of them may take: they share the line.
const STATE_TIMEOUT: Duration = FETCH_TIMEOUT.saturating_mul(STATE_FETCHES_MAX as u32);
// In memory beside the state: a quarter of a gigabyte.
const _: () = assert!(STATE_FETCHES_MAX * BLOB_BYTES_MAX <= 256 << 20);
/// How long the look-up of who holds a state is waited for: peers that are connected are asked in any case.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why catching up failed. What is transient is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    /// Nobody gave a blob.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A contribution is not to be had.
    #[error(transparent)]
    Obtain(#[from] ObtainError),
    /// A blob of the right name that is not what it must be: the electorate agreed on nonsense.
    #[error("the agreed {what} is malformed: {error}")]
    Malformed {
        /// Header or state manifest.
        what: &'static str,
        /// What is wrong.
        error: DecodeError,
    },
    /// A header of another run or round than its child says.
    #[error("the header {0} is not the parent that its child needs")]
    Parent(Digest),
    /// The state's shards are no state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Replaying failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store refuses, or has evicted what was fetched.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JoinError {
    /// Whether another try may end otherwise: a blob that nobody gave now.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            JoinError::Fetch(_) | JoinError::Obtain(ObtainError::Fetch(_)) => true,
            // Evicted between its fetch and its use.
            JoinError::Store(error) => matches!(error, StoreError::Missing(_)),
            _ => false,
        }
    }
}

/// Where catching up has led.
pub(super) struct CaughtUp {
    /// The state.
    pub state: State,
    /// Whether it came from peers: then the optimizer and the error feedback start from zero.
    pub by_state: bool,
}

/// Catches up to the head of a round from the states `mine`, however often it takes. Says where this node's own state of
/// the round was another.
///
/// # Errors
/// Something that a person must look at.
pub(super) async fn join<L: Ledger>(
    context: Arc<Context<L>>,
    mut mine: Vec<Base>,
    target: Tip,
) -> Result<CaughtUp, JoinError> {
    let own = open_own(&context, &mine, target).await;
    // One try may fetch a state and fail, and the next go on from it.
    let mut by_state = false;
    loop {
        match catch_up(&context, &mut mine, &mut by_state, target).await {
            Ok(state) => {
                tracing::info!(node = %context.name, round = ?target.round, head = %target.head, "caught up");
                forget_later_states(&context, target).await;
                compare(&context, own, &state).await;
                return Ok(CaughtUp { state, by_state });
            }
            // A state of this folder may be the wrong one, or unreadable; without any of them it is this machine that
            // computes wrong.
            Err(JoinError::Apply(error @ (ApplyError::OtherRoot { .. } | ApplyError::Base(_)))) if !mine.is_empty() => {
                tracing::error!(node = %context.name, %error, "catching up again, from others' states alone");
                mine.clear();
            }
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(node = %context.name, %error, "catching up again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Brings a node that has the states `mine` (oldest first) to `target`.
///
/// # Cancel safety
/// What has been fetched and applied stays.
async fn catch_up<L: Ledger>(
    context: &Arc<Context<L>>,
    mine: &mut Vec<Base>,
    by_state: &mut bool,
    target: Tip,
) -> Result<State, JoinError> {
    let (start, headers) = find_start(context, mine, target).await?;
    // One state is in memory, the one that is worked on: the others are on the disk.
    mine.iter_mut().for_each(|base| drop(base.take()));
    *by_state |= !matches!(start, Start::Mine(_));
    let mut base = match start {
        Start::Mine(base) => base,
        Start::Genesis => genesis(context).await?.into(),
        Start::Checkpoint(header) => checkpoint(context, &header).await?.into(),
    };
    for header in headers.into_iter().rev() {
        let selected = match selected(context, &header).await {
            Ok(selected) => selected,
            Err(error) => {
                // The next try goes on from here.
                mine.retain(|other| other.sealed.tip != base.sealed.tip);
                mine.push(base);
                return Err(error);
            }
        };
        let owned = context.clone();
        let replay = move |threads| replay(&owned, base, &header, &selected, threads);
        base = context.compute.run_wide(replay).await.0?.into();
    }
    load(context, base).await
}

/// Where the replay of headers begins.
enum Start {
    Mine(Base),
    Genesis,
    /// A state that peers have, after this header.
    Checkpoint(Header),
}

/// A state to start from, and the headers since, newest first.
async fn find_start<L: Ledger>(
    context: &Arc<Context<L>>,
    mine: &mut [Base],
    target: Tip,
) -> Result<(Start, Vec<Header>), JoinError> {
    // Who has a state of its own replays up to P rounds; who has none takes the newest checkpoint.
    let own = mine.iter().any(|base| base.sealed.tip.round.is_some());
    let replayed_max = if own { context.run.electorate.checkpoint as usize } else { 0 };
    let mut headers: Vec<Header> = Vec::new();
    let mut newest_checkpoint = None;
    let mut at = target;
    loop {
        if let Some(base) = mine.iter_mut().find(|base| base.sealed.tip == at) {
            return Ok((Start::Mine(base.take()), headers));
        }
        let Some(round) = at.round else {
            if at != Tip::genesis(context.run_id) {
                return Err(JoinError::Parent(at.head));
            }
            // A first state that nobody can draw may be with nobody any more; round 0 ends with a checkpoint.
            return match newest_checkpoint.filter(|_| context.run.model.seed.is_none()) {
                Some(number) => from_checkpoint(headers, number),
                None => Ok((Start::Genesis, headers)),
            };
        };
        let header = header(context, round, at.head).await?;
        at = Tip { round: round.previous(), head: header.parent };
        if is_checkpoint(&context.run, round) {
            newest_checkpoint.get_or_insert(headers.len());
        }
        headers.push(header);
        if let Some(number) = newest_checkpoint.filter(|_| headers.len() > replayed_max) {
            return from_checkpoint(headers, number);
        }
    }
}

/// The start from the state after header `number`: that one and those before it are not replayed.
fn from_checkpoint(mut headers: Vec<Header>, number: usize) -> Result<(Start, Vec<Header>), JoinError> {
    headers.truncate(number + 1);
    let header = headers.pop().expect("the checkpoint's header is the last of them");
    Ok((Start::Checkpoint(header), headers))
}

async fn load<L: Ledger>(context: &Arc<Context<L>>, base: Base) -> Result<State, JoinError> {
    let (owned, sealed) = (context.clone(), base.sealed);
    let read = move || base.parameters(&owned.disk, owned.layout.elements());
    let parameters = off_the_queue(read).await;
    Ok(State { sealed, parameters: parameters.map_err(ApplyError::from)? })
}

/// This node's own state of the target's round, where it has another head: what replaces it on the disk is compared with it.
async fn open_own<L: Ledger>(context: &Arc<Context<L>>, mine: &[Base], target: Tip) -> Option<StateFile> {
    let other = |base: &&Base| base.sealed.tip.round == target.round && base.sealed.tip.head != target.head;
    if !mine.iter().any(|base| other(&base)) {
        return None;
    }
    let owned = context.clone();
    let open = move || owned.disk.open_state(target.round, owned.layout.elements());
    // To look is not worth a halt.
    off_the_queue(open).await.inspect_err(|error| say_unread(context, error)).ok().flatten()
}

async fn forget_later_states<L: Ledger>(context: &Arc<Context<L>>, tip: Tip) {
    let owned = context.clone();
    let forget = move || owned.disk.forget_states_after(&tip);
    if let Err(error) = off_the_queue(forget).await {
        tracing::error!(node = %context.name, %error, "old states stay");
    }
}

/// Says where this node's state of a round was another than the one it has caught up to.
async fn compare<L: Ledger>(context: &Arc<Context<L>>, own: Option<StateFile>, caught_up: &State) {
    let Some(mut own) = own.filter(|own| own.root() != caught_up.sealed.root) else { return };
    let (was, is, parameters) = (own.root(), caught_up.sealed.root, caught_up.parameters.clone());
    let element = match off_the_queue(move || own.first_difference(&parameters)).await {
        Ok(Some(element)) => element,
        Ok(None) => return,
        Err(error) => return say_unread(context, &error),
    };
    let tensors = context.layout.tensors();
    let tensor = tensors.iter().find(|tensor| tensor.range().contains(&element)).map(|tensor| &tensor.name);
    tracing::error!(
        node = %context.name, %was, %is, element, ?tensor,
        "computed again, my state is the electorate's: this machine computed wrong once, test its memory"
    );
}

fn say_unread<L>(context: &Context<L>, error: &DiskError) {
    tracing::error!(node = %context.name, %error, "my state of this round cannot be compared with the electorate's");
}

/// The state before round 0: drawn, or had from peers if it was given.
async fn genesis<L: Ledger>(context: &Arc<Context<L>>) -> Result<State, JoinError> {
    match drawn_genesis(context) {
        Some(state) => Ok(state),
        None => Ok(given_genesis(context).await?.0),
    }
}

/// The state before round 0 that everyone draws from the run's seed; none if the run has none.
pub(super) fn drawn_genesis<L>(context: &Context<L>) -> Option<State> {
    let parameters = covey_trainer::genesis::initial_state(&context.run.model).ok()?;
    let root = state_root(&parameters, context.run.compress.state_elements as usize);
    Some(State { sealed: Sealed { tip: Tip::genesis(context.run_id), root }, parameters: Arc::new(parameters) })
}

/// Has the state before round 0 from peers, however long it takes, and keeps it for others: of a run that goes on from
/// somebody's model, at a node that has nothing.
///
/// # Errors
/// Something that a person must look at.
pub(super) async fn obtain_genesis<L: Ledger>(context: Arc<Context<L>>) -> Result<State, JoinError> {
    let (state, manifest) = loop {
        match given_genesis(&context).await {
            Err(error) if error.is_transient() => {
                tracing::info!(node = %context.name, %error, "the run's first state is not to be had yet: asking again");
                tokio::time::sleep(RETRY).await;
            }
            had => break had?,
        }
    };
    let (owned, kept) = (context.clone(), state.clone());
    off_the_queue(move || hold_checkpoint(&owned, &kept, &manifest)).await?;
    tracing::info!(node = %context.name, root = %state.sealed.root, "the run's first state is here");
    Ok(state)
}

async fn given_genesis<L: Ledger>(context: &Arc<Context<L>>) -> Result<(State, StateManifest), JoinError> {
    let root = context.run.chain.genesis_state;
    let (parameters, manifest) = whole_state(context, root).await?;
    let sealed = Sealed { tip: Tip::genesis(context.run_id), root };
    Ok((State { sealed, parameters: Arc::new(parameters) }, manifest))
}

async fn header<L: Ledger>(context: &Arc<Context<L>>, round: Round, head: Digest) -> Result<Header, JoinError> {
    let bytes = context.network.fetch_unsized(head, HEADER_BYTES_MAX as u64, &[], FETCH_TIMEOUT).await?;
    let header = Header::from_bytes(&bytes).map_err(|error| JoinError::Malformed { what: "header", error })?;
    if header.run != context.run_id || header.round != round {
        return Err(JoinError::Parent(head));
    }
    Ok(header)
}

/// A state that peers hold whole, by its root: its shards come several at once and go into it in order.
async fn whole_state<L: Ledger>(
    context: &Arc<Context<L>>,
    root: Digest,
) -> Result<(Vec<f32>, StateManifest), JoinError> {
    let (network, run) = (&context.network, &context.run);
    let look_up = tokio::time::timeout(LOOK_UP_TIMEOUT, network.providers(root));
    let list = network.fetch_unsized(root, LIST_BYTES_MAX as u64, &[], FETCH_TIMEOUT);
    let (providers, bytes) = tokio::join!(look_up, list);
    let (elements, cut) = (context.layout.elements(), run.compress.state_elements as usize);
    let manifest = StateManifest::from_bytes(&bytes?, elements, cut)
        .map_err(|error| JoinError::Malformed { what: "state manifest", error })?;
    let hints: Vec<Hint> = providers.unwrap_or_default().into_iter().map(Hint::from).collect();
    let fetches = manifest.shards.clone().into_iter();
    let fetches = fetches.map(|shard| network.fetch_as(shard, Class::State, &hints, STATE_TIMEOUT));
    let mut shards = stream::iter(fetches).buffered(STATE_FETCHES_MAX);
    let mut assembly = Assembly::new(elements);
    while let Some(shard) = shards.try_next().await? {
        assembly.push(&shard)?;
    }
    Ok((assembly.finish()?, manifest))
}

/// The state after a header, from peers, kept as one's own are kept.
async fn checkpoint<L: Ledger>(context: &Arc<Context<L>>, header: &Header) -> Result<State, JoinError> {
    let (parameters, manifest) = whole_state(context, header.state).await?;
    let parameters = Arc::new(parameters);
    let tip = Tip { round: Some(header.round), head: header.digest() };
    let state = State { sealed: Sealed { tip, root: header.state }, parameters };
    let (owned, kept) = (context.clone(), state.clone());
    let keep = move || -> Result<(), ApplyError> {
        // They are about a state that this node never had; a kill must not bring them back.
        owned.disk.forget_training()?;
        hold_checkpoint(&owned, &kept, &manifest)
    };
    off_the_queue(keep).await?;
    Ok(state)
}

/// What a header selects, in the store and pinned there.
async fn selected<L: Ledger>(context: &Arc<Context<L>>, header: &Header) -> Result<Vec<Arc<Contribution>>, JoinError> {
    let mut selected = Vec::with_capacity(header.selected.len());
    for (_, digest) in &header.selected {
        selected.push(Arc::new(obtain(context, *digest, None, &[], FETCH_TIMEOUT).await?.0));
    }
    pin_selected(context, header.round, &selected).await?;
    Ok(selected)
}
