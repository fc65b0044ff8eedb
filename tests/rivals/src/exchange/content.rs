//! The bytes that are sent, and where raw contestants put what they get: nothing is verified here.

use super::{Failure, Storage};
use covey_proto::random::SplitMix64;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of one write to a socket, a stream or a file: the best for raw libp2p streams, and no worse for TCP.
pub const BLOCK: usize = 256 << 10;

/// Writes a file of `bytes` bytes that do not compress; the same for the same seed.
pub fn make(path: &Path, bytes: u64, seed: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut numbers = SplitMix64::seeded(seed);
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&numbers.draw().to_le_bytes());
        }
        let part = left.min(BLOCK as u64) as usize;
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

/// Whether two files hold the same bytes.
pub fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

/// Where a raw provider takes bytes from. Reading blocks, but only on the page cache: the file was just written.
#[derive(Clone)]
pub enum Source {
    /// Whatever the block holds: what sending alone costs.
    Nothing,
    /// A file.
    File(Arc<File>),
}

impl Source {
    pub fn open(storage: Storage, path: &Path) -> Result<Source, Failure> {
        Ok(match storage {
            Storage::Discard => Source::Nothing,
            Storage::Memory | Storage::Files => Source::File(Arc::new(File::open(path)?)),
        })
    }

    /// Fills the block from `offset` on.
    pub fn read(&self, offset: u64, block: &mut [u8]) -> io::Result<()> {
        match self {
            Source::Nothing => Ok(()),
            Source::File(file) => file.read_exact_at(block, offset),
        }
    }
}

/// Where a raw fetcher puts bytes.
pub enum Sink {
    /// Nowhere.
    Nothing,
    /// Into a file.
    File(File),
}

impl Sink {
    pub fn create(storage: Storage, path: &Path) -> Result<Sink, Failure> {
        Ok(match storage {
            Storage::Discard => Sink::Nothing,
            Storage::Memory | Storage::Files => Sink::File(File::create(path)?),
        })
    }

    pub fn write(&mut self, block: &[u8]) -> io::Result<()> {
        match self {
            Sink::Nothing => Ok(()),
            Sink::File(file) => file.write_all(block),
        }
    }
}
