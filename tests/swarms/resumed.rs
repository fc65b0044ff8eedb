//! A miner that is killed and comes back in time commits what it would have committed.

#![cfg(target_os = "linux")]

use crate::killed::{Look, PATIENCE, SIGHT, kill};
use crate::rig::Rig;
use covey::disk::Disk;
use covey::observe::NodeStatus;
use covey_proto::Round;
use std::cell::Cell;

/// Blocks enough for a start between any instant and the round's commitment: nodes that start slow blocks down to 50 ms.
const LONG_ROUNDS: [&str; 4] = ["clock.length=126", "clock.commit=110", "clock.vote=122", "inner.steps=30"];
/// Rounds that are compared at least: the first kill lies before the last of them.
const ROUNDS_MIN: usize = 3;
const SEED: u64 = 21;

/// When the miner is killed, in this order.
const INSTANTS: [&str; 4] = ["train", "saving", "commit", "exchange"];

/// Whether the miner's folder has what follows a contribution that its journal does not name yet.
fn is_saving(disk: &Disk) -> bool {
    let journalled = disk.journal().ok().and_then(|journal| journal.read().contribution).map(|made| made.round);
    let next = journalled.map_or(Round(0), Round::next);
    disk.root().join(format!("training-{next}.bin")).exists()
}

/// Killed in training, between saving and journal, before and after its commitment is on chain, a miner commits in every
/// round the contribution of the swarm in which nobody is killed: every state has the same root.
#[test]
fn a_killed_miner_contributes_the_same_bits_as_one_that_was_not() {
    let undisturbed = Rig::seeded(SEED).rounds(10).set(&LONG_ROUNDS).run();
    let disturbed = Rig::seeded(SEED).rounds(1000).set(&LONG_ROUNDS).run_beside(|folder| {
        let look = Look::at(folder);
        let disk = Disk::at(folder.node("miner-0"));
        for instant in INSTANTS {
            assert!(look.wait_for("miner-0", PATIENCE, |status| status.live), "the miner does not run");
            let seen = Cell::new(Round(0));
            let is_then = |status: &NodeStatus| {
                seen.set(status.round);
                status.live && if instant == "saving" { is_saving(&disk) } else { status.phase == instant }
            };
            let was_seen = look.wait_for("miner-0", SIGHT, is_then);
            println!("killed in round {}; {instant} was seen: {was_seen}", seen.get());
            kill(look.pid("miner-0"));
            let again = |status: &NodeStatus| status.live && status.round.0 >= seen.get().0 + 2;
            assert!(look.wait_for("miner-0", PATIENCE, again), "killed at {instant}, the miner does not come back");
        }
    });
    let [without, with] = [&undisturbed.summary, &disturbed.summary];
    let rounds = without.state_roots.len().min(with.state_roots.len());
    // On a machine so busy that a start takes five seconds a round is missed, and from then on it is another history.
    let whole = with.selected[..rounds].iter().take_while(|selected| selected.len() == 4).count();
    assert!(whole >= ROUNDS_MIN, "{whole} of {rounds} rounds without a miss: {:?}", with.selected);
    let deaths = with.nodes.iter().find(|node| node.name == "miner-0").map(|node| node.killed.len());
    assert_eq!(deaths, Some(INSTANTS.len()));
    assert!(with.nodes.iter().any(|node| node.killed.iter().any(|round| round.0 < whole as u32)), "killed in time");
    assert_eq!(without.state_roots[..whole], with.state_roots[..whole]);
}
