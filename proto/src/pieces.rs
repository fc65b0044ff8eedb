//! How a blob is cut for the exchange, and which parts of one a peer holds.
//!
//! A blob's bytes are the leaves of its BLAKE3 tree. A *group* is 64 KiB of them, what one proof covers; a *piece* is a
//! run of groups, what one request asks for. Both follow from the size alone, so no peer has to say them.

use crate::blob::BlobRef;
use std::ops::Range;

/// Bytes of a group: 64 BLAKE3 chunks. Proofs then cost 0.1 % of the bytes, and no more than this is ever held unproven.
pub const GROUP_BYTES: u64 = 64 * 1024;
/// Bytes of a piece of a blob of at most [`LARGE_BYTES`].
pub const PIECE_BYTES: u64 = 1 << 20;
/// Above so many bytes a piece is [`LARGE_PIECE_BYTES`], so that bitfields stay small: 8.3 KB for 280 GB.
pub const LARGE_BYTES: u64 = 16 << 30;
/// Bytes of a piece of a larger blob.
pub const LARGE_PIECE_BYTES: u64 = 4 << 20;
/// Pieces of the largest blob: its bitfield is then 64 KiB.
pub const PIECES_MAX: u64 = 1 << 19;
/// Bytes of the largest blob that is exchanged: 2 TiB.
pub const PIECED_BLOB_BYTES_MAX: u64 = PIECES_MAX * LARGE_PIECE_BYTES;

// A piece is a whole subtree, and a request's groups fit a mask of 64 bits.
const _: () = assert!(PIECE_BYTES.is_multiple_of(GROUP_BYTES) && LARGE_PIECE_BYTES == 64 * GROUP_BYTES);

/// Bytes of an inner node in a proof: its children's chaining values, left and right.
pub const PARENT_BYTES: u64 = 64;

/// Inner nodes of a tree over `total` groups that overlap `start..end`, which is not empty.
fn parents(total: u64, start: u64, end: u64) -> u64 {
    if start == 0 && end == total {
        return total - 1;
    }
    // BLAKE3: the left child is the largest power of two that leaves something for the right one.
    let left = total.next_power_of_two() / 2;
    let below_left = if start < left { parents(left, start, end.min(left)) } else { 0 };
    let below_right = if end > left { parents(total - left, start.saturating_sub(left), end - left) } else { 0 };
    1 + below_left + below_right
}

/// The cut of a blob of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pieces {
    size: u64,
}

impl Pieces {
    /// The cut of a blob of `size` bytes; none above [`PIECED_BLOB_BYTES_MAX`].
    pub const fn of(size: u64) -> Option<Pieces> {
        if size <= PIECED_BLOB_BYTES_MAX { Some(Pieces { size }) } else { None }
    }

    /// The cut of this blob; none above [`PIECED_BLOB_BYTES_MAX`].
    pub const fn of_blob(blob: &BlobRef) -> Option<Pieces> {
        Pieces::of(blob.size)
    }

    /// Bytes of the blob.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// Bytes of a piece but the last.
    pub const fn piece_bytes(self) -> u64 {
        if self.size <= LARGE_BYTES { PIECE_BYTES } else { LARGE_PIECE_BYTES }
    }

    /// Groups of a piece but the last: 16 or 64.
    pub const fn groups_per_piece(self) -> u32 {
        (self.piece_bytes() / GROUP_BYTES) as u32
    }

    /// How many pieces there are: at least one, of no bytes in an empty blob.
    pub const fn count(self) -> u32 {
        let count = self.size.div_ceil(self.piece_bytes());
        if count == 0 { 1 } else { count as u32 }
    }

    /// How many groups there are in all: at least one.
    pub const fn groups(self) -> u64 {
        let count = self.size.div_ceil(GROUP_BYTES);
        if count == 0 { 1 } else { count }
    }

    /// The groups of a piece, counted from the blob's first; empty for a piece that is none.
    pub fn groups_of(self, piece: u32) -> Range<u64> {
        let each = u64::from(self.groups_per_piece());
        let start = (u64::from(piece) * each).min(self.groups());
        start..(start + each).min(self.groups())
    }

    /// The bytes of some groups; what lies beyond the end is left out.
    pub fn bytes_of(self, groups: Range<u64>) -> Range<u64> {
        let at = |group: u64| group.saturating_mul(GROUP_BYTES).min(self.size);
        at(groups.start)..at(groups.end)
    }

    /// The bytes of a piece; empty for a piece that is none.
    pub fn bytes_of_piece(self, piece: u32) -> Range<u64> {
        self.bytes_of(self.groups_of(piece))
    }

    /// Bytes of the verified encoding of some groups: 64 for each node of the tree above groups that overlaps them, and
    /// their own. Zero for no groups.
    pub fn answer_bytes(self, groups: Range<u64>) -> u64 {
        let end = groups.end.min(self.groups());
        if groups.start >= end {
            return 0;
        }
        let bytes = self.bytes_of(groups.start..end);
        PARENT_BYTES * parents(self.groups(), groups.start, end) + (bytes.end - bytes.start)
    }

    /// The piece of a group.
    pub fn piece_of(self, group: u64) -> u32 {
        (group / u64::from(self.groups_per_piece())) as u32
    }
}

/// Which of a number of pieces: bit i of byte i/8 (from the least) stands for piece i; bits beyond are zero.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PieceSet {
    bytes: Vec<u8>,
    count: u32,
    len: u32,
}

impl PieceSet {
    /// None of `count` pieces.
    pub fn none(count: u32) -> PieceSet {
        PieceSet { bytes: vec![0; (count as usize).div_ceil(8)], count, len: 0 }
    }

    /// All of `count` pieces.
    pub fn all(count: u32) -> PieceSet {
        let mut bytes = vec![0xff; (count as usize).div_ceil(8)];
        if let Some(last) = bytes.last_mut().filter(|_| !count.is_multiple_of(8)) {
            *last = (1 << (count % 8)) - 1;
        }
        PieceSet { bytes, count, len: count }
    }

    /// Reads the bytes of a set of `count` pieces; none if they are too few, too many, or have a bit beyond.
    pub fn from_bytes(bytes: &[u8], count: u32) -> Option<PieceSet> {
        let beyond = (bytes.len() * 8).checked_sub(count as usize).filter(|beyond| *beyond < 8)?;
        if beyond > 0 && bytes.last().is_some_and(|last| last >> (8 - beyond) != 0) {
            return None;
        }
        let len = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(PieceSet { bytes: bytes.to_vec(), count, len })
    }

    /// Its bytes, ⌈count/8⌉ of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of how many pieces.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many it holds.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds all.
    pub fn is_full(&self) -> bool {
        self.len == self.count
    }

    /// Whether it holds this piece.
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.count && self.bytes.get(piece as usize / 8).is_some_and(|byte| byte >> (piece % 8) & 1 == 1)
    }

    /// Adds a piece; whether it is new. A piece that is none is not added.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.count || self.contains(piece) {
            return false;
        }
        self.bytes[piece as usize / 8] |= 1 << (piece % 8);
        self.len += 1;
        true
    }

    /// Adds a run of pieces, as far as there are such.
    pub fn insert_range(&mut self, pieces: Range<u32>) {
        for piece in pieces.start..pieces.end.min(self.count) {
            self.insert(piece);
        }
    }

    /// Takes a piece out; whether it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.bytes[piece as usize / 8] &= !(1 << (piece % 8));
        self.len -= 1;
        true
    }

    /// The pieces, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let bits = |(at, byte): (usize, &u8)| {
            let byte = *byte;
            (0..8u32).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u32 * 8 + bit)
        };
        self.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(bits)
    }

    /// The pieces as runs, rising and apart.
    pub fn runs(&self) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for piece in self.iter() {
            match runs.last_mut().filter(|run| run.end == piece) {
                Some(run) => run.end += 1,
                None => runs.push(piece..piece + 1),
            }
        }
        runs
    }
}

impl std::fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.len, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_piece_and_group_are_what_is_left() {
        let pieces = Pieces::of(2 * PIECE_BYTES + 5 * GROUP_BYTES + 7).unwrap();
        assert_eq!((pieces.count(), pieces.groups()), (3, 38));
        assert_eq!(pieces.groups_of(2), 32..38);
        assert_eq!(pieces.bytes_of_piece(2), 2 * PIECE_BYTES..pieces.size());
        assert!(pieces.groups_of(3).is_empty() && pieces.bytes_of_piece(u32::MAX).is_empty());
    }

    #[test]
    fn an_empty_blob_is_one_piece_of_one_group_of_no_bytes() {
        let pieces = Pieces::of(0).unwrap();
        assert_eq!((pieces.count(), pieces.groups(), pieces.bytes_of_piece(0)), (1, 1, 0..0));
    }

    #[test]
    fn large_blobs_have_large_pieces_and_there_is_a_largest() {
        let [small, large] = [LARGE_BYTES, LARGE_BYTES + 1].map(|size| Pieces::of(size).unwrap());
        assert_eq!((small.count(), small.groups_per_piece()), (16 * 1024, 16));
        assert_eq!((large.count(), large.groups_per_piece()), (4 * 1024 + 1, 64));
        assert_eq!(u64::from(Pieces::of(PIECED_BLOB_BYTES_MAX).unwrap().count()), PIECES_MAX);
        assert_eq!(Pieces::of(PIECED_BLOB_BYTES_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn pieces_and_groups_cover_every_byte_once(size in 0u64..80 << 20) {
            let pieces = Pieces::of(size).unwrap();
            let mut at = 0;
            for piece in 0..pieces.count() {
                let groups = pieces.groups_of(piece);
                prop_assert!(!groups.is_empty());
                prop_assert!(groups.clone().all(|group| pieces.piece_of(group) == piece));
                prop_assert_eq!(pieces.bytes_of_piece(piece).start, at);
                at = pieces.bytes_of_piece(piece).end;
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn a_set_is_what_was_put_in(count in 1u32..200, wanted in prop::collection::btree_set(0u32..250, 0..60)) {
            let mut set = PieceSet::none(count);
            for piece in &wanted {
                prop_assert_eq!(set.insert(*piece), *piece < count);
                prop_assert!(!set.insert(*piece));
            }
            let inside: Vec<u32> = wanted.iter().copied().filter(|piece| *piece < count).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), inside.clone());
            prop_assert_eq!(set.runs().into_iter().flatten().collect::<Vec<_>>(), inside.clone());
            prop_assert_eq!(set.len() as usize, inside.len());
            prop_assert_eq!(PieceSet::from_bytes(set.as_bytes(), count), Some(set.clone()));
            for piece in inside {
                prop_assert!(set.remove(piece) && !set.remove(piece));
            }
            prop_assert!(set.is_empty());
        }

        #[test]
        fn bytes_of_another_length_or_with_bits_beyond_are_no_set(count in 1u32..100, bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let fits = bytes.len() == (count as usize).div_ceil(8);
            let beyond = fits && !count.is_multiple_of(8) && bytes.last().unwrap() >> (count % 8) != 0;
            prop_assert_eq!(PieceSet::from_bytes(&bytes, count).is_some(), fits && !beyond);
        }
    }

    #[test]
    fn an_answer_carries_the_nodes_above_its_groups() {
        let pieces = Pieces::of(5 * GROUP_BYTES).unwrap();
        // The tree: ((0 1) (2 3)) 4.
        for (groups, nodes) in [(0..5, 4), (0..1, 3), (2..4, 3), (1..3, 4), (4..5, 1)] {
            let bytes = (groups.end - groups.start) * GROUP_BYTES;
            assert_eq!(pieces.answer_bytes(groups.clone()), nodes * PARENT_BYTES + bytes, "{groups:?}");
        }
        assert_eq!((pieces.answer_bytes(3..3), pieces.answer_bytes(5..9)), (0, 0));
        assert_eq!(Pieces::of(7).unwrap().answer_bytes(0..1), 7);
    }

    #[test]
    fn all_is_full() {
        for count in [0, 1, 7, 8, 9, 13, 64] {
            let mut one_by_one = PieceSet::none(count);
            one_by_one.insert_range(0..count);
            assert!(PieceSet::all(count).is_full());
            assert_eq!(PieceSet::all(count), one_by_one);
        }
        assert_eq!(PieceSet::from_bytes(&[0xff, 0x1f], 13), Some(PieceSet::all(13)));
    }
}
