//! A look at the connected peers, twice a second: their scores, rates and places in the mesh, for whoever is shown them.

use super::behaviour::GRAYLIST;
use super::running::Running;
use crate::metrics::{Gauges, ScoreGauges, TopicGauges};
use crate::shared::Seen;
use libp2p::gossipsub::TopicHash;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A rate is taken over at least so long: what one read brings is no rate.
const RATE_EACH: Duration = Duration::from_millis(250);
/// In about so many seconds a rate forgets.
const RATE_MEMORY: f64 = 2.0;

/// Brings a peer's rates up to date with its bytes so far.
fn measure(seen: &mut Seen, bytes: (u64, u64), now: Instant) {
    let passed = seen.measured.map(|at| now.saturating_duration_since(at));
    if passed.is_some_and(|passed| passed < RATE_EACH) {
        return;
    }
    if let Some(passed) = passed.map(|passed| passed.as_secs_f64()) {
        let keep = (-passed / RATE_MEMORY).exp();
        let rate =
            |before: f64, from: u64, to: u64| before * keep + (1.0 - keep) * to.saturating_sub(from) as f64 / passed;
        seen.up = rate(seen.up, seen.bytes.0, bytes.0);
        seen.down = rate(seen.down, seen.bytes.1, bytes.1);
    }
    seen.bytes = bytes;
    seen.measured = Some(now);
}

/// Whether an address goes through a relay.
pub(crate) fn is_relayed(address: &str) -> bool {
    address.contains("/p2p-circuit")
}

impl Running<'_> {
    pub(super) fn look_at_peers(&mut self, now: Instant) {
        let gossip = &self.swarm.behaviour().gossip;
        let (gradients, records) = (self.net.topics.gradients.hash(), self.net.topics.peers.hash());
        let mesh: HashSet<_> = gossip.mesh_peers(&gradients).collect();
        let bytes = self.net.shared.meter.read();
        let topic = |topic: &TopicHash| TopicGauges {
            listeners: gossip.all_peers().filter(|(_, topics)| topics.contains(&topic)).count(),
            mesh: gossip.mesh_peers(topic).count(),
        };
        let mut gauges = Gauges {
            dialling: self.dialling.len(),
            gradients: topic(&gradients),
            records: topic(&records),
            requests_open: self.pending.len(),
            unjudged: self.tickets_out,
            events_waiting: self.net.events.max_capacity() - self.net.events.capacity(),
            ..Gauges::default()
        };
        let (mut bad, mut scores) = (Vec::new(), Vec::new());
        // In this order, as everywhere.
        let mut connected = self.net.shared.connected();
        let book = self.net.shared.book();
        for (peer, seen) in connected.iter_mut() {
            seen.score = gossip.peer_score(&peer.id()).unwrap_or(0.0);
            seen.in_mesh = mesh.contains(&peer.id());
            measure(seen, bytes.get(peer).copied().unwrap_or(seen.bytes), now);
            if seen.score < GRAYLIST {
                bad.push(*peer);
            }
            scores.push(seen.score);
            let member = book.uid_of(peer).is_some();
            gauges.members += usize::from(member);
            gauges.strangers += usize::from(!member);
            gauges.relayed += usize::from(seen.addresses.iter().all(|address| is_relayed(address)));
        }
        drop((connected, book));
        gauges.scores = ScoreGauges::of(scores);
        *self.net.shared.gauges() = gauges;
        for peer in bad {
            self.ban(peer, "its gossip score");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_a_second_and_fades_when_nothing_comes() {
        let start = Instant::now();
        let mut seen = Seen::default();
        for step in 0..40u64 {
            measure(&mut seen, (step * 500, step * 1_000_000), start + Duration::from_millis(500 * step));
        }
        assert!((seen.up - 1000.0).abs() < 1.0 && (seen.down - 2e6).abs() < 2e3, "{} {}", seen.up, seen.down);
        let (bytes, at) = (seen.bytes, start + Duration::from_millis(500 * 39));
        measure(&mut seen, (bytes.0 + 1_000_000, bytes.1), at + Duration::from_millis(1));
        assert!((seen.up - 1000.0).abs() < 1.0, "a moment is no rate");
        for step in 1..=40 {
            measure(&mut seen, bytes, at + Duration::from_millis(500 * step));
        }
        assert!(seen.up < 1.0 && seen.down < 1000.0);
    }

    #[test]
    fn an_address_through_a_relay_is_told_from_a_direct_one() {
        assert!(is_relayed("/ip4/1.2.3.4/tcp/1/p2p/X/p2p-circuit"));
        assert!(!is_relayed("/ip4/1.2.3.4/tcp/1"));
    }
}
