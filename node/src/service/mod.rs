//! One node as a process, on any chain: from node.toml to a [`Peer`] that runs, and to its end in good order.
//!
//! What is checked at the start is checked here, each fault with its remedy: the run, the key, the data, the chain, that
//! the run's commitments fit into the space an epoch leaves. What the node does then is [`crate::peer`]'s business;
//! `speak` tells a supervisor of it, [`log`] keeps its log.

pub mod log;
mod speak;

use crate::chain::substrate::{ConnectError, DialError, Settings, SubstrateLedger, TooMuchSpace, check_space};
use crate::chain::{Ledger, LedgerError};
use crate::compute::Compute;
use crate::config::NodeConfig;
use crate::misbehave::Misbehaviour;
use crate::observe::{self, Board, Nodes};
use crate::peer::{Applied, Config, Context, Ended, Peer, StartError};
use crate::supervise::{Line, lifeline};
use covey_gossip::TransportOptions;
use covey_proto::run::{Run, RunError};
use covey_proto::{Hotkey, HotkeyPair};
use covey_round::engine::Roles;
use covey_trainer::Device;
use covey_trainer::data::Dataset;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes of a run file: a run has some 2,000.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Applied rounds that a supervisor may be behind; then it misses some.
const APPLIED_MAX: usize = 4096;
/// What a node trains and judges on.
pub const DEVICE: Device = Device::Cpu { threads: 1 };
/// Where in a node's folder it says at which address it shows its status: with port 0 nobody else knows.
pub const STATUS: &str = "status";
/// How long a node may take to say good-bye, what it saves before apart.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A slow disk, in bytes a second: a miner that ends writes its moments and feedback first.
const DISK_RATE_MIN: u64 = 50_000_000;
/// How long a supervised node waits at its start for a chain that does not answer.
const CHAIN_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of that.
const CHAIN_RETRY: Duration = Duration::from_millis(200);

/// A node about to run.
pub struct Service {
    /// Its node.toml.
    pub config: NodeConfig,
    /// The run that it names.
    pub run: Arc<Run>,
    /// What it does besides following.
    pub roles: Roles,
    /// What it signs with; one that only follows needs nothing.
    pub hotkey: Option<HotkeyPair>,
    /// Its training data, a set for each of the run's phases; one that only follows needs none.
    pub data: Vec<Arc<Dataset>>,
    /// The folder of the model that the run goes on from, if this node brings it.
    pub genesis: Option<PathBuf>,
    /// What it does wrong, if anything.
    pub misbehaviour: Option<Misbehaviour>,
    /// Whether a supervisor listens on standard output.
    pub supervised: bool,
    /// What it tells of itself; the log writes its last error there.
    pub board: Board,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// run.toml cannot be read.
    #[error("{path}: {error}; node.toml names it as its run")]
    NoRun {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// run.toml is none.
    #[error("{path}: {error}")]
    Run {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: RunError,
    },
    /// The chain is not what the run needs.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The run's rounds are too short for the chain.
    #[error(transparent)]
    Space(#[from] TooMuchSpace),
    /// The node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The status port.
    #[error("status {address}: {error}; give each node of a machine its own, or \"\" for none")]
    Status {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// What a node does, in a word.
pub fn role(roles: Roles) -> &'static str {
    match roles {
        Roles { miner: true, validator: true } => "miner and validator",
        Roles { miner: true, .. } => "miner",
        Roles { validator: true, .. } => "validator",
        _ => "seeder",
    }
}

/// Reads a run file.
///
/// # Errors
/// It cannot be read, is too long, or is no run.
pub fn read_run(path: &Path) -> Result<Run, ServiceError> {
    let unread = |error| ServiceError::NoRun { path: path.to_owned(), error };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(RUN_BYTES_MAX + 1).read_to_string(&mut text).map_err(unread)?;
    if text.len() as u64 > RUN_BYTES_MAX {
        return Err(unread(io::Error::other(format!("a run file has at most {RUN_BYTES_MAX} bytes"))));
    }
    Run::from_toml(&text).map_err(|error| ServiceError::Run { path: path.to_owned(), error })
}

impl Service {
    /// Runs until `stop`, or until a person must look at it.
    ///
    /// # Errors
    /// It does not start: what it needs is not there, or not the run's.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Ended, ServiceError> {
        let (name, address, external) = (self.config.name.clone(), self.config.status, self.config.network.external);
        let written = self.config.folder.join(STATUS);
        let (roles, supervised, board) = (self.roles, self.supervised, self.board.clone());
        let mut stop = std::pin::pin!(stop);
        let leave_timeout = leave_timeout(&self.run);
        let (observer, applied) = mpsc::channel(APPLIED_MAX);
        let peer = tokio::select! {
            peer = self.start(observer) => peer?,
            // The chain may be long in coming.
            () = &mut stop => return Ok(Ended::Stopped),
        };
        let (nodes, context) = (Nodes::default(), peer.context());
        nodes.show(name.clone(), Some(board.clone()), move || Some(context.upgrade()?.network.clone()));
        let status = match address {
            Some(address) => {
                let listening = observe::listen(address, nodes).await;
                let listening = listening.map_err(|error| ServiceError::Status { address, error })?;
                if let Err(error) = std::fs::write(&written, format!("{listening}\n")) {
                    tracing::warn!(node = %name, %error, "where the status is shown is not written down");
                }
                Some(listening)
            }
            None => None,
        };
        let addresses = peer.addresses();
        tracing::info!(node = %name, role = role(roles), ?status, ?addresses, "started");
        if supervised {
            lifeline::say(&Line::Started { addresses, status });
        }
        if let Some(external) = external {
            tokio::spawn(show_axon(peer.context(), external));
        }
        let speaker = speak::start(peer.status(), applied, board, supervised);
        let (told, stopped) = watch::channel(false);
        let mut running = Box::pin(peer.run(stopped));
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = &mut stop => {
                told.send_replace(true);
                // What it has on disk is whole at any time; good-byes are a courtesy.
                tokio::time::timeout(leave_timeout, &mut running).await.unwrap_or(Ended::Stopped)
            }
        };
        // One that has not said good-bye in time still holds its status.
        drop(running);
        // The speaker ends with the node's status; the last one must be out before the process ends.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, speaker).await;
        if let (Ended::Halted(why), true) = (&ended, supervised) {
            lifeline::say(&Line::Halted { why: why.clone() });
        }
        Ok(ended)
    }

    /// Connects to the chain, checks what it has, and starts the node.
    async fn start(self, observer: mpsc::Sender<Applied>) -> Result<Peer<SubstrateLedger>, ServiceError> {
        let limits = self.config.limits();
        let Service { config, run, roles, hotkey, data, genesis, misbehaviour, supervised, .. } = self;
        let mut settings = Settings::new(config.chain.endpoints, run.chain.netuid);
        settings.genesis = Some(run.chain.genesis);
        settings.second_opinion = config.chain.second_opinion;
        let ledger = connect(settings, supervised).await?;
        if let Some(pair) = &hotkey {
            check_rounds(&ledger, &config.name, &run, roles, pair.hotkey()).await?;
        }
        let peer = Config {
            name: config.name.as_str().into(),
            directory: config.folder,
            roles,
            run,
            ledger,
            data,
            listen: config.network.listen,
            bootstrap: config.network.bootstrap,
            reachable: config.network.reachable,
            heartbeat: config.network.heartbeat,
            limits,
            transport: TransportOptions { congestion: config.network.congestion, ..TransportOptions::default() },
            store_bytes_max: config.storage.quota.0,
            compute: Compute::new(config.cores.unwrap_or_else(all_cores)),
            device: DEVICE,
            save_rounds: config.storage.save_rounds,
            hotkey,
            genesis,
            misbehaviour,
            archive: config.storage.archive,
            patience: config.network.patience,
            observer: supervised.then_some(observer),
        };
        Ok(Peer::start(peer).await?)
    }
}

/// Connects to the chain. A supervised node waits for one that does not answer: its process is being started again.
async fn connect(settings: Settings, supervised: bool) -> Result<SubstrateLedger, ConnectError> {
    let until = Instant::now() + CHAIN_PATIENCE;
    loop {
        match SubstrateLedger::connect(settings.clone()).await {
            Err(error) if supervised && is_passing(&error) && Instant::now() < until => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(CHAIN_RETRY).await;
            }
            connected => return connected,
        }
    }
}

/// Whether a chain that does not answer is all that is wrong.
fn is_passing(error: &ConnectError) -> bool {
    match error {
        ConnectError::NoEndpoint(tries) => tries.iter().all(|(_, why)| matches!(why, DialError::Unreachable(_))),
        ConnectError::Ledger(LedgerError::Unreachable(_) | LedgerError::Unconfirmed { .. }) => true,
        _ => false,
    }
}

/// Whether what a node commits in an epoch fits into the space that the chain gives it.
async fn check_rounds(
    ledger: &SubstrateLedger,
    node: &str,
    run: &Run,
    roles: Roles,
    hotkey: Hotkey,
) -> Result<(), ServiceError> {
    match ledger.space(hotkey).await {
        Ok(space) => {
            tracing::info!(%node, max = space.max, used = space.used, epoch = space.epoch, "space for commitments, in bytes an epoch");
            Ok(check_space(run.clock.length, roles, space.epoch, space.max)?)
        }
        Err(error) => {
            tracing::warn!(%node, %error, "how many commitments an epoch may have is not known");
            Ok(())
        }
    }
}

/// Shows a node's public address in the chain's metagraph, unless it stands there.
async fn show_axon(context: Weak<Context<SubstrateLedger>>, address: SocketAddr) {
    let Some(context) = context.upgrade() else { return };
    let Some(pair) = &context.pair else { return };
    let (node, finalised) = (&context.name, context.ledger.heads().borrow().finalised);
    let stands = match context.ledger.metagraph(finalised).await {
        Ok(graph) => {
            let mine = graph.neurons.values().find(|neuron| neuron.member.hotkey == pair.hotkey());
            mine.is_some_and(|neuron| neuron.axon == Some(address))
        }
        Err(error) => {
            tracing::warn!(%node, %error, "whether the metagraph shows this node is not known");
            false
        }
    };
    if stands {
        return;
    }
    match context.ledger.serve_axon(pair, address).await {
        Ok(()) => tracing::info!(%node, %address, "the metagraph shows this node"),
        Err(error) => tracing::error!(%node, %error, "the metagraph does not show this node at {address}"),
    }
}

/// How long a node of this run may take to end in good order: moments and feedback are twelve bytes a parameter.
pub fn leave_timeout(run: &Run) -> Duration {
    LEAVE_TIMEOUT + Duration::from_secs(12 * run.layout().elements() as u64 / DISK_RATE_MIN)
}

/// As many as the machine has.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
