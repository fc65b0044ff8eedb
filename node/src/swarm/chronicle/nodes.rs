//! The nodes of a swarm over all their lives: what each said last, and what its lives add up to. Pure.

use crate::observe::{NodeStatus, RECEIVED, Usage};
use crate::supervise::Pace;
use crate::swarm::plan::{Node, Plan};
use covey_proto::{Round, Uid};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

/// All nodes of the plan, by name.
pub(super) struct SeenNodes(BTreeMap<Arc<str>, SeenNode>);

/// A node over all its lives.
pub(super) struct SeenNode {
    /// What it is for.
    pub plan: Node,
    /// What it said last in this life; none while it has none.
    pub status: Option<NodeStatus>,
    /// What its former lives did.
    before: Work,
    /// The rounds in which it was killed.
    pub killed: Vec<Round>,
    /// The round in which it came, if not at the start.
    pub joined: Option<Round>,
}

/// What lives of a node have done, together.
#[derive(Clone, Default)]
pub(super) struct Work {
    /// Tokens trained on.
    pub tokens: u64,
    /// Bytes moved, by kind.
    pub bytes: BTreeMap<String, u64>,
    /// Seconds of work, by phase.
    pub seconds: BTreeMap<String, f64>,
    /// What its processes have cost.
    pub usage: Usage,
    /// The uid it came to have.
    pub uid: Option<Uid>,
}

impl SeenNodes {
    /// Of this plan; nobody has said anything yet.
    pub(super) fn new(plan: &Plan) -> SeenNodes {
        let node = |(name, node): (&Arc<str>, &Node)| {
            let (plan, before) = (node.clone(), Work::default());
            (name.clone(), SeenNode { plan, status: None, before, killed: Vec::new(), joined: None })
        };
        SeenNodes(plan.nodes().map(node).collect())
    }

    /// A node runs, for the first time or again.
    pub(super) fn started(&mut self, name: &str) {
        if let Some(node) = self.0.get_mut(name) {
            node.status = Some(NodeStatus::default());
        }
    }

    /// A node has come a step further.
    pub(super) fn paced(&mut self, name: &str, pace: &Pace) {
        if let Some(status) = self.0.get_mut(name).and_then(|node| node.status.as_mut()) {
            (status.round, status.live) = (pace.round, pace.live);
            status.phase.clone_from(&pace.phase);
        }
    }

    /// A node says all of itself.
    pub(super) fn told(&mut self, name: &str, told: NodeStatus) {
        if let Some(status) = self.0.get_mut(name).and_then(|node| node.status.as_mut()) {
            *status = told;
        }
    }

    /// A node comes while the run goes on.
    pub(super) fn joined(&mut self, name: &str, round: Round) {
        if let Some(node) = self.0.get_mut(name) {
            node.joined = Some(round);
        }
    }

    /// A node was killed, or died, and comes again.
    pub(super) fn died(&mut self, name: &str, round: Round) {
        if let Some(node) = self.0.get_mut(name) {
            node.before = node.work();
            node.status = None;
            node.killed.push(round);
        }
    }

    /// A node stays away.
    pub(super) fn gone(&mut self, name: &str, why: String) {
        if let Some(node) = self.0.get_mut(name) {
            let status = node.status.get_or_insert_default();
            status.live = false;
            status.halted.get_or_insert(why);
        }
    }

    /// All, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &SeenNode)> {
        self.0.iter()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that have said something in this life.
    pub(super) fn present(&self) -> impl Iterator<Item = (&Arc<str>, &SeenNode, &NodeStatus)> {
        self.0.iter().filter_map(|(name, node)| Some((name, node, node.status.as_ref()?)))
    }

    /// Tokens that all have trained on.
    pub(super) fn tokens(&self) -> u64 {
        self.0.values().map(|node| node.work().tokens).sum()
    }

    /// Payload that all have received.
    pub(super) fn received(&self) -> u64 {
        let kinds = self.0.values().flat_map(|node| node.work().bytes);
        kinds.filter(|(kind, _)| RECEIVED.contains(&kind.as_str())).map(|(_, bytes)| bytes).sum()
    }
}

impl SeenNode {
    /// What all its lives have done, the present one included.
    pub(super) fn work(&self) -> Work {
        let Some(status) = &self.status else { return self.before.clone() };
        Work {
            tokens: self.before.tokens + status.tokens,
            bytes: sum_by_key([self.before.bytes.clone(), status.bytes.clone()]),
            seconds: sum_by_key([self.before.seconds.clone(), status.seconds.clone()]),
            usage: self.before.usage.and(status.usage),
            uid: status.uid.or(self.before.uid),
        }
    }
}

/// The sums of what stands under the same key.
pub(super) fn sum_by_key<K: Ord, V: AddAssign + Default>(
    maps: impl IntoIterator<Item = BTreeMap<K, V>>,
) -> BTreeMap<K, V> {
    let mut sum = BTreeMap::new();
    for (key, value) in maps.into_iter().flatten() {
        *sum.entry(key).or_default() += value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::plan::{Counts, Script};

    fn nodes() -> SeenNodes {
        let counts = Counts { miners: 2, validators: 1, both: 0 };
        SeenNodes::new(&Plan::of(9, counts, &Script::default()).unwrap())
    }

    fn status(tokens: u64, bytes: u64, peak: u64, written: u64) -> NodeStatus {
        NodeStatus {
            tokens,
            bytes: BTreeMap::from([("blobs received".into(), bytes), ("blobs sent".into(), 1000)]),
            usage: Usage { memory_peak: Some(peak), disk_written: Some(written) },
            ..NodeStatus::default()
        }
    }

    #[test]
    fn the_lives_of_a_node_add_up() {
        let mut nodes = nodes();
        nodes.started("miner-0");
        nodes.told("miner-0", status(10, 5, 700, 1));
        nodes.died("miner-0", Round(2));
        assert_eq!(nodes.tokens(), 10, "what it has done stays done");
        nodes.told("miner-0", status(99, 99, 99, 99));
        assert_eq!(nodes.tokens(), 10, "a word from the grave");
        nodes.started("miner-0");
        nodes.told("miner-0", status(3, 2, 600, 4));
        let (_, node) = nodes.iter().find(|(name, _)| ***name == *"miner-0").unwrap();
        let work = node.work();
        assert_eq!((work.tokens, nodes.received(), &node.killed[..]), (13, 7, &[Round(2)][..]));
        assert_eq!(work.usage, Usage { memory_peak: Some(700), disk_written: Some(5) });
    }

    #[test]
    fn who_stays_away_keeps_its_own_reason() {
        let mut nodes = nodes();
        nodes.started("miner-0");
        nodes.told("miner-0", NodeStatus { live: true, halted: Some("a fork".into()), ..NodeStatus::default() });
        for name in ["miner-0", "validator-0"] {
            nodes.gone(name, "halted".into());
        }
        let reasons: Vec<_> = nodes.present().map(|(_, _, status)| (status.live, status.halted.as_deref())).collect();
        assert_eq!(reasons, [(false, Some("a fork")), (false, Some("halted"))]);
        assert_eq!(nodes.count(), 4, "a seeder and three others");
    }
}
