//! Asks [`Admission`] and the bans at every connection. Decides nothing itself.

use crate::peers::PeerKey;
use crate::peers::admission::{Admission, Direction, Named, NotAdmitted};
use crate::peers::place::{Place, address_of};
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

    fn place_of(&self, multiaddr: &Multiaddr) -> Option<Place> {
        let ip = address_of(multiaddr)?;
        if self.loopback_exempt { Place::of(ip) } else { Some(Place::even_of(ip)) }
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
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let place = self.place_of(remote);
        self.admission.ask_pending(connection, place, Instant::now()).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let place = self.place_of(remote);
        self.ask(peer, Direction::In(place))
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
                    ConnectedPoint::Listener { send_back_addr, .. } => Direction::In(self.place_of(send_back_addr)),
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
