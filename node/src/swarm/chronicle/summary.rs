//! What a swarm has measured of itself, added up: the end of its chronicle.

use super::nodes::{SeenNode, SeenNodes, Work, sum_by_key};
use super::{Chronicle, work_line};
use crate::evaluation::HeldoutLoss;
use crate::observe::Usage;
use crate::report::usage::{SUPERVISOR, by_role};
use crate::report::{Baselines, NodeSummary, Summary};
use crate::service::all_cores;
use crate::swarm::display::Display;
use covey_proto::Uid;
use covey_trainer::data::Dataset;
use covey_trainer::data::baseline::baseline;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Evaluates what is left, and sums up what was measured in `wall` time.
pub(super) async fn finish(
    chronicle: Chronicle,
    wall: Duration,
    interrupted: bool,
    enough: impl Future<Output = ()>,
) -> Summary {
    let Chronicle { options, run, rounds, nodes, losses, weights, screen, .. } = chronicle;
    let display = screen.display;
    let (data, model) = (&options.data, &run.model);
    let counting = tokio::task::spawn_blocking({
        let data = data.clone();
        move || baselines(&data)
    });
    let (heldout_loss, last) = losses.finish(|progress| display.work(&work_line(progress)), enough).await;
    let baselines = counting.await.expect("counting does not panic");
    say_last(&display, last);
    let parameters = run.layout().elements() as u64;
    let count = rounds.count() as u32;
    let summaries: Vec<NodeSummary> = nodes
        .iter()
        .map(|(name, node)| {
            let work = node.work();
            let uid = node.plan.uid.or(work.uid);
            node_summary(name, node, work, uid, rounds.contributed(uid))
        })
        .collect();
    let processes = summaries.iter().map(|node| (node.role.as_str(), node.usage));
    let usage = by_role(processes.chain([(SUPERVISOR, Usage::of_this_process_alone())]), parameters, count);
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
        heldout_loss,
        heldout_sequences: options.heldout_sequences.min(data.heldout_samples(model.sequence)),
        heldout_loss_final: last.loss,
        heldout_sequences_final: last.sequences,
        bits_per_byte: data.bits_per_byte(last.loss),
        baselines,
        tokens: nodes.tokens(),
        weights: weights.last().cloned().unwrap_or_default(),
        weights_by_round: weights,
        misbehaving: misbehaving(&nodes),
        bytes: sum_by_key(nodes.iter().map(|(_, node)| node.work().bytes)),
        seconds: sum_by_key(nodes.iter().map(|(_, node)| node.work().seconds)),
        wall_seconds: wall.as_secs_f64(),
        cores: all_cores().min(options.cores * nodes.count()),
        round_ends: rounds.iter().map(|seen| seen.at.as_secs_f64()).collect(),
        nodes: summaries,
        usage,
        interrupted,
    }
}

/// What counting tokens and pairs of tokens reaches.
fn baselines(data: &Dataset) -> Baselines {
    let counts = baseline(data);
    Baselines { unigram: counts.unigram_bits_per_byte, bigram: counts.bigram_bits_per_byte }
}

fn say_last(display: &Display, last: HeldoutLoss) {
    display.finish();
    tracing::info!(loss = last.loss, sequences = last.sequences, "the last state was evaluated");
}

fn misbehaving(nodes: &SeenNodes) -> BTreeMap<Uid, String> {
    let cheat = |(_, node): (_, &SeenNode)| Some((node.plan.uid?, node.plan.misbehaviour?.to_string()));
    nodes.iter().filter_map(cheat).collect()
}

fn node_summary(
    name: &Arc<str>,
    node: &SeenNode,
    work: Work,
    uid: Option<Uid>,
    rounds_contributed: u32,
) -> NodeSummary {
    NodeSummary {
        name: name.to_string(),
        role: node.plan.command().into(),
        uid,
        rounds_contributed,
        killed: node.killed.clone(),
        joined: node.joined,
        tokens: work.tokens,
        bytes: work.bytes,
        seconds: work.seconds,
        usage: work.usage,
    }
}
