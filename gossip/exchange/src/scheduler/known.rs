//! What a peer holds of a blob: nothing, all, or a set, read 64 pieces at a time.

use covey_proto::pieces::PieceSet;

/// What a peer holds of a blob.
#[derive(Debug)]
pub(super) enum Known {
    Nothing,
    Some(PieceSet),
    All,
}

impl Known {
    pub(super) fn of(set: PieceSet) -> Known {
        if set.is_empty() {
            Known::Nothing
        } else if set.is_full() {
            Known::All
        } else {
            Known::Some(set)
        }
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        match self {
            Known::Nothing => false,
            Known::Some(set) => set.contains(piece),
            Known::All => true,
        }
    }

    /// Pieces 64·`at` and on, the first in the least bit.
    pub(super) fn word(&self, at: usize) -> u64 {
        match self {
            Known::Nothing => 0,
            Known::All => u64::MAX,
            Known::Some(set) => word_of(set, at),
        }
    }
}

/// Pieces 64·`at` and on of a set, the first in the least bit.
pub(super) fn word_of(set: &PieceSet, at: usize) -> u64 {
    let bytes = set.as_bytes().get(at * 8..).unwrap_or_default();
    let mut word = [0; 8];
    let taken = bytes.len().min(8);
    word[..taken].copy_from_slice(&bytes[..taken]);
    u64::from_le_bytes(word)
}
