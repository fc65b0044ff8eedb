//! What there is to show of a swarm: its nodes now, a round that is over, work that a person waits for.

use std::time::Duration;

/// A swarm, now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Rounds that have been applied.
    pub round: u32,
    /// Rounds in all.
    pub rounds: u32,
    /// Since the first block.
    pub elapsed: Duration,
    /// The newest loss on held-out text, nats a token.
    pub heldout_loss: Option<f64>,
    /// The same before round 0 and after each round.
    pub heldout_by_round: Vec<f64>,
    /// Tokens that all miners trained on.
    pub tokens: u64,
    /// Their rate.
    pub tokens_per_second: f64,
    /// Bytes moved, sum over nodes.
    pub bytes: u64,
    /// Connected peers.
    pub peers: usize,
    /// The nodes, in the order in which they are shown.
    pub nodes: Vec<NodeLine>,
    /// The last noteworthy event.
    pub last: Option<String>,
}

/// A node, now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeLine {
    /// `miner-0`.
    pub name: String,
    /// `miner`, `validator` or `seeder`.
    pub role: String,
    /// A word for what it does.
    pub phase: &'static str,
    /// The round it is in, from 0.
    pub round: u32,
    /// The last training loss, nats a token.
    pub loss: Option<f64>,
    /// Whether it takes part.
    pub live: bool,
    /// What is odd about it.
    pub note: Option<String>,
}

/// A round that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundLine {
    /// The round, from 0.
    pub round: u32,
    /// Rounds in all.
    pub rounds: u32,
    /// Loss on held-out text after it, nats a token.
    pub loss: Option<f64>,
    /// Tokens a second, all miners together.
    pub tokens_per_second: f64,
    /// Bytes moved so far, sum over nodes.
    pub bytes: u64,
    /// Contributions applied.
    pub selected: usize,
    /// Contributions committed in time.
    pub offered: usize,
    /// The state root, as short as a person compares it.
    pub root: String,
    /// From the round before to this one.
    pub took: Duration,
}

/// Work that goes on after the last round: what a person waits for, and for how long at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkLine {
    /// What is being done: `held-out loss of the last state`.
    pub what: String,
    /// So much of it is done.
    pub done: u64,
    /// Of so much.
    pub of: u64,
    /// What is counted: `sequence`.
    pub noun: &'static str,
    /// Since it began.
    pub elapsed: Duration,
    /// When it is ended, done or not.
    pub at_most: Duration,
}
