//! `covey status`: what a running node does, or what all of a swarm do.

use super::{Done, Failure, Plain, shown};
use crate::config::{NodeConfig, STATUS};
use crate::disk::folder::Folder;
use crate::observe::{self, NodeStatus};
use crate::report::units;
use crate::service::STATUS as STATUS_FILE;
use clap::Args;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Which nodes are asked.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Which {
    /// The node of this node.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What shows its status here [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDRESS")]
    status: Option<SocketAddr>,
    /// The nodes of a swarm that runs in this folder.
    #[arg(long, value_name = "DIR")]
    swarm: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    which: Which,
    /// The node's name, if there are several [default: all].
    #[arg(long)]
    node: Option<String>,
    /// One JSON object a node and line.
    #[arg(long)]
    json: bool,
}

impl Which {
    /// Where to ask.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        if let Some(path) = &self.config {
            let nowhere = || Plain(format!("{} has no status address: the node shows nothing", path.display()));
            let config = NodeConfig::load(path)?;
            let address = config.status.ok_or_else(nowhere)?;
            // Port 0 took any: the node says which.
            return if address.port() == 0 {
                written(&config.folder.join(STATUS_FILE), "the node")
            } else {
                Ok(address)
            };
        }
        match (&self.swarm, self.status) {
            (Some(dir), _) => of_swarm(dir),
            (None, Some(address)) => Ok(address),
            (None, None) => Ok(STATUS),
        }
    }
}

/// The address that a swarm has written down, if it runs.
fn of_swarm(dir: &Path) -> Result<SocketAddr, Failure> {
    let path = Folder::at(dir).status();
    // A swarm holds its lock. Where a file system has no locks, the address says whether anybody answers.
    if File::open(&path).is_ok_and(|file| file.try_lock_shared().is_ok()) {
        return Err(Plain(format!("the swarm in {} has ended", dir.display())).into());
    }
    written(&path, "a swarm")
}

/// The address that `who` has written down.
fn written(path: &Path, who: &str) -> Result<SocketAddr, Failure> {
    let none = |what: String| Plain(format!("{}: {what}; is {who} running there?", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| none(error.to_string()))?;
    Ok(text.trim().parse().map_err(|_| none("no address".into()))?)
}

pub(super) fn run(args: &StatusArgs) -> Result<Done, Failure> {
    let address = args.which.address()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = |path: String| runtime.block_on(observe::get(address, &path));
    let names: Vec<String> = match &args.node {
        Some(name) => vec![name.clone()],
        None => ask("/".into())?.lines().map(str::to_owned).collect(),
    };
    let mut nodes = Vec::new();
    for name in names {
        match ask(format!("/{name}/status")) {
            Ok(json) if args.json => println!("{}", shown::json(&json)),
            Ok(json) => nodes.push(serde_json::from_str::<NodeStatus>(&json)?),
            // One of a swarm that is being started again; the others are of interest all the same.
            Err(error) if args.node.is_none() => eprintln!("{name}: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    match &nodes[..] {
        [] if !args.json => println!("no node is shown at {address}"),
        [] => {}
        [node] => print!("{}", one(node)),
        nodes => print!("{}", table(nodes)),
    }
    Ok(Done::Well)
}

/// All of one node.
fn one(node: &NodeStatus) -> String {
    let uid = node.uid.map_or_else(|| "not registered".to_owned(), |uid| format!("uid {}", uid.number()));
    let part = match (&node.halted, node.live) {
        (Some(_), _) => "halted",
        (None, true) => "taking part",
        (None, false) => "catching up",
    };
    let mut text = format!("{}: {}, {uid}, run {}\n", node.name, node.role, short(&node.run));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<7} {value}\n"));
    line("round", format!("{}, {}; {part}", node.round, phase(node)));
    line("head", node.head.to_string());
    line("root", node.root.to_string());
    line("chain", format!("block {}, final {}", node.best, node.finalised));
    line("peers", node.peers.to_string());
    if let Some(loss) = node.loss {
        let (tokens, rate) = (units::count(node.tokens, "token"), node.tokens_per_second);
        line("train", format!("loss {loss:.3}, {tokens}, {rate:.0} a second"));
        line("sent", units::count(node.contributed.into(), "contribution"));
    }
    if let Some(peak) = node.usage.memory_peak {
        line("memory", format!("{} at most", units::bytes(peak)));
    }
    if let Some(written) = node.usage.disk_written {
        line("disk", format!("{} written", units::bytes(written)));
    }
    if let Some(why) = &node.halted {
        line("halted", why.clone());
    }
    if let Some(error) = &node.error {
        line("error", error.clone());
    }
    text
}

fn phase(node: &NodeStatus) -> &str {
    if node.phase.is_empty() { "start" } else { &node.phase }
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// A line a node, at most 80 columns.
fn table(nodes: &[NodeStatus]) -> String {
    let row = |name: &str, cells: [&str; 9]| {
        let [uid, round, phase, block, final_block, peers, root, loss, memory] = cells;
        format!(
            "{name:<13} {uid:>3} {round:>5} {phase:<8} {block:>7} {final_block:>7} {peers:>5} {root:<8} {loss:>6} {memory:>7}\n"
        )
    };
    let mut text = row("node", ["uid", "round", "phase", "block", "final", "peers", "root", "loss", "memory"]);
    for node in nodes {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| units::NONE.to_owned());
        text.push_str(&row(
            &node.name,
            [
                &or_none(node.uid.map(|uid| uid.number().to_string())),
                &node.round.0.to_string(),
                if node.halted.is_some() { "halted" } else { phase(node) },
                &node.best.0.to_string(),
                &node.finalised.0.to_string(),
                &node.peers.to_string(),
                &node.root.short(),
                &or_none(node.loss.map(|loss| format!("{loss:.3}"))),
                &or_none(node.usage.memory_peak.map(units::bytes)),
            ],
        ));
    }
    for node in nodes {
        if let Some(error) = node.halted.as_ref().or(node.error.as_ref()) {
            text.push_str(&format!("{}: {error}\n", node.name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Usage;
    use covey_proto::Uid;

    fn node(name: &str) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            role: "miner".into(),
            run: "ab".repeat(32),
            uid: Some(Uid::from(255)),
            phase: "exchange".into(),
            live: true,
            loss: Some(4.8125),
            tokens: 1_200_000,
            usage: Usage { memory_peak: Some(123_456_789), disk_written: Some(1_500_000_000) },
            ..NodeStatus::default()
        }
    }

    #[test]
    fn a_table_has_80_columns() {
        let text = table(&[node("validator-10"), node("miner-0")]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("exchange") && text.contains("255") && text.contains("4.812"), "{text}");
        assert!(text.contains("123 MB"), "{text}");
    }

    #[test]
    fn one_node_says_all_it_knows() {
        let halted = NodeStatus { halted: Some("a fork".into()), error: Some("no disk".into()), ..node("miner-0") };
        let text = one(&halted);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for needed in
            ["miner-0: miner, uid 255", "halted", "a fork", "no disk", "loss 4.812", "root", "123 MB", "1.50 GB"]
        {
            assert!(text.contains(needed), "no {needed} in {text}");
        }
        let new = one(&NodeStatus::default());
        assert!(new.contains("not registered") && new.contains("start; catching up"), "{new}");
    }
}
