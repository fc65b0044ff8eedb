//! A look at the connected peers, twice a second: their scores, rates and places in the mesh, for whoever is shown them.

use super::behaviour::{GRAYLIST, GossipBehaviour, Topics};
use super::gossip::listeners_of;
use crate::metrics::{Gauges, ScoreGauges, TopicGauges};
use crate::peers::PeerKey;
use crate::shared::Shared;
use libp2p::gossipsub::TopicHash;
use std::collections::HashSet;
use std::time::Instant;

/// Brings what is shown of the network up to date; `counts` is what its owners say of themselves. Returns the peers whose
/// gossip is too bad to bear.
pub(super) fn look(
    shared: &Shared,
    behaviour: &GossipBehaviour,
    topics: &Topics,
    counts: Gauges,
    now: Instant,
) -> Vec<PeerKey> {
    let (gradients, records) = (topics.gradients.hash(), topics.peers.hash());
    let mesh: HashSet<_> = behaviour.mesh_peers(&gradients).collect();
    let bytes = shared.meter.read();
    let topic = |topic: &TopicHash| TopicGauges {
        listeners: listeners_of(behaviour, topic),
        mesh: behaviour.mesh_peers(topic).count(),
    };
    let mut gauges = Gauges { gradients: topic(&gradients), records: topic(&records), ..counts };
    let (mut bad, mut scores) = (Vec::new(), Vec::new());
    {
        let mut connected = shared.connected();
        let book = shared.book();
        for (peer, seen) in connected.iter_mut() {
            seen.score = behaviour.peer_score(&peer.id()).unwrap_or(0.0);
            seen.in_mesh = mesh.contains(&peer.id());
            seen.rate.measure(bytes.get(peer).copied(), now);
            if seen.score < GRAYLIST {
                bad.push(*peer);
            }
            scores.push(seen.score);
            let member = book.uid_of(peer).is_some();
            gauges.members += usize::from(member);
            gauges.strangers += usize::from(!member);
        }
    }
    gauges.scores = ScoreGauges::of(scores);
    *shared.gauges() = gauges;
    bad
}
