//! What a node has read from the chain at one final block. The node fills it; whoever must check against the chain is
//! handed it.

use crate::{BlockNumber, Digest, Hotkey, Uid};
use std::collections::BTreeMap;

/// Bytes of the largest commitment a chain takes.
pub const COMMITMENT_BYTES_MAX: usize = 128;

/// Who holds a uid. Another holder of the uid is another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The uid.
    pub uid: Uid,
    /// Its holder's key.
    pub hotkey: Hotkey,
    /// The block at which the holder registered.
    pub registered_at: BlockNumber,
    /// Whether it may validate.
    pub permit: bool,
    /// Its stake, in the chain's smallest unit.
    pub stake: u64,
}

/// What stands in a hotkey's commitment slot; the next commitment overwrites it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The block at which it was set.
    pub block: BlockNumber,
    /// The bytes, at most [`COMMITMENT_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// A subnet at one final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainView {
    /// The block.
    pub block: BlockNumber,
    /// Its hash.
    pub hash: Digest,
    /// Who is registered.
    pub members: BTreeMap<Uid, Member>,
    /// The commitments, of departed hotkeys too: chains never clear them.
    pub slots: BTreeMap<Hotkey, Slot>,
}

impl ChainView {
    /// The member that holds this key.
    pub fn member(&self, hotkey: &Hotkey) -> Option<&Member> {
        self.members.values().find(|member| member.hotkey == *hotkey)
    }
}
