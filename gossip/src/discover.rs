//! The face of discovery: which states this node says that it holds, and who says so of others.

use crate::handle::{Command, Handle};
use crate::peers::PeerKey;
use covey_proto::Digest;
use tokio::sync::oneshot;

/// States that a node says it holds: the newest two, and two on their way. Others keep no more keys of one peer.
pub(crate) const PROVIDED_MAX: usize = 4;

impl Handle {
    /// Says by Kademlia that this node holds the state of this root, from now on each ten minutes, until
    /// [`Handle::stop_providing`]. At most four: the one that was named first makes room. Others forget it half an hour
    /// after it was last said. Members say by themselves that they take part in the run.
    pub fn provide(&self, state: Digest) {
        let mut provided = self.shared.provided();
        provided.retain(|other| *other != state);
        provided.push_back(state);
        if provided.len() > PROVIDED_MAX {
            provided.pop_front();
        }
    }

    /// Ceases to say that this node holds a state.
    pub fn stop_providing(&self, state: Digest) {
        self.shared.provided().retain(|other| *other != state);
    }

    /// Peers that are said to hold the state of this root: hints for a fetch, which dials them. Members first, then from
    /// as many networks as there are; at most 64. Nothing is believed of them but where they may be dialled, and nobody
    /// need answer: empty if nobody did within 20 seconds.
    ///
    /// Cancel safe: the look-up goes on, and what it finds is dialled if a fetch names it.
    pub async fn providers(&self, state: Digest) -> Vec<PeerKey> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Providers { state, reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}
