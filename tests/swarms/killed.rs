//! Processes of a swarm that somebody else kills, at any moment: they are started again, and the run goes on.

#![cfg(target_os = "linux")]

use crate::rig::{Rig, dataset};
use covey::disk::folder::Folder;
use covey::observe::{self, NodeStatus};
use covey_proto::Round;
use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Who is killed, and in which phase. One at a time: with two validators away nobody has more than half of the stake.
const VICTIMS: [(&str, &str); 10] = [
    ("miner-0", "train"),
    ("devnet", "train"),
    ("miner-1", "commit"),
    ("validator-0", "exchange"),
    ("devnet", "exchange"),
    ("miner-2", "exchange"),
    ("validator-1", "score"),
    ("miner-3", "apply"),
    ("seeder-0", "wait"),
    ("devnet", "apply"),
];

/// A phase that is too short to be seen is not waited for longer.
pub(crate) const SIGHT: Duration = Duration::from_secs(4);
/// For what must come: far more than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Looks at a swarm from outside.
pub(crate) struct Look {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    folder: Folder,
}

impl Look {
    pub(crate) fn at(folder: &Folder) -> Look {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let address = std::fs::read_to_string(folder.status()).expect("the swarm says where it shows its status");
        Look { runtime, address: address.trim().parse().expect("an address"), folder: folder.clone() }
    }

    fn status(&self, node: &str) -> Option<NodeStatus> {
        let json = self.runtime.block_on(observe::get(self.address, &format!("/{node}/status"))).ok()?;
        Some(serde_json::from_str(&json).expect("a status"))
    }

    pub(crate) fn wait_for(&self, node: &str, patience: Duration, is_so: impl Fn(&NodeStatus) -> bool) -> bool {
        let start = Instant::now();
        while !self.status(node).is_some_and(|status| is_so(&status)) {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The process that was started for a node or for the chain.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let path = match name {
            "devnet" => self.folder.chain_spec(),
            node => self.folder.node_config(node),
        };
        let pids = processes(&path.display().to_string());
        assert_eq!(pids.len(), 1, "processes of {name}");
        pids[0]
    }
}

/// The processes whose arguments name a path, or something below it.
fn processes(path: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).split('\0').any(|argument| argument.starts_with(path))
    };
    pids.filter(names).collect()
}

/// Whether a process is there and has not ended: one that nobody has waited for yet is a zombie, and no more than that.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have anything in it, brackets too; the state comes after it.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("every Unix has kill").success());
}

#[test]
fn any_process_that_is_killed_in_any_phase_is_started_again_and_the_roots_agree() {
    let seed = 12;
    let swarm = Rig::seeded(seed).rounds(1000).patience(Duration::from_secs(3)).run_beside(move |folder| {
        let look = Look::at(folder);
        let mut missed = Vec::new();
        for (victim, phase) in VICTIMS {
            // The chain has no phases: a miner's will do.
            let node = if victim == "devnet" { "miner-0" } else { victim };
            let there = look.wait_for(node, PATIENCE, |status| status.live);
            assert!(there, "{node}, which is to be killed, does not run");
            let seen = Cell::new(Round(0));
            let in_phase = |status: &NodeStatus| {
                seen.set(status.round);
                status.live && status.phase == phase
            };
            if !look.wait_for(node, SIGHT, in_phase) {
                missed.push((victim, phase));
            }
            let pid = look.pid(victim);
            kill(pid);
            // Of the round that was seen last the chain may have had everything, of the next but one it has not.
            let again = |status: &NodeStatus| status.live && status.round.0 >= seen.get().0 + 2;
            assert!(look.wait_for(node, PATIENCE, again), "{victim}, killed in {phase}, does not come back");
            assert_ne!(look.pid(victim), pid);
        }
        println!("seed {seed}: killed in another phase than planned, since that was not seen: {missed:?}");
        assert!(2 * missed.len() <= VICTIMS.len(), "seed {seed}: not seen in time: {missed:?}");
    });
    swarm.expect_agreement();
    assert!(swarm.summary.void_rounds.is_empty(), "{:?}", swarm.summary.void_rounds);
    for (victim, _) in VICTIMS.iter().filter(|(victim, _)| *victim != "devnet") {
        let node = swarm.summary.nodes.iter().find(|node| node.name == *victim).expect("a node of the swarm");
        assert_eq!(node.killed.len(), 1, "seed {seed}: {victim} died in rounds {:?}", node.killed);
    }
    let last = swarm.summary.rounds as usize;
    for miner in ["miner-0", "miner-1", "miner-2"] {
        let rounds = swarm.rounds_of(miner);
        assert!(
            rounds.iter().any(|round| round + 8 > last),
            "seed {seed}: {miner} was applied in {rounds:?} of {last}"
        );
    }
    let left = processes(&swarm.folder.path().display().to_string());
    assert!(left.is_empty(), "seed {seed}: processes {left:?} live on");
}

/// A swarm on the command line, in its first round, and the processes that it has started.
fn started(at: &std::path::Path) -> (std::process::Child, Vec<u32>) {
    use std::io::BufRead;
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command
        .args(["swarm", "--preset", "tiny", "--rounds", "500", "--out"])
        .arg(at)
        .arg("--data")
        .arg(dataset().folder());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("covey starts");
    let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("round ")), "the swarm ended before its first round");
    // Whatever else it says must have a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let folder = Folder::at(at);
    let names = ["miner-0", "miner-1", "miner-2", "miner-3", "validator-0", "validator-1", "validator-2", "seeder-0"];
    let look = Look::at(&folder);
    let mut pids: Vec<u32> = names.iter().map(|name| look.pid(name)).collect();
    pids.push(look.pid("devnet"));
    (child, pids)
}

#[test]
fn nothing_outlives_a_swarm_that_is_stopped_or_killed() {
    for signal in ["INT", "KILL"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = folder.path().join("out");
        let (mut swarm, pids) = started(&at);
        let sent = Command::new("kill").args(["-s", signal, &swarm.id().to_string()]).status();
        assert!(sent.expect("every Unix has kill").success());
        let ended = swarm.wait().expect("a child can be waited for");
        assert_eq!(ended.code(), (signal == "INT").then_some(130));
        let start = Instant::now();
        while pids.iter().any(|pid| lives(*pid)) {
            assert!(start.elapsed() < PATIENCE, "after SIG{signal}, some of {pids:?} live on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_swarm_that_cannot_go_on_says_why_and_leaves_its_report_and_no_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().join("out");
    let (mut swarm, pids) = started(&at);
    // Who is told to end by somebody else is not started again, and without a chain nothing goes on.
    let chain = pids.last().expect("the chain's is the last").to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &chain]).status().expect("every Unix has kill").success());
    assert_eq!(swarm.wait().expect("a child can be waited for").code(), Some(1));
    assert!(!pids.iter().any(|pid| lives(*pid)), "some of {pids:?} live on");
    let summary = std::fs::read_to_string(at.join("summary.json")).expect("a summary");
    let summary = covey::report::Summary::from_json(&summary).expect("a summary");
    assert!(summary.interrupted && summary.rounds > 0 && summary.rounds < 500);
    assert!(at.join("report.html").exists() && !Folder::at(&at).status().exists());
}
