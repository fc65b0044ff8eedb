//! How far each node of the swarm is that was started, by what it has said: whether all are through, which round it is,
//! who is left. Pure: it is told what processes say, and starts none.

use super::pacer::Part;
use crate::supervise::Pace;
use covey_proto::Round;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The nodes that were started, and have not been killed.
#[derive(Default)]
pub(super) struct Roster {
    nodes: BTreeMap<Arc<str>, Entry>,
    /// The newest round that any live node has been in.
    reached: Round,
}

/// One of them.
struct Entry {
    progress: Progress,
    /// Where others can dial it, while it runs.
    addresses: Vec<String>,
}

/// How far a node is.
enum Progress {
    /// It has said nothing yet in this life, or waits for its next.
    Starting,
    /// It runs.
    Running(Pace),
    /// It stays away, and why.
    Gone(String),
}

impl Roster {
    /// A node is being started, for the first time or after it was killed.
    pub(super) fn starts(&mut self, name: &Arc<str>) {
        self.nodes.insert(name.clone(), Entry { progress: Progress::Starting, addresses: Vec::new() });
    }

    /// A node runs, and can be dialled at these addresses.
    pub(super) fn runs(&mut self, name: &str, addresses: Vec<String>) {
        if let Some(node) = self.nodes.get_mut(name) {
            *node = Entry { progress: Progress::Running(Pace::default()), addresses };
        }
    }

    /// A node says how far it is.
    pub(super) fn paced(&mut self, name: &str, pace: Pace) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.progress = Progress::Running(pace);
        }
    }

    /// A node's process has ended: it stays away for this reason, or is started again if there is none.
    pub(super) fn ended(&mut self, name: &str, why_gone: Option<String>) {
        if let Some(node) = self.nodes.get_mut(name) {
            let progress = why_gone.map_or(Progress::Starting, Progress::Gone);
            *node = Entry { progress, addresses: Vec::new() };
        }
    }

    /// A node was killed. What it has said before it died counts no more.
    pub(super) fn remove(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Whether a node is here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// The nodes that run, with how far they are.
    pub(super) fn paces(&self) -> impl Iterator<Item = (&Arc<str>, &Pace)> {
        self.nodes.iter().filter_map(|(name, node)| match &node.progress {
            Progress::Running(pace) => Some((name, pace)),
            Progress::Starting | Progress::Gone(_) => None,
        })
    }

    fn live(&self) -> impl Iterator<Item = &Pace> {
        self.paces().map(|(_, pace)| pace).filter(|pace| pace.live)
    }

    /// What the pacer must know of the nodes.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.nodes.values().filter_map(|node| match &node.progress {
            Progress::Running(pace) => Some(Part::Running(pace)),
            Progress::Starting => Some(Part::Starting),
            Progress::Gone(_) => None,
        })
    }

    /// The nodes that start.
    pub(super) fn starting(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().filter(|(_, node)| matches!(node.progress, Progress::Starting)).map(|(name, _)| name)
    }

    /// The nodes that do not take part yet: they start, or have no state.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<str>> {
        let waits = |node: &Entry| match &node.progress {
            Progress::Starting => true,
            Progress::Running(pace) => !pace.live,
            Progress::Gone(_) => false,
        };
        self.nodes.iter().filter(move |(_, node)| waits(node)).map(|(name, _)| name)
    }

    /// The nodes that stay away, and why.
    pub(super) fn gone(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.nodes.iter().filter_map(|(name, node)| match &node.progress {
            Progress::Gone(why) => Some((name, why.as_str())),
            Progress::Starting | Progress::Running(_) => None,
        })
    }

    /// The nodes whose processes may still live.
    pub(super) fn left(&self) -> Vec<Arc<str>> {
        let lives = |(_, node): &(&Arc<str>, &Entry)| !matches!(node.progress, Progress::Gone(_));
        self.nodes.iter().filter(lives).map(|(name, _)| name.clone()).collect()
    }

    /// Whether there are live nodes, and all of them have applied the last of `rounds`.
    pub(super) fn is_over(&self, rounds: u32) -> bool {
        let mut live = self.live().peekable();
        live.peek().is_some() && live.all(|pace| pace.due.0 >= rounds)
    }

    /// Whether any node takes part.
    pub(super) fn is_anybody_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// The newest round that a live node is in, or was: it never goes back.
    pub(super) fn round(&mut self) -> Round {
        let now = self.live().map(|pace| pace.round).max();
        self.reached = self.reached.max(now.unwrap_or_default());
        self.reached
    }

    /// The reasons of all, if every one stays away.
    pub(super) fn all_gone(&self) -> Option<String> {
        let gone: Vec<String> = self.gone().map(|(name, why)| format!("{name}: {why}")).collect();
        (!gone.is_empty() && gone.len() == self.nodes.len()).then(|| gone.join("; "))
    }

    /// The addresses of at most `nodes` nodes that run; those that `is_first` prefers come first.
    pub(super) fn addresses(&self, nodes: usize, is_first: impl Fn(&str) -> bool) -> Vec<String> {
        let mut running: Vec<_> = self.nodes.iter().filter(|(_, node)| !node.addresses.is_empty()).collect();
        running.sort_by_key(|(name, _)| !is_first(name));
        running.iter().take(nodes).flat_map(|(_, node)| node.addresses.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(names: &[&str]) -> Roster {
        let mut roster = Roster::default();
        names.iter().for_each(|name| roster.starts(&(*name).into()));
        roster
    }

    fn pace(round: u32, live: bool) -> Pace {
        Pace { round: Round(round), due: Round(round), live, ..Pace::default() }
    }

    #[test]
    fn a_swarm_is_over_once_every_live_node_is_through() {
        let mut roster = roster(&["a", "b", "c"]);
        assert!(!roster.is_over(0), "nobody runs yet");
        roster.paced("a", pace(3, true));
        roster.paced("b", pace(2, true));
        assert!(!roster.is_over(3), "b is not through");
        roster.paced("b", pace(2, false));
        assert!(roster.is_over(3), "who catches up, or starts, is not waited for");
        roster.ended("a", None);
        assert!(!roster.is_over(3), "nobody is left to say so");
    }

    #[test]
    fn who_does_not_take_part_yet_is_waited_for() {
        let mut roster = roster(&["a", "b", "c"]);
        roster.paced("a", pace(0, true));
        roster.paced("b", pace(0, false));
        assert_eq!(roster.waiting().map(|name| &**name).collect::<Vec<_>>(), ["b", "c"]);
        roster.paced("b", pace(0, true));
        roster.ended("c", Some("no disk".into()));
        assert_eq!(roster.waiting().count(), 0);
    }

    #[test]
    fn the_round_never_goes_back() {
        let mut roster = roster(&["a", "b"]);
        roster.paced("a", pace(5, true));
        roster.paced("b", pace(9, false));
        assert_eq!(roster.round(), Round(5), "who catches up is in no round of the swarm's");
        roster.remove("a");
        assert_eq!(roster.round(), Round(5));
        assert!(!roster.has("a") && !roster.is_anybody_live());
        roster.paced("a", pace(8, true));
        assert_eq!(roster.round(), Round(5), "what a killed node has said before counts no more");
    }

    #[test]
    fn all_are_gone_only_when_every_one_has_said_why() {
        let mut roster = roster(&["a", "b"]);
        roster.ended("a", Some("no disk".into()));
        assert_eq!(roster.all_gone(), None);
        assert_eq!(roster.left(), ["b".into()]);
        assert_eq!(roster.parts().count(), 1, "who stays away holds up no block");
        roster.ended("b", Some("halted: fork".into()));
        assert_eq!(roster.all_gone().as_deref(), Some("a: no disk; b: halted: fork"));
        assert_eq!(Roster::default().all_gone(), None, "a swarm that has not begun has not failed");
    }

    #[test]
    fn those_who_run_are_dialled_the_preferred_ones_first() {
        let mut roster = roster(&["a", "b", "seeder", "z"]);
        for name in ["a", "b", "seeder"] {
            roster.runs(name, vec![format!("/{name}")]);
        }
        assert_eq!(roster.addresses(2, |name| name == "seeder"), ["/seeder", "/a"]);
        roster.ended("seeder", None);
        assert_eq!(roster.addresses(9, |name| name == "seeder"), ["/a", "/b"]);
        assert_eq!(roster.starting().count(), 2, "it is started again, and z has not said a word");
    }
}
