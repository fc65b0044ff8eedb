//! What a swarm has measured of itself, added up: the end of its chronicle. Measures nothing.

use super::nodes::{SeenNode, SeenNodes, sum_by_key};
use super::rounds::Rounds;
use crate::evaluation::HeldoutLoss;
use crate::observe::Usage;
use crate::report::usage::{SUPERVISOR, by_role};
use crate::report::{Baselines, NodeSummary, Summary};
use crate::service::all_cores;
use crate::swarm::plan::Options;
use crate::swarm::references::references;
use covey_proto::Uid;
use covey_proto::run::Run;
use covey_trainer::data::Dataset;
use covey_trainer::data::baseline::baseline;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a swarm has measured of itself.
pub(super) struct Measured<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The run.
    pub run: &'a Run,
    /// Its rounds.
    pub rounds: &'a Rounds,
    /// Its nodes.
    pub nodes: &'a SeenNodes,
    /// After each round, as seen on chain.
    pub weights: Vec<BTreeMap<Uid, f64>>,
    /// Before round 0 and after each round.
    pub losses: Vec<f64>,
    /// Of the last state, on more text.
    pub last: HeldoutLoss,
    /// What counting reaches.
    pub baselines: Baselines,
    /// From the first block to the last round.
    pub wall: Duration,
    /// Whether it ended before its last round.
    pub interrupted: bool,
    /// What the supervisor itself has cost.
    pub supervisor: Usage,
}

/// All of it, for the report.
pub(super) fn sum_up(measured: Measured<'_>) -> Summary {
    let Measured { options, run, rounds, nodes, weights, last, .. } = measured;
    let (data, parameters, count) =
        (options.data_of(rounds.last()), run.layout().elements() as u64, rounds.count() as u32);
    let summaries: Vec<NodeSummary> = nodes.iter().map(|(name, node)| node_summary(name, node, rounds)).collect();
    let processes = summaries.iter().map(|node| (node.role.as_str(), node.usage));
    let usage = by_role(processes.chain([(SUPERVISOR, measured.supervisor)]), parameters, count);
    let disagreements = rounds.disagreements();
    Summary {
        rounds: count,
        seed: options.seed,
        run_id: run.id(),
        preset: options.template.name().to_owned(),
        data: data.manifest().name.clone(),
        parameters,
        state_roots: rounds.iter().map(|seen| seen.root()).collect(),
        roots_agree: disagreements.is_empty(),
        disagreements,
        void_rounds: rounds.void(),
        selected: rounds.iter().map(|seen| seen.chosen.iter().map(|(uid, _)| *uid).collect()).collect(),
        offered: rounds.iter().map(|seen| seen.offered.clone()).collect(),
        heldout_loss: measured.losses,
        heldout_sequences: options.heldout_sequences.min(data.heldout_samples(run.model.sequence)),
        heldout_loss_final: last.loss,
        heldout_sequences_final: last.sequences,
        bits_per_byte: data.bits_per_byte(last.loss),
        baselines: measured.baselines,
        references: if count == options.rounds {
            references(options, run, |loss| data.bits_per_byte(loss))
        } else {
            None
        },
        tokens: nodes.tokens(),
        weights: weights.last().cloned().unwrap_or_default(),
        weights_by_round: weights,
        misbehaving: misbehaving(nodes),
        bytes: sum_by_key(nodes.iter().map(|(_, node)| node.work().bytes)),
        seconds: sum_by_key(nodes.iter().map(|(_, node)| node.work().seconds)),
        wall_seconds: measured.wall.as_secs_f64(),
        cores: all_cores().min(options.cores * nodes.count()),
        round_ends: rounds.iter().map(|seen| seen.at.as_secs_f64()).collect(),
        nodes: summaries,
        usage,
        interrupted: measured.interrupted,
    }
}

/// What counting tokens and pairs of tokens reaches.
pub(super) fn baselines(data: &Dataset) -> Baselines {
    let counts = baseline(data);
    Baselines { unigram: counts.unigram_bits_per_byte, bigram: counts.bigram_bits_per_byte }
}

fn misbehaving(nodes: &SeenNodes) -> BTreeMap<Uid, String> {
    let cheat = |(_, node): (_, &SeenNode)| Some((node.plan.uid?, node.plan.misbehaviour?.to_string()));
    nodes.iter().filter_map(cheat).collect()
}

fn node_summary(name: &Arc<str>, node: &SeenNode, rounds: &Rounds) -> NodeSummary {
    let work = node.work();
    let uid = node.plan.uid.or(work.uid);
    NodeSummary {
        name: name.to_string(),
        role: node.plan.command().into(),
        uid,
        rounds_contributed: rounds.contributed(uid),
        killed: node.killed.clone(),
        joined: node.joined,
        tokens: work.tokens,
        bytes: work.bytes,
        seconds: work.seconds,
        usage: work.usage,
    }
}
