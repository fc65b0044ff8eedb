//! Whose lists of peer records are asked for: those of a few connected peers at a time, while peers are few.

use super::types::{DiscoveryAction, Surroundings};
use crate::peers::PeerKey;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time between two askings of one peer.
const ASK_EACH: Duration = Duration::from_secs(300);
/// Peers asked at a time.
const ASKED_MAX: usize = 2;

#[derive(Debug, Default)]
pub(super) struct RecordLists {
    /// When connected peers were asked.
    asked: HashMap<PeerKey, Instant>,
    saw_chain: bool,
}

impl RecordLists {
    /// Asks, if there is reason to: the first peer at once, since it may be gone soon; and everybody again once the chain
    /// is seen, because only then can the answers be judged.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        peers_target: usize,
        around: &dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        if around.sees_chain() && !self.saw_chain {
            self.saw_chain = true;
            self.asked.clear();
        }
        let connected = around.connected();
        if connected.len() > peers_target {
            return;
        }
        let asked = &self.asked;
        let due = |peer: &&PeerKey| asked.get(peer).is_none_or(|at| now.saturating_duration_since(*at) >= ASK_EACH);
        let peers: Vec<PeerKey> = connected.iter().filter(due).take(ASKED_MAX).copied().collect();
        for peer in peers {
            self.asked.insert(peer, now);
            out.push(DiscoveryAction::AskForRecords { peer });
        }
    }

    pub(super) fn left(&mut self, peer: &PeerKey) {
        self.asked.remove(peer);
    }
}
