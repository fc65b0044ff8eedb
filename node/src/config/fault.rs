//! Why a node.toml is no configuration: what is wrong with which key, and what may stand there instead.

use super::units::{NotARate, NotASize};
use covey_gossip::StartError;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Value;
use tracing_subscriber::filter::ParseError;

/// Bytes of the longest node.toml: some thirty keys with their comments are 6 KB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}; `covey init` writes one", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Too large to be one.
    #[error("{}: more than {FILE_BYTES_MAX} bytes; this is no node.toml", .path.display())]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML.
    #[error("{file} does not parse: {error}")]
    Toml {
        /// The file.
        file: String,
        /// What is wrong.
        error: Box<toml::de::Error>,
    },
    /// What cannot be.
    #[error("{file} is no configuration:\n{}", list(.faults, *.more))]
    Faults {
        /// The file.
        file: String,
        /// Every fault, but for those that would not fit on a screen.
        faults: Vec<Fault>,
        /// How many these are.
        more: usize,
    },
}

impl ConfigError {
    /// The same, of the file at `path`.
    pub(super) fn of(mut self, path: &Path) -> ConfigError {
        if let ConfigError::Toml { file, .. } | ConfigError::Faults { file, .. } = &mut self {
            *file = path.display().to_string();
        }
        self
    }
}

/// A line a fault.
fn list(faults: &[Fault], more: usize) -> String {
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}

/// What is wrong with one key.
#[derive(Debug)]
pub struct Fault {
    /// The key; `section.key` within a section.
    pub key: String,
    /// What is wrong.
    pub kind: FaultKind,
}

impl Fault {
    pub(super) fn of(key: &str, kind: FaultKind) -> Fault {
        Fault { key: key.to_owned(), kind }
    }
}

/// The key, then what is wrong; a colon between them where that is about an entry of a list, or about the key itself.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { key, kind } = self;
        match kind {
            FaultKind::Endpoint(_) | FaultKind::Address(_) | FaultKind::UnknownKey => write!(f, "{key}: {kind}"),
            FaultKind::NotASection => write!(f, "{key} {kind}: [{key}]"),
            _ => write!(f, "{key} {kind}"),
        }
    }
}

/// What can be wrong with a key: each says what stands there, and what may.
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    /// Nobody asks for it.
    #[error("there is no such key")]
    UnknownKey,
    /// A value where a section must be.
    #[error("must be a section")]
    NotASection,
    /// A value of another type.
    #[error("is {value}; it must be {needed}")]
    OtherKind {
        /// What stands there.
        value: Value,
        /// What may, in words.
        needed: &'static str,
    },
    /// A path of no characters.
    #[error("is empty; it must be a path")]
    EmptyPath,
    /// Not one visible part of a path.
    #[error("is {0:?}; a name has 1 to 64 letters, digits and . - _, and does not begin with a dot")]
    Name(String),
    /// Not an IP address with a port.
    #[error("is {0:?}; it must be IP:PORT, like 127.0.0.1:9464, or \"\" for none")]
    SocketAddress(String),
    /// A number that is too small or too large.
    #[error("is {got}; it must be {least} to {most}")]
    OutOfRange {
        /// What stands there.
        got: i64,
        /// The least that may.
        least: usize,
        /// The most that may.
        most: usize,
    },
    /// A list that is too short or too long.
    #[error("has {got} entries; it must have {least} to {most}")]
    Entries {
        /// Entries that it has.
        got: usize,
        /// The fewest that it may have.
        least: usize,
        /// The most that it may have.
        most: usize,
    },
    /// A rate that no line has.
    #[error("is {0}, or 0 for no limit")]
    Rate(#[from] NotARate),
    /// Not a size.
    #[error(transparent)]
    Size(#[from] NotASize),
    /// Neither of the two ways of sending.
    #[error("is {0:?}; it must be \"bbr\" or \"system\"")]
    Congestion(String),
    /// None of the ways of taking a second endpoint's silence.
    #[error("is {0:?}; it must be \"required\", \"preferred\" or \"off\"")]
    SecondOpinion(String),
    /// Not a filter of logs.
    #[error("is {filter:?}: {error}; like \"info,covey=debug\"")]
    Filter {
        /// What stands there.
        filter: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// An entry that is no address of a chain's node.
    #[error("{0:?} is no WebSocket URL, like ws://127.0.0.1:9944 or wss://HOST:443")]
    Endpoint(String),
    /// An entry that is no address of a node.
    #[error(transparent)]
    Address(#[from] StartError),
    /// More peers wanted than connections allowed.
    #[error("is {target}; network.connections_max allows {max}")]
    PeersTarget {
        /// `network.peers_target`.
        target: usize,
        /// `network.connections_max`.
        max: usize,
    },
}
