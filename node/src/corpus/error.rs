//! Why the default corpus could not be had, and what to do then: install cargo, wait for the network, or give another text.

use covey_proto::Digest;
use covey_trainer::data::DataError;
use std::io;
use std::path::{Path, PathBuf};

/// Why the default corpus could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// There is no cargo.
    #[error(
        "the default corpus is fetched with cargo, but {cargo:?} cannot be started: install Rust, set CARGO, \
         or give your own text with --data PATH"
    )]
    NoCargo {
        /// What was tried.
        cargo: String,
    },
    /// Cargo failed.
    #[error(
        "cargo could not fetch the default corpus (is the network there?); try again, or give your own text \
         with --data PATH\n{complaint}"
    )]
    Cargo {
        /// What it said.
        complaint: String,
    },
    /// The corpus came out different from everybody else's.
    #[error(
        "this binary's corpus rules and the pinned digest differ: prepared {got}, pinned {expected}; do not \
         train with others on it: rebuild covey from a clean checkout, or give the \
         text with --data PATH"
    )]
    Digest {
        /// As pinned.
        expected: Digest,
        /// As prepared.
        got: Digest,
    },
    /// A file of a package cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Preparation failed.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl CorpusError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> CorpusError {
        let path = path.to_path_buf();
        move |source| CorpusError::Read { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> CorpusError {
        let path = path.to_path_buf();
        move |source| CorpusError::Write { path, source }
    }
}
