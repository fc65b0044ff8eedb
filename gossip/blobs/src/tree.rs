//! The BLAKE3 tree of a blob, cut off at groups of 64 KiB: which nodes there are, what proves them, in which order they
//! are written. Pure: whoever calls brings the bytes.
//!
//! The order is Bao's: a node before its children, left before right. So a node over `n` groups at place `p` of an
//! outboard has its left child, over `l` groups, at `p + 1`, and its right one at `p + l`: no table of offsets is needed.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use covey_proto::Digest;
use covey_proto::pieces::{GROUP_BYTES, PARENT_BYTES, Pieces};
use std::io;
use std::ops::Range;

/// Bytes of an inner node: its children's chaining values, left and right.
pub(crate) const PAIR: usize = PARENT_BYTES as usize;
/// An inner node's bytes.
pub(crate) type Pair = [u8; PAIR];
/// What stands for a subtree in the node above.
type Cv = [u8; 32];

/// Groups of a subtree whose part of an outboard is built in memory: 64 KiB of nodes over 64 MiB of bytes.
const BATCH_GROUPS: u64 = 1024;

fn group_cv(bytes: &[u8], group: u64, root: bool) -> Cv {
    if root {
        return *blake3::hash(bytes).as_bytes();
    }
    blake3::Hasher::new().set_input_offset(group * GROUP_BYTES).update(bytes).finalize_non_root()
}

fn pair_cv(pair: &Pair, root: bool) -> Cv {
    let (left, right) = halves(pair);
    if root {
        *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

fn halves(pair: &Pair) -> (Cv, Cv) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    (left, right)
}

fn joined(left: &Cv, right: &Cv) -> Pair {
    let mut pair = [0; PAIR];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}

/// Groups under the left child: the largest power of two that leaves something for the right one.
fn left_of(groups: u64) -> u64 {
    groups.next_power_of_two() / 2
}

/// A node whose chaining value is proven: of the tree (or a group itself, which is a leaf).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// Its first group.
    pub(crate) start: u64,
    /// Groups under it, at least one.
    groups: u64,
    /// Its place in an outboard, in nodes.
    pub(crate) at: u64,
    cv: Cv,
    root: bool,
}

impl Node {
    /// The root of a blob of this name, which is all the proof there is.
    pub(crate) fn root(name: &Digest, pieces: Pieces) -> Node {
        Node { start: 0, groups: pieces.groups(), at: 0, cv: *name.as_bytes(), root: true }
    }

    /// The group, if it is one.
    pub(crate) fn group(&self) -> Option<u64> {
        (self.groups == 1).then_some(self.start)
    }

    pub(crate) fn overlaps(&self, wanted: &Range<u64>) -> bool {
        self.start < wanted.end && wanted.start < self.start + self.groups
    }

    /// Its children, if `pair` are their chaining values.
    pub(crate) fn split(&self, pair: &Pair) -> Option<(Node, Node)> {
        if self.groups == 1 || pair_cv(pair, self.root) != self.cv {
            return None;
        }
        let (left, right) = halves(pair);
        let below = left_of(self.groups);
        let child = |start, groups, at, cv| Node { start, groups, at, cv, root: false };
        Some((
            child(self.start, below, self.at + 1, left),
            child(self.start + below, self.groups - below, self.at + below, right),
        ))
    }

    /// Whether these are the group's bytes.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        group_cv(bytes, self.start, self.root) == self.cv
    }
}

/// Where a blob's groups and nodes are read from.
pub(crate) trait Source {
    /// The node at this place.
    fn pair(&mut self, at: u64) -> io::Result<Pair>;
    /// Fills `bytes` with a group.
    fn group(&mut self, group: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// What is wrong with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node above this group cannot be read, or is not what the one above it says.
    Pair(u64),
    /// This group is so.
    Group(u64),
}

impl Fault {
    /// The group that cannot be proven.
    pub(crate) fn group(self) -> u64 {
        match self {
            Fault::Pair(group) | Fault::Group(group) => group,
        }
    }
}

/// What a walk appends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Nodes and groups in Bao's order: what a receiver can check.
    Proven,
    /// The groups' bytes alone.
    Bytes,
}

/// Appends the `wanted` groups to `out`, each checked up to the root. On a fault, `out` holds what was good before it.
pub(crate) fn walk(
    name: &Digest,
    pieces: Pieces,
    wanted: &Range<u64>,
    source: &mut impl Source,
    take: Take,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    // A node's right child waits while its left one is walked: one for each of at most 25 levels.
    let mut waiting = vec![Node::root(name, pieces)];
    while let Some(node) = waiting.pop() {
        if !node.overlaps(wanted) {
            continue;
        }
        let Some(group) = node.group() else {
            let fault = Fault::Pair(node.start.max(wanted.start));
            let pair = source.pair(node.at).map_err(|_| fault)?;
            let (left, right) = node.split(&pair).ok_or(fault)?;
            if take == Take::Proven {
                out.extend_from_slice(&pair);
            }
            waiting.extend([right, left]);
            continue;
        };
        let (start, bytes) = (out.len(), pieces.bytes_of(group..group + 1));
        out.resize(start + (bytes.end - bytes.start) as usize, 0);
        if source.group(group, &mut out[start..]).is_err() || !node.holds(&out[start..]) {
            out.truncate(start);
            return Err(Fault::Group(group));
        }
    }
    Ok(())
}

/// Builds an outboard from the groups in turn. Returns the root. Memory: a group and 64 KiB.
pub(crate) fn outboard<E>(pieces: Pieces, group: Fill<'_, E>, write: Write<'_, E>) -> Result<Digest, E> {
    let mut buffer = Vec::new();
    let mut leaf = |at: u64, root: bool| {
        buffer.clear();
        group(at, &mut buffer)?;
        Ok(group_cv(&buffer, at, root))
    };
    above(0, pieces.groups(), 0, true, &mut leaf, write).map(Digest::new)
}

/// Appends a group's bytes to an empty buffer.
type Fill<'a, E> = &'a mut dyn FnMut(u64, &mut Vec<u8>) -> Result<(), E>;
/// Takes a run of nodes and their place, in nodes.
type Write<'a, E> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), E>;
/// The chaining value of a group.
type Leaf<'a, E> = &'a mut dyn FnMut(u64, bool) -> Result<Cv, E>;

fn above<E>(start: u64, groups: u64, at: u64, root: bool, leaf: Leaf<'_, E>, write: Write<'_, E>) -> Result<Cv, E> {
    if groups <= BATCH_GROUPS {
        let mut nodes = vec![0; PAIR * (groups - 1) as usize];
        let cv = below(start, groups, root, leaf, &mut nodes)?;
        if !nodes.is_empty() {
            write(at, &nodes)?;
        }
        return Ok(cv);
    }
    let half = left_of(groups);
    let left = above(start, half, at + 1, false, leaf, write)?;
    let right = above(start + half, groups - half, at + half, false, leaf, write)?;
    let pair = joined(&left, &right);
    write(at, &pair)?;
    Ok(pair_cv(&pair, root))
}

/// `nodes` has room for exactly the nodes of this subtree.
fn below<E>(start: u64, groups: u64, root: bool, leaf: Leaf<'_, E>, nodes: &mut [u8]) -> Result<Cv, E> {
    if groups == 1 {
        return leaf(start, root);
    }
    let half = left_of(groups);
    let (own, children) = nodes.split_at_mut(PAIR);
    let (on_left, on_right) = children.split_at_mut(PAIR * (half - 1) as usize);
    let left = below(start, half, false, leaf, on_left)?;
    let right = below(start + half, groups - half, false, leaf, on_right)?;
    let pair = joined(&left, &right);
    own.copy_from_slice(&pair);
    Ok(pair_cv(&pair, root))
}

/// The root and outboard of bytes in memory.
pub(crate) fn outboard_of(bytes: &[u8], pieces: Pieces) -> (Digest, Vec<u8>) {
    let mut nodes = vec![0; outboard_bytes(pieces) as usize];
    let mut leaf = |group: u64, root: bool| -> Result<Cv, std::convert::Infallible> {
        let range = pieces.bytes_of(group..group + 1);
        Ok(group_cv(&bytes[range.start as usize..range.end as usize], group, root))
    };
    let Ok(cv) = below(0, pieces.groups(), true, &mut leaf, &mut nodes);
    (Digest::new(cv), nodes)
}

/// Bytes of an outboard: 64 for each node above groups.
pub(crate) fn outboard_bytes(pieces: Pieces) -> u64 {
    PARENT_BYTES * (pieces.groups() - 1)
}

/// Bytes in memory, with their outboard.
pub(crate) struct InMemory<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) nodes: &'a [u8],
}

impl Source for InMemory<'_> {
    fn pair(&mut self, at: u64) -> io::Result<Pair> {
        let at = at as usize * PAIR;
        self.nodes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn group(&mut self, group: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = (group * GROUP_BYTES) as usize;
        let found = self.bytes.get(start..start + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bao_tree::io::outboard::PreOrderOutboard;
    use bao_tree::io::round_up_to_chunks;
    use bao_tree::io::sync::{CreateOutboard, encode_ranges_validated};
    use bao_tree::{BlockSize, ByteRanges};
    use proptest::prelude::*;

    fn bytes(size: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// The encoding of these groups by bao-tree, and its outboard.
    fn by_bao_tree(bytes: &[u8], pieces: Pieces, groups: &Range<u64>) -> (Digest, Vec<u8>, Vec<u8>) {
        let outboard =
            PreOrderOutboard::<Vec<u8>>::create(std::io::Cursor::new(bytes), BlockSize::from_chunk_log(6)).unwrap();
        let wanted = pieces.bytes_of(groups.clone());
        let ranges = round_up_to_chunks(&ByteRanges::from(wanted.start..wanted.end));
        let mut out = Vec::new();
        encode_ranges_validated(bytes, &outboard, &ranges, &mut out).unwrap();
        (Digest::new(*outboard.root.as_bytes()), outboard.data, out)
    }

    fn check(size: usize, first: u64, count: u64) {
        let bytes = bytes(size, size as u64);
        let pieces = Pieces::of(size as u64).unwrap();
        let (name, nodes) = outboard_of(&bytes, pieces);
        assert_eq!(name, Digest::of(&bytes));
        let first = first % pieces.groups();
        let wanted = first..(first + count.max(1)).min(pieces.groups());
        let mut source = InMemory { bytes: &bytes, nodes: &nodes };
        let mut out = Vec::new();
        walk(&name, pieces, &wanted, &mut source, Take::Proven, &mut out).unwrap();
        assert_eq!(out.len() as u64, pieces.answer_bytes(wanted.clone()), "{size} bytes, groups {wanted:?}");
        if size > 0 {
            let (root, theirs, encoded) = by_bao_tree(&bytes, pieces, &wanted);
            assert_eq!((root, &theirs), (name, &nodes), "{size} bytes");
            assert!(encoded == out, "{size} bytes, groups {wanted:?}");
        }
        let mut streamed = vec![0; nodes.len()];
        let root = outboard::<()>(
            pieces,
            &mut |group, into| {
                let range = pieces.bytes_of(group..group + 1);
                into.extend_from_slice(&bytes[range.start as usize..range.end as usize]);
                Ok(())
            },
            &mut |at, run| {
                streamed[at as usize * PAIR..][..run.len()].copy_from_slice(run);
                Ok(())
            },
        );
        assert_eq!((root, streamed == nodes), (Ok(name), true), "{size} bytes");
    }

    #[test]
    fn encodings_are_bao_trees_at_every_edge() {
        const GROUP: usize = GROUP_BYTES as usize;
        const PIECE: usize = 16 * GROUP;
        for size in [0, 1, 1024, GROUP, PIECE, 3 * PIECE + 7, 65 * PIECE + 3 * GROUP + 1] {
            for size in size.saturating_sub(1)..=size + 1 {
                let groups = Pieces::of(size as u64).unwrap().groups();
                for (first, count) in [(0, 1), (0, groups), (groups - 1, 1), (groups / 2, 5)] {
                    check(size, first, count);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn encodings_are_bao_trees(size in 1usize..5 << 20, first in 0u64..100, count in 1u64..64) {
            check(size, first, count);
        }
    }
}
