//! What one node is told, complete and checked, with defaults that work on Bittensor.
//!
//! How it is read from text, and what is wrong with a text, is `read`'s; how it is written with a word on each key, `write`'s.

use super::units::{Mbit, Size};
use crate::chain::substrate::SecondOpinion;
use covey_gossip::{Congestion, Limits};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is logged unless node.toml or `COVEY_LOG` says otherwise. libp2p tells much that is no news.
pub const LOG_FILTER: &str = "info,covey=debug,covey_gossip=debug,libp2p=warn,libp2p_gossipsub=error";
/// Bittensor's public entrance.
pub const FINNEY: &str = "wss://entrypoint-finney.opentensor.ai:443";
/// Where `covey status` and `covey peers` look, and Prometheus.
pub const STATUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Where Bittensor's own tools keep wallets.
pub const WALLETS: &str = "~/.bittensor/wallets";
/// Multiaddrs in one list, at most; a node says no more than eight of its own to others.
pub const ADDRESSES_MAX: usize = 64;

/// All that one node is told, as node.toml says it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// run.toml: what all nodes of the run agree on.
    pub run: PathBuf,
    /// The node's own folder: state, blobs, journal.
    pub folder: PathBuf,
    /// The node's name, for people: in its log and its status.
    pub name: String,
    /// The training data: a prepared data set, or the text it is made of. A node that only follows needs none.
    pub data: Option<PathBuf>,
    /// The training data of the run's later phases, in their order.
    pub phases: Vec<PathBuf>,
    /// Cores for training and scoring; none: all.
    pub cores: Option<usize>,
    /// Where its metrics and peers are shown.
    pub status: Option<SocketAddr>,
    /// What is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub log: String,
    /// Whose hotkey signs.
    pub wallet: WalletConfig,
    /// How the chain is reached.
    pub chain: ChainConfig,
    /// How other nodes are reached.
    pub network: NetworkConfig,
    /// What is kept.
    pub storage: StorageConfig,
}

/// Whose hotkey signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletConfig {
    /// The folder of all wallets.
    pub path: PathBuf,
    /// The wallet.
    pub name: String,
    /// The hotkey.
    pub hotkey: String,
}

/// How the chain is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainConfig {
    /// WebSocket URLs, the preferred one first; 1 to [`super::ENDPOINTS_MAX`].
    pub endpoints: Vec<String>,
    /// Whether what one endpoint says is used where no second one of them confirms it.
    pub second_opinion: SecondOpinion,
}

/// How other nodes are reached.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Where it listens, as multiaddrs.
    pub listen: Vec<String>,
    /// Whom it dials first, as multiaddrs.
    pub bootstrap: Vec<String>,
    /// Its public address, which the chain's metagraph then shows (`serve_axon`); none: it is not put on chain.
    pub external: Option<SocketAddr>,
    /// Whether others can reach where it listens.
    pub reachable: bool,
    /// What decides how fast TCP sends.
    pub congestion: Congestion,
    /// It sends pieces no faster.
    pub upload: Option<Mbit>,
    /// It asks for pieces no faster.
    pub download: Option<Mbit>,
    /// Connections, both ways together.
    pub connections_max: usize,
    /// It dials until it is connected to so many.
    pub peers_target: usize,
    /// Time between gossip heartbeats.
    pub heartbeat: Duration,
    /// How long what others have is waited for before the node calls itself idle.
    pub patience: Duration,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Bytes of its blob store.
    pub quota: Size,
    /// Whether it keeps every round for ever: a seeder.
    pub archive: bool,
    /// Rounds from one writing of a miner's moments and error feedback to the next, from 1: then a crash costs nothing. They are
    /// three times the model, and its state is written in every round besides; where that is too much for the disk, a crash
    /// costs what was not sent since the last writing.
    pub save_rounds: u32,
}

impl NodeConfig {
    /// A node of the run at `run` in `folder`, with defaults that work on Bittensor.
    pub fn new(run: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            run: run.into(),
            folder: folder.into(),
            name: "node".into(),
            data: None,
            phases: Vec::new(),
            cores: None,
            status: Some(STATUS),
            log: LOG_FILTER.into(),
            wallet: WalletConfig { path: WALLETS.into(), name: "default".into(), hotkey: "default".into() },
            chain: ChainConfig { endpoints: vec![FINNEY.into()], second_opinion: SecondOpinion::default() },
            network: NetworkConfig {
                listen: vec!["/ip4/0.0.0.0/tcp/4001".into(), "/ip4/0.0.0.0/udp/4001/quic-v1".into()],
                bootstrap: vec![],
                external: None,
                reachable: false,
                congestion: Congestion::Bbr,
                upload: None,
                download: None,
                connections_max: 128,
                peers_target: 12,
                heartbeat: Duration::from_secs(1),
                patience: Duration::from_secs(10),
            },
            storage: StorageConfig { quota: Size(100_000_000_000), archive: false, save_rounds: 1 },
        }
    }

    /// With paths that hold from anywhere: relative ones count from `base`, `~` is the user's folder.
    pub fn resolved(mut self, base: &Path) -> NodeConfig {
        let resolve = |path: &mut PathBuf| *path = base.join(of_home(path));
        resolve(&mut self.run);
        resolve(&mut self.folder);
        resolve(&mut self.wallet.path);
        self.data.iter_mut().chain(&mut self.phases).for_each(resolve);
        self
    }

    /// The bounds of the network half that these numbers ask for.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let network = &self.network;
        limits.peers_target = network.peers_target;
        let connections = &mut limits.connections;
        // As the defaults: dialling leaves room to be dialled, and the other way round.
        connections.all_max = network.connections_max;
        connections.in_max = (network.connections_max * 3 / 4).max(1);
        connections.out_max = (network.connections_max * 3 / 8).max(1);
        limits.governor.upload = network.upload.map(Mbit::rate);
        limits.links.download = network.download.map(Mbit::rate);
        limits
    }
}

/// `~/x` in the user's home folder; any other path as it is.
pub fn of_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}
