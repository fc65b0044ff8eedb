//! Hugging Face's layout: a state becomes a folder that `transformers` loads as it is, a folder becomes a state, and a
//! state continues a prompt.
//!
//! Names, shapes and the rotary convention are already Hugging Face's ([`covey_proto::layout`]), so nothing is permuted.
//! [`export_as`] writes, [`load`] reads and checks, [`generate`] continues; [`Companions`] is what stands beside a model's
//! parameters and is carried on. What a folder may say, `config` decides; where its tensors are, `weights` by the heads of
//! its files ([`header`]).

mod companions;
mod config;
mod export;
mod fault;
pub(crate) mod files;
mod generate;
pub mod header;
mod load;
mod weights;
mod write;

pub use companions::{Companions, copy_companions};
pub use config::ConfigFault;
pub use export::{ExportOptions, SHARD_BYTES_MAX, export, export_as};
pub use fault::{HfError, TokenizerFault, WeightsFault};
pub use generate::{GenerateError, Sampling, generate};
pub use load::{load, load_model, load_tokenizer};
pub use write::WeightType;
