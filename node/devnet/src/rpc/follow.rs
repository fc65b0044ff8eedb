//! What is kept of a client that follows the chain. What it may ask of the blocks that it holds is `chain_head`'s.

use serde_json::Value;
use sp_core::H256;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// A client that follows.
pub(super) struct Follow {
    /// Answers of its operations, on their way to it.
    pub(super) answers: mpsc::Sender<Value>,
    /// Blocks that it has not let go of.
    pub(super) pinned: HashSet<H256>,
    /// Operations so far: the next one's id.
    pub(super) operations: u64,
    /// Places for operations under way.
    pub(super) running: Arc<Semaphore>,
}
