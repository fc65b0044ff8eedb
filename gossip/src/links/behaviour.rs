//! Which connection a stream goes over: one a peer, the same as long as it lasts, the one that both sides will keep. None
//! goes over a relayed connection, in neither direction: pieces would fill the relay, and end with its few minutes.

use super::handler::{Handler, InboundStream, OpenStream};
use crate::peers::PeerKey;
use crate::peers::lines::{Line, Lines};
use crate::peers::way::Way;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

/// A peer opened a stream.
#[derive(Debug)]
pub(crate) struct StreamOpened {
    pub(crate) peer: PeerKey,
    pub(crate) stream: InboundStream,
}

/// The streams of the exchange, as a part of the swarm.
pub(crate) struct Links {
    connections: Lines<ConnectionId>,
    /// Bounded by the streams that handlers let in, and the opens of the owner.
    events: VecDeque<ToSwarm<StreamOpened, OpenStream>>,
}

impl Links {
    pub(crate) fn new(own: PeerKey) -> Links {
        Links { connections: Lines::new(own), events: VecDeque::new() }
    }

    /// Opens a stream to a connected peer: who waits gets it, or finds its sender dropped if there is no direct connection,
    /// the connection closes, the peer does not speak the protocol, or takes too long.
    pub(crate) fn open(&mut self, peer: PeerKey, open: OpenStream) {
        if let Some((connection, Way::Direct)) = self.connections.best(&peer) {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: peer.id(),
                handler: NotifyHandler::One(connection),
                event: open,
            });
        }
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamOpened;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(Way::between(local, remote)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(Way::to(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let (peer, dialled) = (PeerKey::of(peer_id), matches!(endpoint, ConnectedPoint::Dialer { .. }));
                let line = Line { peer, dialled, way: Way::of(endpoint), ip: None, since: Instant::now() };
                self.connections.add(connection_id, line);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.connections.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        self.events.push_back(ToSwarm::GenerateEvent(StreamOpened { peer: PeerKey::of(peer), stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<StreamOpened, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Protocol;
    use super::*;
    use crate::peers::test_peer;
    use tokio::sync::oneshot;

    fn established(links: &mut Links, id: usize, peer: PeerKey, address: &Multiaddr) {
        let endpoint = ConnectedPoint::Dialer {
            address: address.clone(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        links.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer.id(),
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    /// Over which connection a stream is opened; none if whoever waits is told that there is no way.
    fn opens_over(links: &mut Links, peer: PeerKey) -> Option<ConnectionId> {
        let (reply, mut stream) = oneshot::channel();
        links.open(peer, OpenStream { protocol: Protocol::Pieces, reply });
        match links.events.pop_front() {
            Some(ToSwarm::NotifyHandler { handler: NotifyHandler::One(connection), .. }) => Some(connection),
            _ => {
                assert_eq!(stream.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
                None
            }
        }
    }

    #[test]
    fn pieces_never_go_over_a_relayed_connection() {
        let (mut links, peer) = (Links::new(test_peer(0)), test_peer(1));
        let relayed: Multiaddr =
            format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit/p2p/{peer}", test_peer(9)).parse().unwrap();
        let direct: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
        assert_eq!(opens_over(&mut links, peer), None, "not connected");
        established(&mut links, 1, peer, &relayed);
        assert_eq!(opens_over(&mut links, peer), None);
        established(&mut links, 2, peer, &direct);
        assert_eq!(opens_over(&mut links, peer), Some(ConnectionId::new_unchecked(2)));
    }

    #[test]
    fn a_relayed_connection_takes_no_stream_of_pieces_either() {
        let speaks = |way: Way| Handler::new(way).protocols().len();
        assert_eq!((speaks(Way::Direct), speaks(Way::Relayed)), (2, 0));
    }
}
