//! The chronicle of a swarm: takes in what its nodes say, holds their roots against each other, has each state evaluated,
//! feeds the display, and sums up at the end. It changes nothing in the swarm; what it asks for is to wait, if too many
//! states are still to be evaluated.
//!
//! `rounds` and `nodes` remember, `losses` evaluates on a thread of its own, `weights` reads the chain, `summary` adds up.

mod losses;
mod nodes;
mod rounds;
mod summary;
mod weights;

use super::display::{Display, Frame, NodeLine, RoundLine, WorkLine};
use super::plan::{Options, PHASES, Plan};
use crate::chain::Ledger;
use crate::disk::Disk;
use crate::disk::folder::Folder;
use crate::observe::{NodeStatus, Usage};
use crate::peer::Applied;
use crate::report::Summary;
use crate::supervise::Pace;
use covey_proto::run::Run;
use covey_proto::{Round, Uid};
use losses::{Losses, Progress, RoundState};
use nodes::{SeenNode, SeenNodes};
use rounds::{RoundNews, Rounds};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use summary::{Measured, baselines, sum_up};
use tokio::time::{Interval, MissedTickBehavior};
use weights::weights_now;

/// How often the display is drawn when nothing happens.
const FRAME: Duration = Duration::from_millis(200);

/// Takes in what a swarm does.
pub(super) struct Chronicle {
    options: Options,
    folder: Folder,
    run: Arc<Run>,
    start: Instant,
    rounds: Rounds,
    nodes: SeenNodes,
    losses: Losses,
    /// After each round, as seen on chain.
    weights: Vec<BTreeMap<Uid, f64>>,
    screen: Screen,
}

/// What the display needs besides.
struct Screen {
    display: Display,
    frames: Interval,
    /// The last event.
    last: Option<String>,
    /// Rounds that have been told of.
    told: usize,
}

impl Chronicle {
    /// Of a swarm that is about to start.
    pub(super) fn new(options: &Options, folder: &Folder, run: &Arc<Run>, plan: &Plan, display: Display) -> Chronicle {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Chronicle {
            losses: Losses::new(options, &run.model),
            options: options.clone(),
            folder: folder.clone(),
            run: run.clone(),
            start: Instant::now(),
            rounds: Rounds::default(),
            nodes: SeenNodes::new(plan),
            weights: Vec::new(),
            screen: Screen { display, frames, last: None, told: 0 },
        }
    }

    /// The first block is about to be made: all nodes have written the state before round 0.
    pub(super) fn begin(&mut self, nodes: &[Arc<str>]) {
        self.start = Instant::now();
        self.losses.ask(nodes.iter().find_map(|node| self.saved(node, None)));
        self.draw();
    }

    /// The run.
    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// A node runs, for the first time or again.
    pub(super) fn node_started(&mut self, name: &str) {
        self.nodes.started(name);
    }

    /// A node has come a step further.
    pub(super) fn node_paced(&mut self, name: &str, pace: &Pace) {
        self.nodes.paced(name, pace);
    }

    /// A node says all of itself.
    pub(super) fn node_told(&mut self, name: &str, told: NodeStatus) {
        self.nodes.told(name, told);
    }

    /// A node comes while the run goes on.
    pub(super) fn node_joined(&mut self, name: &str, round: Round) {
        self.nodes.joined(name, round);
        self.event(&format!("{name} joins in round {round}"));
    }

    /// A node was killed, and comes again.
    pub(super) fn node_died(&mut self, name: &str, round: Round) {
        self.nodes.died(name, round);
    }

    /// A node stays away.
    pub(super) fn node_gone(&mut self, name: &str, why: String) {
        self.nodes.gone(name, why);
    }

    /// Something that a person should see.
    pub(super) fn event(&mut self, text: &str) {
        self.screen.last = Some(text.to_owned());
        self.screen.display.event(text);
    }

    /// Whether the swarm should make no block: too many states wait for their evaluation.
    pub(super) fn is_behind(&self) -> bool {
        self.losses.is_full()
    }

    /// Takes in one more evaluation, or draws the next frame.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn watch(&mut self) {
        tokio::select! {
            () = self.losses.next() => self.tell_rounds(),
            _ = self.screen.frames.tick() => self.draw(),
        }
    }

    /// Takes in what has been evaluated already.
    pub(super) fn catch_up(&mut self) {
        self.losses.catch_up();
        self.tell_rounds();
    }

    /// A node has applied a round. The first one's state is evaluated.
    pub(super) fn on_applied(&mut self, node: &Arc<str>, applied: Applied) {
        let (round, void) = (applied.round, applied.void.clone());
        match self.rounds.applied(node, applied, self.start.elapsed()) {
            RoundNews::Same => {}
            RoundNews::New => {
                if let Some(reason) = void {
                    self.event(&format!("round {round} is void: {reason}"));
                }
                let state = self.saved(node, Some(round));
                if state.is_none() {
                    // Killed with its disk, at once: the last state stands for it in the plot.
                    tracing::error!(%node, %round, "the state that was applied is not in the node's folder");
                }
                self.losses.ask(state);
            }
            RoundNews::Disagreement { root, most } => {
                let (root, most) = (root.short(), most.short());
                self.event(&format!("ROOTS DISAGREE in round {round}: {node} has {root}, most have {most}"));
            }
            RoundNews::Early => tracing::warn!(%round, "a round was reported before the one before it"),
        }
    }

    /// The state after a round, opened in the folder of a node that has just applied it: it is there until two rounds
    /// later, and blocks come from who asks here.
    fn saved(&self, node: &Arc<str>, round: Option<Round>) -> Option<RoundState> {
        let disk = Disk::at(self.folder.node(node));
        let open = || {
            let opened = disk.open_state(round, self.run.layout().elements());
            opened.unwrap_or_else(|error| {
                tracing::error!(%error, "a state cannot be opened");
                None
            })
        };
        Some(RoundState { now: open()?, at_the_end: open()? })
    }

    /// Notes the weights as they stand on chain now, for the rounds applied since the last look.
    pub(super) async fn note_weights(&mut self, ledger: &impl Ledger) {
        if self.weights.len() < self.rounds.count() {
            let weights = weights_now(ledger).await;
            self.weights.resize(self.rounds.count(), weights);
        }
    }

    /// Notes the last round's weights once more: they are on chain a block after its end.
    pub(super) async fn note_last_weights(&mut self, ledger: &impl Ledger) {
        self.weights.truncate(self.rounds.count().saturating_sub(1));
        self.note_weights(ledger).await;
    }

    /// Evaluates what is left and sums up: in a bounded time, or until `enough`.
    pub(super) async fn finish(mut self, interrupted: bool, enough: impl Future<Output = ()>) -> Summary {
        let wall = self.start.elapsed();
        self.catch_up();
        let Chronicle { options, run, rounds, nodes, losses, weights, screen, .. } = self;
        let data = options.data_of(rounds.last()).clone();
        let counting = tokio::task::spawn_blocking(move || baselines(&data));
        tracing::info!("the last state is evaluated");
        let (losses, last) = losses.finish(|progress| screen.display.work(&work_line(progress)), enough).await;
        tracing::info!(loss = last.loss, sequences = last.sequences, "the last state was evaluated");
        let baselines = counting.await.expect("counting does not panic");
        screen.display.finish();
        let supervisor = Usage::of_this_process_alone();
        let (options, run, rounds, nodes) = (&options, &*run, &rounds, &nodes);
        sum_up(Measured {
            options,
            run,
            rounds,
            nodes,
            weights,
            losses,
            last,
            baselines,
            wall,
            interrupted,
            supervisor,
        })
    }

    // ---- the display -------------------------------------------------------------------------------------------------

    /// All miners' tokens since the start, by the time since.
    fn tokens_per_second(&self) -> f64 {
        self.nodes.tokens() as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Tells of each round once its loss is known.
    fn tell_rounds(&mut self) {
        let known = self.losses.known();
        // The first loss is that of the state before round 0.
        while let Some(loss) = known.get(self.screen.told + 1)
            && let Some((seen, took)) = self.rounds.with_time(self.screen.told)
        {
            self.screen.display.round(&RoundLine {
                round: self.screen.told as u32,
                rounds: self.options.rounds,
                loss: Some(*loss),
                tokens_per_second: self.tokens_per_second(),
                bytes: self.nodes.received(),
                selected: seen.chosen.len(),
                offered: seen.offered.len(),
                root: seen.root().short(),
                took,
            });
            self.screen.told += 1;
        }
    }

    fn draw(&mut self) {
        let node = |(name, node, status): (&Arc<str>, &SeenNode, &NodeStatus)| NodeLine {
            name: name.to_string(),
            role: node.plan.command().into(),
            phase: PHASES.into_iter().find(|phase| *phase == status.phase).unwrap_or("start"),
            round: status.round.0,
            loss: status.loss,
            live: status.live,
            note: status.halted.clone().or_else(|| node.plan.misbehaviour.map(|kind| kind.to_string())),
        };
        let known = self.losses.known();
        let frame = Frame {
            round: self.rounds.count() as u32,
            rounds: self.options.rounds,
            elapsed: self.start.elapsed(),
            heldout_loss: known.last().copied(),
            heldout_by_round: known,
            tokens: self.nodes.tokens(),
            tokens_per_second: self.tokens_per_second(),
            bytes: self.nodes.received(),
            peers: self.nodes.present().map(|(_, _, status)| status.peers).max().unwrap_or(0),
            nodes: self.nodes.present().map(node).collect(),
            last: self.screen.last.clone(),
        };
        self.screen.display.frame(&frame);
    }
}

/// How far the evaluations at the end are, for the display.
fn work_line(progress: Progress) -> WorkLine {
    let Progress { is_last, done, of, elapsed, at_most } = progress;
    let (what, noun) = match is_last {
        true => ("held-out loss of the last state", "sequence"),
        false => ("held-out losses of the last rounds", "round"),
    };
    WorkLine { what: what.into(), done, of, noun, elapsed, at_most }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::plan::{Counts, Script};
    use crate::testing::{made_up_text, tiny_run};
    use covey_proto::Digest;
    use covey_round::engine::Tip;
    use covey_trainer::genesis::initial_state;
    use tempfile::TempDir;

    const COUNTS: Counts = Counts { miners: 1, validators: 1, both: 0 };

    /// The chronicle of a swarm of two rounds, a miner and a validator, and the folders of data and swarm.
    fn chronicle() -> (Chronicle, [TempDir; 2]) {
        let (data_folder, data) = made_up_text(5);
        let run = Arc::new(tiny_run(data.digest()));
        let options = Options {
            template: crate::preset::Template::load("tiny").unwrap(),
            data: Arc::new(data),
            phases: Vec::new(),
            rounds: 2,
            counts: COUNTS,
            seed: 5,
            repeatable: true,
            script: Script::default(),
            cores: 1,
            hidden_weights: false,
            program: "covey".into(),
            patience: Duration::ZERO,
            heldout_sequences: 8,
        };
        let plan = Plan::of(2, COUNTS, &Script::default()).unwrap();
        let swarm_folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(swarm_folder.path());
        (Chronicle::new(&options, &folder, &run, &plan, Display::silent()), [data_folder, swarm_folder])
    }

    fn applied(round: u32, root: &str) -> Applied {
        let root = Digest::of(root.as_bytes());
        let (chosen, offered) = (vec![(Uid::from(0), Digest::ZERO)], vec![Uid::from(0)]);
        Applied { round: Round(round), head: Digest::ZERO, root, chosen, offered, void: None }
    }

    #[tokio::test]
    async fn what_nodes_say_becomes_a_summary() {
        let (mut chronicle, folders) = chronicle();
        let [seeder, miner, validator]: [Arc<str>; 3] = ["seeder-0", "miner-0", "validator-0"].map(Into::into);
        let disk = Disk::open(&chronicle.folder.node(&miner)).unwrap();
        let state = initial_state(&chronicle.run.model).unwrap();
        for round in [None, Some(Round(0))] {
            disk.write_state(&Tip { round, head: Digest::ZERO }, Digest::ZERO, &state).unwrap();
        }
        // The seeder has no folder: the next one's state is taken.
        chronicle.begin(&[seeder, miner.clone()]);
        chronicle.node_started(&miner);
        let usage = Usage { memory_peak: Some(700_000), disk_written: Some(64) };
        chronicle.node_told(&miner, NodeStatus { tokens: 30, usage, ..NodeStatus::default() });
        for (node, round, root) in [(&miner, 0, "a"), (&validator, 0, "a"), (&validator, 1, "b"), (&miner, 1, "c")] {
            chronicle.on_applied(node, applied(round, root));
        }
        assert!(!chronicle.is_behind());
        let summary = chronicle.finish(false, std::future::pending()).await;
        assert_eq!((summary.rounds, summary.tokens, summary.heldout_loss.len()), (2, 30, 3));
        let [before, first, second] = summary.heldout_loss[..] else { panic!("three losses") };
        assert!(before.is_finite() && before == first, "the same state: {before}, {first}");
        assert_eq!(first, second, "the validator's state of round 1 is nowhere: the one before stands for it");
        assert!(summary.heldout_sequences_final > 8 && summary.heldout_loss_final.is_finite());
        assert_eq!((summary.roots_agree, summary.disagreements.len()), (false, 1));
        assert_eq!(summary.selected, [[Uid::from(0)], [Uid::from(0)]]);
        let costs = |role: &str| summary.usage.iter().find(|usage| usage.role == role).unwrap().clone();
        assert_eq!((costs("miner").memory_peak, costs("miner").disk_written_a_round), (Some(700_000), Some(32)));
        assert_eq!(costs("supervisor").nodes, 1);
        drop(folders);
    }
}
