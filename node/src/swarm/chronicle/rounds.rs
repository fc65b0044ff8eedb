//! The rounds of a swarm as its nodes report them: what was applied, and whether all have the same root. The first node to
//! report a round says what it was; the others are held against it. Pure.

use crate::peer::Applied;
use crate::report::{Disagreement, VoidRound};
use covey_proto::{Digest, Round, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// All rounds that any node has reported, from round 0.
#[derive(Default)]
pub(super) struct Rounds(Vec<SeenRound>);

/// A round: what the first node to apply it reported, and every node's root.
pub(super) struct SeenRound {
    /// Every node's, as last reported.
    roots: BTreeMap<Arc<str>, Digest>,
    /// Whose contributions were applied.
    pub chosen: Vec<(Uid, Digest)>,
    /// Whose contributions had been committed in time.
    pub offered: Vec<Uid>,
    /// Why it was void, if it was.
    pub void: Option<String>,
    /// When the first node had applied it, since the swarm's first block.
    pub at: Duration,
}

/// What a report changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoundNews {
    /// A new round.
    New,
    /// A known round, in which all reports so far agree.
    Same,
    /// A known round, in which they do not.
    Disagreement {
        /// What this node has.
        root: Digest,
        /// What most have.
        most: Digest,
    },
    /// A round before which another one is missing: nothing was noted.
    Early,
}

impl Rounds {
    /// The last round; the first one if there was none.
    pub(super) fn last(&self) -> Round {
        Round(u32::try_from(self.0.len().saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// A node has applied a round.
    pub(super) fn applied(&mut self, node: &Arc<str>, applied: Applied, at: Duration) -> RoundNews {
        let Applied { round, root, chosen, offered, void, .. } = applied;
        let (number, next) = (round.0 as usize, self.0.len());
        match self.0.get_mut(number) {
            Some(seen) => {
                seen.roots.insert(node.clone(), root);
                let most = seen.root();
                let agree = seen.roots.values().all(|other| *other == most);
                if agree { RoundNews::Same } else { RoundNews::Disagreement { root, most } }
            }
            None if number == next => {
                let roots = BTreeMap::from([(node.clone(), root)]);
                self.0.push(SeenRound { roots, chosen, offered, void, at });
                RoundNews::New
            }
            None => RoundNews::Early,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// They, from round 0.
    pub(super) fn iter(&self) -> impl Iterator<Item = &SeenRound> {
        self.0.iter()
    }

    /// A round, with how long it took since the one before.
    pub(super) fn with_time(&self, number: usize) -> Option<(&SeenRound, Duration)> {
        let seen = self.0.get(number)?;
        let before = number.checked_sub(1).and_then(|before| self.0.get(before)).map_or(Duration::ZERO, |seen| seen.at);
        Some((seen, seen.at.saturating_sub(before)))
    }

    /// Who had another root than most, and when.
    pub(super) fn disagreements(&self) -> Vec<Disagreement> {
        let mut found = Vec::new();
        for (round, seen) in (0..).map(Round).zip(&self.0) {
            let most = seen.root();
            let others = seen.roots.iter().filter(|(_, root)| **root != most);
            found.extend(others.map(|(node, root)| Disagreement { round, node: node.to_string(), root: *root }));
        }
        found
    }

    /// The rounds in which nothing was applied, and why.
    pub(super) fn void(&self) -> Vec<VoidRound> {
        let rounds = (0..).map(Round).zip(&self.0);
        rounds.filter_map(|(round, seen)| Some(VoidRound { round, reason: seen.void.clone()? })).collect()
    }

    /// In how many rounds a uid's contribution was applied.
    pub(super) fn contributed(&self, uid: Option<Uid>) -> u32 {
        let chosen = |seen: &&SeenRound| seen.chosen.iter().any(|(chosen, _)| Some(*chosen) == uid);
        self.0.iter().filter(chosen).count() as u32
    }
}

impl SeenRound {
    /// The root that most nodes have; of equally many the largest.
    pub(super) fn root(&self) -> Digest {
        let mut count: BTreeMap<Digest, usize> = BTreeMap::new();
        self.roots.values().for_each(|root| *count.entry(*root).or_default() += 1);
        count.into_iter().max_by_key(|(_, nodes)| *nodes).map_or(Digest::ZERO, |(root, _)| root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(round: u32, root: &str, uids: &[u8]) -> Applied {
        Applied {
            round: Round(round),
            head: Digest::of(b"head"),
            root: Digest::of(root.as_bytes()),
            chosen: uids.iter().map(|uid| (Uid::from(*uid), Digest::ZERO)).collect(),
            offered: uids.iter().map(|uid| Uid::from(*uid)).collect(),
            void: uids.is_empty().then(|| "nobody".into()),
        }
    }

    #[test]
    fn one_root_of_many_is_the_one_that_disagrees() {
        let mut rounds = Rounds::default();
        let mut report = |node: &str, root: &str| rounds.applied(&node.into(), applied(0, root, &[1]), Duration::ZERO);
        assert_eq!(report("a", "bad"), RoundNews::New);
        assert_eq!(report("a", "bad"), RoundNews::Same);
        assert!(matches!(report("b", "good"), RoundNews::Disagreement { .. }), "one against one");
        let most = Digest::of(b"good");
        assert_eq!(report("c", "good"), RoundNews::Disagreement { root: most, most });
        let found = rounds.disagreements();
        assert_eq!((found.len(), found[0].node.as_str(), found[0].root), (1, "a", Digest::of(b"bad")));
        assert_eq!(
            rounds.applied(&"a".into(), applied(0, "good", &[1]), Duration::ZERO),
            RoundNews::Same,
            "it resynchronised"
        );
        assert!(rounds.disagreements().is_empty());
    }

    #[test]
    fn rounds_come_one_after_the_other_and_the_first_report_says_what_a_round_was() {
        let mut rounds = Rounds::default();
        let second = Duration::from_secs(1);
        assert_eq!(rounds.applied(&"a".into(), applied(1, "x", &[]), second), RoundNews::Early);
        for (round, uids) in [(0, [1, 2].as_slice()), (1, &[]), (2, &[2])] {
            assert_eq!(rounds.applied(&"a".into(), applied(round, "x", uids), second * (round + 2)), RoundNews::New);
        }
        rounds.applied(&"b".into(), applied(0, "x", &[7]), second * 9);
        assert_eq!(rounds.count(), 3);
        assert_eq!([1, 2, 7].map(|uid| rounds.contributed(Some(Uid::from(uid)))), [1, 2, 0]);
        assert_eq!(rounds.contributed(None), 0, "a seeder");
        assert_eq!(rounds.void().iter().map(|void| void.round).collect::<Vec<_>>(), [Round(1)]);
        let took = |number| rounds.with_time(number).map(|(_, took)| took);
        assert_eq!([took(0), took(1), took(3)], [Some(second * 2), Some(second), None]);
    }
}
