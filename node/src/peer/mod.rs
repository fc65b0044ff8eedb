//! A node: one type, built from one [`Config`]. A swarm is many of them; alone, one is a process on a real chain.
//!
//! [`Peer::start`] opens the folder, joins the network and restores what a crash left; [`Peer::run`] feeds the round's
//! state machine ([`covey_round::engine`]) with what happens and does what it says. `tasks` holds what takes time;
//! [`submitting`] brings what the node signs into blocks; [`miner`], [`validator`], [`collect`], [`apply`] and [`catchup`] are a round's parts.

pub mod agreement;
pub mod apply;
pub mod catchup;
pub mod collect;
mod context;
mod gather;
pub mod miner;
mod run;
mod status;
pub mod submitting;
mod tasks;
pub mod validator;

pub use context::Context;
pub use run::Ended;
pub use status::{Applied, Status, Timings};

use crate::chain::{Ledger, LedgerError};
use crate::compute::{Cancel, CancelOnDrop, Compute};
use crate::disk::{Disk, DiskError, Journal, SavedState};
use crate::misbehave::Misbehaviour;
use agreement::{Elsewhere, RunPrefix};
use apply::State;
use collect::{Collector, Inbox};
use covey_gossip::store::{Store, StoreError};
use covey_gossip::{Events, Limits, TransportOptions};
use covey_proto::blob::Header;
use covey_proto::record::UidSet;
use covey_proto::run::{Run, RunError};
use covey_proto::{BlockNumber, Digest, HotkeyPair, Round, Uid};
use covey_round::engine::{Engine, Roles, Tip};
use covey_round::rating::{PeerKey, Ratings};
use covey_sparseloco::state_root;
use covey_trainer::cpu::CpuBackend;
use covey_trainer::data::Dataset;
use futures::FutureExt;
use miner::{Miner, MinerError};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use submitting::{Signer, SubmitHandle};
use tasks::Done;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use validator::Validator;

/// Results that wait for the node's loop. Each task in flight sends one; a round has some 256 of them.
const DONE_MAX: usize = 1024;

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
    /// The training data; a node that only follows needs none.
    pub data: Option<Arc<Dataset>>,
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
    /// What a miner or validator signs with.
    pub hotkey: Option<HotkeyPair>,
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
    /// The data set is not the run's.
    #[error("the training data is {got}; the run trains on {needed}: prepare the same text with the same vocabulary")]
    OtherData {
        /// The data set's digest.
        got: Digest,
        /// The run's.
        needed: Digest,
    },
    /// The run counts more sequences than its data has.
    #[error("the training data has {got} sequences; the run counts {needed}: its data.samples is wrong")]
    TooFewSamples {
        /// The data set's.
        got: u64,
        /// The run's.
        needed: u64,
    },
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
    /// The beginning is not the run's.
    #[error("this binary computes genesis state {got}; the run begins with {needed}: they are of different versions")]
    OtherGenesis {
        /// What this binary computes.
        got: Digest,
        /// What the run says.
        needed: Digest,
    },
}

/// Parameters that are there before their head is.
struct Headless {
    /// After which round.
    round: Round,
    parameters: Arc<Vec<f32>>,
    /// Where the head is told to whoever trains from them.
    head: watch::Sender<Option<Digest>>,
}

/// A node that has started.
pub struct Peer<L: Ledger> {
    context: Arc<Context<L>>,
    engine: Engine,
    /// The newest states, the newest last.
    states: Vec<State>,
    miner: Option<Arc<Mutex<Miner>>>,
    validator: Option<Arc<Mutex<Validator>>>,
    inbox: Inbox,
    collector: Option<Collector>,
    /// Stops the training that is under way.
    training: Cancel,
    network_events: Events,
    done: mpsc::Receiver<Done>,
    tasks: mpsc::Sender<Done>,
    status: watch::Sender<Status>,
    observer: Option<mpsc::Sender<Applied>>,
    uid: Option<Uid>,
    /// Whether it has been said that the hotkey is not registered.
    is_stranger: bool,
    /// The run of which it has been said that more members are in it than in this one.
    outnumbered_by: Option<RunPrefix>,
    /// As whom the node has introduced itself to its peers, and when.
    introduced: Option<(PeerKey, BlockNumber)>,
    /// A validator's, as its last scoring left them.
    ratings: Option<Arc<Ratings>>,
    /// What the last settlement applies.
    chosen: UidSet,
    /// The round that is being applied.
    applying: Option<AbortHandle>,
    /// Its parameters, while their head is not known.
    headless: Option<Headless>,
    /// Everything that runs beside the loop; it ends with it.
    running: JoinSet<()>,
    /// Ends with the node: work that nobody waits for any more stops.
    life: CancelOnDrop,
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
        let run_id = config.run.id();
        let config_of_network = covey_gossip::Config {
            directory: config.directory.clone(),
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
        let (network, network_events) = covey_gossip::start(config_of_network, store).await?;
        let journal = Arc::new(disk.journal()?);
        let (submit, orders) = SubmitHandle::new();
        let context = Arc::new(Context {
            journal,
            name: config.name,
            layout: Arc::new(config.run.layout()),
            run: config.run,
            run_id,
            ledger: Arc::new(config.ledger),
            network,
            disk,
            pair: config.hotkey.map(Arc::new),
            submit,
            roles: config.roles,
            compute: config.compute,
            patience: config.patience,
            archive: config.archive,
            misbehaviour: config.misbehaviour,
            scoring: tokio::sync::Mutex::default(),
            forget: AtomicBool::new(false),
        });
        let state = restore_state(&context)?;
        if let Some(round) = state.tip.round {
            apply::provide_checkpoints(&context, round);
        }
        let journal = context.journal.read();
        let (miner, validator) = restore_roles(&context, config.data, &journal)?;
        let ratings = validator
            .as_ref()
            .map(|validator| Arc::new(validator.lock().unwrap_or_else(PoisonError::into_inner).ratings().clone()));
        let committed = journal.contribution.as_ref().map(|made| (made.round, made.manifest));
        let engine = Engine::new(context.run.clone(), context.roles, context.hotkey(), state.tip, committed);
        refuse_other_run(&context).await?;
        let signer = Signer {
            name: context.name.clone(),
            run: context.run.clone(),
            run_id,
            ledger: context.ledger.clone(),
            journal: context.journal.clone(),
            pair: context.pair.clone(),
        };
        let submitting = submitting::start(signer, orders).await?;
        let (tasks, done) = mpsc::channel(DONE_MAX);
        let mut peer = Peer {
            context,
            engine,
            states: vec![state],
            miner,
            validator,
            inbox: Inbox::default(),
            collector: None,
            training: Cancel::default(),
            network_events,
            done,
            tasks,
            status: watch::Sender::new(Status::default()),
            observer: config.observer,
            uid: None,
            is_stranger: false,
            outnumbered_by: None,
            introduced: None,
            ratings,
            chosen: UidSet::default(),
            applying: None,
            headless: None,
            running: JoinSet::new(),
            life: CancelOnDrop::default(),
        };
        peer.spawn(submitting.map(|()| Done::Fatal("the chain is gone".into())));
        Ok(peer)
    }

    /// What the node tells of itself, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What its parts share, for whoever must know when the last of them is gone.
    pub fn context(&self) -> Weak<Context<L>> {
        Arc::downgrade(&self.context)
    }

    /// Where it can be dialled, as multiaddrs.
    pub fn addresses(&self) -> Vec<String> {
        self.context.network.addresses()
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
    match &config.data {
        None if config.roles != Roles::default() => Err(StartError::NoData),
        Some(data) if data.digest() != run.data.digest => {
            Err(StartError::OtherData { got: data.digest(), needed: run.data.digest })
        }
        Some(data) if data.samples(run.model.sequence) < run.data.samples => {
            Err(StartError::TooFewSamples { got: data.samples(run.model.sequence), needed: run.data.samples })
        }
        _ => Ok(()),
    }
}

/// The newest state of the folder that has the root it should, or the run's beginning.
fn restore_state<L: Ledger>(context: &Context<L>) -> Result<State, StartError> {
    let cut = context.run.compress.state_elements as usize;
    let is_sound = |saved: &SavedState| {
        state_root(&saved.parameters, cut) == saved.root && is_of_its_header(context, &saved.tip, saved.root)
    };
    if let Some(saved) = context.disk.restore_state(context.layout.elements(), is_sound)? {
        return Ok(State { tip: saved.tip, root: saved.root, parameters: Arc::new(saved.parameters) });
    }
    let state = catchup::genesis(context);
    let needed = context.run.chain.genesis_state;
    if state.root != needed {
        return Err(StartError::OtherGenesis { got: state.root, needed });
    }
    context.disk.write_state(&Tip::genesis(context.run_id), state.root, &state.parameters)?;
    Ok(state)
}

/// Whether a state has the root that its header says. A header that is not there says nothing.
fn is_of_its_header<L: Ledger>(context: &Context<L>, tip: &Tip, root: Digest) -> bool {
    let bytes = context.network.store().get(&tip.head).ok().flatten();
    bytes.and_then(|bytes| Header::from_bytes(&bytes).ok()).is_none_or(|header| header.state == root)
}

type RoleState = (Option<Arc<Mutex<Miner>>>, Option<Arc<Mutex<Validator>>>);

fn restore_roles<L: Ledger>(
    context: &Context<L>,
    data: Option<Arc<Dataset>>,
    journal: &Journal,
) -> Result<RoleState, StartError> {
    let backend = || Box::new(CpuBackend::new(&context.run.model));
    let Some(data) = data else { return Ok((None, None)) };
    let miner = match context.roles.miner {
        true => {
            let journalled = journal.contribution.as_ref();
            let miner = Miner::restore(context, backend(), data.clone(), journalled)?;
            Some(Arc::new(Mutex::new(miner)))
        }
        false => None,
    };
    let validator = match context.roles.validator {
        true => Some(Arc::new(Mutex::new(Validator::restore(context, backend(), data)?))),
        false => None,
    };
    Ok((miner, validator))
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
