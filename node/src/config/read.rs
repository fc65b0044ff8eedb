//! node.toml as text: which keys there are, what may stand in them, and every fault of a file at once.

use super::fault::{ConfigError, FILE_BYTES_MAX, Fault, FaultKind};
use super::settings::{ADDRESSES_MAX, NetworkConfig, NodeConfig};
use super::units::{Mbit, Size};
use crate::chain::substrate::{ENDPOINTS_MAX, SecondOpinion};
use covey_gossip::{Congestion, check_address};
use covey_proto::run::PHASES_MAX;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

/// Faults that are told; the rest is counted.
const FAULTS_MAX: usize = 32;

impl NodeConfig {
    /// Reads node.toml. Relative paths count from its folder, `~` is the user's.
    ///
    /// # Errors
    /// It cannot be read, or cannot be: every fault at once.
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        let config = NodeConfig::parse(&text(path)?).map_err(|error| error.of(path))?;
        Ok(config.resolved(path.parent().unwrap_or(Path::new(""))))
    }

    /// Reads the text of a node.toml; paths stay as they are written.
    ///
    /// # Errors
    /// Not TOML, or what cannot be: every fault at once.
    pub fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
        let file = || "node.toml".to_owned();
        let table = text.parse().map_err(|error| ConfigError::Toml { file: file(), error: Box::new(error) })?;
        let mut keys = Keys { table, faults: Vec::new() };
        let config = config(&mut keys);
        let mut faults = keys.faults();
        if faults.is_empty() {
            return Ok(config);
        }
        let more = faults.len().saturating_sub(FAULTS_MAX);
        faults.truncate(FAULTS_MAX);
        Err(ConfigError::Faults { file: file(), faults, more })
    }
}

/// A file's text, if it is not too long.
fn text(path: &Path) -> Result<String, ConfigError> {
    let fault = |error| ConfigError::File { path: path.to_owned(), error };
    let mut text = String::new();
    let mut file = File::open(path).map_err(fault)?.take(FILE_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(fault)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::Large { path: path.to_owned() });
    }
    Ok(text)
}

/// Every key, once. What is missing or wrong has its default; a wrong one leaves a fault.
fn config(keys: &mut Keys) -> NodeConfig {
    let mut config = NodeConfig::new("run.toml", "node");
    let NodeConfig { run, folder, name, data, phases, cores, status, log, wallet, chain, network, storage } =
        &mut config;
    keys.set("run", run, path);
    keys.set("folder", folder, path);
    keys.set("name", name, word);
    keys.set("data", data, |text: String| Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)));
    keys.set("phases", phases, |texts: Vec<String>| match texts.len() {
        0..=PHASES_MAX => texts.into_iter().map(path).collect(),
        got => Err(FaultKind::Entries { got, least: 0, most: PHASES_MAX }),
    });
    keys.set("cores", cores, |number| count(number, 0..=4096).map(|number| Some(number).filter(|number| *number > 0)));
    keys.set("status", status, address);
    keys.set("log", log, |filter: String| match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(FaultKind::Filter { filter, error }),
    });
    keys.set("wallet.path", &mut wallet.path, path);
    keys.set("wallet.name", &mut wallet.name, word);
    keys.set("wallet.hotkey", &mut wallet.hotkey, word);
    keys.list("chain.endpoints", 1..=ENDPOINTS_MAX, endpoint, &mut chain.endpoints);
    keys.set("chain.second_opinion", &mut chain.second_opinion, |word: String| match word.as_str() {
        "required" => Ok(SecondOpinion::Required),
        "preferred" => Ok(SecondOpinion::Preferred),
        "off" => Ok(SecondOpinion::Off),
        _ => Err(FaultKind::SecondOpinion(word)),
    });
    self::network(keys, network);
    keys.set("storage.quota", &mut storage.quota, |text: String| Ok(text.parse::<Size>()?));
    keys.set("storage.archive", &mut storage.archive, Ok::<bool, _>);
    keys.set("storage.save_rounds", &mut storage.save_rounds, |number| Ok(count(number, 1..=1000)? as u32));
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
        _ => Err(FaultKind::Congestion(word)),
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
        keys.faults.push(Fault::of("network.peers_target", FaultKind::PeersTarget { target, max }));
    }
}

fn path(text: String) -> Result<PathBuf, FaultKind> {
    if text.is_empty() { Err(FaultKind::EmptyPath) } else { Ok(text.into()) }
}

/// A name that is one part of a path.
fn word(text: String) -> Result<String, FaultKind> {
    if is_name(&text) { Ok(text) } else { Err(FaultKind::Name(text)) }
}

/// Nothing stands for none.
fn address(text: String) -> Result<Option<SocketAddr>, FaultKind> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| FaultKind::SocketAddress(text))
}

fn count(got: i64, range: RangeInclusive<usize>) -> Result<usize, FaultKind> {
    let (least, most) = range.clone().into_inner();
    let number = usize::try_from(got).ok().filter(|number| range.contains(number));
    number.ok_or(FaultKind::OutOfRange { got, least, most })
}

/// 0 stands for none.
fn rate(number: f64) -> Result<Option<Mbit>, FaultKind> {
    if number == 0.0 { Ok(None) } else { Ok(Some(Mbit::new(number)?)) }
}

fn endpoint(url: &str) -> Result<(), FaultKind> {
    let host = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with([':', '/']) && !url.contains(char::is_whitespace) => Ok(()),
        _ => Err(FaultKind::Endpoint(url.to_owned())),
    }
}

fn multiaddr(address: &str) -> Result<(), FaultKind> {
    Ok(check_address(address)?)
}

/// The keys of a file that nobody has asked for yet, and what was wrong with the others.
struct Keys {
    table: Table,
    faults: Vec<Fault>,
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
    fn set<K: Kind, T>(&mut self, key: &str, target: &mut T, read: impl FnOnce(K) -> Result<T, FaultKind>) {
        let Some(value) = self.take(key) else { return };
        let value_of_kind = K::of(value.clone()).ok_or_else(|| FaultKind::OtherKind { value, needed: K::NAME });
        match value_of_kind.and_then(read) {
            Ok(value) => *target = value,
            Err(fault) => self.faults.push(Fault::of(key, fault)),
        }
    }

    fn list(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
        check: fn(&str) -> Result<(), FaultKind>,
        list: &mut Vec<String>,
    ) {
        let mut faults = Vec::new();
        self.set(key, list, |texts: Vec<String>| {
            if !range.contains(&texts.len()) {
                let (got, least, most) = (texts.len(), *range.start(), *range.end());
                return Err(FaultKind::Entries { got, least, most });
            }
            faults = texts.iter().filter_map(|text| check(text).err()).map(|fault| Fault::of(key, fault)).collect();
            Ok(texts)
        });
        self.faults.extend(faults);
    }

    /// Every fault, and every key that nobody asked for.
    fn faults(mut self) -> Vec<Fault> {
        const SECTIONS: [&str; 4] = ["wallet", "chain", "network", "storage"];
        for (key, value) in self.table {
            match value {
                Value::Table(rest) if SECTIONS.contains(&key.as_str()) => {
                    let unknown = rest.keys().map(|inner| Fault::of(&format!("{key}.{inner}"), FaultKind::UnknownKey));
                    self.faults.extend(unknown);
                }
                _ if SECTIONS.contains(&key.as_str()) => self.faults.push(Fault::of(&key, FaultKind::NotASection)),
                _ => self.faults.push(Fault::of(&key, FaultKind::UnknownKey)),
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
