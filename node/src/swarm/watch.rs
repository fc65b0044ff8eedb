//! Whoever watches a swarm: takes in every applied round, holds the roots against each other, evaluates each state on
//! held-out text, feeds the display, and sums up.

use super::display::{Display, Frame, NodeLine, RoundLine};
use super::plan::{Node, Options, PHASES, Plan};
use crate::chain::Ledger;
use crate::compute::Compute;
use crate::disk::Disk;
use crate::disk::folder::Folder;
use crate::evaluation::Evaluator;
use crate::observe::{NodeStatus, RECEIVED};
use crate::peer::Applied;
use crate::report::{Baselines, Disagreement, NodeSummary, Summary, VoidRound};
use crate::service::all_cores;
use crate::supervise::Pace;
use covey_proto::run::Run;
use covey_proto::{Digest, Round, Uid};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::Device;
use covey_trainer::data::baseline::baseline;
use covey_trainer::genesis::initial_state;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// How often the display is drawn when nothing happens.
const FRAME: Duration = Duration::from_millis(200);
/// Rounds whose evaluation may be waited for: a run has some hundreds.
const ROUNDS_MAX: usize = 1 << 16;
/// Held-out sequences of the last evaluation: some 260,000 tokens, seconds on one core.
const FINAL_SEQUENCES: u64 = 2048;

/// Takes in what a swarm does.
pub(super) struct Watcher {
    options: Options,
    folder: Folder,
    run: Arc<Run>,
    display: Display,
    frames: Interval,
    start: Instant,
    rounds: Vec<RoundSeen>,
    heldout: Heldout,
    weights: Vec<BTreeMap<Uid, f64>>,
    nodes: BTreeMap<Arc<str>, NodeSeen>,
    last: Option<String>,
    last_state: Arc<Vec<f32>>,
}

/// A round: what the first node to apply it reported, and every node's root.
struct RoundSeen {
    /// Every node's, as last reported.
    roots: BTreeMap<Arc<str>, Digest>,
    chosen: Vec<(Uid, Digest)>,
    offered: Vec<Uid>,
    void: Option<String>,
    at: Duration,
    told: bool,
}

/// A node over all its lives.
struct NodeSeen {
    plan: Node,
    /// What it said last in this life.
    status: Option<NodeStatus>,
    /// What its former lives did.
    before: Lived,
    killed: Vec<Round>,
    joined: Option<Round>,
}

/// What a node's lives add up to.
#[derive(Clone, Default)]
struct Lived {
    tokens: u64,
    bytes: BTreeMap<String, u64>,
    seconds: BTreeMap<String, f64>,
    uid: Option<Uid>,
}

/// Evaluations under way: one after the other, in a task of their own.
struct Heldout {
    states: mpsc::Sender<Arc<Vec<f32>>>,
    losses: mpsc::Receiver<f64>,
    asked: usize,
    found: Vec<f64>,
}

impl Heldout {
    fn new(evaluator: Evaluator, compute: Compute, sequences: u64) -> Heldout {
        let (states, mut wanted) = mpsc::channel::<Arc<Vec<f32>>>(ROUNDS_MAX);
        let (done, losses) = mpsc::channel(ROUNDS_MAX);
        tokio::spawn(async move {
            let mut evaluator = Some(evaluator);
            while let Some(state) = wanted.recv().await {
                let Some(mut mine) = evaluator.take() else { return };
                let ((back, loss), _) = compute
                    .run(move || {
                        let found = mine.loss(&mut as_le_bytes(&state), sequences, &mut |_| true);
                        let loss = found.map_or(f64::NAN, |found| found.loss);
                        (mine, loss)
                    })
                    .await;
                evaluator = Some(back);
                if done.send(loss).await.is_err() {
                    return;
                }
            }
        });
        Heldout { states, losses, asked: 0, found: Vec::new() }
    }

    fn ask(&mut self, state: Arc<Vec<f32>>) {
        // The channel has room for every round that nodes may be ahead.
        if self.states.try_send(state).is_ok() {
            self.asked += 1;
        }
    }
}

impl Watcher {
    /// Watches a swarm that is about to start.
    pub(super) fn new(options: &Options, folder: &Folder, run: &Arc<Run>, plan: &Plan, display: Display) -> Watcher {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let evaluator = Evaluator::new(Device::Cpu { threads: 1 }, options.data.clone(), &run.model);
        let node = |plan: &Node| NodeSeen {
            plan: plan.clone(),
            status: None,
            before: Lived::default(),
            killed: Vec::new(),
            joined: None,
        };
        Watcher {
            heldout: Heldout::new(evaluator, Compute::new(1), options.heldout_sequences),
            options: options.clone(),
            folder: folder.clone(),
            run: run.clone(),
            display,
            frames,
            start: Instant::now(),
            rounds: Vec::new(),
            weights: Vec::new(),
            nodes: plan.nodes().map(|(name, plan)| (name.clone(), node(plan))).collect(),
            last: None,
            last_state: Arc::new(initial_state(&run.model)),
        }
    }

    /// The first block is about to be made.
    pub(super) fn begin(&mut self) {
        self.start = Instant::now();
        self.heldout.ask(self.last_state.clone());
        self.draw();
    }

    /// A node runs, for the first time or again.
    pub(super) fn node_started(&mut self, name: &Arc<str>) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.status = Some(NodeStatus::default());
        }
    }

    /// A node has come a step further.
    pub(super) fn node_paced(&mut self, name: &Arc<str>, pace: &Pace) {
        if let Some(status) = self.nodes.get_mut(name).and_then(|node| node.status.as_mut()) {
            (status.round, status.live) = (pace.round, pace.live);
            status.phase.clone_from(&pace.phase);
        }
    }

    /// A node says all of itself.
    pub(super) fn node_told(&mut self, name: &Arc<str>, told: NodeStatus) {
        if let Some(status) = self.nodes.get_mut(name).and_then(|node| node.status.as_mut()) {
            *status = told;
        }
    }

    /// A node comes while the run goes on.
    pub(super) fn node_joined(&mut self, name: &Arc<str>, round: Round) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.joined = Some(round);
        }
        self.event(&format!("{name} joins in round {round}"));
    }

    /// A node was killed, and comes again.
    pub(super) fn node_died(&mut self, name: &Arc<str>, round: Round) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.before = node.lived();
            node.status = None;
            node.killed.push(round);
        }
    }

    /// A node stays away.
    pub(super) fn node_gone(&mut self, name: &Arc<str>, why: String) {
        if let Some(node) = self.nodes.get_mut(name) {
            let status = node.status.get_or_insert_default();
            status.live = false;
            status.halted.get_or_insert(why);
        }
    }

    /// Something that a person should see.
    pub(super) fn event(&mut self, text: &str) {
        self.last = Some(text.to_owned());
        self.display.event(text);
    }

    /// Takes in one more evaluation, or draws the next frame.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn watch(&mut self) {
        tokio::select! {
            Some(loss) = self.heldout.losses.recv() => {
                self.heldout.found.push(loss);
                self.tell_rounds();
            }
            _ = self.frames.tick() => self.draw(),
        }
    }

    /// Takes in what has been evaluated already.
    pub(super) fn catch_up(&mut self) {
        while let Ok(loss) = self.heldout.losses.try_recv() {
            self.heldout.found.push(loss);
        }
        self.tell_rounds();
    }

    /// A node has applied a round. The first one's state is evaluated.
    pub(super) async fn on_applied(&mut self, node: &Arc<str>, applied: Applied) {
        let Applied { round, root, chosen, offered, void, .. } = applied;
        let is_next = round.0 as usize == self.rounds.len();
        match self.rounds.get_mut(round.0 as usize) {
            Some(seen) => {
                seen.roots.insert(node.clone(), root);
                let most = seen.root();
                if root != most || seen.roots.values().any(|other| *other != most) {
                    let (root, most) = (root.short(), most.short());
                    self.event(&format!("ROOTS DISAGREE in round {round}: {node} has {root}, most have {most}"));
                }
            }
            None if is_next => {
                if let Some(reason) = &void {
                    self.event(&format!("round {round} is void: {reason}"));
                }
                let at = self.start.elapsed();
                let roots = BTreeMap::from([(node.clone(), root)]);
                self.rounds.push(RoundSeen { roots, chosen, offered, void, at, told: false });
                match self.saved(node, round).await {
                    Some(state) => self.last_state = Arc::new(state),
                    // Killed with its disk, at once: the last state stands for it in the plot.
                    None => tracing::error!(%node, %round, "the state that was applied is not in the node's folder"),
                }
                self.heldout.ask(self.last_state.clone());
            }
            None => tracing::warn!(%round, "a round was reported before the one before it"),
        }
    }

    /// The state after a round, from the folder of a node that has just applied it: it is there until two rounds later,
    /// and blocks come from who asks here.
    async fn saved(&self, node: &Arc<str>, round: Round) -> Option<Vec<f32>> {
        let (disk, elements) = (Disk::at(self.folder.node(node)), self.last_state.len());
        let read = move || disk.state(Some(round), elements);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(saved)) => saved.map(|saved| saved.parameters),
            Ok(Err(error)) => {
                tracing::error!(%error, "a state cannot be read");
                None
            }
            Err(error) => {
                tracing::error!(%error, "reading a state broke");
                None
            }
        }
    }

    /// Tells of each round once its loss is known.
    fn tell_rounds(&mut self) {
        let mut before = Duration::ZERO;
        let (tokens_per_second, bytes) = (self.tokens_per_second(), self.bytes());
        for (number, seen) in self.rounds.iter_mut().enumerate() {
            let took = seen.at.saturating_sub(before);
            before = seen.at;
            if seen.told || self.heldout.found.len() <= number + 1 {
                continue;
            }
            seen.told = true;
            self.display.round(&RoundLine {
                round: number as u32,
                rounds: self.options.rounds,
                loss: self.heldout.found.get(number + 1).copied(),
                tokens_per_second,
                bytes,
                selected: seen.chosen.len(),
                offered: seen.offered.len(),
                root: seen.root().short(),
                took,
            });
        }
    }

    /// Notes the weights as they stand on chain now, for the rounds applied since the last look.
    pub(super) async fn note_weights(&mut self, ledger: &impl Ledger) {
        if self.weights.len() < self.rounds.len() {
            let weights = mean_weights(ledger).await;
            self.weights.resize(self.rounds.len(), weights);
        }
    }

    /// Notes the last round's weights once more: they are on chain a block after its end.
    pub(super) async fn note_last_weights(&mut self, ledger: &impl Ledger) {
        self.weights.truncate(self.rounds.len().saturating_sub(1));
        self.note_weights(ledger).await;
    }

    // ---- the display -------------------------------------------------------------------------------------------------

    fn live(&self) -> impl Iterator<Item = (&Arc<str>, &NodeSeen, &NodeStatus)> {
        self.nodes.iter().filter_map(|(name, node)| Some((name, node, node.status.as_ref()?)))
    }

    fn tokens(&self) -> u64 {
        self.nodes.values().map(|node| node.lived().tokens).sum()
    }

    /// All miners' tokens since the start, by the time since.
    fn tokens_per_second(&self) -> f64 {
        self.tokens() as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    fn bytes(&self) -> u64 {
        self.nodes
            .values()
            .flat_map(|node| node.lived().bytes)
            .filter(|(kind, _)| RECEIVED.contains(&kind.as_str()))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    fn draw(&mut self) {
        let node = |(name, node, status): (&Arc<str>, &NodeSeen, &NodeStatus)| NodeLine {
            name: name.to_string(),
            role: node.plan.command().into(),
            phase: PHASES.into_iter().find(|phase| *phase == status.phase).unwrap_or("start"),
            round: status.round.0,
            loss: status.loss,
            live: status.live,
            note: status.halted.clone().or_else(|| node.plan.misbehaviour.map(super::named)),
        };
        let frame = Frame {
            round: self.rounds.len() as u32,
            rounds: self.options.rounds,
            elapsed: self.start.elapsed(),
            heldout_loss: self.heldout.found.last().copied(),
            heldout_by_round: self.heldout.found.clone(),
            tokens: self.tokens(),
            tokens_per_second: self.tokens_per_second(),
            bytes: self.bytes(),
            peers: self.live().map(|(_, _, status)| status.peers).max().unwrap_or(0),
            nodes: self.live().map(node).collect(),
            last: self.last.clone(),
        };
        self.display.frame(&frame);
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// Waits for the evaluations and sums up.
    pub(super) async fn finish(mut self, interrupted: bool) -> Summary {
        let wall_seconds = self.start.elapsed().as_secs_f64();
        self.catch_up();
        while self.heldout.found.len() < self.heldout.asked {
            match self.heldout.losses.recv().await {
                Some(loss) => self.heldout.found.push(loss),
                None => break,
            }
        }
        self.tell_rounds();
        self.display.finish();
        let disagreements = self.disagreements();
        let (loss, baselines) = self.last_evaluation().await;
        let data = &self.options.data;
        let sum = |part: fn(&Lived) -> &BTreeMap<String, f64>| {
            add(self.nodes.values().map(|node| part(&node.lived()).clone()))
        };
        Summary {
            rounds: self.rounds.len() as u32,
            seed: self.options.seed,
            run_id: self.run.id(),
            preset: self.options.template.name().to_owned(),
            data: data.manifest().name.clone(),
            parameters: self.last_state.len() as u64,
            state_roots: self.rounds.iter().map(RoundSeen::root).collect(),
            roots_agree: disagreements.is_empty(),
            disagreements,
            void_rounds: self.void_rounds(),
            selected: self.rounds.iter().map(|seen| seen.chosen.iter().map(|(uid, _)| *uid).collect()).collect(),
            offered: self.rounds.iter().map(|seen| seen.offered.clone()).collect(),
            heldout_loss: self.heldout.found.clone(),
            heldout_sequences: self.options.heldout_sequences.min(data.heldout_samples(self.run.model.sequence)),
            heldout_loss_final: loss,
            bits_per_byte: data.bits_per_byte(loss),
            baselines,
            tokens: self.tokens(),
            weights: self.weights.last().cloned().unwrap_or_default(),
            weights_by_round: self.weights.clone(),
            misbehaving: self.misbehaving(),
            bytes: add(self.nodes.values().map(|node| node.lived().bytes)),
            seconds: sum(|lived| &lived.seconds),
            wall_seconds,
            cores: all_cores().min(self.options.cores * self.nodes.len()),
            round_ends: self.rounds.iter().map(|seen| seen.at.as_secs_f64()).collect(),
            nodes: self.nodes.iter().map(|(name, node)| self.node_summary(name, node)).collect(),
            interrupted,
        }
    }

    async fn last_evaluation(&self) -> (f64, Baselines) {
        let (data, model) = (self.options.data.clone(), self.run.model.clone());
        let state = self.last_state.clone();
        let work = move || {
            let counts = baseline(&data);
            let baselines = Baselines { unigram: counts.unigram_bits_per_byte, bigram: counts.bigram_bits_per_byte };
            let mut evaluator = Evaluator::new(Device::Cpu { threads: all_cores() }, data, &model);
            let found = evaluator.loss(&mut as_le_bytes(&state), FINAL_SEQUENCES, &mut |_| true);
            let loss = found.map_or(f64::NAN, |found| found.loss);
            (loss, baselines)
        };
        tokio::task::spawn_blocking(work).await.expect("evaluating does not panic")
    }

    /// Who had another root than most, and when.
    fn disagreements(&self) -> Vec<Disagreement> {
        let mut found = Vec::new();
        for (number, seen) in self.rounds.iter().enumerate() {
            let (round, most) = (Round(number as u32), seen.root());
            let others = seen.roots.iter().filter(|(_, root)| **root != most);
            found.extend(others.map(|(node, root)| Disagreement { round, node: node.to_string(), root: *root }));
        }
        found
    }

    fn void_rounds(&self) -> Vec<VoidRound> {
        let void = |(number, seen): (usize, &RoundSeen)| {
            Some(VoidRound { round: Round(number as u32), reason: seen.void.clone()? })
        };
        self.rounds.iter().enumerate().filter_map(void).collect()
    }

    fn misbehaving(&self) -> BTreeMap<Uid, String> {
        let cheat = |node: &NodeSeen| Some((node.plan.uid?, super::named(node.plan.misbehaviour?)));
        self.nodes.values().filter_map(cheat).collect()
    }

    fn node_summary(&self, name: &Arc<str>, node: &NodeSeen) -> NodeSummary {
        let lived = node.lived();
        let uid = node.plan.uid.or(lived.uid);
        let selected = |seen: &&RoundSeen| seen.chosen.iter().any(|(chosen, _)| Some(*chosen) == uid);
        NodeSummary {
            name: name.to_string(),
            role: node.plan.command().into(),
            uid,
            rounds_contributed: self.rounds.iter().filter(selected).count() as u32,
            killed: node.killed.clone(),
            joined: node.joined,
            tokens: lived.tokens,
            bytes: lived.bytes,
            seconds: lived.seconds,
        }
    }
}

impl RoundSeen {
    /// The root that most nodes have.
    fn root(&self) -> Digest {
        let mut count: BTreeMap<Digest, usize> = BTreeMap::new();
        self.roots.values().for_each(|root| *count.entry(*root).or_default() += 1);
        count.into_iter().max_by_key(|(_, nodes)| *nodes).map_or(Digest::ZERO, |(root, _)| root)
    }
}

impl NodeSeen {
    /// All its lives, with the present one.
    fn lived(&self) -> Lived {
        let Some(status) = &self.status else { return self.before.clone() };
        Lived {
            tokens: self.before.tokens + status.tokens,
            bytes: add([self.before.bytes.clone(), status.bytes.clone()]),
            seconds: add([self.before.seconds.clone(), status.seconds.clone()]),
            uid: status.uid.or(self.before.uid),
        }
    }
}

fn add<K: Ord, V: std::ops::AddAssign + Default>(maps: impl IntoIterator<Item = BTreeMap<K, V>>) -> BTreeMap<K, V> {
    let mut sum = BTreeMap::new();
    for (key, value) in maps.into_iter().flatten() {
        *sum.entry(key).or_default() += value;
    }
    sum
}

/// The validators' weights, each set normalised, weighed by stake.
async fn mean_weights(ledger: &impl Ledger) -> BTreeMap<Uid, f64> {
    let finalised = ledger.heads().borrow().finalised;
    let (Ok(weights), Ok(view)) = (ledger.weights().await, ledger.view(finalised).await) else {
        return BTreeMap::new();
    };
    let mut mean: BTreeMap<Uid, f64> = BTreeMap::new();
    let mut total = 0.0;
    for (hotkey, shares) in &weights {
        let sum: f64 = shares.iter().map(|(_, share)| f64::from(*share)).sum();
        let Some(member) = view.member(hotkey).filter(|_| sum > 0.0) else { continue };
        total += member.stake as f64;
        for (uid, share) in shares {
            *mean.entry(*uid).or_default() += member.stake as f64 * f64::from(*share) / sum;
        }
    }
    mean.values_mut().for_each(|share| *share /= total);
    mean
}
