//! What is known of a blob whose file has holes: which pieces and groups are good, what of them is on the disk, and what a
//! crash left. Whoever receives tells it; [`flush`](crate::flush) brings it to the disk.

use crate::StoreError;
use crate::files::{Folder, has_outboard};
use crate::open_files::{Files, read};
use crate::tree::Take;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, PieceSet, Pieces};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may be good in memory before they are brought to the disk: what a power cut costs of a blob. At 16 MiB a
/// fast fetch spent a third of its time in syncs.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 256 << 20;
/// How long fewer may be so.
pub(crate) const UNSYNCED_TIME_MAX: Duration = Duration::from_secs(2);

/// What is known of a blob whose file has holes. The index holds one, every [`Partial`](crate::Partial) shares it.
///
/// Lock order: the store's index, then `opening`, then `held`; `held` is not kept while a disk is waited for.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) blob: BlobRef,
    pub(crate) pieces: Pieces,
    /// How many [`Partial`](crate::Partial)s there are, clones not counted.
    pub(crate) live: AtomicUsize,
    /// Held while files are opened and leftovers checked.
    opening: Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) good: PieceSet,
    /// The good pieces that are on the disk.
    durable: PieceSet,
    /// Groups of pieces that are not yet good: bit i is group i of the piece.
    groups: BTreeMap<u32, u64>,
    /// Nodes of the outboard that are in the file, a bit each.
    nodes: Vec<u64>,
    pub(crate) files: Option<Arc<Files>>,
    pub(crate) unsynced: u64,
    /// Whether what a crash may have left between the good pieces was looked at.
    checked: bool,
    pub(crate) over: Option<Over>,
}

/// Why nothing is written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The blob is there whole, in another file.
    Whole,
    /// It was forgotten.
    Forgotten,
}

/// What is to be brought to the disk.
pub(crate) struct Unsynced {
    pub(crate) files: Option<Arc<Files>>,
    good: PieceSet,
    bytes: u64,
}

impl State {
    /// A blob of which these pieces are good on the disk.
    pub(crate) fn new(blob: BlobRef, pieces: Pieces, good: PieceSet) -> State {
        let held = Held {
            durable: good.clone(),
            good,
            groups: BTreeMap::new(),
            nodes: Vec::new(),
            files: None,
            unsynced: 0,
            checked: false,
            over: None,
        };
        State { blob, pieces, live: AtomicUsize::new(0), opening: Mutex::new(()), held: Mutex::new(held) }
    }

    /// A blob that is there whole.
    pub(crate) fn whole(blob: BlobRef, pieces: Pieces) -> State {
        let state = State::new(blob, pieces, PieceSet::all(pieces.count()));
        state.end(Over::Whole);
        state
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.held().good.is_full()
    }

    pub(crate) fn good(&self) -> PieceSet {
        self.held().good.clone()
    }

    pub(crate) fn durable(&self) -> PieceSet {
        self.held().durable.clone()
    }

    /// Whether all pieces of these groups are good.
    pub(crate) fn has(&self, groups: &Range<u64>) -> bool {
        let held = self.held();
        (self.pieces.piece_of(groups.start)..=self.pieces.piece_of(groups.end - 1)).all(|at| held.good.contains(at))
    }

    pub(crate) fn end(&self, over: Over) {
        let mut held = self.held();
        held.over = Some(over);
        held.files = None;
        if over == Over::Whole {
            held.good = PieceSet::all(self.pieces.count());
        }
    }

    /// A piece turned out to be damaged on the disk.
    pub(crate) fn lose(&self, piece: u32) {
        let mut held = self.held();
        held.good.remove(piece);
        held.durable.remove(piece);
        // Its nodes may be what is damaged: the next sender's are written whatever is thought to be there.
        held.nodes.clear();
    }

    /// What is not yet on the disk; none if all is.
    pub(crate) fn unsynced(&self) -> Option<Unsynced> {
        let held = self.held();
        let some = held.unsynced > 0 && held.over.is_none();
        some.then(|| Unsynced { files: held.files.clone(), good: held.good.clone(), bytes: held.unsynced })
    }

    /// It is now.
    pub(crate) fn mark_synced(&self, synced: Unsynced) {
        let mut held = self.held();
        held.unsynced = held.unsynced.saturating_sub(synced.bytes);
        // What was found damaged meanwhile stays out.
        let lost: Vec<u32> = synced.good.iter().filter(|piece| !held.good.contains(*piece)).collect();
        held.durable = synced.good;
        for piece in lost {
            held.durable.remove(piece);
        }
    }

    /// The disk refused: what is not on it is no longer good, since the kernel may have dropped it.
    pub(crate) fn lose_unsynced(&self) {
        let mut held = self.held();
        held.good = held.durable.clone();
        held.groups.clear();
        held.nodes.clear();
        held.unsynced = 0;
    }

    /// Closes files that nobody uses.
    pub(crate) fn close_if_idle(&self) {
        let mut held = self.held();
        if !self.is_live() && held.unsynced == 0 {
            held.files = None;
            held.nodes = Vec::new();
        }
    }

    /// Opens the files, and looks once at what a crash may have left.
    pub(crate) fn open(&self, folder: &Folder) -> Result<(), StoreError> {
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut held = self.held();
            if held.over.is_some() {
                return Ok(());
            }
            if held.files.is_none() {
                let (files, there) = Files::open_to_write(folder, &self.blob, self.pieces)?;
                held.files = Some(Arc::new(files));
                if !there {
                    // An outside hand took one of them: without both, nothing can be proven.
                    held.good = PieceSet::none(self.pieces.count());
                    held.durable = held.good.clone();
                    held.groups.clear();
                }
            }
            held.nodes.resize(self.pieces.groups().div_ceil(64) as usize, 0);
            if std::mem::replace(&mut held.checked, true) {
                return Ok(());
            }
        }
        self.check_leftovers();
        Ok(())
    }

    /// Hashes what lies in the file outside good pieces: what was received and not committed before a crash.
    fn check_leftovers(&self) {
        let (files, good) = {
            let held = self.held();
            (held.files.clone(), held.good.clone())
        };
        let Some(files) = files else { return };
        let mut buffer = Vec::new();
        let mut piece = 0;
        while piece < self.pieces.count() {
            let start = self.pieces.bytes_of_piece(piece).start;
            match next_data(&files.data, start) {
                Data::At(at) if at >= self.pieces.bytes_of_piece(piece).end.max(1) => {
                    piece = self.pieces.piece_of(at / GROUP_BYTES).max(piece + 1);
                    continue;
                }
                Data::None if self.pieces.size() > 0 => break,
                _ => {}
            }
            if !good.contains(piece) {
                self.check_leftover(&files, piece, &mut buffer);
            }
            piece += 1;
        }
    }

    fn check_leftover(&self, files: &Files, piece: u32, buffer: &mut Vec<u8>) {
        let mut proven = |groups: Range<u64>| {
            buffer.clear();
            read(files, &self.blob, self.pieces, &groups, Take::Bytes, buffer).is_ok()
        };
        let groups = self.pieces.groups_of(piece);
        if proven(groups.clone()) {
            let mut held = self.held();
            held.good.insert(piece);
            held.unsynced += self.pieces.bytes_of(groups).end.max(1) - self.pieces.bytes_of_piece(piece).start;
        } else if has_outboard(self.blob.size) {
            let mask = groups.clone().filter(|group| proven(*group..*group + 1));
            let mask = mask.fold(0, |mask, group| mask | 1 << (group - groups.start));
            if mask != 0 {
                self.held().groups.insert(piece, mask);
            }
        }
    }
}

enum Data {
    At(u64),
    None,
    /// The file system does not say.
    Unknown,
}

fn next_data(file: &File, from: u64) -> Data {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(at) => Data::At(at),
        Err(rustix::io::Errno::NXIO) => Data::None,
        Err(_) => Data::Unknown,
    }
}

impl Held {
    pub(crate) fn has_group(&self, pieces: Pieces, group: u64) -> bool {
        let piece = pieces.piece_of(group);
        let bit = group - pieces.groups_of(piece).start;
        self.good.contains(piece) || self.groups.get(&piece).is_some_and(|mask| mask >> bit & 1 == 1)
    }

    /// Adds a group that is in the file; whether its piece became good by it.
    pub(crate) fn add_group(&mut self, pieces: Pieces, group: u64) -> bool {
        if self.has_group(pieces, group) {
            return false;
        }
        let piece = pieces.piece_of(group);
        let all = pieces.groups_of(piece);
        let mask = self.groups.entry(piece).or_default();
        *mask |= 1 << (group - all.start);
        if u64::from(mask.count_ones()) < all.end - all.start {
            return false;
        }
        self.groups.remove(&piece);
        self.unsynced += pieces.bytes_of(all.clone()).end.max(1) - pieces.bytes_of(all).start;
        self.good.insert(piece)
    }

    pub(crate) fn knows(&self, at: u64) -> bool {
        self.nodes.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(crate) fn learn(&mut self, at: u64) {
        if let Some(word) = self.nodes.get_mut(at as usize / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::Digest;
    use covey_proto::pieces::LARGE_BYTES;

    #[test]
    fn a_piece_is_good_with_its_last_group_however_many_it_has() {
        for size in [0, 1, GROUP_BYTES + 1, 40 * GROUP_BYTES - 1, LARGE_BYTES + 1, LARGE_BYTES + 70 * GROUP_BYTES] {
            let pieces = Pieces::of(size).unwrap();
            let blob = BlobRef { root: Digest::ZERO, size };
            let state = State::new(blob, pieces, PieceSet::none(pieces.count()));
            let mut held = state.held();
            for piece in [0, pieces.count() - 1] {
                let groups = pieces.groups_of(piece);
                // From the last to the first, each twice.
                for group in groups.clone().rev().flat_map(|group| [group, group]) {
                    let first = !held.has_group(pieces, group);
                    let good = held.add_group(pieces, group);
                    assert_eq!(good, first && group == groups.start, "{size} bytes, {group}");
                }
                assert!(held.good.contains(piece) && held.groups.is_empty());
            }
            drop(held);
            assert!(state.unsynced().is_some());
            assert!(state.has(&pieces.groups_of(0)));
        }
    }
}
