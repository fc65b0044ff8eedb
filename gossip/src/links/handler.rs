//! One connection's streams of the exchange: opens what it is told to, and counts what the other side opens.
//!
//! A stream that is one too many is closed at once: nothing waits for a place. Streams keep their connection, and end
//! with it. A relayed connection speaks none of the exchange's protocols.

use super::protocol::{OPEN_TIMEOUT, Protocol, StreamPlace};
use crate::peers::way::Way;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Semaphore, oneshot};

/// Streams that the other side may have opened on one connection: of holdings, and of pieces (one a class).
const HOLDINGS_IN_MAX: usize = 1;
const PIECES_IN_MAX: usize = 3;
/// Streams that wait for their opening: those of this side's own links, of which there are no more than four a peer.
const OPENS_MAX: usize = 16;

/// Negotiates one protocol or the other, and nothing beyond.
#[derive(Clone, Debug)]
pub(crate) struct Speak(&'static [Protocol]);

impl UpgradeInfo for Speak {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;
    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.0.iter().map(|protocol| protocol.name()).collect()
    }
}

impl InboundUpgrade<Stream> for Speak {
    type Output = (Stream, Protocol);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Protocol), Infallible>>;
    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        let pieces = name == Protocol::Pieces.name();
        ready(Ok((stream, if pieces { Protocol::Pieces } else { Protocol::Holdings })))
    }
}

impl OutboundUpgrade<Stream> for Speak {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;
    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// To open a stream: whoever waits gets it, or sees its sender dropped.
pub(crate) struct OpenStream {
    pub(super) protocol: Protocol,
    pub(super) reply: oneshot::Sender<Stream>,
}

impl fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {:?}", self.protocol)
    }
}

/// A stream that the other side opened, with its place among those that it may.
#[derive(Debug)]
pub(crate) struct InboundStream {
    pub(crate) protocol: Protocol,
    pub(crate) stream: Stream,
    pub(crate) place: StreamPlace,
}

pub(crate) struct Handler {
    way: Way,
    opens: VecDeque<OpenStream>,
    /// Places, of which no more streams than there may be hold one.
    holdings_in: Arc<Semaphore>,
    pieces_in: Arc<Semaphore>,
    opened: VecDeque<InboundStream>,
}

impl Handler {
    pub(super) fn new(way: Way) -> Handler {
        Handler {
            way,
            opens: VecDeque::new(),
            holdings_in: Arc::new(Semaphore::new(HOLDINGS_IN_MAX)),
            pieces_in: Arc::new(Semaphore::new(PIECES_IN_MAX)),
            opened: VecDeque::new(),
        }
    }

    /// What the other side may open here.
    pub(super) fn protocols(&self) -> &'static [Protocol] {
        match self.way {
            Way::Direct => &[Protocol::Holdings, Protocol::Pieces],
            Way::Relayed => &[],
        }
    }

    fn on_inbound(&mut self, stream: Stream, protocol: Protocol) {
        let places = match protocol {
            Protocol::Holdings => &self.holdings_in,
            Protocol::Pieces => &self.pieces_in,
        };
        match places.clone().try_acquire_owned() {
            // No longer than there are places.
            Ok(place) => self.opened.push_back(InboundStream { protocol, stream, place: StreamPlace(place) }),
            Err(_) => tracing::debug!(?protocol, "a stream too many is closed"),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = InboundStream;
    type InboundProtocol = Speak;
    type OutboundProtocol = Speak;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;

    fn listen_protocol(&self) -> SubstreamProtocol<Speak> {
        SubstreamProtocol::new(Speak(self.protocols()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Speak, oneshot::Sender<Stream>, InboundStream>> {
        if let Some(stream) = self.opened.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        while let Some(OpenStream { protocol, reply }) = self.opens.pop_front() {
            if !reply.is_closed() {
                let speak = match protocol {
                    Protocol::Holdings => Speak(&[Protocol::Holdings]),
                    Protocol::Pieces => Speak(&[Protocol::Pieces]),
                };
                let protocol = SubstreamProtocol::new(speak, reply).with_timeout(OPEN_TIMEOUT);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: OpenStream) {
        if self.opens.len() < OPENS_MAX {
            self.opens.push_back(open);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Speak, Speak, (), oneshot::Sender<Stream>>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.on_inbound(stream, protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: reply }) => {
                // Whoever waited may have given up.
                let _ = reply.send(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                tracing::debug!(%error, "a stream of the exchange was not opened");
                drop(reply);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// How many streams the handler asks for, until it has nothing to do.
    fn asked_for(handler: &mut Handler) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match handler.poll(&mut context) {
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. }) => Some(()),
            _ => None,
        })
        .count()
    }

    #[test]
    fn a_relayed_connection_speaks_none_of_the_exchanges_protocols() {
        assert_eq!(Handler::new(Way::Direct).protocols(), [Protocol::Holdings, Protocol::Pieces]);
        assert_eq!(Handler::new(Way::Relayed).protocols(), []);
    }

    #[test]
    fn a_stream_that_nobody_waits_for_is_not_opened_and_a_few_may_wait() {
        let mut handler = Handler::new(Way::Direct);
        let mut waiting = Vec::new();
        for number in 0..OPENS_MAX + 2 {
            let (reply, answer) = oneshot::channel();
            handler.on_behaviour_event(OpenStream { protocol: Protocol::Pieces, reply });
            // Every second one gives up.
            waiting.extend((number % 2 == 0).then_some(answer));
        }
        assert_eq!(asked_for(&mut handler), OPENS_MAX / 2);
        assert_eq!(asked_for(&mut handler), 0);
    }
}
