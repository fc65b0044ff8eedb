//! What can go wrong with a store, and whose fault it is.

use covey_proto::Digest;
use covey_proto::pieces::PIECED_BLOB_BYTES_MAX;
use std::io;
use std::path::PathBuf;

/// Characters of a pin's tag.
pub const TAG_CHARACTERS_MAX: usize = 64;

/// Why the store failed. Nothing that was stored before is harmed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open, or another `Store` of this one.
    #[error("the blob store at {} is in use; stop what uses it, or choose another folder", .0.display())]
    Locked(PathBuf),
    /// The root is not there any more.
    #[error("the blob store at {} is gone; it was moved or removed while in use", .0.display())]
    Gone(PathBuf),
    /// The disk has no room.
    #[error("no room on the disk for {bytes} bytes at {}; free some, or move the store", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Everything that could be removed was, and the quota still has no room.
    #[error("no room for {needed} bytes: {pinned} of the quota's {quota} are pinned or being fetched; raise the quota")]
    QuotaFull {
        /// Bytes to store.
        needed: u64,
        /// Bytes that are pinned, being fetched, or promised to what is being stored.
        pinned: u64,
        /// Bytes that the store may hold.
        quota: u64,
    },
    /// A blob that should be there is not.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// A blob that should go is pinned.
    #[error("blob {root} is pinned by {tag:?}; unpin it first")]
    Pinned {
        /// The blob.
        root: Digest,
        /// One of the tags.
        tag: String,
    },
    /// A piece is not what the blob's name says: the disk is at fault. It counts as missing from now on.
    #[error("piece {piece} of blob {root} is damaged on the disk; it counts as missing, fetch it again")]
    Corrupt {
        /// The blob.
        root: Digest,
        /// The piece.
        piece: u32,
    },
    /// The blob is known, but of another size: one of the two sizes is false.
    #[error("blob {root} has {known} bytes here, not {asked}")]
    SizeDiffers {
        /// The blob.
        root: Digest,
        /// Its size here.
        known: u64,
        /// What was asked for.
        asked: u64,
    },
    /// Larger than a blob can be.
    #[error("a blob of {0} bytes; the limit is {PIECED_BLOB_BYTES_MAX}: split it")]
    TooLarge(u64),
    /// A file that is being added became another.
    #[error("{} changed while it was read; add it when nothing writes to it", .0.display())]
    Changed(PathBuf),
    /// Not a tag.
    #[error("{0:?} is no tag: 1 to {TAG_CHARACTERS_MAX} of a-z, 0-9, '-', '_'")]
    Tag(String),
    /// The index refused. Blobs are served from memory's copy of it, and the next write opens it anew.
    #[error("the index {} failed: {error}", .path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What it says.
        error: String,
    },
    /// The system refused.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// Why an answer is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// These groups are not all here, or there are no such groups.
    #[error("not held")]
    NotHeld,
    /// Our own disk no longer holds what it did. The piece counts as missing from now on.
    #[error("piece {piece} of blob {root} is damaged on the disk; it counts as missing")]
    Corrupt {
        /// The blob.
        root: Digest,
        /// The piece.
        piece: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an answer is not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The sender's bytes do not belong to the blob: nothing of this item was kept, what came before it was good.
    #[error("wrong bytes for group {group} of blob {root}, or a node above it")]
    Wrong {
        /// The blob.
        root: Digest,
        /// The first group that the item would have proven.
        group: u64,
    },
    /// More was fed than the answer has.
    #[error("the answer is over")]
    Over,
    /// The store failed; the sender did nothing wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
}
