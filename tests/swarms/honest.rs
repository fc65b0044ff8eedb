//! Whole swarms that nothing goes wrong in, or only what a miner does wrong.

use crate::rig::{Finished, Rig};
use covey::audit::subnet::view;
use covey::misbehave::{DRIFT_ROUND, Misbehaviour};
use covey_devnet::Replay;
use covey_proto::chain::Member;
use covey_proto::record::Record;
use covey_proto::run::Run;
use covey_proto::{Round, Uid};
use covey_round::clock::RoundBlocks;
use std::collections::BTreeMap;
use std::time::Duration;

/// Strangers train one model: the loss falls, everyone has the same bits, and an audit finds the same.
#[test]
fn a_swarm_learns_and_agrees() {
    let swarm = Rig::seeded(1).rounds(10).run();
    swarm.expect_agreement().expect_learning(0.15);
    assert!(swarm.summary.selected.iter().all(|selected| selected.len() == 4), "{:?}", swarm.summary.selected);
    assert!(swarm.summary.void_rounds.is_empty());
    assert_eq!(swarm.summary.rounds, 10);
}

#[test]
fn one_seed_gives_one_root() {
    let [first, second] = [7, 7].map(|seed| Rig::seeded(seed).rounds(5).run().summary);
    assert_eq!(first.run_id, second.run_id);
    assert_eq!(first.state_roots, second.state_roots);
    let other = Rig::seeded(8).rounds(2).run().summary;
    assert_ne!(first.state_roots[..2], other.state_roots[..]);
}

/// A miner that sends noise with the norms of honest updates ends without weight, and the run still converges.
#[test]
fn noise_earns_nothing() {
    for seed in 1..=3 {
        let swarm = Rig::seeded(seed).rounds(10).misbehave(Misbehaviour::Noise, 1).run();
        swarm.expect_agreement().expect_learning(0.1);
        let (noise, honest) = (swarm.weight(3), (0..3).map(|uid| swarm.weight(uid)).sum::<f64>());
        assert!(noise < 0.02, "seed {seed}: noise has {noise} of the weight: {:?}", swarm.summary.weights);
        assert!(honest >= 0.95, "seed {seed}: the honest have {honest}: {:?}", swarm.summary.weights);
    }
}

/// Shards that do not decode are refused by every validator, and cost nobody else anything.
#[test]
fn a_corrupted_shard_is_never_selected() {
    let swarm = Rig::seeded(2).misbehave(Misbehaviour::Corrupt, 1).run();
    swarm.expect_agreement();
    assert!(swarm.summary.offered.iter().all(|offered| offered.contains(&Uid::from(3))));
    assert!(swarm.rounds_of("miner-3").is_empty());
    assert_eq!(swarm.rounds_of("miner-0").len(), 6);
}

/// What nobody else holds gets no vote, so nobody waits for it.
#[test]
fn a_withheld_shard_is_never_selected() {
    let swarm = Rig::seeded(3)
        .rounds(4)
        .misbehave(Misbehaviour::Withhold, 1)
        .set(&["compress.inline_max=0"])
        .patience(Duration::from_secs(5))
        .run();
    swarm.expect_agreement();
    let committed = swarm.summary.offered.iter().all(|offered| offered.contains(&Uid::from(3)));
    assert!(committed, "the withholding miner must commit: {:?}", swarm.summary.offered);
    assert!(swarm.rounds_of("miner-3").is_empty());
    assert_eq!(swarm.rounds_of("miner-1").len(), 4);
}

/// A node whose memory turned a bit says so, and stands with the others again two rounds later.
#[test]
fn a_node_with_another_state_notices_and_resynchronises() {
    let swarm = Rig::seeded(4).rounds(8).misbehave(Misbehaviour::Drift, 1).run();
    assert!(!swarm.summary.roots_agree);
    let rounds: Vec<u32> = swarm.summary.disagreements.iter().map(|other| other.round.0).collect();
    assert_eq!(rounds, [DRIFT_ROUND.0], "it disagreed in other rounds too");
    assert!(swarm.summary.disagreements.iter().all(|other| other.node == "miner-3"));
    assert!(swarm.rounds_of("miner-3").iter().any(|round| *round >= 5), "{:?}", swarm.summary.selected);
    assert_eq!(swarm.audit().expect("the others are right").state_roots, swarm.summary.state_roots);
}

/// Who mines and votes signs calls for both, and weights between them; each has its own nonce, and none is lost.
#[test]
fn a_node_of_both_roles_loses_no_commitment_and_no_vote() {
    const ROUNDS: u32 = 20;
    let swarm = Rig::seeded(11).rounds(ROUNDS).miners(3).validators(1).both(2).set(&["inner.steps=1"]).run();
    swarm.expect_agreement();
    let records = records(&swarm, ROUNDS);
    for (round, [at_commit, at_vote]) in (0..ROUNDS).zip(records) {
        for uid in [0, 1].map(Uid::from) {
            let committed = at_commit[&uid].contribution.map(|contribution| contribution.round);
            assert_eq!(committed, Some(Round(round)), "uid {uid} committed nothing in round {round}");
            let voted = at_vote[&uid].vote.map(|vote| vote.round);
            assert_eq!(voted, Some(Round(round)), "uid {uid} did not vote in round {round}");
            // The slot is one: a commitment keeps the vote before it there.
            let kept = at_commit[&uid].vote.map(|vote| vote.round);
            assert_eq!(kept, round.checked_sub(1).map(Round), "uid {uid} in round {round}");
        }
    }
}

type Records = BTreeMap<Uid, Record>;

/// What stood in the members' slots at each round's blocks C and V.
fn records(swarm: &Finished, rounds: u32) -> Vec<[Records; 2]> {
    let run = std::fs::read_to_string(swarm.folder.run()).expect("the swarm's run");
    let run = Run::from_toml(&run).expect("the swarm's run");
    let deadlines = (0..rounds).map(|round| RoundBlocks::of(&run, Round(round)).expect("a round of a short run"));
    let deadlines: Vec<_> = deadlines.flat_map(|blocks| [blocks.commit, blocks.vote]).collect();
    let mut found: Vec<Records> = Vec::new();
    let chain = Replay::open(&swarm.folder.chain()).expect("the swarm's chain");
    for (number, replayed) in (0_u32..).zip(chain) {
        let replayed = replayed.expect("a block as it was made");
        if deadlines.get(found.len()).map(|block| block.0) == Some(number) {
            let view =
                view(run.chain.netuid, number, &replayed).expect("the runtime answers").expect("the run's subnet");
            let record = |(uid, member): (&Uid, &Member)| {
                Some((*uid, Record::from_bytes(&view.slots.get(&member.hotkey)?.bytes).ok()?))
            };
            found.push(view.members.iter().filter_map(record).collect());
        }
    }
    assert_eq!(found.len(), deadlines.len(), "the chain ends before the last vote");
    found.chunks_exact(2).map(|two| [two[0].clone(), two[1].clone()]).collect()
}

/// Weights that are hidden until a later epoch are opened by the chain, and are then what validators meant.
#[test]
fn hidden_weights_come_to_light() {
    // An epoch is 100 blocks: what the first rounds gave is open by the last.
    let swarm = Rig::seeded(13).rounds(13).hidden_weights().misbehave(Misbehaviour::Noise, 1).run();
    swarm.expect_agreement();
    let first = swarm.summary.weights_by_round.iter().position(|weights| !weights.is_empty());
    assert!(first.is_some_and(|round| round >= 3), "seen in round {first:?}");
    assert!(swarm.weight(3) < 0.1, "noise has {:?}", swarm.summary.weights);
}
