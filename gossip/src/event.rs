//! What the network tells the node, and the node's verdict on what gossip brought.

use crate::announcements::claims::Claim;
use crate::peers::PeerKey;
use covey_proto::Uid;
use libp2p::PeerId;
use libp2p::gossipsub::MessageId;
use std::fmt;
use tokio::sync::mpsc;

/// What the network tells the node.
#[derive(Debug)]
pub enum Event {
    /// Gossip brought an announcement: bounded in size, otherwise unchecked. It goes no further until it is judged.
    Announcement {
        /// Its bytes.
        bytes: Vec<u8>,
        /// The neighbour that brought it; seldom its author.
        from: PeerKey,
        /// To be judged.
        ticket: Ticket,
    },
    /// A peer is connected.
    Connected {
        /// The peer.
        peer: PeerKey,
    },
    /// The last connection to a peer is closed.
    Disconnected {
        /// The peer.
        peer: PeerKey,
    },
    /// A peer has shown that it speaks for a uid.
    Bound {
        /// The peer.
        peer: PeerKey,
        /// The uid.
        uid: Uid,
    },
    /// It does not speak for it any more.
    Unbound {
        /// The peer.
        peer: PeerKey,
        /// The uid.
        uid: Uid,
    },
    /// A fault ended the network and it was rebuilt. Peers connect anew; announcements may have been missed: pull them.
    NetworkRestarted,
}

/// The events of a node, in the order in which they happened.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Event>);

impl Events {
    /// The next event; none once the network is shut down. Cancel safe: an event is returned or kept.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event, if one is waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// What becomes of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right: it goes on to the neighbours.
    Accept,
    /// It goes no further, and nobody is to blame: too late, known already, or a block that is not final here yet.
    Ignore,
    /// It is wrong and its sender should have known: it goes no further, and costs its sender much score.
    Reject,
}

#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) message: MessageId,
    pub(crate) source: PeerId,
    /// Which life of the network it came in.
    pub(crate) life: u64,
    /// Whose it says it is.
    pub(crate) claim: Option<Claim>,
    pub(crate) verdict: Verdict,
}

/// The right to judge one announcement, once, within 30 seconds. Dropped, it ignores.
pub struct Ticket {
    judgement: Option<Box<Judgement>>,
    verdicts: mpsc::Sender<Judgement>,
}

impl Ticket {
    pub(crate) fn new(judgement: Judgement, verdicts: mpsc::Sender<Judgement>) -> Ticket {
        Ticket { judgement: Some(Box::new(judgement)), verdicts }
    }

    /// Judges.
    pub fn judge(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    fn send(&mut self, verdict: Verdict) {
        if let Some(judgement) = self.judgement.take() {
            // There are no more tickets than places, but for those of a network's former life, which do not matter.
            let _ = self.verdicts.try_send(Judgement { verdict, ..*judgement });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(Verdict::Ignore);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}
