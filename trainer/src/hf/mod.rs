//! Hugging Face's layout: a state becomes a folder that `transformers` loads as it is, and a folder becomes a state.
//!
//! Names, shapes and the rotary convention are already Hugging Face's ([`covey_proto::layout`]), so nothing is permuted.
//! [`export_as`] writes, [`load`] reads and checks; [`Companions`] is what stands beside a model's parameters and is carried
//! on. What a folder may say, `config` decides; where its tensors are, `weights` by the heads of its files ([`header`]). A
//! loaded state continues texts in [`crate::generate`].

mod companions;
mod config;
mod export;
mod fault;
pub(crate) mod files;
pub mod header;
mod load;
mod settings;
mod weights;
mod write;

pub use companions::{Chat, Companions, copy_companions};
pub use config::ConfigFault;
pub use export::{ExportOptions, SHARD_BYTES_MAX, export, export_as};
pub use fault::{HfError, TokenizerFault, WeightsFault};
pub(crate) use files::{CONFIG, END_TOKENS, GENERATION, TOKENIZER_CONFIG};
pub use load::{load, load_model, load_tokenizer, read_tokenizer};
pub(crate) use settings::{read_optional_json, read_optional_text, token_text};
pub use write::WeightType;
