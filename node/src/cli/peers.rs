//! `covey peers`: who a running node is connected to.

use super::status::Which;
use super::{Done, Failure, shown};
use crate::observe::{self, PeerLine};
use crate::report::units;
use clap::Args;
use std::net::SocketAddr;

#[derive(Debug, Args)]
pub(super) struct PeersArgs {
    /// Where the node shows its status: what was given to its --status, or as its node.toml says.
    #[arg(conflicts_with_all = ["config", "status", "swarm"])]
    address: Option<SocketAddr>,
    #[command(flatten)]
    which: Which,
    /// The node's name, if the process has several [default: all].
    #[arg(long)]
    node: Option<String>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PeersArgs) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = args.address.map_or_else(|| args.which.address(), Ok)?;
    let ask = |path: String| runtime.block_on(observe::get(address, &path));
    let names: Vec<String> = match &args.node {
        Some(name) => vec![name.clone()],
        None => ask("/".into())?.lines().map(str::to_owned).collect(),
    };
    for (at, name) in names.iter().enumerate() {
        let json = ask(format!("/{name}/peers"))?;
        if args.json {
            println!("{}", shown::json(&json));
            continue;
        }
        let peers: Vec<PeerLine> = serde_json::from_str(&json)?;
        if at > 0 {
            println!();
        }
        println!("{name}: {} connected", units::count(peers.len() as u64, "peer"));
        if !peers.is_empty() {
            print!("{}", table(peers));
        }
    }
    Ok(Done::Well)
}

/// At most 80 columns: the id's end, which differs, and the address without the id.
fn table(mut peers: Vec<PeerLine>) -> String {
    peers.sort_by_key(|peer| (peer.uid.is_none(), peer.uid, peer.peer.clone()));
    let mut text = format!(
        "{:>4}  {:<9} {:<6} {:>7} {:>6} {:>9} {:>9}  {}\n",
        "uid", "peer", "path", "rtt ms", "score", "up B/s", "down B/s", "address"
    );
    for peer in &peers {
        let id: String = peer.peer.chars().skip(peer.peer.chars().count().saturating_sub(8)).collect();
        let mesh = if peer.in_mesh { "*" } else { "" };
        let address = peer.addresses.first().map(String::as_str).unwrap_or_default();
        text.push_str(&format!(
            "{:>4}  {:<9} {:<6} {:>7} {:>6.0} {:>9} {:>9}  {}\n",
            peer.uid.map_or_else(|| "–".to_owned(), |uid| uid.to_string()),
            format!("{id}{mesh}"),
            if peer.direct { "direct" } else { "relay" },
            peer.rtt_ms.map_or_else(|| "–".to_owned(), |rtt| format!("{rtt:.1}")),
            peer.score,
            units::bytes(peer.up as u64),
            units::bytes(peer.down as u64),
            short(address),
        ));
    }
    text.push_str("* in this node's gossip mesh\n");
    text
}

/// `/ip4/10.0.0.1/tcp/4001` as `10.0.0.1:4001 tcp`.
fn short(address: &str) -> String {
    let parts: Vec<&str> = address.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["ip4", host, kind, port, ..] => format!("{host}:{port} {kind}"),
        ["ip6", host, kind, port, ..] => format!("[{host}]:{port} {kind}"),
        _ => address.to_owned(),
    }
}
