//! What a node tells of itself: to the display, to whoever makes blocks, to the report.

use crate::chain::Heads;
use covey_gossip::{Handle, Traffic};
use covey_proto::{BlockNumber, Digest, Round, Uid};
use covey_round::engine::Engine;
use covey_trainer::inner::RoundReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

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

/// Where a node's loop reports.
pub(super) struct Reports {
    status: watch::Sender<Status>,
    /// Told of every round that is applied.
    observer: Option<mpsc::Sender<Applied>>,
}

impl Reports {
    /// Nothing has happened yet.
    pub(super) fn new(observer: Option<mpsc::Sender<Applied>>) -> Reports {
        Reports { status: watch::Sender::new(Status::default()), observer }
    }

    /// What is reported, now and from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How the node stands.
    pub(super) fn publish(&self, engine: &Engine, network: &Handle, root: Digest, uid: Option<Uid>) {
        let tip = engine.tip();
        self.status.send_modify(|status| {
            status.idle = engine.is_idle();
            status.live = engine.is_live();
            status.round = engine.round();
            status.due = tip.next();
            status.head = tip.head;
            status.root = root;
            status.phase = engine.phase();
            status.uid = uid;
            status.peers = network.peers().len();
            status.traffic = network.traffic();
        });
    }

    /// The chain has moved. The node is not idle until the state machine has said so for this block.
    pub(super) fn saw(&self, heads: Heads) {
        self.status.send_modify(|status| {
            status.seen = heads.best;
            status.finalised = heads.finalised;
            status.idle = false;
        });
    }

    /// Time was spent on a phase.
    pub(super) fn spent(&self, phase: &'static str, time: Duration) {
        self.status.send_modify(|status| status.seconds.add(phase, time));
    }

    /// A contribution was made, in this time of training and of compression.
    pub(super) fn trained(&self, report: RoundReport, [training, compressing]: [Duration; 2]) {
        self.status.send_modify(|status| {
            status.loss = Some(report.loss_mean);
            status.tokens += report.tokens;
            status.tokens_per_second = report.tokens as f64 / training.as_secs_f64().max(1e-9);
            status.contributed += 1;
            status.seconds.add("train", training);
            status.seconds.add("compress", compressing);
        });
    }

    /// A round was applied.
    pub(super) fn applied(&self, node: &str, applied: Applied) {
        let round = applied.round;
        if let Some(observer) = &self.observer
            && observer.try_send(applied).is_err()
        {
            tracing::warn!(%node, %round, "nobody takes the report of this round");
        }
    }

    /// The node stops, and a person must know why.
    pub(super) fn halted(&self, why: &str) {
        self.status.send_modify(|status| {
            status.live = false;
            status.halted = Some(why.to_owned());
        });
    }
}
