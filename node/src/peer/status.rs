//! What a node tells of itself: to the display, to whoever makes blocks, to the report.

use covey_gossip::Traffic;
use covey_proto::{BlockNumber, Digest, Round, Uid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A node, now.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The newest block it has dealt with.
    pub seen: BlockNumber,
    /// The newest block that it knows as final.
    pub finalised: BlockNumber,
    /// Whether it waits for nothing but blocks.
    pub idle: bool,
    /// Whether it takes part: neither starting, nor catching up, nor halted.
    pub live: bool,
    /// Why it stopped, if it did.
    pub halted: Option<String>,
    /// The round that its phase is of.
    pub round: Round,
    /// The round after the last one that it has applied: the same, or the one before.
    pub due: Round,
    /// The header that its state follows from.
    pub head: Digest,
    /// The root of its state.
    pub root: Digest,
    /// A word for what it does.
    pub phase: &'static str,
    /// The last training loss, nats a token.
    pub loss: Option<f64>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens a second in the last round's training.
    pub tokens_per_second: f64,
    /// Connected peers.
    pub peers: usize,
    /// Bytes moved.
    pub traffic: Traffic,
    /// Rounds in which a contribution of this node was committed.
    pub contributed: u32,
    /// Time spent, by phase.
    pub seconds: Timings,
    /// The node's uid, once registered.
    pub uid: Option<Uid>,
}

/// Time spent by phase. Work (train, compress, check, apply, score) is summed over threads; waiting is not counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings(pub BTreeMap<&'static str, f64>);

impl Timings {
    /// Adds time to a phase.
    pub fn add(&mut self, phase: &'static str, time: Duration) {
        *self.0.entry(phase).or_default() += time.as_secs_f64();
    }
}

/// A round that a node has applied: for whoever watches. The state itself is in the node's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The round.
    pub round: Round,
    /// The header's digest.
    pub head: Digest,
    /// The state root.
    pub root: Digest,
    /// What was applied.
    pub chosen: Vec<(Uid, Digest)>,
    /// What had been committed in time.
    pub offered: Vec<Uid>,
    /// Why the round was void, if it was.
    pub void: Option<String>,
}
