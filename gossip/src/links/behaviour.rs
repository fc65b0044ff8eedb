//! Which connection a stream goes over: one a peer, the same as long as it lasts, and the one that both sides will keep.

use super::handler::{Came, Handler, Open};
use crate::peers::PeerKey;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerKey,
    pub(crate) came: Came,
}

/// The streams of the exchange, as a part of the swarm.
pub(crate) struct Links {
    own: PeerKey,
    /// With whether this side dialled.
    connections: HashMap<PeerId, Vec<(ConnectionId, bool)>>,
    /// Bounded by the streams that handlers let in, and the opens of the owner.
    events: VecDeque<ToSwarm<Inbound, Open>>,
}

impl Links {
    pub(crate) fn new(own: PeerKey) -> Links {
        Links { own, connections: HashMap::new(), events: VecDeque::new() }
    }

    /// Opens a stream to a connected peer: who waits gets it, or finds its sender dropped if there is no connection, the connection
    /// closes, the peer does not speak the protocol, or takes too long.
    pub(crate) fn open(&mut self, peer: PeerKey, open: Open) {
        let smaller = self.own < peer;
        let connections = self.connections.get(&peer.id());
        // Of two that last, both sides close the one that the larger id dialled.
        let best = connections.and_then(|all| all.iter().min_by_key(|(id, dialled)| (*dialled != smaller, *id)));
        if let Some((connection, _)) = best {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: peer.id(),
                handler: NotifyHandler::One(*connection),
                event: open,
            });
        }
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let dialled = matches!(endpoint, ConnectedPoint::Dialer { .. });
                self.connections.entry(peer_id).or_default().push((connection_id, dialled));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|(id, _)| *id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, came: THandlerOutEvent<Self>) {
        self.events.push_back(ToSwarm::GenerateEvent(Inbound { peer: PeerKey::of(peer), came }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Inbound, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
