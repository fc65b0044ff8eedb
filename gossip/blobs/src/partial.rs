//! Blobs that are being fetched: which pieces are good, and the checking and keeping of what peers send.
//!
//! A group is checked against the root before it is written, and a piece is good once all its groups are in the file, on
//! whichever streams they came. Here is memory's view; [`flush`](crate::flush) brings it to the disk.

use crate::files::{Folder, Kind, has_outboard};
use crate::serve::{Files, read};
use crate::tree::{Node, PAIR, Pair, Take, outboard_bytes};
use crate::{ReceiveError, Store, StoreError};
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, PieceSet, Pieces};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may be good in memory before they are brought to the disk: what a power cut costs of a blob.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 16 << 20;
/// How long fewer may be so.
pub(crate) const UNSYNCED_TIME_MAX: Duration = Duration::from_millis(500);

/// What is known of a blob whose file has holes. The index holds one, every [`Partial`] shares it.
///
/// Lock order: the store's index, then `opening`, then `held`; `held` is not kept while a disk is waited for.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) blob: BlobRef,
    pub(crate) pieces: Pieces,
    /// How many [`Partial`]s there are, clones not counted.
    live: AtomicUsize,
    /// Held while files are opened and leftovers checked.
    opening: Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    good: PieceSet,
    /// The good pieces that are on the disk.
    durable: PieceSet,
    /// Groups of pieces that are not yet good: bit i is group i of the piece.
    groups: BTreeMap<u32, u64>,
    /// Nodes of the outboard that are in the file, a bit each.
    nodes: Vec<u64>,
    files: Option<Arc<Files>>,
    unsynced: u64,
    /// Whether what a crash may have left between the good pieces was looked at.
    checked: bool,
    over: Option<Over>,
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
    fn whole(blob: BlobRef, pieces: Pieces) -> State {
        let state = State::new(blob, pieces, PieceSet::all(pieces.count()));
        state.end(Over::Whole);
        state
    }

    fn held(&self) -> MutexGuard<'_, Held> {
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
    fn open(&self, folder: &Folder) -> Result<(), StoreError> {
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
    fn has_group(&self, pieces: Pieces, group: u64) -> bool {
        let piece = pieces.piece_of(group);
        let bit = group - pieces.groups_of(piece).start;
        self.good.contains(piece) || self.groups.get(&piece).is_some_and(|mask| mask >> bit & 1 == 1)
    }

    /// Adds a group that is in the file; whether its piece became good by it.
    fn add_group(&mut self, pieces: Pieces, group: u64) -> bool {
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

    fn knows(&self, at: u64) -> bool {
        self.nodes.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn learn(&mut self, at: u64) {
        if let Some(word) = self.nodes.get_mut(at as usize / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

/// A blob that is being fetched, or was there already: see [`Partial::held`]. Clones share it, on as many threads as there
/// are senders. While there is one, the blob is not evicted. Dropping it stops nothing and loses nothing.
#[derive(Clone, Debug)]
pub struct Partial(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    store: Store,
    state: Arc<State>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.live.fetch_sub(1, Ordering::AcqRel);
        self.store.schedule(UNSYNCED_TIME_MAX);
    }
}

impl Store {
    /// Begins to fetch a blob, or goes on: room for all of it is set aside under the quota, and what a crash left is
    /// checked by hash, at 2 GB/s or more. A blob that is there whole gives a `Partial` that holds everything.
    ///
    /// # Errors
    /// [`StoreError::QuotaFull`], [`StoreError::DiskFull`] (before anything is fetched), a blob too large, one that is
    /// here or being fetched under another size, or a folder that is gone.
    pub fn begin(&self, blob: BlobRef) -> Result<Partial, StoreError> {
        let pieces = Pieces::of_blob(&blob).ok_or(StoreError::TooLarge(blob.size))?;
        let state = loop {
            match self.enter(blob, pieces)? {
                Some(state) => break state,
                None => self.disclaim(&blob.root)?,
            }
        };
        let partial = Partial(Arc::new(Handle { store: self.clone(), state }));
        partial.0.state.open(self.folder())?;
        if partial.0.state.unsynced().is_some() {
            self.schedule(Duration::ZERO);
        }
        Ok(partial)
    }

    /// The state of a blob that is about to be fetched, with one more who does. None if the index on disk still claims
    /// pieces of a file that is gone.
    fn enter(&self, blob: BlobRef, pieces: Pieces) -> Result<Option<Arc<State>>, StoreError> {
        let mut index = self.index();
        index.touch(&blob.root);
        let known = index.entry(&blob.root).map(|entry| (entry.size, entry.is_settled(), entry.partial.clone()));
        let state = match known {
            Some((size, _, None)) if size == blob.size => Arc::new(State::whole(blob, pieces)),
            Some((size, _, Some(state))) if size == blob.size => state,
            Some((known, true, _)) => return Err(StoreError::SizeDiffers { root: blob.root, known, asked: blob.size }),
            _ => {
                // Nothing, or leftovers of a fetch under another size, of which nothing is proven.
                self.remove_entry(&mut index, &blob.root)?;
                if index.is_claimed(&blob.root) {
                    return Ok(None);
                }
                self.make_room(&mut index, blob.size, &[blob.root])?;
                self.create_partial(blob, pieces)?;
                let state = Arc::new(State::new(blob, pieces, PieceSet::none(pieces.count())));
                index.insert(blob.root, blob.size, Some(state.clone()));
                state
            }
        };
        // Under the index's lock, so that it is not evicted before.
        state.live.fetch_add(1, Ordering::AcqRel);
        Ok(Some(state))
    }

    fn create_partial(&self, blob: BlobRef, pieces: Pieces) -> Result<(), StoreError> {
        let folder = self.folder();
        if folder.room().is_some_and(|room| room < blob.size.saturating_add(outboard_bytes(pieces))) {
            return Err(StoreError::DiskFull { path: folder.path(&blob.root, Kind::Partial), bytes: blob.size });
        }
        Files::open_to_write(folder, &blob, pieces).map(drop)
    }

    /// Removes what has been fetched of a blob that is not whole; a blob that is whole or unknown stays as it is. Who
    /// still holds a [`Partial`] of it is refused from now on.
    ///
    /// # Errors
    /// A disk that failed.
    pub fn forget(&self, root: &covey_proto::Digest) -> Result<(), StoreError> {
        let mut index = self.index();
        match index.entry(root) {
            Some(entry) if !entry.is_whole() => self.remove_entry(&mut index, root),
            _ => Ok(()),
        }
    }
}

impl Partial {
    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.0.state.blob
    }

    /// The good pieces: in the file, and served to others. All of them: the blob is whole, nothing is to be fetched.
    pub fn held(&self) -> PieceSet {
        self.0.state.good()
    }

    /// The groups of a piece that are still missing, as runs; none for a good piece.
    pub fn missing(&self, piece: u32) -> Vec<Range<u64>> {
        let (pieces, held) = (self.0.state.pieces, self.0.state.held());
        let mut runs: Vec<Range<u64>> = Vec::new();
        for group in pieces.groups_of(piece).filter(|group| !held.has_group(pieces, *group)) {
            match runs.last_mut().filter(|run| run.end == group) {
                Some(run) => run.end += 1,
                None => runs.push(group..group + 1),
            }
        }
        runs
    }

    /// Takes the answer to a request for these groups (those that exist), item by item. Any number may run at once, for
    /// the same groups too.
    pub fn receive(&self, groups: Range<u64>) -> Receive {
        let state = &self.0.state;
        let wanted = groups.start..groups.end.min(state.pieces.groups());
        let root = Node::root(&state.blob.root, state.pieces);
        let waiting = if wanted.is_empty() { Vec::new() } else { vec![root] };
        Receive { partial: self.clone(), wanted, waiting, pending: Vec::new() }
    }
}

/// The taking of one answer: feed it items of [`Receive::next_len`] bytes until that is none. Dropped half-way, the groups
/// that came are kept.
#[derive(Debug)]
pub struct Receive {
    partial: Partial,
    wanted: Range<u64>,
    /// Nodes that are proven and not yet come, the next one last. All overlap what is wanted.
    waiting: Vec<Node>,
    /// Nodes that came and are not yet written, with their place: at most one for each of 25 levels.
    pending: Vec<(u64, Pair)>,
}

/// What an item was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// A node of the tree: 64 bytes that are no payload.
    Proof,
    /// A group, good and in the file.
    Group {
        /// Which, counted from the blob's first.
        group: u64,
        /// Its bytes.
        bytes: u32,
        /// Whether it was missing; else it is a duplicate.
        fresh: bool,
    },
}

/// How things stand after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether all pieces that the answer touched are good now, by whichever answers.
    pub piece_complete: bool,
    /// Whether the blob is whole now.
    pub blob_complete: bool,
}

impl Receive {
    /// Bytes of the next item: 64 for a node of the tree, else a group's (none at all for an empty blob). None: done.
    pub fn next_len(&self) -> Option<usize> {
        let node = self.waiting.last()?;
        Some(node.group().map_or(PAIR, |group| {
            let bytes = self.partial.0.state.pieces.bytes_of(group..group + 1);
            (bytes.end - bytes.start) as usize
        }))
    }

    /// Takes the next item. Does no I/O but to write a group that is good and was missing.
    ///
    /// # Errors
    /// [`ReceiveError::Wrong`] for bytes that are not the blob's, also in their number: the sender lied, and this answer is
    /// over. [`ReceiveError::Store`] for our own disk, or a blob that was forgotten.
    pub fn feed(&mut self, item: &[u8]) -> Result<Fed, ReceiveError> {
        let node = self.waiting.pop().ok_or(ReceiveError::Over)?;
        let wrong = ReceiveError::Wrong { root: self.partial.blob().root, group: node.start.max(self.wanted.start) };
        let fed = match node.group() {
            None => self.feed_pair(node, item).then_some(Fed::Proof),
            Some(group) => {
                let bytes = self.partial.0.state.pieces.bytes_of(group..group + 1);
                let good = item.len() as u64 == bytes.end - bytes.start && node.holds(item);
                let bytes = item.len() as u32;
                if good { Some(Fed::Group { group, bytes, fresh: self.keep(group, item)? }) } else { None }
            }
        };
        fed.ok_or_else(|| {
            self.waiting.clear();
            wrong
        })
    }

    fn feed_pair(&mut self, node: Node, item: &[u8]) -> bool {
        let pair: Option<&Pair> = item.try_into().ok();
        let Some((pair, (left, right))) = pair.and_then(|pair| Some((pair, node.split(pair)?))) else {
            return false;
        };
        self.pending.push((node.at, *pair));
        self.waiting.extend([right, left].into_iter().filter(|child| child.overlaps(&self.wanted)));
        true
    }

    /// Writes a group that is proven, and the nodes above it, if they are not in the files.
    fn keep(&mut self, group: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        let state = &self.partial.0.state;
        let files = {
            let held = state.held();
            match held.over {
                Some(Over::Forgotten) => return Err(StoreError::Missing(state.blob.root)),
                _ if held.has_group(state.pieces, group) => None,
                _ => {
                    self.pending.retain(|(at, _)| !held.knows(*at));
                    held.files.clone()
                }
            }
        };
        let Some(files) = files else {
            // It is there, and so are the nodes above it: they are written first.
            self.pending.clear();
            return Ok(false);
        };
        let folder = self.partial.0.store.folder();
        files.write(folder, &state.blob, &self.pending, group, bytes)?;
        // The open files follow a folder that is moved away: what landed there does not count.
        folder.still_there()?;
        let (whole, unsynced) = {
            let mut held = state.held();
            self.pending.drain(..).for_each(|(at, _)| held.learn(at));
            held.add_group(state.pieces, group);
            (held.good.is_full(), held.unsynced)
        };
        match unsynced {
            0 => {}
            UNSYNCED_BYTES_MAX.. => self.partial.0.store.schedule(Duration::ZERO),
            _ if whole => self.partial.0.store.schedule(Duration::ZERO),
            _ => self.partial.0.store.schedule(UNSYNCED_TIME_MAX),
        }
        Ok(true)
    }

    /// Says how things stand. An answer that is not [done](Receive::next_len) may be finished, too.
    ///
    /// # Errors
    /// A blob that was forgotten meanwhile.
    pub fn finish(self) -> Result<Received, StoreError> {
        let state = &self.partial.0.state;
        if state.held().over == Some(Over::Forgotten) {
            return Err(StoreError::Missing(state.blob.root));
        }
        let piece_complete = !self.wanted.is_empty() && state.has(&self.wanted);
        Ok(Received { piece_complete, blob_complete: state.is_whole() })
    }
}

impl Files {
    /// Opens a partial blob's files, creating what is missing; whether all were there comes with them.
    fn open_to_write(folder: &Folder, blob: &BlobRef, pieces: Pieces) -> Result<(Files, bool), StoreError> {
        // The data last: its name says that there is a partial blob.
        let obao = match has_outboard(blob.size) {
            true => Some(folder.open_to_write(&blob.root, Kind::Outboard, outboard_bytes(pieces))?),
            false => None,
        };
        let (data, there) = folder.open_to_write(&blob.root, Kind::Partial, blob.size)?;
        let all = there && obao.as_ref().is_none_or(|(_, there)| *there);
        Ok((Files { data, obao: obao.map(|(file, _)| file) }, all))
    }

    fn write(
        &self,
        folder: &Folder,
        blob: &BlobRef,
        nodes: &[(u64, Pair)],
        group: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let refused =
            |kind| move |error| folder.refused("write", &folder.path(&blob.root, kind), bytes.len() as u64, error);
        if let Some(obao) = &self.obao {
            // Nodes one below the other on the left lie side by side.
            for run in nodes.chunk_by(|(at, _), (next, _)| at + 1 == *next) {
                let pairs: Vec<u8> = run.iter().flat_map(|(_, pair)| *pair).collect();
                let at = run.first().map_or(0, |(at, _)| at * PAIR as u64);
                obao.write_all_at(&pairs, at).map_err(refused(Kind::Outboard))?;
            }
        }
        self.data.write_all_at(bytes, group * GROUP_BYTES).map_err(refused(Kind::Partial))
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
