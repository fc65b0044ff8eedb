//! Who makes blocks in a swarm, and when: as soon as no live node has work left, or after a timeout.
//!
//! It knows the nodes by their status alone, beside the ledger: a slow machine makes a round longer, never emptier.
//! Nodes that start or catch up do not hold the others up, but while there are any, blocks come no faster than
//! `BLOCK_MIN`: a run of idle nodes would be rounds ahead before a newcomer has shaken a hand.

use crate::chain::log::{ChainLog, LogError};
use crate::chain::memory::MemoryLedger;
use crate::peer::Status;
use covey_proto::BlockNumber;
use futures::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// After so long without a block one is made all the same: a node hangs.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// The least time between blocks while somebody catches up: a round of 24 takes more than a second then, and a catch-up
/// of some rounds less. A devnet's block takes 500 ms.
const BLOCK_MIN: Duration = Duration::from_millis(50);

/// Makes blocks.
pub(super) struct Pacer {
    ledger: MemoryLedger,
    log: ChainLog,
    best: BlockNumber,
    since: Instant,
}

impl Pacer {
    /// Makes the blocks of `ledger`, and keeps them in `log`.
    pub(super) fn new(ledger: MemoryLedger, log: ChainLog) -> Pacer {
        Pacer { ledger, log, best: BlockNumber(0), since: Instant::now() }
    }

    /// Makes a block now.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(super) fn produce(&mut self) -> Result<BlockNumber, LogError> {
        let block = self.ledger.produce();
        self.log.append(&block)?;
        self.best = block.number;
        self.since = Instant::now();
        Ok(block.number)
    }

    /// Waits until none of the live nodes has work left at the newest block, or the timeout is over; says which.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait(&self, nodes: &[watch::Receiver<Status>]) -> Waited {
        let best = self.best;
        let idle = |status: &Status| !status.live || (status.idle && status.seen >= best);
        let mut waits: FuturesUnordered<_> = nodes
            .iter()
            .cloned()
            // A status that is gone belongs to a node that is.
            .map(|mut status| async move { drop(status.wait_for(idle).await) })
            .collect();
        let catches_up = |status: &Status| !status.live && status.halted.is_none();
        let earliest = match nodes.iter().any(|node| catches_up(&node.borrow())) {
            true => self.since + BLOCK_MIN,
            false => self.since,
        };
        let all = async {
            while waits.next().await.is_some() {}
            tokio::time::sleep_until(earliest).await;
        };
        match tokio::time::timeout_at(self.since + BLOCK_TIMEOUT, all).await {
            Ok(()) => Waited::AllIdle,
            Err(_) => Waited::TimedOut,
        }
    }
}

/// Why the wait for a block is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// No live node has work left.
    AllIdle,
    /// Some node has not said so for long.
    TimedOut,
}
