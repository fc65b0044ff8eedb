//! Why a swarm fails, in words that name the process, the file and the remedy.

use super::plan::{DEVNET, PlanError};
use super::processes::START_TIMEOUT;
use crate::chain::substrate::ConnectError;
use crate::preset::PresetError;
use crate::supervise::SpawnError;
use crate::wallet::WalletError;
use covey_proto::Round;
use covey_proto::run::RunError;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a swarm has no chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It does not answer any more.
    #[error("the swarm's chain does not answer at {url}: {error}; its log is logs/{DEVNET}.log")]
    Silent {
        /// Where.
        url: String,
        /// What came of the last try.
        error: RequestError,
    },
    /// What it began with cannot be written down.
    #[error("the chain's beginning has no JSON form: {0}")]
    Spec(#[from] serde_json::Error),
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection failed, or the answer was an error.
    #[error(transparent)]
    Rpc(#[from] subxt::rpcs::Error),
    /// It took too long.
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    /// The answer has no block number where one was expected.
    #[error("{answer} names no block")]
    NoBlock {
        /// The answer.
        answer: Value,
    },
}

/// Why a swarm fails.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// What was asked for cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The preset is no run.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// The data set is too small.
    #[error("the data has {held_out} held-out and {training} training sequences of {sequence} tokens; give more text")]
    TooLittleData {
        /// Held-out sequences.
        held_out: u64,
        /// Training sequences.
        training: u64,
        /// Tokens of a sequence.
        sequence: u32,
    },
    /// The data of a phase was cut into other tokens.
    #[error("the data from round {from} on has another tokenizer: prepare it with the first data's (--tokenizer)")]
    OtherTokenizer {
        /// The phase's first round.
        from: Round,
    },
    /// What was asked for is no run.
    #[error(transparent)]
    Run(RunError),
    /// A process cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A process does not do what it was started for.
    #[error("{name} {how}: {why}")]
    Process {
        /// Its name.
        name: Arc<str>,
        /// How it ended.
        how: String,
        /// Why it stays away.
        why: String,
    },
    /// A process says nothing.
    #[error("{name} has not said a word in {} s; its log is logs/{name}.log", START_TIMEOUT.as_secs())]
    Mute {
        /// Its name.
        name: Arc<str>,
    },
    /// A node has not got the model that the run goes on from.
    #[error("{name} has not got the model's state in {} s; its log is logs/{name}.log", .patience.as_secs())]
    NoModel {
        /// Its name.
        name: Arc<str>,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The chain's process does not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No client of the chain.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A key cannot be written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The status port.
    #[error("--status {address}: {error}")]
    Status {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file or folder of the swarm cannot be written.
    #[error("{path}: {error}")]
    Folder {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Every node has halted.
    #[error("no node is left: {0}")]
    AllHalted(String),
}
