//! What each role of a swarm takes of memory and disk, at three sizes of model: runs `covey swarm` for each, and prints a
//! table from what the swarms have measured of themselves.
//!
//! ```text
//! cargo bench -p covey --bench memory                 all sizes: some four minutes on two cores, 10 GB of memory
//! cargo bench -p covey --bench memory -- 1M 36M       these
//! ```
//! Two miners, a validator and a seeder, as few tokens as there can be: neither memory nor what is written depends on how
//! long one trains.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by panicking")]

use covey::report::{RoleUsage, Summary, units};
use std::process::Command;

/// A model: its name, and what is other than in the demo preset.
const SIZES: [(&str, &[&str]); 3] = [
    ("1M", &[]),
    ("36M", &["model.width=512", "model.layers=11", "model.heads=8", "model.kv_heads=4", "model.feed_forward=1536"]),
    ("100M", &["model.width=768", "model.layers=14", "model.heads=12", "model.kv_heads=4", "model.feed_forward=2368"]),
];
/// Few tokens a round.
const QUICK: [&str; 2] = ["inner.steps=1", "inner.batch=4"];
/// Shards of whole megabytes, so that a model of any of these sizes has few of them.
const SHARDS: [&str; 1] = ["compress.shard_chunks=1024"];
/// Enough for what is not written in every round to be written.
const ROUNDS: &str = "4";

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runs: Vec<Summary> =
        SIZES.into_iter().filter(|(name, _)| is_wanted(name)).map(|(_, changes)| run(changes)).collect();
    println!("\n| parameters | role | most memory | bytes a parameter | written a round | bytes a parameter |");
    println!("|---|---|---|---|---|---|");
    for summary in runs {
        summary.usage.iter().for_each(|role| println!("{}", row(&summary, role)));
    }
}

/// A swarm of a few rounds with these numbers.
fn run(changes: &[&str]) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("swarm");
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(["swarm", "--miners", "2", "--validators", "1", "--seed", "1", "--rounds", ROUNDS, "--out"]).arg(&out);
    for change in changes.iter().chain(&QUICK).chain(&SHARDS) {
        command.args(["--set", change]);
    }
    assert!(command.status().unwrap().success(), "{changes:?}: the swarm failed");
    Summary::from_json(&std::fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

fn row(summary: &Summary, role: &RoleUsage) -> String {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| units::NONE.to_owned());
    let parameters = summary.parameters as f64;
    let cells = [
        units::short(summary.parameters),
        role.role.clone(),
        or_none(role.memory_peak.map(units::bytes)),
        or_none(role.memory_a_parameter.map(|bytes| units::decimal(bytes, 1))),
        or_none(role.disk_written_a_round.map(units::bytes)),
        or_none(role.disk_written_a_round.map(|bytes| units::decimal(bytes as f64 / parameters, 1))),
    ];
    format!("| {} |", cells.join(" | "))
}
