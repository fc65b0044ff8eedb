//! What streams of the exchange there are, and the places on which the other side's stand.

use covey_exchange::frames;
use libp2p::StreamProtocol;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How long the opening of a stream may take, with what the two sides must agree on.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stream of the exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Holdings,
    Pieces,
}

impl Protocol {
    pub(super) fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Protocol::Holdings => frames::HOLDINGS,
            Protocol::Pieces => frames::PIECES,
        })
    }
}

/// A stream's place among those that its peer may open; free again when this goes.
#[derive(Debug)]
pub(crate) struct StreamPlace(#[allow(dead_code, reason = "held, not read")] pub(super) OwnedSemaphorePermit);
