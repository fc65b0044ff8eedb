//! node.toml as text: which keys there are, what may stand in them, and every fault of a file at once.

use super::{ADDRESSES_MAX, ENDPOINTS_MAX, Mbit, NodeConfig, Size};
use covey_gossip::{Congestion, check_address};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
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
    keys.path("run", run);
    keys.path("folder", folder);
    keys.name("name", name);
    keys.optional_path("data", data);
    keys.count("cores", 0..=4096, &mut |number| *cores = Some(number).filter(|number| *number > 0));
    keys.address("status", status);
    keys.parsed("log", |filter: String| match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(*log = filter),
        Err(error) => Err(format!("is {filter:?}: {error}; like \"info,covey=debug\"")),
    });
    keys.path("wallet.path", &mut wallet.path);
    keys.name("wallet.name", &mut wallet.name);
    keys.name("wallet.hotkey", &mut wallet.hotkey);
    keys.list("chain.endpoints", 1..=ENDPOINTS_MAX, endpoint, &mut chain.endpoints);
    keys.list("network.listen", 0..=ADDRESSES_MAX, multiaddr, &mut network.listen);
    keys.list("network.bootstrap", 0..=ADDRESSES_MAX, multiaddr, &mut network.bootstrap);
    keys.address("network.external", &mut network.external);
    keys.flag("network.reachable", &mut network.reachable);
    keys.parsed("network.congestion", |word: String| match word.as_str() {
        "bbr" => Ok(network.congestion = Congestion::Bbr),
        "system" => Ok(network.congestion = Congestion::System),
        _ => Err(format!("is {word:?}; it must be \"bbr\" or \"system\"")),
    });
    keys.rate("network.upload_mbit", &mut network.upload);
    keys.rate("network.download_mbit", &mut network.download);
    keys.count("network.connections_max", 4..=4096, &mut |number| network.connections_max = number);
    keys.count("network.peers_target", 1..=1024, &mut |number| network.peers_target = number);
    let milliseconds = |number: usize| Duration::from_millis(number as u64);
    keys.count("network.heartbeat_ms", 100..=60_000, &mut |number| network.heartbeat = milliseconds(number));
    keys.count("network.patience_ms", 100..=600_000, &mut |number| network.patience = milliseconds(number));
    if network.peers_target > network.connections_max {
        let (target, max) = (network.peers_target, network.connections_max);
        keys.fault(format!("network.peers_target is {target}; network.connections_max allows {max}"));
    }
    keys.parsed("storage.quota", |text: String| {
        text.parse().map(|size: Size| storage.quota = size).map_err(|error| error.to_string())
    });
    keys.flag("storage.archive", &mut storage.archive);
    config
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
    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// The value of `key`, `section.key` within a section. It is not there afterwards.
    fn take(&mut self, key: &str) -> Option<Value> {
        match key.split_once('.') {
            None => self.table.remove(key),
            Some((section, key)) => self.table.get_mut(section)?.as_table_mut()?.remove(key),
        }
    }

    /// Hands a value of the right kind on; what that makes of it may be a fault.
    fn parsed<K: Kind>(&mut self, key: &str, mut set: impl FnMut(K) -> Result<(), String>) {
        let Some(value) = self.take(key) else { return };
        let result =
            K::of(value.clone()).ok_or_else(|| format!("is {value}; it must be {}", K::NAME)).and_then(&mut set);
        if let Err(fault) = result {
            self.fault(format!("{key} {fault}"));
        }
    }

    fn flag(&mut self, key: &str, flag: &mut bool) {
        self.parsed(key, |value| Ok(*flag = value));
    }

    fn count(&mut self, key: &str, range: std::ops::RangeInclusive<usize>, set: &mut dyn FnMut(usize)) {
        self.parsed(key, |value: i64| match usize::try_from(value) {
            Ok(number) if range.contains(&number) => Ok(set(number)),
            _ => Err(format!("is {value}; it must be {} to {}", range.start(), range.end())),
        });
    }

    /// 0 stands for none.
    fn rate(&mut self, key: &str, rate: &mut Option<Mbit>) {
        self.parsed(key, |number: f64| match number {
            0.0 => Ok(*rate = None),
            _ => Mbit::new(number)
                .map(|mbit| *rate = Some(mbit))
                .map_err(|error| format!("is {error}, or 0 for no limit")),
        });
    }

    fn path(&mut self, key: &str, path: &mut PathBuf) {
        self.parsed(key, |text: String| match text.is_empty() {
            true => Err("is empty; it must be a path".to_owned()),
            false => Ok(*path = text.into()),
        });
    }

    /// Nothing stands for none.
    fn optional_path(&mut self, key: &str, path: &mut Option<PathBuf>) {
        self.parsed(key, |text: String| Ok(*path = Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)));
    }

    /// A name that is one part of a path.
    fn name(&mut self, key: &str, name: &mut String) {
        self.parsed(key, |text: String| match is_name(&text) {
            true => Ok(*name = text),
            false => {
                Err(format!("is {text:?}; a name has 1 to 64 letters, digits and . - _, and does not begin with a dot"))
            }
        });
    }

    /// Nothing stands for none.
    fn address(&mut self, key: &str, address: &mut Option<SocketAddr>) {
        self.parsed(key, |text: String| match text.is_empty() {
            true => Ok(*address = None),
            false => match text.parse() {
                Ok(parsed) => Ok(*address = Some(parsed)),
                Err(_) => Err(format!("is {text:?}; it must be IP:PORT, like 127.0.0.1:9464, or \"\" for none")),
            },
        });
    }

    fn list(
        &mut self,
        key: &str,
        count: std::ops::RangeInclusive<usize>,
        check: fn(&str) -> Result<(), String>,
        list: &mut Vec<String>,
    ) {
        let mut faults = Vec::new();
        self.parsed(key, |texts: Vec<String>| {
            if !count.contains(&texts.len()) {
                return Err(format!("has {} entries; it must have {} to {}", texts.len(), count.start(), count.end()));
            }
            faults = texts.iter().filter_map(|text| check(text).err()).collect();
            Ok(*list = texts)
        });
        faults.into_iter().for_each(|fault| self.fault(format!("{key}: {fault}")));
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
