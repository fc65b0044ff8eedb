//! Which connections there are: as libp2p makes and closes them, and as others are shown them. Which of several stays is
//! decided in `peers/lines.rs`.

use crate::peers::PeerKey;
use crate::peers::lines::{Line, Lines};
use crate::peers::place::address_of;
use crate::peers::place::split;
use crate::peers::way::Way;
use crate::shared::{ConnectedPeer, Shared};
use covey_proto::Digest;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Addresses that are shown of one peer.
const ADDRESSES_MAX: usize = 4;

/// The connections of one life of the network.
pub(super) struct Connections {
    shared: Arc<Shared>,
    lines: Lines<ConnectionId>,
    peers: BTreeSet<PeerKey>,
}

/// A connection came to be.
pub(super) struct NewConnection {
    /// Its peer was not connected before.
    pub(super) first: bool,
    /// Where it was dialled, if it was.
    pub(super) dialled: Option<String>,
    pub(super) way: Way,
    pub(super) turn: Option<WayTurn>,
}

/// The way on which a peer is reached is another than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayTurn {
    /// This one now.
    Up { way: Way },
    /// None any more.
    Down,
}

fn turn(before: Option<Way>, after: Option<Way>) -> Option<WayTurn> {
    (before != after).then(|| after.map_or(WayTurn::Down, |way| WayTurn::Up { way }))
}

impl Connections {
    pub(super) fn new(shared: Arc<Shared>) -> Connections {
        let lines = Lines::new(shared.peer);
        Connections { shared, lines, peers: BTreeSet::new() }
    }

    /// The connected peers.
    pub(super) fn peers(&self) -> &BTreeSet<PeerKey> {
        &self.peers
    }

    pub(super) fn line(&self, id: &ConnectionId) -> Option<&Line> {
        self.lines.get(id)
    }

    /// Where a peer is seen; none if only a relay is.
    pub(super) fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr> {
        self.lines.seen_at(peer)
    }

    /// Takes a new connection in.
    pub(super) fn established(
        &mut self,
        peer: PeerKey,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) -> NewConnection {
        let (way, dialled) = (Way::of(endpoint), endpoint.is_dialer());
        let ip = address_of(endpoint.get_remote_address()).filter(|_| way == Way::Direct);
        let before = self.lines.way(&peer);
        self.lines.add(id, Line { peer, dialled, way, ip, since: now });
        let after = self.lines.way(&peer);
        let address = split(endpoint.get_remote_address()).1;
        tracing::debug!(%peer, %address, dialled, ?way, "connected");
        {
            let mut connected = self.shared.connected();
            let seen = connected.entry(peer).or_insert_with(|| ConnectedPeer::new(way, now));
            seen.way = after.unwrap_or(way);
            if dialled && way == Way::Direct {
                seen.dialled = Some(address.clone());
            }
            seen.addresses.push(address.clone());
            seen.addresses.truncate(ADDRESSES_MAX);
        }
        let first = self.peers.insert(peer);
        NewConnection { first, dialled: dialled.then_some(address), way, turn: turn(before, after) }
    }

    /// A connection is gone. What that means for the way to its peer; `last`: there is no other to it.
    pub(super) fn closed(&mut self, peer: PeerKey, id: &ConnectionId, last: bool) -> Option<WayTurn> {
        let before = self.lines.way(&peer);
        self.lines.remove(id);
        let after = self.lines.way(&peer);
        if last {
            self.peers.remove(&peer);
            self.shared.connected().remove(&peer);
            self.shared.book().disconnected(&peer);
        } else if let (Some(way), Some(seen)) = (after, self.shared.connected().get_mut(&peer)) {
            seen.way = way;
        }
        turn(before, after)
    }

    /// Identify names the life of the peer at a connection's other end. The peer, if its older connections are dead: gossip
    /// tells a peer its topics on the first connection only, so all are to be closed, and it dials again.
    pub(super) fn identified(&mut self, id: &ConnectionId, agent: &str) -> Option<PeerKey> {
        self.lines.identified(id, Digest::of(agent.as_bytes()))
    }

    /// Connections of which another to the same peer stays.
    pub(super) fn surplus(&self, now: Instant) -> Vec<ConnectionId> {
        self.lines.surplus(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;
    use libp2p::core::Endpoint;
    use libp2p::core::transport::PortUse;

    fn dialled(address: &str) -> ConnectedPoint {
        let address = address.parse().unwrap();
        ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::New }
    }

    #[test]
    fn where_a_relay_was_dialled_is_not_remembered_as_where_its_peer_is() {
        let dir = tempfile::tempdir().unwrap();
        let shared = test_shared(dir.path());
        let (mut connections, peer, now) = (Connections::new(shared.clone()), test_peer(1), Instant::now());
        let id = ConnectionId::new_unchecked;
        let relayed = dialled(&format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit/p2p/{peer}", test_peer(9)));
        let made = connections.established(peer, id(1), &relayed, now);
        assert!(made.first && made.way == Way::Relayed && made.dialled.is_some());
        assert_eq!(made.turn, Some(WayTurn::Up { way: Way::Relayed }));
        assert_eq!(connections.seen_at(&peer), None);
        let seen = |shared: &Shared| shared.connected().get(&peer).map(|seen| (seen.way, seen.dialled.clone()));
        assert_eq!(seen(&shared), Some((Way::Relayed, None)));
        let made = connections.established(peer, id(2), &dialled("/ip4/1.2.3.4/tcp/7"), now);
        assert_eq!((made.first, made.turn), (false, Some(WayTurn::Up { way: Way::Direct })));
        assert_eq!(seen(&shared), Some((Way::Direct, Some("/ip4/1.2.3.4/tcp/7".into()))));
        assert_eq!(connections.closed(peer, &id(2), false), Some(WayTurn::Up { way: Way::Relayed }));
        assert_eq!(seen(&shared).map(|(way, _)| way), Some(Way::Relayed));
        assert_eq!(connections.closed(peer, &id(1), true), Some(WayTurn::Down));
        assert!(seen(&shared).is_none() && connections.peers().is_empty());
    }

    #[test]
    fn the_way_turns_when_the_best_connection_is_another() {
        let (direct, relayed) = (Some(Way::Direct), Some(Way::Relayed));
        assert_eq!(turn(None, relayed), Some(WayTurn::Up { way: Way::Relayed }));
        assert_eq!(turn(relayed, direct), Some(WayTurn::Up { way: Way::Direct }));
        assert_eq!(turn(direct, relayed), Some(WayTurn::Up { way: Way::Relayed }));
        assert_eq!(turn(relayed, None), Some(WayTurn::Down));
        assert_eq!((turn(direct, direct), turn(None, None)), (None, None));
    }
}
