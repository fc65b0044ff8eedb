//! A blob's open files: read with their proofs up to the root, written to, synced. Which of them there are is for
//! [`files`](crate::files) to say, what in them is good for whoever reads.

use crate::StoreError;
use crate::files::{Folder, Kind, has_outboard};
use crate::tree::{self, Fault, InMemory, PAIR, Pair, Source, Take, outboard_bytes, walk};
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{GROUP_BYTES, Pieces};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes of an outboard that are read at once: the nodes of a piece lie side by side, those above it do not.
const WINDOW_BYTES: usize = 4096;

/// A blob's open files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) data: File,
    /// None for a blob of one piece.
    pub(crate) obao: Option<File>,
}

impl Files {
    /// Opens a partial blob's files, creating what is missing; whether all were there comes with them.
    pub(crate) fn open_to_write(folder: &Folder, blob: &BlobRef, pieces: Pieces) -> Result<(Files, bool), StoreError> {
        // The data last: its name says that there is a partial blob.
        let obao = match has_outboard(blob.size) {
            true => Some(folder.open_to_write(&blob.root, Kind::Outboard, outboard_bytes(pieces))?),
            false => None,
        };
        let (data, there) = folder.open_to_write(&blob.root, Kind::Partial, blob.size)?;
        let all = there && obao.as_ref().is_none_or(|(_, there)| *there);
        Ok((Files { data, obao: obao.map(|(file, _)| file) }, all))
    }

    pub(crate) fn write(
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

    /// Brings what was written to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if let Some(obao) = &self.obao {
            obao.sync_data()?;
        }
        self.data.sync_data()
    }
}

struct OnDisk<'a> {
    data: &'a File,
    obao: &'a File,
    window: Vec<u8>,
    at: u64,
}

impl Source for OnDisk<'_> {
    fn pair(&mut self, at: u64) -> io::Result<Pair> {
        let wanted = at * PAIR as u64;
        let inside = |window: &[u8], start: u64| {
            let from = usize::try_from(wanted.checked_sub(start)?).ok()?;
            window.get(from..)?.first_chunk::<PAIR>().copied()
        };
        if let Some(pair) = inside(&self.window, self.at) {
            return Ok(pair);
        }
        self.window.resize(WINDOW_BYTES, 0);
        let read = self.obao.read_at(&mut self.window, wanted);
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        self.at = wanted;
        read?;
        inside(&self.window, self.at).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn group(&mut self, group: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.data.read_exact_at(bytes, group * GROUP_BYTES)
    }
}

/// Appends groups of a blob, checked up to the root.
pub(crate) fn read(
    files: &Files,
    blob: &BlobRef,
    pieces: Pieces,
    wanted: &Range<u64>,
    take: Take,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if let Some(obao) = &files.obao {
        let mut source = OnDisk { data: &files.data, obao, window: Vec::new(), at: 0 };
        return walk(&blob.root, pieces, wanted, &mut source, take, out);
    }
    // One piece, at most 1 MiB: its nodes are made anew.
    let mut bytes = vec![0; pieces.size() as usize];
    files.data.read_exact_at(&mut bytes, 0).map_err(|_| Fault::Group(wanted.start))?;
    let (_, nodes) = tree::outboard_of(&bytes, pieces);
    walk(&blob.root, pieces, wanted, &mut InMemory { bytes: &bytes, nodes: &nodes }, take, out)
}
