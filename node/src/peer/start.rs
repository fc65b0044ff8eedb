//! How a node starts: what must fit together, what is restored from its folder, what is told to the chain first.

use super::agreement::{self, Elsewhere, RunPrefix};
use super::context::Context;
use super::gathering::{self, Gathering};
use super::identity::Identity;
use super::jobs::{Done, Jobs};
use super::mining::{Miner, MinerError, Mining};
use super::states::{Sealed, State, States};
use super::status::{Applied, Reports};
use super::submitting::{self, Orders, Signer, SubmitHandle};
use super::validating::{Validating, Validator, ValidatorError};
use super::{Applying, Inputs, Peer, applying, catching_up};
use crate::chain::{Ledger, LedgerError};
use crate::compute::Compute;
use crate::data::{PhaseData, PhaseDataError};
use crate::disk::{Disk, DiskError, SavedState};
use crate::misbehave::Misbehaviour;
use covey_gossip::store::{Store, StoreError};
use covey_gossip::{Events, Limits, TransportOptions};
use covey_proto::blob::Header;
use covey_proto::run::{Run, RunError};
use covey_proto::{Digest, HotkeyPair};
use covey_round::engine::{Engine, Roles, Tip};
use covey_sparseloco::state_root;
use covey_trainer::Device;
use covey_trainer::data::Dataset;
use covey_trainer::hf::{self, HfError};
use futures::FutureExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Announcements that are read and wait for the node's loop; beyond, gossip keeps as many as it has room for.
const HEARD_MAX: usize = 64;

/// All that makes a node.
pub struct Config<L> {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Its folder.
    pub directory: PathBuf,
    /// What it does besides following.
    pub roles: Roles,
    /// The run.
    pub run: Arc<Run>,
    /// The chain.
    pub ledger: L,
    /// The training data, a set for each of the run's phases; a node that only follows needs none.
    pub data: Vec<Arc<Dataset>>,
    /// Where it listens, as multiaddrs.
    pub listen: Vec<String>,
    /// Whom it dials first, as multiaddrs.
    pub bootstrap: Vec<String>,
    /// Whether others can reach where it listens: a seeder, or a node of a swarm on one machine. It then answers look-ups.
    pub reachable: bool,
    /// Time between gossip heartbeats.
    pub heartbeat: Duration,
    /// Bounds of its network half.
    pub limits: Limits,
    /// How its connections are set up.
    pub transport: TransportOptions,
    /// Bytes that its blob store may hold.
    pub store_bytes_max: u64,
    /// Where heavy work goes.
    pub compute: Compute,
    /// What trains and scores.
    pub device: Device,
    /// Rounds from one writing of a miner's moments and error feedback to the next.
    pub save_rounds: u32,
    /// What a miner or validator signs with.
    pub hotkey: Option<HotkeyPair>,
    /// The folder of the model that the run goes on from, at whoever brings it: the first node, the others have its state
    /// from peers. Not read where the node has a state already.
    pub genesis: Option<PathBuf>,
    /// What it does wrong, if anything.
    pub misbehaviour: Option<Misbehaviour>,
    /// Whether it keeps every round for ever.
    pub archive: bool,
    /// How long what others have is waited for before the node calls itself idle.
    pub patience: Duration,
    /// Told of every round that is applied.
    pub observer: Option<mpsc::Sender<Applied>>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run's numbers cannot be.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The folder cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The blob store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network half does not start.
    #[error(transparent)]
    Network(#[from] covey_gossip::StartError),
    /// The miner's state cannot be restored.
    #[error(transparent)]
    Miner(#[from] MinerError),
    /// The validator's state cannot be restored.
    #[error(transparent)]
    Validator(#[from] ValidatorError),
    /// The chain does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The run is on another chain.
    #[error("the run is on chain {run}, subnet {run_netuid}; this node is connected to {chain}, subnet {netuid}")]
    OtherChain {
        /// The run's genesis hash.
        run: Digest,
        /// The run's subnet.
        run_netuid: u16,
        /// The chain's genesis hash.
        chain: Digest,
        /// The subnet connected to.
        netuid: u16,
    },
    /// The data sets are not the run's.
    #[error(transparent)]
    OtherData(#[from] PhaseDataError),
    /// The hotkey is another run's.
    #[error(
        "hotkey {} commits to run {} (last at block {}); this node has run {run}: compare `covey run show`. If they are two \
         runs on purpose, use another hotkey, or stop the other node and start this one at block {} or later",
        .elsewhere.hotkey, .elsewhere.other, .elsewhere.block, .elsewhere.until
    )]
    OtherRun {
        /// Where the hotkey is.
        elsewhere: Elsewhere,
        /// This node's run.
        run: RunPrefix,
    },
    /// A role without what it needs.
    #[error("a miner or validator needs the training data")]
    NoData,
    /// A role without a key.
    #[error("a miner or validator needs a hotkey to sign with")]
    NoHotkey,
    /// The model that the run goes on from cannot be read.
    #[error(transparent)]
    Model(#[from] HfError),
    /// It is another model.
    #[error("{} holds state {got}; the run begins with {needed}: it is not the model that the run was made from", .path.display())]
    OtherModel {
        /// The folder.
        path: PathBuf,
        /// The root of its state.
        got: Digest,
        /// The run's.
        needed: Digest,
    },
    /// The first state is not kept.
    #[error("the run's first state cannot be kept: {0}")]
    Keep(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The beginning is not the run's.
    #[error("this binary computes genesis state {got}; the run begins with {needed}: they are of different versions")]
    OtherGenesis {
        /// What this binary computes.
        got: Digest,
        /// What the run says.
        needed: Digest,
    },
}

impl<L: Ledger> Peer<L> {
    /// Opens the folder, joins the network, restores what the last life left.
    ///
    /// # Errors
    /// The folder, the network, the chain or the data are not what the run needs.
    pub async fn start(config: Config<L>) -> Result<Peer<L>, StartError> {
        check(&config)?;
        let disk = Disk::open(&config.directory)?;
        // The store takes the folder's lock: until then another node may be at home in it.
        let store = Store::open(&config.directory, config.store_bytes_max)?;
        disk.remove_leftovers()?;
        let data = match config.data.is_empty() {
            true => None,
            false => Some(PhaseData::new(&config.run, config.data.iter().cloned())?),
        };
        let parts = Parts { data, device: config.device, save_rounds: config.save_rounds };
        let (observer, patience, model) = (config.observer.clone(), config.patience, config.genesis.clone());
        let (context, network_events, orders) = open(config, disk, store).await?;
        let state = restore_state(&context, model.as_deref())?;
        if let Some(round) = state.as_ref().and_then(|state| state.sealed.tip.round) {
            applying::provide_checkpoints(&context, round);
            applying::provide_genesis(&context);
        }
        let (mining, validating) = parts.restore(&context)?;
        let committed = context.journal.read().contribution.map(|made| (made.round, made.manifest));
        let tip = state.as_ref().map_or_else(|| Tip::genesis(context.run_id), |state| state.sealed.tip);
        let engine = Engine::new(context.run.clone(), context.roles, context.hotkey(), tip, committed);
        let engine = if state.is_some() { engine } else { engine.without_state() };
        refuse_other_run(&context).await?;
        let submitting = submitting::start(signer(&context), orders).await?;
        let (mut jobs, done) = Jobs::new();
        jobs.spawn(submitting.map(|()| Done::Fatal("the chain is gone".into())));
        let (heard_in, heard) = mpsc::channel(HEARD_MAX);
        jobs.spawn_silent(gathering::listen(context.clone(), network_events, heard_in));
        let genesis = state.is_none().then(|| jobs.spawn(have_genesis(context.clone())));
        Ok(Peer {
            inputs: Inputs { heads: context.ledger.heads(), heard, done },
            context,
            engine,
            states: state.map_or_else(States::none, States::new),
            genesis,
            identity: Identity::default(),
            mining,
            validating,
            gathering: Gathering::new(patience),
            applying: Applying::default(),
            jobs,
            reports: Reports::new(observer),
        })
    }
}

/// Opens the network, and puts together what all parts share.
async fn open<L: Ledger>(
    config: Config<L>,
    disk: Disk,
    store: Store,
) -> Result<(Arc<Context<L>>, Events, Orders), StartError> {
    let run_id = config.run.id();
    let network_config = covey_gossip::Config {
        directory: config.directory,
        listen: config.listen,
        bootstrap: config.bootstrap,
        reachable: config.reachable,
        genesis: config.run.chain.genesis,
        netuid: config.run.chain.netuid,
        run: run_id,
        heartbeat: config.heartbeat,
        transport: config.transport,
        limits: config.limits,
    };
    let (network, events) = covey_gossip::start(network_config, store).await?;
    let (submit, orders) = SubmitHandle::new();
    let context = Context {
        journal: Arc::new(disk.journal()?),
        name: config.name,
        layout: Arc::new(config.run.layout()),
        run: config.run,
        run_id,
        ledger: Arc::new(config.ledger),
        network,
        disk,
        submit,
        pair: config.hotkey.map(Arc::new),
        roles: config.roles,
        compute: config.compute,
        patience: config.patience,
        archive: config.archive,
        misbehaviour: config.misbehaviour,
    };
    Ok((Arc::new(context), events, orders))
}

fn signer<L: Ledger>(context: &Context<L>) -> Signer<L> {
    Signer {
        name: context.name.clone(),
        run: context.run.clone(),
        run_id: context.run_id,
        ledger: context.ledger.clone(),
        journal: context.journal.clone(),
        pair: context.pair.clone(),
    }
}

fn check<L: Ledger>(config: &Config<L>) -> Result<(), StartError> {
    let run = &config.run;
    let (chain, netuid) = (config.ledger.genesis(), config.ledger.netuid());
    if (run.chain.genesis, run.chain.netuid) != (chain, netuid) {
        let (run, run_netuid) = (run.chain.genesis, run.chain.netuid);
        return Err(StartError::OtherChain { run, run_netuid, chain, netuid });
    }
    if config.roles != Roles::default() && config.hotkey.is_none() {
        return Err(StartError::NoHotkey);
    }
    if config.roles != Roles::default() && config.data.is_empty() {
        return Err(StartError::NoData);
    }
    Ok(())
}

/// What the roles need besides the context.
struct Parts {
    data: Option<PhaseData>,
    device: Device,
    save_rounds: u32,
}

impl Parts {
    fn restore<L: Ledger>(self, context: &Context<L>) -> Result<(Option<Mining>, Option<Validating>), StartError> {
        let Parts { data: Some(data), device, save_rounds } = self else { return Ok((None, None)) };
        let miner = match context.roles.miner {
            true => Some(Mining::new(Miner::restore(context, &device, data.clone(), save_rounds)?)),
            false => None,
        };
        let validator = match context.roles.validator {
            true => Some(Validating::new(Validator::restore(context, &device, data)?)),
            false => None,
        };
        Ok((miner, validator))
    }
}

/// The newest state of the folder that has the root it should, or the run's beginning: drawn, or of the model in `model`. None
/// where the beginning is a model that this node has not been given.
fn restore_state<L: Ledger>(context: &Context<L>, model: Option<&Path>) -> Result<Option<State>, StartError> {
    let cut = context.run.compress.state_elements as usize;
    let is_sound = |saved: &SavedState| {
        state_root(&saved.parameters, cut) == saved.root && is_of_its_header(context, &saved.tip, saved.root)
    };
    let state = match context.disk.restore_state(context.layout.elements(), is_sound)? {
        Some(saved) => {
            let sealed = Sealed { tip: saved.tip, root: saved.root };
            Some(State { sealed, parameters: Arc::new(saved.parameters) })
        }
        None => begin(context, model)?,
    };
    let Some(first) = state.as_ref().filter(|state| state.sealed.tip.round.is_none()) else { return Ok(state) };
    let (got, needed) = (first.sealed.root, context.run.chain.genesis_state);
    if got != needed {
        return Err(StartError::OtherGenesis { got, needed });
    }
    if context.run.model.seed.is_none() {
        applying::hold_genesis(context, first).map_err(|error| StartError::Keep(error.into()))?;
    }
    Ok(state)
}

/// The state before round 0, written into the folder.
fn begin<L: Ledger>(context: &Context<L>, model: Option<&Path>) -> Result<Option<State>, StartError> {
    let state = match (catching_up::drawn_genesis(context), model) {
        (Some(drawn), _) => drawn,
        (None, Some(path)) => given(context, path)?,
        (None, None) => return Ok(None),
    };
    context.disk.write_state(&state.sealed.tip, state.sealed.root, &state.parameters)?;
    Ok(Some(state))
}

/// The state of the model that the run goes on from.
fn given<L: Ledger>(context: &Context<L>, path: &Path) -> Result<State, StartError> {
    let (_, parameters) = hf::load(path)?;
    let (got, needed) =
        (state_root(&parameters, context.run.compress.state_elements as usize), context.run.chain.genesis_state);
    if got != needed {
        return Err(StartError::OtherModel { path: path.to_owned(), got, needed });
    }
    let sealed = Sealed { tip: Tip::genesis(context.run_id), root: got };
    Ok(State { sealed, parameters: Arc::new(parameters) })
}

/// Has the run's first state from whoever has it.
async fn have_genesis<L: Ledger>(context: Arc<Context<L>>) -> Done {
    match catching_up::obtain_genesis(context).await {
        Ok(state) => Done::Given(Box::new(state)),
        Err(error) => Done::Fatal(format!("the run's first state cannot be kept: {error}")),
    }
}

/// Whether a state has the root that its header says. A header that is not there says nothing.
fn is_of_its_header<L: Ledger>(context: &Context<L>, tip: &Tip, root: Digest) -> bool {
    let bytes = context.network.store().get(&tip.head).ok().flatten();
    bytes.and_then(|bytes| Header::from_bytes(&bytes).ok()).is_none_or(|header| header.state == root)
}

/// Refuses to take part with a hotkey that another run's node signs with: they would overwrite each other's commitments.
async fn refuse_other_run<L: Ledger>(context: &Context<L>) -> Result<(), StartError> {
    let Some(hotkey) = context.hotkey() else { return Ok(()) };
    let finalised = context.ledger.heads().borrow().finalised;
    let view = context.ledger.view(finalised).await?;
    match agreement::elsewhere(&view, &context.run, context.run_id, hotkey) {
        Some(elsewhere) => Err(StartError::OtherRun { elsewhere, run: context.run_id.into() }),
        None => Ok(()),
    }
}
