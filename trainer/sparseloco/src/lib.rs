//! SparseLoCo without a model: chunks, top-k, quantisers, error feedback, shard codec, aggregator, outer step, state root.
//!
//! A miner starts with [`compress()`]: what training made of the base state, and what was not sent so far, become shards
//! and the next error feedback, in the memory that the trained state was in. Below it, [`chunk`] gathers 4,096 elements,
//! [`select`] chooses which of them are sent, [`quantise`] rounds those, [`codec`] writes a run of chunks as the one byte
//! string that says so.
//!
//! Everybody else starts with [`codec::decode_shard`], which turns a peer's bytes into a [`SparseShard`] or a reason why
//! not. [`aggregate`] decides what the selected contributions add up to and takes the outer step: [`outer_step`] where they
//! are all decoded, [`outer_step_decoding`] where each shard is decoded when its turn comes, so that a large model needs no
//! room for them. [`trial`] finds out what one contribution alone would do, and takes it back. [`state`] names the result,
//! and reads and writes it as bytes.
//!
//! Which contributions are selected, what they are tried for and when feedback counts, others decide (`covey-round`,
//! `covey`). Where a state lies in its tensors and chunks, [`covey_proto::layout`] says.
//!
//! Functions of their arguments: no clock, no model, no I/O but the reader or writer that one hands in. Same inputs, same
//! bits, on every machine and on any number of threads: sums have one order, nothing is fused, and only + − × ÷ √ of IEEE
//! f32 and f64 occur. Formulas: SparseLoCo (arXiv 2508.15706) and Covenant-72B (arXiv 2603.08163).

// The test vectors are checked from inside as well: only there the level of vector instructions can be chosen.
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(test)]
extern crate self as covey_sparseloco;
#[cfg(test)]
#[path = "../tests/pinned/mod.rs"]
mod pinned;

pub mod aggregate;
mod by_tensor;
pub mod chunk;
pub mod codec;
pub mod compress;
pub mod quantise;
pub mod select;
mod simd;
mod sparse;
mod split;
pub mod state;
pub mod trial;

pub use aggregate::{
    Factors, NormAccumulator, OuterStep, StepError, factors_by, outer_step, outer_step_decoding, outer_step_on,
    references,
};
pub use codec::{CODEC_VERSION, CodecError, EncodeError, decode_shard, encode_shard, max_shard_bytes};
pub use compress::{CompressError, CompressStats, Compression, Encoded, compress, working_bytes};
pub use sparse::SparseShard;
pub use state::{
    Assembly, ReadError, StateError, state_from_shards, state_manifest, state_manifest_on, state_root, state_shards,
};
pub use trial::Trial;
