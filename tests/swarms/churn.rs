//! Nodes that are killed in every phase, come back, or come late.

use crate::rig::{Finished, Rig};
use std::time::Duration;

fn swarm_with_kills(seed: u64, kills: &[&str]) -> Finished {
    // Rounds enough for who comes back on a machine with other work, where a round may well be missed.
    let rig = Rig::seeded(seed).rounds(14).patience(Duration::from_secs(3));
    kills.iter().fold(rig, |rig, kill| rig.kill(kill)).run()
}

/// Killed while it trains, reveals or applies, a miner does not stop the others; started again it catches up and
/// contributes.
#[test]
fn a_miner_killed_in_any_phase_contributes_again() {
    let kills = ["miner-0@1:train", "miner-1@2:exchange", "miner-2@3:apply", "miner-3@2"];
    let swarm = swarm_with_kills(1, &kills);
    swarm.expect_agreement();
    for miner in ["miner-0", "miner-1", "miner-2", "miner-3"] {
        let rounds = swarm.rounds_of(miner);
        assert!(rounds.iter().any(|round| *round >= 7), "{miner} was applied in rounds {rounds:?} only");
    }
}

/// Its momentum is on the disk, in a file of its own kind: a miner with Muon goes on from it.
#[test]
fn a_miner_with_muon_is_killed_and_contributes_again() {
    let muon = ["inner.optimizer=\"muon\"", "inner.embed_rate=0.03"];
    let rig = Rig::seeded(7).rounds(10).patience(Duration::from_secs(3)).set(&muon).kill("miner-0@2:train");
    let swarm = rig.run();
    swarm.expect_agreement().expect_learning(0.01);
    let rounds = swarm.rounds_of("miner-0");
    assert!(rounds.iter().any(|round| *round >= 5), "it was applied in rounds {rounds:?} only");
}

/// Two of three validators decide without the third, whatever it was doing.
#[test]
fn a_validator_killed_in_any_phase_votes_again() {
    // One at a time: with two away nobody has more than half of the stake.
    let swarm = swarm_with_kills(2, &["validator-0@1:exchange", "validator-1@6:apply"]);
    swarm.expect_agreement();
    assert!(swarm.summary.void_rounds.is_empty(), "{:?}", swarm.summary.void_rounds);
}

/// Nobody is needed to enter, or to go on: the bootstrap node can go.
#[test]
fn the_seeder_can_be_killed() {
    let swarm = swarm_with_kills(3, &["seeder-0@2"]);
    swarm.expect_agreement();
    assert!(swarm.summary.selected.iter().all(|selected| !selected.is_empty()));
}

/// Who was never there takes the agreed head, fetches headers and state from peers, replays, and contributes.
#[test]
fn a_newcomer_catches_up_and_contributes() {
    let swarm = Rig::seeded(4).rounds(12).join(6).run();
    swarm.expect_agreement();
    let rounds = swarm.rounds_of("miner-4");
    assert!(!rounds.is_empty(), "the newcomer was never applied");
}

/// A state in shards large enough for pieces comes as state, behind whatever a round waits for; nothing else does.
#[test]
fn a_newcomer_fetches_a_large_state_as_state() {
    // 300,000 parameters, so that the larger of two shards is above 1 MiB.
    let large = ["model.width=64", "model.feed_forward=640", "compress.state_elements=270000"];
    let cheap = ["inner.steps=1", "compress.shard_chunks=16"];
    let swarm = Rig::seeded(6).rounds(10).join(5).set(&large).set(&cheap).run();
    swarm.expect_agreement();
    assert!(!swarm.rounds_of("miner-4").is_empty(), "the newcomer was never applied");
    let shard = 270_000 * 4;
    for node in &swarm.summary.nodes {
        let got = node.bytes["pieces of states received"];
        assert_eq!(got, if node.name == "miner-4" { shard } else { 0 }, "{}", node.name);
    }
}

/// Without votes a round is void: nothing is selected, the state stays, and the next round goes on.
#[test]
fn a_round_without_votes_is_void() {
    let swarm = Rig::seeded(5).rounds(8).validators(1).patience(Duration::from_secs(2)).kill("validator-0@3").run();
    swarm.expect_agreement();
    let void: Vec<u32> = swarm.summary.void_rounds.iter().map(|void| void.round.0).collect();
    assert!(!void.is_empty(), "a round without its only validator was not void");
    for round in void {
        let (before, after) = (round as usize - 1, round as usize);
        assert_eq!(swarm.summary.state_roots[before], swarm.summary.state_roots[after]);
    }
    assert!(!swarm.summary.selected[7].is_empty(), "{:?}", swarm.summary.selected);
}

/// Where everybody is gone there is no later round to come back in: all come back at once, and go on from their disks.
#[test]
fn everybody_can_be_killed() {
    let nodes = ["miner-0", "miner-1", "miner-2", "miner-3", "validator-0", "validator-1", "validator-2", "seeder-0"];
    let kills: Vec<String> = nodes.iter().map(|node| format!("{node}@2")).collect();
    let swarm = swarm_with_kills(8, &kills.iter().map(String::as_str).collect::<Vec<_>>());
    swarm.expect_agreement();
    let last = &swarm.summary.selected[9];
    assert!(!last.is_empty(), "nothing was applied any more: {:?}", swarm.summary.selected);
}
