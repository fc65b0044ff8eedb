//! Which run the members of the subnet are in, as their commitments say: whether this node has the same run.toml as the
//! others, and whether its hotkey is in another run.
//!
//! Two nodes of different runs never meet in gossip, whose topics carry the run id: without this, who has a wrong file sees
//! silence. Every commitment begins with its run's first eight bytes ([`Record`]).

use covey_proto::chain::{ChainView, Slot};
use covey_proto::record::Record;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, Hotkey, RunId};
use std::collections::BTreeMap;
use std::fmt;

/// Rounds for which a commitment says what its author is doing: everybody who takes part commits in every round, and one
/// may be missed.
const ROUNDS: u32 = 2;

/// The first eight bytes of a run's id, as commitments have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPrefix([u8; 8]);

impl fmt::Display for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(self.0))
    }
}

impl From<RunId> for RunPrefix {
    fn from(run: RunId) -> RunPrefix {
        RunPrefix(run.0.prefix())
    }
}

/// Another run that has more members than this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outnumbered {
    /// The other run.
    pub other: RunPrefix,
    /// Its members that have committed lately.
    pub theirs: usize,
    /// All members that have committed to any run lately.
    pub all: usize,
    /// This node's run.
    pub run: RunPrefix,
}

impl fmt::Display for Outnumbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outnumbered { other, theirs, all, run } = self;
        write!(f, "{theirs} of {all} members commit to run {other}, this node has run {run}: compare `covey run show`")
    }
}

/// A hotkey that another run's node signs with just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The hotkey.
    pub hotkey: Hotkey,
    /// The other run.
    pub other: RunPrefix,
    /// The block of its last commitment.
    pub block: BlockNumber,
    /// From this block on the commitment is an old one.
    pub until: BlockNumber,
}

/// Whether another run has more members than this one, by what was committed in the last two rounds. Of two such runs
/// the larger one, of equal ones that with the lower id.
pub fn outnumbered(view: &ChainView, run: &Run, run_id: RunId) -> Option<Outnumbered> {
    let mut counts = BTreeMap::<RunPrefix, usize>::new();
    for member in view.members.values() {
        if let Some(prefix) = view.slots.get(&member.hotkey).filter(|slot| is_fresh(view, run, slot)).and_then(of_run) {
            *counts.entry(prefix).or_default() += 1;
        }
    }
    let ours = RunPrefix::from(run_id);
    let mine = counts.get(&ours).copied().unwrap_or(0);
    let all = counts.values().sum();
    let (other, theirs) =
        counts.into_iter().filter(|(prefix, _)| *prefix != ours).rev().max_by_key(|(_, count)| *count)?;
    (theirs > mine).then_some(Outnumbered { other, theirs, all, run: ours })
}

/// Whether another run's node has committed with this hotkey in the last two rounds: a slot holds one commitment, and two
/// nodes would overwrite each other's.
pub fn elsewhere(view: &ChainView, run: &Run, run_id: RunId, hotkey: Hotkey) -> Option<Elsewhere> {
    let slot = view.slots.get(&hotkey).filter(|slot| is_fresh(view, run, slot))?;
    let other = of_run(slot).filter(|other| *other != RunPrefix::from(run_id))?;
    let until = BlockNumber(slot.block.0.saturating_add(lately(run)));
    Some(Elsewhere { hotkey, other, block: slot.block, until })
}

fn of_run(slot: &Slot) -> Option<RunPrefix> {
    Record::from_bytes(&slot.bytes).ok().map(|record| RunPrefix(record.run))
}

fn is_fresh(view: &ChainView, run: &Run, slot: &Slot) -> bool {
    view.block.0.saturating_sub(slot.block.0) < lately(run)
}

fn lately(run: &Run) -> u32 {
    ROUNDS.saturating_mul(run.clock.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Template;
    use covey_proto::chain::Member;
    use covey_proto::record::Contribution;
    use covey_proto::run::{Chain, Data};
    use covey_proto::{Digest, Round, Uid};

    /// The block at which all is looked at.
    const NOW: u32 = 1000;

    fn run() -> Run {
        let chain = Chain { genesis: Digest::ZERO, netuid: 1, start: 10, genesis_state: Digest::ZERO };
        Template::load("tiny").unwrap().resolve(&chain, &Data { digest: Digest::ZERO, samples: 9 }).unwrap()
    }

    fn id(name: &str) -> RunId {
        RunId(Digest::of(name.as_bytes()))
    }

    fn hotkey(uid: u8) -> Hotkey {
        Hotkey::new([uid; 32])
    }

    /// Members by uid, each with the run it has committed to and the block.
    fn view(slots: &[(&str, u32)]) -> ChainView {
        let mut view =
            ChainView { block: BlockNumber(NOW), hash: Digest::ZERO, members: BTreeMap::new(), slots: BTreeMap::new() };
        for (uid, (name, block)) in (0..).zip(slots) {
            let member = Member {
                uid: Uid::from(uid),
                hotkey: hotkey(uid),
                registered_at: BlockNumber(0),
                permit: true,
                stake: 1,
            };
            view.members.insert(member.uid, member);
            let contribution = Contribution { round: Round(0), manifest: Digest::ZERO };
            let record = Record { contribution: Some(contribution), ..Record::of(id(name)) };
            let bytes = if name.is_empty() { b"other software's".to_vec() } else { record.to_bytes() };
            view.slots.insert(hotkey(uid), Slot { block: BlockNumber(*block), bytes });
        }
        view
    }

    #[test]
    fn a_node_whose_run_the_others_are_in_hears_nothing() {
        let view = view(&[("ours", NOW), ("ours", NOW - 5), ("theirs", NOW), ("theirs", NOW)]);
        assert_eq!(outnumbered(&view, &run(), id("ours")), None);
        assert_eq!(outnumbered(&ChainView { slots: BTreeMap::new(), ..view }, &run(), id("ours")), None);
    }

    #[test]
    fn a_node_with_another_run_than_most_is_told_both_names() {
        let view = view(&[("theirs", NOW), ("theirs", NOW - 1), ("ours", NOW), ("", NOW), ("third", NOW)]);
        let told = outnumbered(&view, &run(), id("ours")).unwrap();
        assert_eq!((told.other, told.theirs, told.all), (id("theirs").into(), 2, 4));
        let text = told.to_string();
        assert!(text.starts_with("2 of 4 members commit to run ") && text.contains("covey run show"), "{text}");
        assert!(text.contains(&hex::encode(id("ours").0.prefix())), "{text}");
    }

    #[test]
    fn old_commitments_and_departed_hotkeys_do_not_count() {
        let lately = 2 * run().clock.length;
        let mut view = view(&[("theirs", NOW - lately), ("theirs", NOW - lately + 1), ("ours", NOW)]);
        assert_eq!(outnumbered(&view, &run(), id("ours")), None);
        view.members.remove(&Uid::from(2));
        assert_eq!(outnumbered(&view, &run(), id("ours")).unwrap().all, 1);
    }

    #[test]
    fn a_hotkey_is_elsewhere_only_while_another_run_uses_it() {
        let lately = 2 * run().clock.length;
        let view = view(&[("theirs", NOW - 1), ("ours", NOW), ("theirs", NOW - lately), ("", NOW)]);
        let found = elsewhere(&view, &run(), id("ours"), hotkey(0)).unwrap();
        assert_eq!((found.other, found.block.0, found.until.0), (id("theirs").into(), NOW - 1, NOW - 1 + lately));
        for uid in 1..=4 {
            assert_eq!(elsewhere(&view, &run(), id("ours"), hotkey(uid)), None, "uid {uid}");
        }
    }
}
