//! Which blocks are final, by number. Final blocks never change: an endpoint that says otherwise is on another fork, or
//! lies.

use super::header::Head;
use covey_proto::{BlockNumber, Digest};
use std::collections::BTreeMap;

/// Hashes kept: four times the blocks whose state an ordinary node has.
const FINALS_MAX: usize = 1024;

/// Two final blocks of one number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "final block {block} is {known} by what was seen before, and {told} by {endpoint}: one of them is not to be trusted"
)]
pub(super) struct Conflict {
    block: BlockNumber,
    known: Digest,
    told: Digest,
    endpoint: String,
}

/// The newest final blocks.
#[derive(Debug, Default)]
pub(super) struct Finals(BTreeMap<BlockNumber, Digest>);

impl Finals {
    /// Notes a final block and its parent.
    pub(super) fn note(&mut self, head: Head, endpoint: &str) -> Result<(), Conflict> {
        self.insert(head.number, head.hash, endpoint)?;
        match head.number.0.checked_sub(1) {
            Some(parent) => self.insert(BlockNumber(parent), head.parent, endpoint),
            None => Ok(()),
        }
    }

    /// Notes the hash of a final block.
    pub(super) fn insert(&mut self, block: BlockNumber, told: Digest, endpoint: &str) -> Result<(), Conflict> {
        match self.0.get(&block) {
            Some(known) if *known == told => return Ok(()),
            Some(known) => return Err(Conflict { block, known: *known, told, endpoint: endpoint.to_owned() }),
            None => {}
        }
        self.0.insert(block, told);
        while self.0.len() > FINALS_MAX {
            self.0.pop_first();
        }
        Ok(())
    }

    /// The hash of a final block, if it was seen.
    pub(super) fn get(&self, block: BlockNumber) -> Option<Digest> {
        self.0.get(&block).copied()
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<(BlockNumber, Digest)> {
        self.0.last_key_value().map(|(block, hash)| (*block, *hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u32, fork: u8) -> Head {
        let of = |number: u32| Digest::of(&[&number.to_le_bytes()[..], &[fork]].concat());
        Head { number: BlockNumber(number), hash: of(number), parent: of(number.wrapping_sub(1)) }
    }

    #[test]
    fn a_second_final_block_of_a_number_is_a_conflict() {
        let mut finals = Finals::default();
        finals.note(head(7, 0), "a").unwrap();
        finals.note(head(7, 0), "b").unwrap();
        finals.note(head(8, 0), "b").unwrap();
        assert_eq!(finals.get(BlockNumber(6)), Some(head(7, 0).parent));
        let conflict = finals.note(head(8, 1), "b").unwrap_err();
        assert!(conflict.to_string().contains("final block 8"), "{conflict}");
        assert_eq!(finals.newest(), Some((BlockNumber(8), head(8, 0).hash)), "what was seen first stays");
    }

    #[test]
    fn old_blocks_are_forgotten() {
        let mut finals = Finals::default();
        for number in (1..5_000).step_by(2) {
            finals.note(head(number, 0), "a").unwrap();
        }
        assert_eq!(finals.0.len(), FINALS_MAX);
        assert_eq!(finals.get(BlockNumber(1)), None);
    }
}
