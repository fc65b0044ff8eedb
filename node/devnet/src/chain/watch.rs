//! Who is told what becomes of a transaction.

use sp_core::H256;
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Statuses of one transaction that a watcher may be behind; one that is further behind is dropped, and asks again.
const STATUSES_MAX: usize = 64;

/// What becomes of a transaction that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can be in the next block.
    Ready,
    /// It waits for others.
    Future,
    /// It is in a block, at this place.
    InBlock(H256, u32),
    /// The block that it was in is no longer part of the best chain.
    Retracted(H256),
    /// Its block is final.
    Final(H256, u32),
    /// Another took its place.
    Usurped(H256),
    /// It will never be in a block.
    Invalid,
    /// The pool has let go of it: it may be submitted again.
    Dropped,
}

impl Status {
    /// Whether nothing comes after it.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Final(..) | Self::Usurped(_) | Self::Invalid | Self::Dropped)
    }
}

/// Watchers by their transaction's hash: of those that wait in the pool, or are in a block that is not final.
#[derive(Default)]
pub(super) struct Watchers(HashMap<H256, Vec<mpsc::Sender<Status>>>);

impl Watchers {
    /// One more, who is told everything from now on.
    pub(super) fn add(&mut self, hash: H256) -> mpsc::Receiver<Status> {
        let (sender, receiver) = mpsc::channel(STATUSES_MAX);
        self.0.entry(hash).or_default().push(sender);
        receiver
    }

    pub(super) fn tell(&mut self, hash: &H256, status: Status) {
        let Some(watchers) = self.0.get_mut(hash) else { return };
        watchers.retain(|watcher| watcher.try_send(status).is_ok());
        if status.is_last() || watchers.is_empty() {
            self.0.remove(hash);
        }
    }
}
