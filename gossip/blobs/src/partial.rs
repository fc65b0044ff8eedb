//! Blobs that are being fetched: their room, and the checking and keeping of what peers send.
//!
//! A group is checked against the root before it is written, and a piece is good once all its groups are in the file, on
//! whichever streams they came.

use crate::files::Kind;
use crate::open_files::Files;
use crate::state::{Over, State, UNSYNCED_BYTES_MAX, UNSYNCED_TIME_MAX};
use crate::tree::{Node, PAIR, Pair, outboard_bytes};
use crate::{ReceiveError, Store, StoreError};
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
