//! All that a node tells of itself to whoever asks: over its supervisor's pipe, at /NODE/status, in `covey status`.

use super::Usage;
use crate::peer::{Status, Timings};
use covey_gossip::Traffic;
use covey_proto::{BlockNumber, Digest, Round, Uid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A node, now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `miner`, `validator`, `miner and validator`, `seeder`.
    pub role: String,
    /// Its run, by id.
    pub run: String,
    /// Its uid, once registered.
    pub uid: Option<Uid>,
    /// The round it is in.
    pub round: Round,
    /// A word for what it does.
    pub phase: String,
    /// Whether it takes part: neither starting, nor catching up, nor halted.
    pub live: bool,
    /// Why it stopped, if it did.
    pub halted: Option<String>,
    /// The newest block it has dealt with.
    pub best: BlockNumber,
    /// The newest block that it knows as final.
    pub finalised: BlockNumber,
    /// The header that its state follows from.
    pub head: Digest,
    /// The root of its state.
    pub root: Digest,
    /// Connected peers.
    pub peers: usize,
    /// The last training loss, nats a token.
    pub loss: Option<f64>,
    /// Tokens trained on since it was started.
    pub tokens: u64,
    /// Tokens a second in the last round's training.
    pub tokens_per_second: f64,
    /// Rounds in which a contribution of this node was committed, since it was started.
    pub contributed: u32,
    /// Bytes moved since it was started, by kind.
    pub bytes: BTreeMap<String, u64>,
    /// Time spent since it was started, by phase, in seconds: work summed over threads, waiting not counted.
    pub seconds: BTreeMap<String, f64>,
    /// What its process has cost the machine since it was started. A node of an older version does not say.
    #[serde(default)]
    pub usage: Usage,
    /// The last thing that went wrong, as its log says it.
    pub error: Option<String>,
}

impl NodeStatus {
    /// Takes over what a node says of itself; name, role, run, usage and error are left as they are.
    pub fn update(&mut self, status: &Status) {
        let Timings(seconds) = &status.seconds;
        self.uid = status.uid;
        self.round = status.round;
        self.phase = status.phase.to_owned();
        self.live = status.live;
        self.halted.clone_from(&status.halted);
        (self.best, self.finalised) = (status.seen, status.finalised);
        (self.head, self.root) = (status.head, status.root);
        self.peers = status.peers;
        self.loss = status.loss;
        self.tokens = status.tokens;
        self.tokens_per_second = status.tokens_per_second;
        self.contributed = status.contributed;
        self.bytes = by_kind(&status.traffic);
        self.seconds = seconds.iter().map(|(phase, seconds)| ((*phase).to_owned(), *seconds)).collect();
    }
}

/// Kinds of bytes that do not overlap and together are what nodes received as payload. The others count the same bytes
/// again: at their senders, with their framing, or without their duplicates.
pub const RECEIVED: [&str; 3] = ["gossip received, duplicates included", "announcements pulled", "blobs received"];

/// Bytes by kind: payload by what it was for, and what TCP carried in all.
fn by_kind(traffic: &Traffic) -> BTreeMap<String, u64> {
    let kinds = [
        ("announcements received", traffic.announcements_in.bytes),
        ("gossip received, duplicates included", traffic.gossip_in.bytes),
        ("announcements pulled", traffic.announcements_pulled.bytes),
        ("blobs received", traffic.blobs_in.bytes),
        ("blobs sent", traffic.blobs_out.bytes),
        ("pieces of the round received", traffic.round_in.bytes),
        ("pieces of the round sent", traffic.round_out.bytes),
        ("pieces of states received", traffic.state_in.bytes),
        ("pieces of states sent", traffic.state_out.bytes),
        ("TCP received", traffic.tcp_bytes_in),
        ("TCP sent", traffic.tcp_bytes_out),
    ];
    kinds.into_iter().map(|(kind, bytes)| (kind.to_owned(), bytes)).collect()
}

/// A node's status as its shell keeps it: who changes it and who shows it share it.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<NodeStatus>>);

impl Board {
    /// Of a node that starts.
    pub fn new(name: &str, role: &str, run: String) -> Board {
        let status = NodeStatus { name: name.to_owned(), role: role.to_owned(), run, ..NodeStatus::default() };
        Board(Arc::new(Mutex::new(status)))
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut NodeStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// As it is now.
    pub fn read(&self) -> NodeStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_older_node_is_read_too() {
        let mut status = serde_json::to_value(NodeStatus { peers: 3, ..NodeStatus::default() }).unwrap();
        status.as_object_mut().unwrap().remove("usage");
        let status: NodeStatus = serde_json::from_value(status).unwrap();
        assert_eq!((status.peers, status.usage), (3, Usage::default()));
    }

    /// A node's own words do not wipe out what its process is known by.
    #[test]
    fn an_update_leaves_who_it_is_as_it_was() {
        let board = Board::new("miner-0", "miner", "run".into());
        let usage = Usage { memory_peak: Some(1), disk_written: Some(2) };
        board.change(|status| (status.usage, status.error) = (usage, Some("no disk".into())));
        let told = Status { phase: "train", tokens: 7, ..Status::default() };
        board.change(|status| status.update(&told));
        let status = board.read();
        assert_eq!((&*status.name, &*status.role, &*status.phase, status.tokens), ("miner-0", "miner", "train", 7));
        assert_eq!((status.usage, status.error.as_deref()), (usage, Some("no disk")));
    }
}
