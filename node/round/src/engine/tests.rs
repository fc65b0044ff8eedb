//! What a history must come to, whatever happens in it.

use super::world::*;
use super::*;
use crate::select::VoidReason;

const CREW: [Roles; 8] = [VALIDATOR, VALIDATOR, VALIDATOR, MINER, MINER, MINER, MINER, FOLLOWER];

#[test]
fn a_swarm_without_faults_applies_everybody_every_round() {
    for seed in 0..20 {
        let mut world = World::new(seed, &CREW);
        world.run_rounds(6);
        world.assert_well();
        for round in 0..6 {
            assert_eq!(world.chosen(Round(round)).len(), 4, "round {round}");
        }
    }
}

/// Killed between any two steps, a node comes back from its disk and contributes again; nobody waits for it forever.
#[test]
fn a_node_killed_at_any_step_rejoins_and_contributes_again() {
    let crew = [VALIDATOR, VALIDATOR, VALIDATOR, MINER, MINER];
    let both = Roles { miner: true, validator: true };
    for (victim, roles) in [(0, VALIDATOR), (3, MINER), (2, both)] {
        let mut crew = crew;
        crew[victim] = roles;
        let mut whole = World::new(7, &crew);
        whole.run_rounds(2);
        for step in 0..whole.steps {
            let mut world = World::new(7, &crew);
            while world.steps < step {
                world.step();
            }
            let away = 1 + world.rng.below(50) as u32;
            world.kill(victim, away);
            world.run_rounds(6);
            world.assert_well();
        }
    }
}

#[test]
fn histories_of_failures_and_kills_keep_one_selection_and_end_well() {
    let mut kills = 0;
    for seed in 0..120 {
        let mut world = World::new(seed, &CREW);
        world.faults = Faults { kill: 400, diverge: 0, train: 10, fetch: 10, send: 30, read: 50, hurry: 150, hash: 0 };
        world.run_rounds(10);
        kills += world.nodes.iter().filter(|node| node.wakes_at.is_some()).count();
        world.calm();
        world.run_rounds(16);
        world.assert_well();
    }
    assert!(kills > 100, "only {kills} nodes were down when the faults ended");
}

/// One validator of five errs, and any miner or follower; the majority's head is right all the same.
#[test]
fn whoever_errs_is_told_so_and_recovers() {
    let mut crew = vec![VALIDATOR; 5];
    crew.extend([MINER, MINER, MINER, FOLLOWER, FOLLOWER]);
    let mut errors = 0;
    for seed in 0..120 {
        let mut world = World::new(seed, &crew);
        world.faults = Faults { kill: 400, diverge: 12, train: 10, fetch: 10, send: 50, read: 50, hurry: 0, hash: 0 };
        for node in 1..5 {
            (world.nodes[node].mortal, world.nodes[node].fallible) = (node == 1, false);
        }
        world.run_rounds(10);
        errors += world.nodes.iter().map(|node| node.diverged).sum::<u32>();
        world.calm();
        world.run_rounds(16);
        world.assert_well();
    }
    assert!(errors > 100, "only {errors} errors were told");
}

/// Blocks come while states are hashed: the next round is trained meanwhile, and named once its base is.
#[test]
fn rounds_trained_while_their_base_is_hashed_are_applied_like_any_other() {
    let mut early = 0;
    for seed in 0..60 {
        let mut world = World::new(seed, &CREW);
        world.faults = Faults { kill: 800, diverge: 0, train: 20, fetch: 20, send: 30, read: 20, hurry: 0, hash: 6 };
        world.run_rounds(10);
        early += world.early;
        world.calm();
        world.run_rounds(16);
        world.assert_well();
    }
    assert!(early > 100, "only {early} trainings began before their base had a head");
}

#[test]
fn a_newcomer_joins_and_contributes() {
    for seed in 0..50 {
        let mut world = World::new(seed, &CREW);
        let (miner, validator) = (world.add(MINER), world.add(VALIDATOR));
        let at = 10 + world.rng.below(150) as u32;
        world.run_to(at);
        for newcomer in [miner, validator] {
            world.register(newcomer);
            world.start(newcomer);
        }
        world.run_rounds(12);
        world.assert_well();
    }
}

#[test]
fn void_rounds_keep_going() {
    let mut world = World::new(1, &CREW);
    world.faults.train = 1;
    world.run_rounds(5);
    world.faults.train = 0;
    world.run_rounds(6);
    for round in 0..5 {
        assert!(matches!(world.selected[&Round(round)].void, Some(VoidReason::TooFew { chosen: 0, .. })));
    }
    world.assert_well();
}

#[test]
fn three_rounds_without_a_vote_stop_training_and_a_vote_resumes_it() {
    let mut world = World::new(1, &CREW);
    world.run_rounds(2);
    world.censored = [0, 1, 2].map(hotkey).into();
    world.run_rounds(8);
    world.censored.clear();
    world.run_rounds(11);
    for miner in &world.nodes[3..7] {
        // Without votes 2, 3, 4: idle in 5, 6, 7, 8; a vote in 8: back in 9.
        assert_eq!(miner.trained, [0, 1, 2, 3, 4, 9, 10].map(Round));
    }
    world.assert_well();
}

#[test]
fn a_silent_majority_makes_rounds_void_and_halts_nobody() {
    let mut run = devnet();
    run.electorate.window = 8;
    let mut world = World::of(Arc::new(run), 1, &CREW);
    world.run_rounds(2);
    world.censored = [0, 1].map(hotkey).into();
    world.run_rounds(13);
    assert!(world.selected[&Round(9)].void.is_some());
    assert_eq!(world.selected[&Round(10)].void, None, "whoever is silent for W rounds is out");
    world.censored.clear();
    world.run_rounds(15);
    world.assert_well();
}

#[test]
fn votes_that_split_for_three_rounds_halt_everybody() {
    let mut world = World::new(1, &CREW);
    world.run_rounds(2);
    world.faults.diverge = 1;
    world.run_rounds(3);
    world.faults.diverge = 0;
    world.run_to(200);
    for node in &world.nodes {
        assert_eq!(node.halted, Some(Halt::Split(Round(5))));
    }
}

#[test]
fn one_of_two_twins_stops() {
    for seed in 0..50 {
        let mut world = World::new(seed, &CREW);
        let twin = world.add(MINER);
        world.nodes[twin].hotkey = world.nodes[3].hotkey;
        world.start(twin);
        world.run_rounds(4);
        let halted: Vec<usize> = (0..=twin).filter(|node| world.nodes[*node].halted.is_some()).collect();
        assert!(halted == [3] || halted == [twin], "seed {seed}: {halted:?} halted");
        assert!(matches!(world.nodes[halted[0]].halted, Some(Halt::Twin { .. })));
    }
}

/// Whatever is away, and for however long the chain keeps its states: it is enough that they come back.
#[test]
fn a_run_whose_nodes_were_all_killed_goes_on() {
    for seed in 0..50 {
        let mut world = World::new(seed, &CREW);
        world.run_rounds(3);
        let (survivors, away) = (world.rng.below(2), world.rng.below(120) as u32);
        for (node, roles) in CREW.into_iter().enumerate() {
            // With a follower left, or nobody.
            if survivors == 0 || roles != FOLLOWER {
                let blocks = away + world.rng.below(5) as u32;
                world.kill(node, 1 + blocks);
            }
        }
        world.run_rounds(14);
        world.assert_well();
    }
}

#[test]
fn who_lacks_selected_bytes_for_long_joins_beyond_them() {
    let mut world = World::new(1, &CREW);
    world.run_rounds(2);
    // The follower has no bytes of round 2, and nobody gives them.
    world.nodes[7].deaf = true;
    world.run_to(78);
    world.withhold(Round(2));
    world.nodes[7].deaf = false;
    world.run_rounds(5);
    assert_eq!(world.nodes[7].engine.as_ref().unwrap().phase(), "apply");
    assert_eq!(world.chosen(Round(4)).len(), 4, "nobody waits for it");
    world.run_rounds(9);
    world.assert_well();
}
