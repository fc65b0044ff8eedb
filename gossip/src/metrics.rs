//! What a person or Prometheus is shown of the network: peers, gauges, and every counter of [`Traffic`], as text.
//!
//! Nothing is counted here: counts come from [`crate::traffic`], gauges from the network's task, which writes them twice a
//! second. No label is a peer's or anything else that strangers choose: the series are the same few hundred for ever.

use crate::peers::PeerKey;
use crate::traffic::{Tally, Traffic};
use covey_proto::Uid;
use std::fmt::Write as _;
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
    /// Of all, those reached only through a relay.
    pub relayed: usize,
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

/// Prometheus' text format, version 0.0.4.
#[derive(Default)]
struct Page(String);

impl Page {
    /// One metric with its samples: labels, if any, and a value each.
    fn family<V: std::fmt::Display>(&mut self, name: &str, kind: &str, help: &str, samples: &[(&str, V)]) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP covey_{name} {help}\n# TYPE covey_{name} {kind}");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "covey_{name}{labels} {value}");
        }
    }

    fn counter(&mut self, name: &str, help: &str, samples: &[(&str, u64)]) {
        self.family(&format!("{name}_total"), "counter", help, samples);
    }

    fn gauge<V: std::fmt::Display>(&mut self, name: &str, help: &str, samples: &[(&str, V)]) {
        self.family(name, "gauge", help, samples);
    }

    /// Things of several kinds: how many, and their bytes.
    fn tallies(&mut self, name: &str, what: &str, samples: &[(&str, Tally)]) {
        let counts: Vec<_> = samples.iter().map(|(labels, tally)| (*labels, tally.count)).collect();
        let bytes: Vec<_> = samples.iter().map(|(labels, tally)| (*labels, tally.bytes)).collect();
        self.counter(name, &format!("{what}: how many."), &counts);
        self.counter(&format!("{name}_bytes"), &format!("{what}: their payload in bytes."), &bytes);
    }
}

/// Everything as Prometheus' text.
pub(crate) fn render(traffic: &Traffic, gauges: &Gauges, store: &StoreGauges, congestion: Option<&str>) -> String {
    let mut page = Page::default();
    render_traffic(&mut page, traffic);
    render_gauges(&mut page, gauges);
    page.gauge(
        "store_bytes",
        "Bytes of blobs in the store, those that are being fetched in full.",
        &[("", store.bytes)],
    );
    page.gauge("store_quota_bytes", "Bytes that the store may hold.", &[("", store.quota)]);
    page.gauge("store_partial_blobs", "Blobs that are there in part.", &[("", store.partial)]);
    if let Some(name) = congestion {
        // The kernel's name for it, of which there are a dozen.
        let label = format!("algorithm=\"{}\"", name.replace(['"', '\\', '\n'], "?"));
        page.gauge("tcp_congestion_control", "What the newest TCP connection runs.", &[(label.as_str(), 1)]);
    }
    page.0
}

fn render_traffic(page: &mut Page, traffic: &Traffic) {
    // Whoever adds a counter finds out here that nobody would see it.
    let Traffic {
        announcements_in,
        announcements_out,
        announcements_repeated,
        announcements_failed,
        announcements_accepted,
        announcements_rejected,
        announcements_unheeded,
        announcements_late,
        announcements_ignored,
        announcements_surplus,
        announcements_pulled,
        announcements_served,
        gossip_in,
        gossip_first,
        gossip_unsent,
        blobs_in,
        blobs_surplus,
        blobs_wrong,
        blobs_out,
        fetches_done,
        fetches_timed_out,
        fetches_failed,
        requests_in,
        requests_refused,
        requests_out,
        round_in,
        state_in,
        data_in,
        round_out,
        state_out,
        data_out,
        pieces_good,
        pieces_wrong,
        groups_duplicate,
        pieces_late,
        piece_requests_out,
        piece_requests_rejected,
        piece_requests_open,
        piece_requests_in,
        piece_requests_refused,
        piece_answers_open,
        records_heard,
        providers_in,
        providers_refused,
        bans,
        events_lost,
        restarts,
        tcp_connections,
        tcp_connections_bbr,
        tcp_bytes_in,
        tcp_bytes_out,
    } = *traffic;
    page.tallies(
        "announcements",
        "Announcements by way",
        &[
            ("way=\"gossip\",direction=\"in\"", announcements_in),
            ("way=\"gossip\",direction=\"out\"", announcements_out),
            ("way=\"pull\",direction=\"in\"", announcements_pulled),
            ("way=\"pull\",direction=\"out\"", announcements_served),
        ],
    );
    page.counter(
        "announcements_judged",
        "What became of announcements that gossip brought.",
        &[
            ("outcome=\"accepted\"", announcements_accepted),
            ("outcome=\"rejected\"", announcements_rejected),
            ("outcome=\"ignored\"", announcements_unheeded),
            ("outcome=\"late\"", announcements_late),
            ("outcome=\"overload\"", announcements_ignored),
            ("outcome=\"surplus\"", announcements_surplus),
        ],
    );
    page.counter(
        "publications",
        "Own announcements that were gossiped again, or could not be.",
        &[("outcome=\"repeated\"", announcements_repeated), ("outcome=\"failed\"", announcements_failed)],
    );
    page.tallies("gossip_messages", "Messages of all topics that came, duplicates too", &[("", gossip_in)]);
    page.counter("gossip_messages_first", "Of them, those that were new.", &[("", gossip_first)]);
    page.counter("gossip_messages_unsent", "Messages dropped for slow neighbours.", &[("", gossip_unsent)]);
    page.tallies(
        "blobs",
        "Small blobs by direction and outcome",
        &[
            ("direction=\"in\",outcome=\"good\"", blobs_in),
            ("direction=\"in\",outcome=\"unwanted\"", blobs_surplus),
            ("direction=\"in\",outcome=\"wrong\"", blobs_wrong),
            ("direction=\"out\",outcome=\"sent\"", blobs_out),
        ],
    );
    page.counter(
        "fetches",
        "Fetches of blobs by outcome.",
        &[
            ("outcome=\"done\"", fetches_done),
            ("outcome=\"timeout\"", fetches_timed_out),
            ("outcome=\"failed\"", fetches_failed),
        ],
    );
    page.counter(
        "requests",
        "Small requests.",
        &[
            ("outcome=\"sent\"", requests_out),
            ("outcome=\"received\"", requests_in),
            ("outcome=\"refused\"", requests_refused),
        ],
    );
    page.tallies(
        "piece_answers",
        "Answers to requests for pieces by class; what came without its proofs, what went with them",
        &[
            ("class=\"round\",direction=\"in\"", round_in),
            ("class=\"state\",direction=\"in\"", state_in),
            ("class=\"data\",direction=\"in\"", data_in),
            ("class=\"round\",direction=\"out\"", round_out),
            ("class=\"state\",direction=\"out\"", state_out),
            ("class=\"data\",direction=\"out\"", data_out),
        ],
    );
    page.counter(
        "pieces",
        "Pieces that became whole, answers that were wrong, and answers that came after they were taken back.",
        &[
            ("outcome=\"good\"", pieces_good),
            ("outcome=\"wrong\"", pieces_wrong),
            ("outcome=\"late\"", pieces_late.count),
        ],
    );
    page.counter(
        "piece_late_bytes",
        "Bytes of answers that came after they were taken back.",
        &[("", pieces_late.bytes)],
    );
    page.tallies("piece_duplicate_groups", "Groups of 64 KiB that were here already", &[("", groups_duplicate)]);
    page.counter(
        "piece_requests",
        "Requests for pieces.",
        &[
            ("outcome=\"sent\"", piece_requests_out),
            ("outcome=\"rejected\"", piece_requests_rejected),
            ("outcome=\"received\"", piece_requests_in),
            ("outcome=\"refused\"", piece_requests_refused),
        ],
    );
    page.gauge(
        "piece_requests_open",
        "Requests for pieces that are open now.",
        &[("direction=\"out\"", piece_requests_open), ("direction=\"in\"", piece_answers_open)],
    );
    page.counter("records_heard", "Members' peer records that were news.", &[("", records_heard)]);
    page.counter(
        "providers",
        "Providers' records that came, by outcome.",
        &[("outcome=\"kept\"", providers_in), ("outcome=\"refused\"", providers_refused)],
    );
    page.counter("bans", "Peers banned.", &[("", bans)]);
    page.counter("events_lost", "Events that the node was too slow for.", &[("", events_lost)]);
    page.counter("network_restarts", "Faults after which the network was rebuilt.", &[("", restarts)]);
    page.counter(
        "tcp_connections",
        "TCP connections by congestion control.",
        &[
            ("congestion=\"bbr\"", tcp_connections_bbr),
            ("congestion=\"other\"", tcp_connections.saturating_sub(tcp_connections_bbr)),
        ],
    );
    page.counter(
        "transport_bytes",
        "Bytes of connections with all that libp2p adds.",
        &[("transport=\"tcp\",direction=\"in\"", tcp_bytes_in), ("transport=\"tcp\",direction=\"out\"", tcp_bytes_out)],
    );
}

fn render_gauges(page: &mut Page, gauges: &Gauges) {
    let Gauges { members, strangers, relayed, dialling, gradients, records, scores, .. } = *gauges;
    let Gauges { requests_open, unjudged, events_waiting, .. } = *gauges;
    page.gauge(
        "peers",
        "Connected peers: those that speak for a uid, and others.",
        &[("kind=\"member\"", members), ("kind=\"stranger\"", strangers)],
    );
    page.gauge("peers_relayed", "Connected peers that are reached only through a relay.", &[("", relayed)]);
    page.gauge("dials_open", "Dials under way.", &[("", dialling)]);
    let topics = [("topic=\"gradients\"", gradients), ("topic=\"peers\"", records)];
    page.gauge("mesh_peers", "Peers in the gossip mesh.", &topics.map(|(labels, topic)| (labels, topic.mesh)));
    page.gauge("topic_peers", "Peers that listen.", &topics.map(|(labels, topic)| (labels, topic.listeners)));
    page.gauge(
        "peer_score",
        "Gossip scores of connected peers.",
        &[("of=\"least\"", scores.least), ("of=\"median\"", scores.median), ("of=\"most\"", scores.most)],
    );
    page.gauge("peers_below_zero", "Connected peers whose gossip score is negative.", &[("", scores.negative)]);
    page.gauge("requests_open", "Small requests sent and not answered yet.", &[("", requests_open)]);
    page.gauge("announcements_unjudged", "Announcements that wait for a verdict.", &[("", unjudged)]);
    page.gauge("events_waiting", "Events that wait for the node.", &[("", events_waiting)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_has_help_type_and_samples_of_each_family_once_and_no_series_twice() {
        let traffic = Traffic { blobs_in: Tally { count: 3, bytes: 4096 }, ..Traffic::default() };
        let gauges = Gauges { members: 2, ..Gauges::default() };
        let page = render(&traffic, &gauges, &StoreGauges::default(), Some("bb\"r"));
        assert!(page.contains("covey_blobs_total{direction=\"in\",outcome=\"good\"} 3\n"), "{page}");
        assert!(page.contains("covey_blobs_bytes_total{direction=\"in\",outcome=\"good\"} 4096\n"), "{page}");
        assert!(page.contains("covey_peers{kind=\"member\"} 2\n"), "{page}");
        assert!(page.contains("covey_tcp_congestion_control{algorithm=\"bb?r\"} 1\n"), "{page}");
        let mut families = BTreeSet::new();
        let mut series = BTreeSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(
                    rest.starts_with(family)
                        && rest.ends_with(if family.ends_with("_total") { "counter" } else { "gauge" })
                );
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next(), Some(family));
                assert!(series.insert(name), "{name} twice");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn scores_are_summed_up_whatever_their_number() {
        assert_eq!(ScoreGauges::of(vec![]), ScoreGauges::default());
        let of = ScoreGauges::of(vec![10.0, -3.0, 0.0, -1.0]);
        assert_eq!(of, ScoreGauges { least: -3.0, median: 0.0, most: 10.0, negative: 2 });
    }
}
