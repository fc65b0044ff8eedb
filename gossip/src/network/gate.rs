//! Asks [`Admission`] and the bans at every connection. Decides nothing itself.

use crate::peers::PeerKey;
use crate::peers::admission::{Admission, Direction, Named, NotAdmitted};
use crate::peers::place::counted_at;
use crate::peers::way::Way;
use crate::shared::Shared;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

pub(super) struct Gate {
    shared: Arc<Shared>,
    admission: Admission<ConnectionId>,
    /// Whether connections from loopback are not counted by address.
    loopback_exempt: bool,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, admission: Admission<ConnectionId>, loopback_exempt: bool) -> Gate {
        Gate { shared, admission, loopback_exempt }
    }

    /// What an inbound connection counts for.
    fn inbound(&self, way: Way, remote: &Multiaddr) -> Direction {
        Direction::In(counted_at(way, remote, self.loopback_exempt))
    }

    fn ask(&mut self, peer: PeerId, direction: Direction) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        let peer = PeerKey::of(peer);
        if self.shared.bans().holds(&peer, Instant::now()) {
            return Err(ConnectionDenied::new(NotAdmitted::Banned));
        }
        let book = self.shared.book();
        let is_named = |peer: &PeerKey| book.is_named(peer);
        let named: Named<'_> = if book.has_view() { Some(&is_named) } else { None };
        self.admission.ask_established(peer, direction, named).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    /// Connections of strangers beyond their share.
    pub(super) fn surplus(&self) -> Vec<ConnectionId> {
        let book = self.shared.book();
        let is_named = |peer: &PeerKey| book.is_named(peer);
        self.admission.surplus(if book.has_view() { Some(&is_named) } else { None })
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let place = counted_at(Way::between(local, remote), remote, self.loopback_exempt);
        let book = self.shared.book();
        let is_named = |peer: &PeerKey| book.is_named(peer);
        let named: Named<'_> = if book.has_view() { Some(&is_named) } else { None };
        self.admission.ask_pending(connection, place, Instant::now(), named).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let direction = self.inbound(Way::between(local, remote), remote);
        self.ask(peer, direction)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.admission.ask_pending_out(connection).map_err(ConnectionDenied::new)?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ask(peer, Direction::Out)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let direction = match endpoint {
                    ConnectedPoint::Dialer { .. } => Direction::Out,
                    ConnectedPoint::Listener { send_back_addr, .. } => self.inbound(Way::of(endpoint), send_back_addr),
                };
                self.admission.established(connection_id, PeerKey::of(peer_id), direction);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.admission.gone(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::admission::ConnectionLimits;
    use crate::peers::{many_peers, test_peer};
    use crate::shared::test_shared;

    /// Whether `count` peers get in, one after another, from this address to that one of this node.
    fn admits(count: u32, local: &str, remote: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let limits = ConnectionLimits { per_address_max: 2, ..ConnectionLimits::default() };
        let mut gate = Gate::new(test_shared(dir.path()), Admission::new(limits), true);
        let (local, remote): (Multiaddr, Multiaddr) = (local.parse().unwrap(), remote.parse().unwrap());
        many_peers(count).iter().enumerate().all(|(n, peer)| {
            let id = ConnectionId::new_unchecked(n);
            let asked = gate.handle_pending_inbound_connection(id, &local, &remote);
            let asked = asked
                .and_then(|()| gate.handle_established_inbound_connection(id, peer.id(), &local, &remote).map(drop));
            let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
            gate.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer.id(),
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
            asked.is_ok()
        })
    }

    #[test]
    fn peers_that_come_through_a_relay_are_not_counted_by_its_address() {
        let here = "/ip4/9.9.9.9/tcp/4001";
        assert!(admits(2, here, "/ip4/5.5.5.5/tcp/1") && !admits(3, here, "/ip4/5.5.5.5/tcp/1"));
        let circuit = format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit", test_peer(9));
        // As libp2p's relay client says it, and with an address that some other transport might name.
        assert!(admits(20, &circuit, &format!("/p2p/{}", test_peer(1))));
        assert!(admits(20, &circuit, "/ip4/5.5.5.5/tcp/1"));
    }
}
