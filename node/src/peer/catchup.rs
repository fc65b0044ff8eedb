//! How a node that is behind, new, or contradicted comes to stand where the electorate does.
//!
//! The agreed head is all that is trusted: headers are walked back from it, by hash, to a state that this node has, to a
//! checkpoint that peers have, or to the run's beginning; then every header's selection is applied again and its root
//! compared. No peer is believed for any of it.

use super::apply::{ApplyError, State, hold_checkpoint, is_checkpoint, replay};
use super::context::Context;
use crate::chain::Ledger;
use crate::contribution::{Contribution, ObtainError, obtain};
use covey_gossip::{Class, FetchError, Hint};
use covey_proto::blob::{DecodeError, HEADER_BYTES_MAX, Header, LIST_BYTES_MAX, StateManifest};
use covey_proto::message::BLOB_BYTES_MAX;
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_sparseloco::{Assembly, StateError, state_root};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;

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
pub enum JoinError {
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
}

impl JoinError {
    /// Whether another try may end otherwise: a blob that nobody gave now.
    pub fn is_transient(&self) -> bool {
        matches!(self, JoinError::Fetch(_) | JoinError::Obtain(ObtainError::Fetch(_)))
    }
}

/// Where catching up has led.
pub struct Caught {
    /// The state.
    pub state: State,
    /// Whether it came from peers: then the optimizer and the error feedback start from zero.
    pub by_state: bool,
}

/// Brings a node that has the states `mine` (oldest first) to the head of `round`.
///
/// # Errors
/// A blob that nobody gives now, or something that a person must look at.
///
/// # Cancel safety
/// What has been fetched and applied stays.
pub async fn catch_up<L: Ledger>(
    context: &Arc<Context<L>>,
    mine: &[State],
    round: Option<Round>,
    head: Digest,
) -> Result<Caught, JoinError> {
    let (mut state, headers, by_state) = find_start(context, mine, round, head).await?;
    for header in headers.into_iter().rev() {
        state = apply_one(context, state, header).await?;
    }
    Ok(Caught { state, by_state })
}

/// A state to start from, and the headers since, newest first.
async fn find_start<L: Ledger>(
    context: &Arc<Context<L>>,
    mine: &[State],
    round: Option<Round>,
    head: Digest,
) -> Result<(State, Vec<Header>, bool), JoinError> {
    // Who has a state of its own replays up to P rounds; who has none takes the newest checkpoint.
    let own = mine.iter().any(|state| state.tip.round.is_some());
    let replayed_max = if own { context.run.electorate.checkpoint as usize } else { 0 };
    let mut headers: Vec<Header> = Vec::new();
    let mut newest_checkpoint = None;
    let mut at = Tip { round, head };
    loop {
        if let Some(state) = mine.iter().find(|state| state.tip == at) {
            return Ok((state.clone(), headers, false));
        }
        let Some(round) = at.round else {
            return if at == Tip::genesis(context.run_id) {
                Ok((genesis(context), headers, true))
            } else {
                Err(JoinError::Parent(at.head))
            };
        };
        let header = header(context, round, at.head).await?;
        at = Tip { round: round.previous(), head: header.parent };
        if is_checkpoint(&context.run, round) {
            newest_checkpoint.get_or_insert(headers.len());
        }
        headers.push(header);
        if let Some(number) = newest_checkpoint.filter(|_| headers.len() > replayed_max) {
            let older = headers.split_off(number);
            let header = older.first().expect("split before the checkpoint's header");
            return Ok((checkpoint(context, header).await?, headers, true));
        }
    }
}

/// The state before round 0, which everyone computes.
pub fn genesis<L>(context: &Context<L>) -> State {
    let parameters = covey_trainer::genesis::initial_state(&context.run.model);
    let root = state_root(&parameters, context.run.compress.state_elements as usize);
    State { tip: Tip::genesis(context.run_id), root, parameters: Arc::new(parameters) }
}

async fn header<L: Ledger>(context: &Arc<Context<L>>, round: Round, head: Digest) -> Result<Header, JoinError> {
    let bytes = context.network.fetch_unsized(head, HEADER_BYTES_MAX as u64, &[], FETCH_TIMEOUT).await?;
    let header = Header::from_bytes(&bytes).map_err(|error| JoinError::Malformed { what: "header", error })?;
    if header.run != context.run_id || header.round != round {
        return Err(JoinError::Parent(head));
    }
    Ok(header)
}

/// A state that peers hold whole: its shards come several at once and go into it in order.
async fn checkpoint<L: Ledger>(context: &Arc<Context<L>>, header: &Header) -> Result<State, JoinError> {
    let (network, run) = (&context.network, &context.run);
    let look_up = tokio::time::timeout(LOOK_UP_TIMEOUT, network.providers(header.state));
    let list = network.fetch_unsized(header.state, LIST_BYTES_MAX as u64, &[], FETCH_TIMEOUT);
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
    let parameters = Arc::new(assembly.finish()?);
    let tip = Tip { round: Some(header.round), head: header.digest() };
    let state = State { tip, root: header.state, parameters };
    let (owned, kept) = (context.clone(), state.clone());
    let keep = move || hold_checkpoint(&owned, &kept, &manifest);
    tokio::task::spawn_blocking(keep).await.expect("keeping a state does not panic")?;
    Ok(state)
}

async fn apply_one<L: Ledger>(context: &Arc<Context<L>>, before: State, header: Header) -> Result<State, JoinError> {
    let mut selected: Vec<Arc<Contribution>> = Vec::with_capacity(header.selected.len());
    for (_, digest) in &header.selected {
        selected.push(Arc::new(obtain(context, *digest, None, &[], FETCH_TIMEOUT).await?.0));
    }
    let owned = context.clone();
    let (state, _) =
        context.compute.run_wide(move |threads| replay(&owned, &before, &header, &selected, threads)).await;
    Ok(state?)
}
