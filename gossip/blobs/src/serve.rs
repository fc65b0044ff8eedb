//! What is read is checked, for peers and for the node itself. A disk that no longer holds what
//! it did costs the piece, not the peer who asked.

use crate::files::{Kind, has_outboard};
use crate::open_files::{Files, read};
use crate::state::State;
use crate::tree::{self, Fault, PAIR, Take};
use crate::{Store, StoreError};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// A blob that is open to be read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) blob: BlobRef,
    pub(crate) pieces: Pieces,
    pub(crate) files: Files,
    /// None if its file is a whole one.
    pub(crate) state: Option<Arc<State>>,
}

impl Store {
    /// The pieces of a blob that are good here: all, some, or none, which also stands for a blob that is unknown or known
    /// under another size. A blob beyond any size has no pieces.
    pub fn holdings(&self, blob: &BlobRef) -> PieceSet {
        let Some(pieces) = Pieces::of_blob(blob) else {
            return PieceSet::none(0);
        };
        match self.index().entry(&blob.root) {
            Some(entry) if entry.size == blob.size => match &entry.partial {
                Some(state) => state.good(),
                None => PieceSet::all(pieces.count()),
            },
            _ => PieceSet::none(pieces.count()),
        }
    }

    /// Opens a blob to be read, whole or not, and marks it as used. None if there is none.
    pub(crate) fn open_blob(&self, root: &Digest) -> Result<Option<Opened>, StoreError> {
        let (blob, pieces, state, data, obao) = {
            // Files are opened under the lock, so that none is renamed or removed in between.
            let mut index = self.index();
            index.touch(root);
            let Some(entry) = index.entry(root) else {
                return Ok(None);
            };
            let (blob, state) = (BlobRef { root: *root, size: entry.size }, entry.partial.clone());
            let Some(pieces) = Pieces::of_blob(&blob) else {
                return Ok(None);
            };
            let kind = if state.is_some() { Kind::Partial } else { Kind::Whole };
            let Some(data) = self.folder().open_to_read(root, kind)? else {
                tracing::warn!(blob = %root, "a stored blob's file vanished; it is forgotten and will be fetched again");
                self.remove_entry(&mut index, root)?;
                return Ok(None);
            };
            let obao = match has_outboard(blob.size) {
                true => self.folder().open_to_read(root, Kind::Outboard)?,
                false => None,
            };
            (blob, pieces, state, data, obao)
        };
        self.schedule(crate::flush::USED_TIME_MAX);
        let missing = has_outboard(blob.size) && obao.is_none();
        if missing && state.is_some() {
            // An outside hand took it: nothing can be served until the fetch has begun again.
            return Ok(None);
        }
        let mut opened = Opened { blob, pieces, state, files: Files { data, obao } };
        if missing && !self.rebuild_outboard(&mut opened)? {
            // Nothing of it can be proven: not its bytes, nor which of them are at fault.
            self.drop_damaged(root)?;
            return Ok(None);
        }
        Ok(Some(opened))
    }

    /// Appends groups of an open blob. A damaged outboard is made anew; a damaged piece counts as missing from now on.
    pub(crate) fn read_checked(
        &self,
        opened: &mut Opened,
        wanted: &Range<u64>,
        take: Take,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let start = out.len();
        let mut result = read(&opened.files, &opened.blob, opened.pieces, wanted, take, out);
        if matches!(result, Err(Fault::Pair(_))) && opened.state.is_none() && opened.files.obao.is_some() {
            out.truncate(start);
            if self.rebuild_outboard(opened)? {
                tracing::warn!(blob = %opened.blob.root, "an outboard was damaged; it is made anew");
                result = read(&opened.files, &opened.blob, opened.pieces, wanted, take, out);
            }
        }
        result.map_err(|fault| {
            out.truncate(start);
            let (root, piece) = (opened.blob.root, opened.pieces.piece_of(fault.group()));
            match self.lose_piece(opened, piece) {
                Ok(()) => StoreError::Corrupt { root, piece },
                Err(error) => error,
            }
        })
    }

    /// Makes the outboard of a blob from its bytes; whether they are the blob's. Only then it is kept.
    fn rebuild_outboard(&self, opened: &mut Opened) -> Result<bool, StoreError> {
        if opened.state.is_some() {
            return Ok(false);
        }
        let beside = self.folder().write_beside(&[])?;
        let pieces = opened.pieces;
        let path = self.folder().path(&opened.blob.root, Kind::Whole);
        let data = &opened.files.data;
        let root = tree::outboard(
            pieces,
            &mut |group, buffer| {
                let bytes = pieces.bytes_of(group..group + 1);
                buffer.resize((bytes.end - bytes.start) as usize, 0);
                data.read_exact_at(buffer, bytes.start).map_err(crate::files::fault("read", &path))
            },
            &mut |at, nodes| beside.write_at(at * PAIR as u64, nodes),
        );
        match root {
            Ok(root) if root == opened.blob.root => {
                let obao = beside.file.try_clone().map_err(crate::files::fault("open", &path))?;
                beside.keep_as(&root, Kind::Outboard)?;
                opened.files.obao = Some(obao);
                Ok(true)
            }
            // Shorter than it was, or unreadable: its bytes are not the blob's either.
            Ok(_) | Err(StoreError::Io { what: "read", .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A piece is not what it was: it counts as missing from now on, and the blob as partial.
    pub(crate) fn lose_piece(&self, opened: &mut Opened, piece: u32) -> Result<(), StoreError> {
        let blob = opened.blob;
        tracing::warn!(blob = %blob.root, piece, "a piece is damaged on the disk; it counts as missing from now on");
        let mut index = self.index();
        let Some(entry) = index.entry(&blob.root).filter(|entry| entry.size == blob.size) else {
            return Ok(());
        };
        let state = match entry.partial.clone() {
            Some(state) => {
                state.lose(piece);
                index.mark_changed([blob.root]);
                state
            }
            // There is nothing left of a blob of one piece.
            None if opened.pieces.count() == 1 => return self.remove_entry(&mut index, &blob.root),
            None => {
                let mut good = PieceSet::all(opened.pieces.count());
                good.remove(piece);
                let state = Arc::new(State::new(blob, opened.pieces, good));
                self.folder().rename(&blob.root, Kind::Whole, Kind::Partial)?;
                index.mark_partial(&blob.root, state.clone());
                state
            }
        };
        opened.state = Some(state);
        drop(index);
        self.schedule(Duration::ZERO);
        Ok(())
    }

    /// Forgets a blob of which nothing can be proven.
    pub(crate) fn drop_damaged(&self, root: &Digest) -> Result<(), StoreError> {
        // Once a blob: peers that ask for it again find none.
        tracing::warn!(blob = %root, "a stored blob was missing or corrupt; it is forgotten and will be fetched again");
        let mut index = self.index();
        self.remove_entry(&mut index, root)
    }
}
