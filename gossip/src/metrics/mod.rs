//! What a person or Prometheus is shown of the network: peers, gauges, and, in [`page`], everything as text.
//!
//! Nothing is counted here: counts come from [`crate::traffic`], gauges from the network's task, which writes them twice a
//! second.

mod page;

pub(crate) use page::render;

use crate::peers::PeerKey;
use covey_proto::Uid;
use std::time::Duration;

/// A peer that is connected.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerKey,
    /// The uid that it speaks for.
    pub uid: Option<Uid>,
    /// Where it is connected: at most four multiaddrs.
    pub addresses: Vec<String>,
    /// Whether any of its connections goes directly to it. Else they all go through a relay, which carries little.
    pub direct: bool,
    /// How long an echo took last, behind whatever else was on its way; none before the first.
    pub rtt: Option<Duration>,
    /// Its gossip score; below −200 it is banned.
    pub score: f64,
    /// Bytes a second sent to it, over the last seconds: payload of all streams.
    pub up: f64,
    /// Bytes a second that came from it.
    pub down: f64,
    /// Whether it is among those to whom announcements are passed on first.
    pub in_mesh: bool,
    /// How long it has been connected.
    pub connected: Duration,
}

/// How things stand with one of the run's topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicGauges {
    /// Connected peers that listen to it.
    pub listeners: usize,
    /// Of them, those in this node's mesh: to whom messages are passed on at once. Eight is usual, fewer than six is few.
    pub mesh: usize,
}

/// Gossip scores of the connected peers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoreGauges {
    /// The lowest.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The highest.
    pub most: f64,
    /// Peers below zero: to be looked into when it is many.
    pub negative: usize,
}

impl ScoreGauges {
    /// Of these scores, in any order. All zero if there are none.
    pub(crate) fn of(mut scores: Vec<f64>) -> ScoreGauges {
        scores.sort_by(f64::total_cmp);
        let at = |index: usize| scores.get(index).copied().unwrap_or_default();
        ScoreGauges {
            least: at(0),
            median: at(scores.len() / 2),
            most: at(scores.len().saturating_sub(1)),
            negative: scores.iter().filter(|score| **score < 0.0).count(),
        }
    }
}

/// How the network stands now, as its task saw it within the last half second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Connected peers that speak for a uid.
    pub members: usize,
    /// Other connected peers.
    pub strangers: usize,
    /// Dials under way.
    pub dialling: usize,
    /// The topic of announcements.
    pub gradients: TopicGauges,
    /// The topic of peer records.
    pub records: TopicGauges,
    /// Gossip scores.
    pub scores: ScoreGauges,
    /// Small requests sent and not answered yet.
    pub requests_open: usize,
    /// Announcements that wait for the node's verdict.
    pub unjudged: usize,
    /// Events that wait for the node.
    pub events_waiting: usize,
}

/// How the store stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreGauges {
    pub(crate) bytes: u64,
    pub(crate) quota: u64,
    pub(crate) partial: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_summed_up_whatever_their_number() {
        assert_eq!(ScoreGauges::of(vec![]), ScoreGauges::default());
        let of = ScoreGauges::of(vec![10.0, -3.0, 0.0, -1.0]);
        assert_eq!(of, ScoreGauges { least: -3.0, median: 0.0, most: 10.0, negative: 2 });
    }
}
