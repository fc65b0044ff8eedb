//! Keeps what was verified: blobs in files named by their BLAKE3, whole or piece by piece, pins that survive a crash, a
//! quota.
//!
//! Start with [`Store::open`]. A small blob is put and got whole; a large one is begun ([`Store::begin`]), received group by
//! group through a [`Partial`], and served while it is still incomplete. Nothing is given out that does not verify against
//! its name.
//!
//! Decides what a crash, a full disk or an outside hand may do to a blob: never more than lose it, or a piece of it. Which
//! blobs matter is for whoever pins them, which pieces come from whom for the exchange. Every operation blocks on the disk:
//! call it from `spawn_blocking`, not from a task.
//!
//! | decided | where |
//! |---|---|
//! | what is evicted, what may not be, what an index is worth after a crash | `index.rs`, `store.rs` |
//! | which pieces are good, which must be hashed again | `state.rs`, `meta.rs` |
//! | when bytes are brought to the disk | `flush.rs` |
//! | whether a group that came is right | `partial.rs`, over the proofs of `tree.rs` |
//! | whether what is sent is still what its name says | `serve.rs` |
//! | what strangers may see of it | `public.rs` |
//! | how a file comes to its place, what a leftover is | `files.rs`; large ones: `whole.rs` |
//!
//! Layout under the root: `blobs/AA/HEX` (AA: the first two digits of HEX), `HEX.partial` while pieces are missing,
//! `HEX.obao` its BLAKE3 tree above groups of 64 KiB if it has more than one piece; `index.redb` (order of use, good pieces,
//! pins); `tmp/` (written beside, then renamed into place; emptied at opening); `lock`. Every operation finds its path anew
//! from the root, and the root is never created again: once it is moved away, operations fail.
//!
//! What survives what:
//!
//! | | the process is killed | the power goes |
//! |---|---|---|
//! | [`Durability::Synced`], pinned | all | all |
//! | [`Durability::Buffered`] | all | may be lost or torn, which is noticed when it is read |
//! | pieces being fetched | all but what was in flight, a few hashed again | but for the last 2 s or 256 MiB |
//! | order of use | but for the last minute | but for the last minute |
//! | a damaged index | all blobs; pins are forgotten, unfinished blobs hashed when they are resumed | the same |

mod error;
mod files;
mod flush;
mod index;
mod meta;
mod open_files;
mod partial;
mod public;
mod serve;
mod state;
mod store;
mod tree;
mod whole;

pub use error::{ReceiveError, ServeError, StoreError, TAG_CHARACTERS_MAX};
pub use partial::{Fed, Partial, Receive, Received};
pub use public::Public;
pub use store::{Durability, Store};
pub use whole::{BlobInfo, Reader, Verified};

#[cfg(test)]
mod tests;
