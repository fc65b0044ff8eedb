//! SparseLoCo without a model: chunks, top-k, quantisers, error feedback, shard codec, aggregator, outer step, state root.
//!
//! A miner starts with [`feedback`]: the pseudo-gradient and what was not sent so far become shards. Below it, [`chunk`]
//! gathers 4,096 elements, [`select`] chooses which of them are sent, [`quantise`] rounds those, [`codec`] writes a run
//! of chunks as the one byte string that says so. Everybody else starts with [`codec::decode_shard`], which turns a peer's
//! bytes into a [`SparseShard`] or a reason why not; [`aggregate`] adds the selected contributions up and takes the outer
//! step; [`state`] names the result.
//!
//! Pure functions of their arguments: no I/O, no clock, no model. Same inputs, same bits, on every machine and on any number
//! of threads: sums have one order, nothing is fused, and only + − × ÷ √ of IEEE f32 and f64 occur. Formulas: SparseLoCo
//! (arXiv 2508.15706) and Covenant-72B (arXiv 2603.08163).

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
pub mod feedback;
pub mod quantise;
pub mod select;
mod simd;
mod sparse;
mod split;
pub mod state;

pub use aggregate::{Factors, NormAccumulator, OuterStep, StepError, outer_step, outer_step_decoding, outer_step_on};
pub use codec::{CODEC_VERSION, CodecError, EncodeError, decode_shard, encode_shard, max_shard_bytes};
pub use feedback::{CompressError, CompressStats, Compressed, Compression, ErrorFeedback};
pub use sparse::SparseShard;
pub use state::{Assembly, StateError, state_from_shards, state_manifest, state_manifest_on, state_root, state_shards};
