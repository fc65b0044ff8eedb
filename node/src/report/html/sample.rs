//! Summaries to try the page on: a lively swarm, and the odd ones.

use crate::observe::Usage;
use crate::report::usage::{SUPERVISOR, by_role};
use crate::report::{Baselines, Disagreement, NodeSummary, Reference, References, Summary, VoidRound};
use covey_proto::{Digest, Round, RunId, Uid};
use std::collections::BTreeMap;

/// Noise in −½ … ½ that is the same every time.
fn wobble(i: u32) -> f64 {
    f64::from(i.wrapping_mul(2_654_435_761) >> 16 & 255) / 255.0 - 0.5
}

/// What happens in a sample swarm, and when.
struct Story {
    rounds: u32,
    miners: u32,
    killed: u32,
    joined: u32,
    void: u32,
}

impl Story {
    fn noisy(&self) -> u32 {
        self.miners.saturating_sub(1)
    }

    fn present(&self, uid: u32, round: u32) -> bool {
        let away = uid == 1 && (self.killed..self.killed + 2).contains(&round);
        let early = uid == 2 && round < self.joined;
        !away && !early
    }

    fn offered(&self, round: u32) -> Vec<Uid> {
        (0..self.miners).filter(|uid| self.present(*uid, round)).filter_map(Uid::new).collect()
    }

    fn selected(&self, round: u32) -> Vec<Uid> {
        if round == self.void {
            return Vec::new();
        }
        let admitted = |uid: &Uid| uid.number() != self.noisy() || round < 2;
        self.offered(round).into_iter().filter(admitted).collect()
    }

    fn weights(&self, round: u32) -> BTreeMap<Uid, f64> {
        let raw = |uid: u32| {
            let present = if self.present(uid, round) { 1.0 + 0.3 * wobble(round / 3 * 7 + uid) } else { 0.55 };
            let noise = (1.0 - f64::from(round) / 5.0).max(0.02);
            if uid == self.noisy() { noise } else { present * (1.0 - (-f64::from(round + 1) / 3.0).exp()) }
        };
        let sum: f64 = (0..self.miners).map(raw).sum();
        (0..self.miners).filter_map(|uid| Some((Uid::new(uid)?, raw(uid) / sum))).collect()
    }
}

/// Three validators, a seeder, and miners of which the last sends noise; one is killed, one comes, one round is void.
pub(crate) fn swarm(rounds: u32, miners: u32) -> Summary {
    let lively = rounds > 2;
    let never = u32::MAX - 2;
    let at = |round: u32| if lively { round } else { never };
    let joined = if lively { rounds / 2 } else { 0 };
    let story = Story { rounds, miners, killed: at(rounds / 3), joined, void: at(rounds * 2 / 3) };
    let loss = |i: u32| 2.05 + 4.19 * (-f64::from(i) / 11.0).exp() + 0.05 * wobble(i);
    let took = |r: u32| 1.9 + 0.5 * wobble(r) + if lively && r == story.joined { 1.6 } else { 0.0 };
    let round_ends: Vec<f64> = (0..rounds).map(|r| 0.8 + (0..=r).map(took).sum::<f64>()).collect();
    let last = loss(rounds) + 0.03;
    let void = VoidRound { round: Round(story.void), reason: "the electorate's stake is too small".into() };
    let nodes = nodes(&story);
    let processes = nodes.iter().map(|node| (node.role.as_str(), node.usage));
    let usage = by_role(processes.chain([(SUPERVISOR, usage(SUPERVISOR))]), 1_247_616, rounds);
    Summary {
        rounds,
        seed: 7,
        run_id: RunId(Digest::of(b"sample")),
        preset: "demo".into(),
        data: "rust-docs".into(),
        parameters: 1_247_616,
        state_roots: (0..rounds).map(|r| Digest::of(&r.to_le_bytes())).collect(),
        roots_agree: true,
        disagreements: Vec::new(),
        void_rounds: lively.then_some(void).into_iter().collect(),
        selected: (0..rounds).map(|r| story.selected(r)).collect(),
        offered: (0..rounds).map(|r| story.offered(r)).collect(),
        heldout_loss: (0..=rounds).map(loss).collect(),
        heldout_sequences: 64,
        heldout_loss_final: last,
        heldout_sequences_final: 2048,
        bits_per_byte: last * 0.62,
        baselines: Baselines { unigram: 3.18, bigram: 1.97 },
        references: Some(references()),
        tokens: u64::from(rounds) * u64::from(miners) * 8192,
        weights: rounds.checked_sub(1).map(|r| story.weights(r)).unwrap_or_default(),
        weights_by_round: (0..rounds).map(|r| story.weights(r)).collect(),
        misbehaving: Uid::new(story.noisy())
            .filter(|_| miners > 0)
            .map(|uid| (uid, "noise".into()))
            .into_iter()
            .collect(),
        bytes: bytes(f64::from(rounds)),
        seconds: seconds(f64::from(rounds)),
        wall_seconds: round_ends.last().copied().unwrap_or(0.8) + 0.4,
        cores: 2,
        round_ends,
        nodes,
        usage,
        interrupted: false,
    }
}

fn references() -> References {
    let of = |name: &str, loss: f64| Reference { name: name.into(), loss, bits_per_byte: loss * 0.62 };
    let reached = vec![of("AdamW on all data", 1.99), of("one miner alone", 2.63)];
    References { command: "covey lab grid.toml".into(), reached }
}

fn bytes(scale: f64) -> BTreeMap<String, u64> {
    let kinds = [
        ("announcements received", 41e3),
        ("gossip received, duplicates included", 187e3),
        ("announcements pulled", 3e3),
        ("blobs received", 2.1e6),
        ("blobs sent", 2.1e6),
        ("TCP received", 1.6e6),
        ("TCP sent", 1.6e6),
    ];
    kinds.map(|(kind, bytes)| (kind.to_string(), (bytes * scale) as u64)).into()
}

fn seconds(scale: f64) -> BTreeMap<String, f64> {
    [("train", 2.62), ("score", 0.51), ("apply", 0.13), ("check", 0.042), ("compress", 0.081)]
        .map(|(phase, seconds)| (phase.to_string(), seconds * scale))
        .into()
}

fn usage(role: &str) -> Usage {
    let (memory_peak, disk_written) = match role {
        "miner" => (96_000_000, 310_000_000),
        "validator" => (71_000_000, 120_000_000),
        _ => (64_000_000, 0),
    };
    Usage { memory_peak: Some(memory_peak), disk_written: Some(disk_written) }
}

fn nodes(story: &Story) -> Vec<NodeSummary> {
    let share = f64::from(story.rounds) / f64::from(story.miners + 4);
    let node = |role: &str, i: u32, uid: Option<u32>| {
        let miner = role == "miner";
        let lively = miner && story.rounds > 2;
        NodeSummary {
            name: format!("{role}-{i}"),
            role: role.into(),
            uid: uid.and_then(Uid::new),
            rounds_contributed: if miner { story.rounds.saturating_sub(i) } else { 0 },
            killed: if lively && i == 1 { vec![Round(story.killed)] } else { Vec::new() },
            joined: (lively && i == 2).then_some(Round(story.joined)),
            tokens: if miner { u64::from(story.rounds) * 8192 } else { 0 },
            bytes: bytes(share),
            seconds: seconds(share),
            usage: usage(role),
        }
    };
    let miners = (0..story.miners).map(|i| node("miner", i, Some(i)));
    let validators = (0..3).map(|i| node("validator", i, Some(story.miners + i)));
    miners.chain(validators).chain([node("seeder", 0, None)]).collect()
}

/// Roots that differ, and a stop before the last round.
pub(crate) fn broken() -> Summary {
    let mut summary = swarm(48, 4);
    let differ = |round: u32, node: &str| Disagreement {
        round: Round(round),
        node: node.into(),
        root: Digest::of(node.as_bytes()),
    };
    summary.disagreements = vec![differ(31, "miner-1"), differ(32, "miner-1"), differ(32, "validator-2")];
    summary.roots_agree = false;
    summary.interrupted = true;
    summary
}

/// Stopped before anything happened.
pub(crate) fn nothing() -> Summary {
    let mut summary = swarm(0, 0);
    summary.heldout_loss.clear();
    summary.heldout_loss_final = f64::NAN;
    summary.bits_per_byte = f64::NAN;
    summary.interrupted = true;
    summary
}

/// A loss that stops being a number.
pub(crate) fn diverged() -> Summary {
    let mut summary = swarm(12, 4);
    for loss in summary.heldout_loss.iter_mut().skip(5) {
        *loss = f64::NAN;
    }
    summary.heldout_loss_final = f64::NAN;
    summary.bits_per_byte = f64::NAN;
    summary
}
