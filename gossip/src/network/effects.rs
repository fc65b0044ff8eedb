//! What one owner of the network's state wants done by another: put in a queue, which the loop empties after each event.

use super::requests::Purpose;
use crate::peers::PeerKey;
use crate::small::codec::Ask;
use std::collections::VecDeque;

/// One such thing.
pub(super) enum Effect {
    /// Send a small request.
    Ask { peer: PeerKey, ask: Box<Ask>, purpose: Purpose },
    /// Refuse a peer, and the member it speaks for, for a while.
    Ban { peer: PeerKey, why: String },
    /// Close all connections to a peer.
    Disconnect { peer: PeerKey },
    /// Dial a peer wherever it is said to be.
    Dial { peer: PeerKey },
    /// Look after the connections at the next turn, and not only when it is time: there may be somebody to dial.
    UpkeepSoon,
}

impl Effect {
    /// To ask a peer.
    pub(super) fn ask(peer: PeerKey, ask: Ask, purpose: Purpose) -> Effect {
        Effect::Ask { peer, ask: Box::new(ask), purpose }
    }
}

/// In the order in which they were wanted.
pub(super) type Effects = VecDeque<Effect>;
