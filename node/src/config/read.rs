//! node.toml as text: which keys there are, what may stand in them, and every fault of a file at once.

use super::{ADDRESSES_MAX, ENDPOINTS_MAX, Mbit, NetworkConfig, NodeConfig, Size};
use covey_gossip::{Congestion, check_address};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

/// Bytes of the longest node.toml: some thirty keys with their comments are 6 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Faults that are told; the rest is counted.
const FAULTS_MAX: usize = 32;

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
    #[error("{file} is no configuration:\n{}", .faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
    Faults {
        /// The file.
        file: String,
        /// Every fault.
        faults: Vec<String>,
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

/// A file's text, if it is not too long.
pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    let fault = |error| ConfigError::File { path: path.to_owned(), error };
    let mut text = String::new();
    let mut file = File::open(path).map_err(fault)?.take(FILE_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(fault)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::Large { path: path.to_owned() });
    }
    Ok(text)
}

pub(super) fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    let file = || "node.toml".to_owned();
    let table = text.parse().map_err(|error| ConfigError::Toml { file: file(), error: Box::new(error) })?;
    let mut keys = Keys { table, faults: Vec::new() };
    let config = config(&mut keys);
    let mut faults = keys.faults();
    if faults.is_empty() {
        return Ok(config);
    }
    if faults.len() > FAULTS_MAX {
        let more = faults.len() - FAULTS_MAX;
        faults.truncate(FAULTS_MAX);
        faults.push(format!("and {more} more"));
    }
    Err(ConfigError::Faults { file: file(), faults })
}

/// Every key, once. What is missing or wrong has its default; a wrong one leaves a fault.
fn config(keys: &mut Keys) -> NodeConfig {
    let mut config = NodeConfig::new("run.toml", "node");
    let NodeConfig { run, folder, name, data, cores, status, log, wallet, chain, network, storage } = &mut config;
    keys.set("run", run, path);
    keys.set("folder", folder, path);
    keys.set("name", name, word);
    keys.set("data", data, |text: String| Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)));
    keys.set("cores", cores, |number| count(number, 0..=4096).map(|number| Some(number).filter(|number| *number > 0)));
    keys.set("status", status, address);
    keys.set("log", log, |filter: String| match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!("is {filter:?}: {error}; like \"info,covey=debug\"")),
    });
    keys.set("wallet.path", &mut wallet.path, path);
    keys.set("wallet.name", &mut wallet.name, word);
    keys.set("wallet.hotkey", &mut wallet.hotkey, word);
    keys.list("chain.endpoints", 1..=ENDPOINTS_MAX, endpoint, &mut chain.endpoints);
    self::network(keys, network);
    keys.set("storage.quota", &mut storage.quota, |text: String| {
        text.parse::<Size>().map_err(|error| error.to_string())
    });
    keys.set("storage.archive", &mut storage.archive, Ok::<bool, _>);
    config
}

fn network(keys: &mut Keys, network: &mut NetworkConfig) {
    keys.list("network.listen", 0..=ADDRESSES_MAX, multiaddr, &mut network.listen);
    keys.list("network.bootstrap", 0..=ADDRESSES_MAX, multiaddr, &mut network.bootstrap);
    keys.set("network.external", &mut network.external, address);
    keys.set("network.reachable", &mut network.reachable, Ok::<bool, _>);
    keys.set("network.congestion", &mut network.congestion, |word: String| match word.as_str() {
        "bbr" => Ok(Congestion::Bbr),
        "system" => Ok(Congestion::System),
        _ => Err(format!("is {word:?}; it must be \"bbr\" or \"system\"")),
    });
    keys.set("network.upload_mbit", &mut network.upload, rate);
    keys.set("network.download_mbit", &mut network.download, rate);
    keys.set("network.connections_max", &mut network.connections_max, |number| count(number, 4..=4096));
    keys.set("network.peers_target", &mut network.peers_target, |number| count(number, 1..=1024));
    let milliseconds = |number: usize| Duration::from_millis(number as u64);
    keys.set("network.heartbeat_ms", &mut network.heartbeat, |number| count(number, 100..=60_000).map(milliseconds));
    keys.set("network.patience_ms", &mut network.patience, |number| count(number, 100..=600_000).map(milliseconds));
    let (target, max) = (network.peers_target, network.connections_max);
    if target > max {
        keys.faults.push(format!("network.peers_target is {target}; network.connections_max allows {max}"));
    }
}

fn path(text: String) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty; it must be a path".to_owned()) } else { Ok(text.into()) }
}

/// A name that is one part of a path.
fn word(text: String) -> Result<String, String> {
    match is_name(&text) {
        true => Ok(text),
        false => {
            Err(format!("is {text:?}; a name has 1 to 64 letters, digits and . - _, and does not begin with a dot"))
        }
    }
}

/// Nothing stands for none.
fn address(text: String) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| format!("is {text:?}; it must be IP:PORT, like 127.0.0.1:9464, or \"\" for none");
    text.parse().map(Some).map_err(wrong)
}

fn count(number: i64, range: RangeInclusive<usize>) -> Result<usize, String> {
    let wrong = || format!("is {number}; it must be {} to {}", range.start(), range.end());
    usize::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(wrong)
}

/// 0 stands for none.
fn rate(number: f64) -> Result<Option<Mbit>, String> {
    match number {
        0.0 => Ok(None),
        _ => Mbit::new(number).map(Some).map_err(|error| format!("is {error}, or 0 for no limit")),
    }
}

fn endpoint(url: &str) -> Result<(), String> {
    let host = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with([':', '/']) && !url.contains(char::is_whitespace) => Ok(()),
        _ => Err(format!("{url:?} is no WebSocket URL, like ws://127.0.0.1:9944 or wss://HOST:443")),
    }
}

fn multiaddr(address: &str) -> Result<(), String> {
    check_address(address).map_err(|error| error.to_string())
}

/// The keys of a file that nobody has asked for yet, and what was wrong with the others.
struct Keys {
    table: Table,
    faults: Vec<String>,
}

/// A kind of value, as TOML has it.
trait Kind: Sized {
    const NAME: &str;
    fn of(value: Value) -> Option<Self>;
}

impl Kind for String {
    const NAME: &str = "a text in quotes";
    fn of(value: Value) -> Option<String> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}

impl Kind for bool {
    const NAME: &str = "true or false";
    fn of(value: Value) -> Option<bool> {
        value.as_bool()
    }
}

impl Kind for i64 {
    const NAME: &str = "a whole number";
    fn of(value: Value) -> Option<i64> {
        value.as_integer()
    }
}

impl Kind for f64 {
    const NAME: &str = "a number";
    fn of(value: Value) -> Option<f64> {
        value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
    }
}

impl Kind for Vec<String> {
    const NAME: &str = "a list of texts, like [\"…\", \"…\"]";
    fn of(value: Value) -> Option<Vec<String>> {
        if let Value::Array(values) = value { values.into_iter().map(String::of).collect() } else { None }
    }
}

impl Keys {
    /// The value of `key`, `section.key` within a section. It is not there afterwards.
    fn take(&mut self, key: &str) -> Option<Value> {
        match key.split_once('.') {
            None => self.table.remove(key),
            Some((section, key)) => self.table.get_mut(section)?.as_table_mut()?.remove(key),
        }
    }

    /// Sets `target` to what `read` makes of the key's value, if that is of the right kind and right.
    fn set<K: Kind, T>(&mut self, key: &str, target: &mut T, read: impl FnOnce(K) -> Result<T, String>) {
        let Some(value) = self.take(key) else { return };
        let kind = K::of(value.clone()).ok_or_else(|| format!("is {value}; it must be {}", K::NAME));
        match kind.and_then(read) {
            Ok(value) => *target = value,
            Err(fault) => self.faults.push(format!("{key} {fault}")),
        }
    }

    fn list(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
        check: fn(&str) -> Result<(), String>,
        list: &mut Vec<String>,
    ) {
        let mut faults = Vec::new();
        self.set(key, list, |texts: Vec<String>| {
            if !range.contains(&texts.len()) {
                let (got, least, most) = (texts.len(), range.start(), range.end());
                return Err(format!("has {got} entries; it must have {least} to {most}"));
            }
            faults = texts.iter().filter_map(|text| check(text).err()).map(|fault| format!("{key}: {fault}")).collect();
            Ok(texts)
        });
        self.faults.extend(faults);
    }

    /// Every fault, and every key that nobody asked for.
    fn faults(mut self) -> Vec<String> {
        const SECTIONS: [&str; 4] = ["wallet", "chain", "network", "storage"];
        for (key, value) in self.table {
            match value {
                Value::Table(rest) if SECTIONS.contains(&key.as_str()) => {
                    self.faults.extend(rest.keys().map(|inner| format!("{key}.{inner}: there is no such key")));
                }
                _ if SECTIONS.contains(&key.as_str()) => self.faults.push(format!("{key} must be a section: [{key}]")),
                _ => self.faults.push(format!("{key}: there is no such key")),
            }
        }
        self.faults
    }
}

/// Whether `text` can be the name of a wallet, a hotkey or a node: one part of a path, and no hidden one.
pub(crate) fn is_name(text: &str) -> bool {
    let sane = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(sane) && !text.starts_with('.')
}
