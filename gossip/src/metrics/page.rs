//! Every counter and gauge as Prometheus' text. No label is a peer's or anything else that strangers choose: the series are
//! the same few hundred for ever.

use super::{Gauges, StoreGauges};
use crate::traffic::{Tally, Traffic};
use std::fmt::Write as _;

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
    render_gossip(page, traffic);
    render_small(page, traffic);
    render_pieces(page, traffic);
    render_network(page, traffic);
}

/// Announcements, and gossip's messages of all kinds.
fn render_gossip(page: &mut Page, t: &Traffic) {
    page.tallies(
        "announcements",
        "Announcements by way",
        &[
            ("way=\"gossip\",direction=\"in\"", t.announcements_in),
            ("way=\"gossip\",direction=\"out\"", t.announcements_out),
            ("way=\"pull\",direction=\"in\"", t.announcements_pulled),
            ("way=\"pull\",direction=\"out\"", t.announcements_served),
        ],
    );
    page.counter(
        "announcements_judged",
        "What became of announcements that gossip brought.",
        &[
            ("outcome=\"accepted\"", t.announcements_accepted),
            ("outcome=\"rejected\"", t.announcements_rejected),
            ("outcome=\"ignored\"", t.announcements_unheeded),
            ("outcome=\"late\"", t.announcements_late),
            ("outcome=\"overload\"", t.announcements_ignored),
            ("outcome=\"surplus\"", t.announcements_surplus),
        ],
    );
    page.counter(
        "publications",
        "Own announcements that were gossiped again, or could not be.",
        &[("outcome=\"repeated\"", t.announcements_repeated), ("outcome=\"failed\"", t.announcements_failed)],
    );
    page.tallies("gossip_messages", "Messages of all topics that came, duplicates too", &[("", t.gossip_in)]);
    page.counter("gossip_messages_first", "Of them, those that were new.", &[("", t.gossip_first)]);
    page.counter("gossip_messages_unsent", "Messages dropped for slow neighbours.", &[("", t.gossip_unsent)]);
}

/// Small blobs, and the requests that bring them.
fn render_small(page: &mut Page, t: &Traffic) {
    page.tallies(
        "blobs",
        "Small blobs by direction and outcome",
        &[
            ("direction=\"in\",outcome=\"good\"", t.blobs_in),
            ("direction=\"in\",outcome=\"unwanted\"", t.blobs_surplus),
            ("direction=\"in\",outcome=\"wrong\"", t.blobs_wrong),
            ("direction=\"out\",outcome=\"sent\"", t.blobs_out),
        ],
    );
    page.counter(
        "fetches",
        "Fetches of blobs by outcome.",
        &[
            ("outcome=\"done\"", t.fetches_done),
            ("outcome=\"timeout\"", t.fetches_timed_out),
            ("outcome=\"failed\"", t.fetches_failed),
        ],
    );
    page.counter(
        "requests",
        "Small requests.",
        &[
            ("outcome=\"sent\"", t.requests_out),
            ("outcome=\"received\"", t.requests_in),
            ("outcome=\"refused\"", t.requests_refused),
        ],
    );
}

/// Pieces of large blobs.
fn render_pieces(page: &mut Page, t: &Traffic) {
    page.tallies(
        "piece_answers",
        "Answers to requests for pieces by class; what came without its proofs, what went with them",
        &[
            ("class=\"round\",direction=\"in\"", t.round_in),
            ("class=\"state\",direction=\"in\"", t.state_in),
            ("class=\"data\",direction=\"in\"", t.data_in),
            ("class=\"round\",direction=\"out\"", t.round_out),
            ("class=\"state\",direction=\"out\"", t.state_out),
            ("class=\"data\",direction=\"out\"", t.data_out),
        ],
    );
    page.counter(
        "pieces",
        "Pieces that became whole, answers that were wrong, and answers that came after they were taken back.",
        &[
            ("outcome=\"good\"", t.pieces_good),
            ("outcome=\"wrong\"", t.pieces_wrong),
            ("outcome=\"late\"", t.pieces_late.count),
        ],
    );
    page.counter(
        "piece_late_bytes",
        "Bytes of answers that came after they were taken back.",
        &[("", t.pieces_late.bytes)],
    );
    page.tallies("piece_duplicate_groups", "Groups of 64 KiB that were here already", &[("", t.groups_duplicate)]);
    page.counter(
        "piece_requests",
        "Requests for pieces.",
        &[
            ("outcome=\"sent\"", t.piece_requests_out),
            ("outcome=\"rejected\"", t.piece_requests_rejected),
            ("outcome=\"received\"", t.piece_requests_in),
            ("outcome=\"refused\"", t.piece_requests_refused),
        ],
    );
    page.gauge(
        "piece_requests_open",
        "Requests for pieces that are open now.",
        &[("direction=\"out\"", t.piece_requests_open), ("direction=\"in\"", t.piece_answers_open)],
    );
}

/// Peers, and the connections to them.
fn render_network(page: &mut Page, t: &Traffic) {
    page.counter("records_heard", "Members' peer records that were news.", &[("", t.records_heard)]);
    page.counter(
        "providers",
        "Providers' records that came, by outcome.",
        &[("outcome=\"kept\"", t.providers_in), ("outcome=\"refused\"", t.providers_refused)],
    );
    page.counter("bans", "Peers banned.", &[("", t.bans)]);
    page.counter("events_lost", "Events that the node was too slow for.", &[("", t.events_lost)]);
    page.counter("network_restarts", "Faults after which the network was rebuilt.", &[("", t.restarts)]);
    page.counter(
        "tcp_connections",
        "TCP connections by congestion control.",
        &[
            ("congestion=\"bbr\"", t.tcp_connections_bbr),
            ("congestion=\"other\"", t.tcp_connections.saturating_sub(t.tcp_connections_bbr)),
        ],
    );
    page.counter(
        "transport_bytes",
        "Bytes of connections with all that libp2p adds.",
        &[
            ("transport=\"tcp\",direction=\"in\"", t.tcp_bytes_in),
            ("transport=\"tcp\",direction=\"out\"", t.tcp_bytes_out),
        ],
    );
}

fn render_gauges(page: &mut Page, gauges: &Gauges) {
    let Gauges { members, strangers, dialling, gradients, records, scores, .. } = *gauges;
    let Gauges { requests_open, unjudged, events_waiting, .. } = *gauges;
    page.gauge(
        "peers",
        "Connected peers: those that speak for a uid, and others.",
        &[("kind=\"member\"", members), ("kind=\"stranger\"", strangers)],
    );
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
    fn no_counter_is_left_out() {
        let (traffic, names) = Traffic::numbered(1_000_000);
        let page = render(&traffic, &Gauges::default(), &StoreGauges::default(), None);
        let shown = |number: u64| page.lines().any(|line| line.ends_with(&format!(" {number}")));
        // What runs BBR is taken from all TCP connections, whose own number is not shown.
        let hidden: Vec<_> = names.iter().filter(|(_, number)| !shown(*number)).map(|(name, _)| *name).collect();
        assert_eq!(hidden, ["tcp_connections"], "give it a line in metrics/page.rs");
    }
}
