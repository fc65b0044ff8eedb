//! What the rest of the node wishes on chain, and how it reaches the task that submits.

use crate::disk::JournalFile;
use covey_proto::run::Run;
use covey_proto::{BlockNumber, HotkeyPair, RunId, Uid};
use covey_round::submit::Wish;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Wishes that wait for the task: it takes them at once, so that these are those of one instant.
const ORDERS_MAX: usize = 16;

/// What signing takes.
pub struct Signer<L> {
    /// The node's name, for people.
    pub name: Arc<str>,
    /// The run: its clock says when a journalled contribution is too late.
    pub run: Arc<Run>,
    /// Its name, which every record bears.
    pub run_id: RunId,
    /// The chain.
    pub ledger: Arc<L>,
    /// Where a contribution's call is written before it is handed over.
    pub journal: Arc<JournalFile>,
    /// The key; a node without one signs nothing.
    pub pair: Option<Arc<HotkeyPair>>,
}

/// A wish, and whom to tell when its first try is over.
pub(super) struct Order {
    /// What is wished.
    pub(super) wish: Wish,
    /// From this block on it is of no use.
    pub(super) until: BlockNumber,
    /// Told when the first try is over.
    pub(super) tried: oneshot::Sender<()>,
}

/// What was wished and not taken by the task yet: [`super::start`] needs it.
pub struct Orders(pub(super) mpsc::Receiver<Order>);

/// Wishes things on chain. Cheap to clone.
#[derive(Clone)]
pub struct SubmitHandle(mpsc::Sender<Order>);

impl SubmitHandle {
    /// A handle, and what [`super::start`] needs to hear from it. Until then wishes wait.
    pub fn new() -> (SubmitHandle, Orders) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (SubmitHandle(sender), Orders(receiver))
    }

    /// Wishes a record on chain. A contribution must be in the journal by now, and a vote too: after a crash nothing else
    /// knows of them. Returns when the chain has its call or the wish is given up; it is looked after until it stands at a
    /// final block or block `until` is final.
    ///
    /// Dropping the future withdraws nothing that the task has taken.
    pub async fn put(&self, wish: Wish, until: BlockNumber) {
        let (tried, over) = oneshot::channel();
        // The task is gone only when the node is.
        if self.0.send(Order { wish, until, tried }).await.is_ok() {
            let _ = over.await;
        }
    }

    /// Wishes weights on chain, in place of all that were wished before. Returns after the first try: a subnet may take
    /// them many blocks later. A crash of this process may lose them.
    pub async fn set_weights(&self, row: Vec<(Uid, u16)>, until: BlockNumber) {
        self.put(Wish::Weights(row), until).await;
    }
}
