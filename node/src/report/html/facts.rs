//! What several parts of the page derive from a summary: who mined, what happened in which round. Draws nothing.

use crate::observe::RECEIVED;
use crate::report::{Summary, units};
use std::collections::{BTreeMap, BTreeSet};

/// Names of nodes by the round in which something happened to them.
pub(super) type ByRound<'a> = BTreeMap<u32, Vec<&'a str>>;

/// Derived once, used by the words and by the plots.
pub(super) struct Facts<'a> {
    /// Uids of miners, and all others that offered something or had weight.
    pub(super) uids: Vec<u32>,
    /// What misbehaving miners do, by uid.
    pub(super) misbehaving: BTreeMap<u32, &'a str>,
    /// Why a round is void.
    pub(super) voids: BTreeMap<u32, &'a str>,
    /// Names of nodes killed in a round.
    pub(super) killed: ByRound<'a>,
    /// Names of nodes that came in a round.
    pub(super) joined: ByRound<'a>,
    /// Bits a byte for one nat a token on the held-out text.
    pub(super) bits_per_nat: Option<f64>,
    /// Payload that all nodes received.
    pub(super) bytes: u64,
}

impl<'a> Facts<'a> {
    pub(super) fn of(summary: &'a Summary) -> Facts<'a> {
        let lists = summary.offered.iter().chain(&summary.selected).flatten();
        let mut uids: BTreeSet<u32> = lists.map(|uid| uid.number()).collect();
        uids.extend(summary.weights.keys().chain(summary.misbehaving.keys()).map(|uid| uid.number()));
        uids.extend(summary.weights_by_round.iter().flat_map(BTreeMap::keys).map(|uid| uid.number()));
        let miners = summary.nodes.iter().filter(|node| node.role == "miner");
        uids.extend(miners.filter_map(|node| node.uid).map(|uid| uid.number()));
        let (mut killed, mut joined) = (ByRound::new(), ByRound::new());
        for node in &summary.nodes {
            for round in &node.killed {
                killed.entry(round.0).or_default().push(&node.name);
            }
            if let Some(round) = node.joined {
                joined.entry(round.0).or_default().push(&node.name);
            }
        }
        let ratio = summary.bits_per_byte / summary.heldout_loss_final;
        Facts {
            uids: uids.into_iter().collect(),
            misbehaving: summary.misbehaving.iter().map(|(uid, kind)| (uid.number(), kind.as_str())).collect(),
            voids: summary.void_rounds.iter().map(|void| (void.round.0, void.reason.as_str())).collect(),
            killed,
            joined,
            bits_per_nat: (ratio.is_finite() && ratio > 0.0).then_some(ratio),
            bytes: received(&summary.bytes),
        }
    }

    /// `3`, or `3 noise` of a miner that misbehaves.
    pub(super) fn label(&self, uid: u32) -> String {
        match self.misbehaving.get(&uid) {
            Some(kind) => format!("{uid} {kind}"),
            None => uid.to_string(),
        }
    }

    /// What happened in a round, each with a line break before it: for tooltips.
    pub(super) fn events(&self, round: u32) -> String {
        let mut text = String::new();
        if let Some(reason) = self.voids.get(&round) {
            text.push_str(&format!("\nvoid: {reason}"));
        }
        if let Some(names) = self.killed.get(&round) {
            text.push_str(&format!("\nkilled: {}", brief(names)));
        }
        if let Some(names) = self.joined.get(&round) {
            text.push_str(&format!("\njoined: {}", brief(names)));
        }
        text
    }
}

/// Payload received; the sum of all kinds if none of them is one we know.
pub(super) fn received(bytes: &BTreeMap<String, u64>) -> u64 {
    let known: Vec<u64> = RECEIVED.iter().filter_map(|kind| bytes.get(*kind)).copied().collect();
    match known.is_empty() {
        true => bytes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
        false => known.into_iter().fold(0, u64::saturating_add),
    }
}

/// The first few names, and how many more there are.
pub(super) fn brief(names: &[&str]) -> String {
    match names {
        [a, b, c, rest @ ..] if rest.len() > 1 => format!("{a}, {b}, {c} and {} more", rest.len()),
        _ => units::list(names),
    }
}

/// Of `len` values, the places of at most about `max`, evenly spread, with the last.
pub(super) fn thinned(len: usize, max: usize) -> impl Iterator<Item = usize> {
    let stride = len.div_ceil(max.max(1)).max(1);
    (0..len).filter(move |i| i % stride == 0 || i + 1 == len)
}
