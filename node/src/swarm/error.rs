//! Why a swarm fails, in words that name the process, the file and the remedy.

use super::devnet::ChainError;
use super::plan::PlanError;
use super::processes::START_TIMEOUT;
use crate::chain::substrate::ConnectError;
use crate::preset::PresetError;
use crate::supervise::SpawnError;
use crate::wallet::WalletError;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
