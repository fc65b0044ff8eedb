//! Documents to token shards and back.
//!
//! [`documents`] reads what a user has, with [`conversations`] as a chat template writes them; [`prepare()`] removes duplicates ([`dedup`]), sets whole sources aside to be
//! judged by ([`split`]), trains a byte-level BPE ([`tokenizer`], [`bpe`]) or takes the one it is given, and writes shards named by their BLAKE3 hash
//! ([`shards`]). [`Dataset`] opens the result, checks every byte of it, and serves sequences. The digest of its
//! manifest names the data set in a run, so everything here is a pure function of the documents and the options: no
//! clock, no thread count, no hash map's order. [`baseline`] says what counting alone reaches; [`synthetic`] is text
//! for tests.

pub mod baseline;
pub mod bpe;
pub mod conversations;
pub mod dedup;
pub mod documents;
pub mod shards;
pub mod split;
pub mod synthetic;
pub mod tokenizer;
pub mod tokens;

mod dataset;
mod document;
mod error;
mod given;
mod prepare;
mod writer;

pub use dataset::Dataset;
pub use document::Document;
pub use documents::read_documents;
pub use error::DataError;
pub use prepare::{DatasetSummary, PrepareOptions, Stage, prepare};
pub use shards::{Manifest, ManifestFault, ShardEntry};
