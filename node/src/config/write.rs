//! node.toml as `covey init` writes it: every key with what it is for, those that have their default as comments.

use super::settings::{ChainConfig, NetworkConfig, NodeConfig};
use super::units::Mbit;
use crate::chain::substrate::SecondOpinion;
use covey_gossip::Congestion;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Value;

const HEAD: &str = "\
# A node of Covey. What all nodes of the run must agree on is in run.toml, which is named here.
# Relative paths count from this file's folder. A key that is commented out has the value shown.

";

impl NodeConfig {
    /// The whole node.toml, each key with what it is for; keys that have their default are comments.
    pub fn to_toml(&self) -> String {
        write(self)
    }
}

fn write(config: &NodeConfig) -> String {
    let default = NodeConfig::new("run.toml", "node");
    let mut file = File { text: HEAD.to_owned() };
    let NodeConfig { run, folder, name, data, phases, cores, status, log, wallet, chain, network, storage } = config;
    file.always("run", path(run), "What the nodes of the run agree on. Two nodes are of one run if `covey run show` prints\none id for both files.");
    file.always("folder", path(folder), "The node's own folder: state, blobs, journal. It belongs to one process.");
    file.key("name", text(name), text(&default.name), "For people: the name in its log and status.");
    let place = |data: &Option<_>| data.as_deref().map_or_else(|| text(""), path);
    file.key("data", place(data), place(&default.data), "The training data: a prepared data set (`covey data prepare`), or the text that it is made\nof. Miners and validators need it; \"\" is none.");
    let places = |phases: &[PathBuf]| Value::Array(phases.iter().map(|place| path(place)).collect());
    file.key(
        "phases",
        places(phases),
        places(&default.phases),
        "The same for the run's later phases (`covey run show` lists them), in their order.",
    );
    let number = |cores: &Option<usize>| whole(cores.unwrap_or(0));
    file.key("cores", number(cores), number(&default.cores), "Cores for training and scoring; 0 is all.");
    file.key("status", address(*status), address(default.status), "Where it shows its metrics and peers, for `covey status`, `covey peers` and Prometheus. Who\nreaches the port reads them: keep it on this machine. \"\" is nowhere.");
    file.key("log", text(log), text(&default.log), "What is logged; COVEY_LOG goes before it.");

    file.section("wallet", "Whose hotkey signs: a wallet as btcli has it. Coldkeys are only needed to register.");
    file.key("path", path(&wallet.path), path(&default.wallet.path), "");
    file.key("name", text(&wallet.name), text(&default.wallet.name), "");
    file.key("hotkey", text(&wallet.hotkey), text(&default.wallet.hotkey), "");

    file.section("chain", "");
    file.key("endpoints", list(&chain.endpoints), list(&default.chain.endpoints), "The preferred one first; when it does not answer, the next one is asked. Chain and subnet are\nthose of run.toml.");

    let opinion = |chain: &ChainConfig| match chain.second_opinion {
        SecondOpinion::Required => text("required"),
        SecondOpinion::Preferred => text("preferred"),
        SecondOpinion::Off => text("off"),
    };
    file.key("second_opinion", opinion(chain), opinion(&default.chain), "With two endpoints or more, each final block is read from two. \"required\": one that no second\nendpoint confirms is not used, and no vote is cast on it; \"preferred\": it is used, with a\nwarning; \"off\": only one is asked.");

    write_network(&mut file, network, &default.network);

    file.section("storage", "");
    file.key("quota", text(&storage.quota.to_string()), text(&default.storage.quota.to_string()), "What the blob store may hold. The least recently used makes room; what the node still needs\nstays whatever the quota.");
    file.key(
        "archive",
        flag(storage.archive),
        flag(default.storage.archive),
        "Keep every round for ever, so that the whole run can be computed again: seeders do.",
    );
    file.key(
        "save_rounds",
        whole(storage.save_rounds as usize),
        whole(default.storage.save_rounds as usize),
        "A miner's moments and error feedback, three times the model, go to the disk every so many\nrounds and at a clean end. At 1 a crash costs nothing; else what it had not sent by then.",
    );
    file.text
}

fn write_network(file: &mut File, network: &NetworkConfig, usual: &NetworkConfig) {
    file.section("network", "");
    file.key(
        "listen",
        list(&network.listen),
        list(&usual.listen),
        "Where it listens: TCP, and QUIC which crosses more routers. Port 0 takes any.",
    );
    file.key(
        "bootstrap",
        list(&network.bootstrap),
        list(&usual.bootstrap),
        "Whom it dials first; one that answers is enough: [\"/dns4/NAME/tcp/4001\"].",
    );
    file.key("external", address(network.external), address(usual.external), "Its public address, IP:PORT, to be shown in the chain's metagraph; \"\" is none. Nodes find each\nother without it.");
    file.key(
        "reachable",
        flag(network.reachable),
        flag(usual.reachable),
        "Whether others can reach where it listens: a public machine. Otherwise it finds out.",
    );
    file.key(
        "congestion",
        congestion(network.congestion),
        congestion(usual.congestion),
        "\"bbr\" where the kernel has it, or \"system\" for who shares a narrow line with others.",
    );
    file.key(
        "upload_mbit",
        rate(network.upload),
        rate(usual.upload),
        "Mbit/s for pieces of large blobs; 0 is no limit. Nine tenths of the line leave room for others.",
    );
    file.key("download_mbit", rate(network.download), rate(usual.download), "");
    file.key(
        "connections_max",
        whole(network.connections_max),
        whole(usual.connections_max),
        "Connections, both ways together; and how many peers it dials for.",
    );
    file.key("peers_target", whole(network.peers_target), whole(usual.peers_target), "");
    let milliseconds = |time: std::time::Duration| whole(usize::try_from(time.as_millis()).unwrap_or(usize::MAX));
    file.key("heartbeat_ms", milliseconds(network.heartbeat), milliseconds(usual.heartbeat), "Time between gossip heartbeats, and how long a node that waits for others' bytes does not\ncall itself idle. For swarms on one machine.");
    file.key("patience_ms", milliseconds(network.patience), milliseconds(usual.patience), "");
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn path(path: &Path) -> Value {
    text(&path.to_string_lossy())
}

fn whole(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn flag(flag: bool) -> Value {
    Value::Boolean(flag)
}

fn address(address: Option<SocketAddr>) -> Value {
    text(&address.map(|address| address.to_string()).unwrap_or_default())
}

fn list(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|entry| text(entry)).collect())
}

fn congestion(congestion: Congestion) -> Value {
    text(match congestion {
        Congestion::Bbr => "bbr",
        Congestion::System => "system",
    })
}

fn rate(rate: Option<Mbit>) -> Value {
    Value::Float(rate.map_or(0.0, Mbit::number))
}

struct File {
    text: String,
}

impl File {
    fn section(&mut self, name: &str, about: &str) {
        let _ = write!(self.text, "\n[{name}]\n");
        self.comment(about);
    }

    fn comment(&mut self, about: &str) {
        about.lines().for_each(|line| self.text.push_str(&format!("# {line}\n")));
    }

    fn always(&mut self, key: &str, value: Value, about: &str) {
        self.comment(about);
        self.text.push_str(&format!("{key} = {value}\n"));
    }

    /// A key after its explanation; with the default it is a comment that has no space after its sign.
    fn key(&mut self, key: &str, value: Value, default: Value, about: &str) {
        self.comment(about);
        let sign = if value == default { "#" } else { "" };
        self.text.push_str(&format!("{sign}{key} = {value}\n"));
    }
}
