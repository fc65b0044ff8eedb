//! A peer that speaks the exchange as it likes: its streams are bare, and what goes over them is up to the test.

use super::{Node, PATIENCE};
use covey_exchange::frames::{Frame, Split, split};
use covey_gossip::PeerKey;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::{PortUse, Transport};
use libp2p::core::upgrade::{self, InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, noise, tcp, yamux};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot, watch};

const PROTOCOLS: [&str; 2] = [covey_exchange::frames::HOLDINGS, covey_exchange::frames::PIECES];

#[derive(Clone)]
pub struct Speak(Vec<&'static str>);

impl UpgradeInfo for Speak {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;
    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.0.iter().map(|name| StreamProtocol::new(name)).collect()
    }
}

type Negotiated = (&'static str, Stream);

fn negotiated(stream: Stream, name: &StreamProtocol) -> Ready<Result<Negotiated, Infallible>> {
    let name = PROTOCOLS.into_iter().find(|known| *known == name.as_ref()).unwrap();
    ready(Ok((name, stream)))
}

impl InboundUpgrade<Stream> for Speak {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;
    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        negotiated(stream, &name)
    }
}

impl OutboundUpgrade<Stream> for Speak {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;
    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        negotiated(stream, &name)
    }
}

pub struct Open(&'static str, oneshot::Sender<Stream>);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Default)]
pub struct Handler {
    opens: VecDeque<Open>,
    came: VecDeque<Negotiated>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Negotiated;
    type InboundProtocol = Speak;
    type OutboundProtocol = Speak;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;
    fn listen_protocol(&self) -> SubstreamProtocol<Speak> {
        SubstreamProtocol::new(Speak(PROTOCOLS.to_vec()), ())
    }
    fn connection_keep_alive(&self) -> bool {
        true
    }
    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Speak, oneshot::Sender<Stream>, Negotiated>> {
        if let Some(came) = self.came.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(came));
        }
        match self.opens.pop_front() {
            Some(Open(name, reply)) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Speak(vec![name]), reply),
            }),
            None => Poll::Pending,
        }
    }
    fn on_behaviour_event(&mut self, open: Open) {
        self.opens.push_back(open);
    }
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Speak, Speak, (), oneshot::Sender<Stream>>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.came.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                let _ = info.send(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => drop(info),
            _ => {}
        }
    }
}

#[derive(Default)]
pub struct Raw {
    events: VecDeque<ToSwarm<Negotiated, Open>>,
}

impl NetworkBehaviour for Raw {
    type ConnectionHandler = Handler;
    type ToSwarm = Negotiated;
    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, came: Negotiated) {
        self.events.push_back(ToSwarm::GenerateEvent(came));
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Negotiated, Open>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A peer of bare streams, connected to a node.
pub struct Peer {
    pub key: PeerKey,
    opens: mpsc::Sender<Open>,
    came: mpsc::Receiver<Negotiated>,
    gone: watch::Receiver<bool>,
}

impl Peer {
    pub async fn of(node: &Node) -> Peer {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let transport = tcp::tokio::Transport::default()
            .upgrade(upgrade::Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let own = key.public().to_peer_id();
        let config = libp2p::swarm::Config::with_tokio_executor();
        let mut swarm = Swarm::new(transport, Raw::default(), own, config);
        swarm.dial(node.handle.addresses()[0].parse::<Multiaddr>().unwrap()).unwrap();
        let victim = loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                break peer_id;
            }
        };
        let (opens, mut to_open) = mpsc::channel(64);
        let (comes, came) = mpsc::channel(64);
        let (goes, gone) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => match event {
                        // Streams that the test does not take are closed.
                        SwarmEvent::Behaviour(stream) => drop(comes.try_send(stream)),
                        SwarmEvent::ConnectionClosed { .. } => drop(goes.send_replace(true)),
                        _ => {}
                    },
                    open = to_open.recv() => match open {
                        Some(event) => {
                            let handler = NotifyHandler::Any;
                            swarm.behaviour_mut().events.push_back(ToSwarm::NotifyHandler { peer_id: victim, handler, event });
                        }
                        None => return,
                    },
                }
            }
        });
        Peer { key: PeerKey::from_bytes(&own.to_bytes()).unwrap(), opens, came, gone }
    }

    /// A stream of this protocol, or none if it is refused.
    pub async fn open(&self, name: &'static str) -> Option<Wire> {
        let (reply, stream) = oneshot::channel();
        self.opens.send(Open(name, reply)).await.ok()?;
        tokio::time::timeout(PATIENCE, stream).await.expect("it is opened or not").ok().map(Wire::of)
    }

    /// The next stream that the node opens.
    pub async fn next(&mut self) -> Option<(&'static str, Wire)> {
        let (name, stream) = self.came.recv().await?;
        Some((name, Wire::of(stream)))
    }

    pub async fn until_thrown_out(&self) {
        let mut gone = self.gone.clone();
        let thrown = gone.wait_for(|gone| *gone);
        drop(tokio::time::timeout(PATIENCE, thrown).await.expect("it is thrown out").unwrap());
    }

    pub fn is_connected(&self) -> bool {
        !*self.gone.borrow()
    }
}

/// A stream with frames on it.
pub struct Wire {
    pub stream: Stream,
    bytes: Vec<u8>,
}

impl Wire {
    fn of(stream: Stream) -> Wire {
        Wire { stream, bytes: vec![] }
    }

    pub async fn send(&mut self, frames: &[impl Frame]) -> std::io::Result<()> {
        let mut bytes = vec![];
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.send_bytes(&bytes).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; none once the stream has ended.
    pub async fn next<F: Frame>(&mut self) -> Option<F> {
        loop {
            if let Split::Frame(frame, used) = split::<F>(&self.bytes).expect("the node sends frames") {
                self.bytes.drain(..used);
                return Some(frame);
            }
            let mut more = [0; 16 * 1024];
            match self.stream.read(&mut more).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.bytes.extend_from_slice(&more[..read]),
            }
        }
    }

    /// The next bytes, so many.
    pub async fn body(&mut self, count: usize) -> Vec<u8> {
        let have = self.bytes.len().min(count);
        let mut body: Vec<u8> = self.bytes.drain(..have).collect();
        body.resize(count, 0);
        self.stream.read_exact(&mut body[have..]).await.unwrap();
        body
    }

    /// Until the other side ends it.
    pub async fn until_closed(&mut self) {
        let mut more = [0; 16 * 1024];
        let read = async { while matches!(self.stream.read(&mut more).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, read).await.expect("it is closed");
    }
}
