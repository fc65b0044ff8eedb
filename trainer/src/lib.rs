//! The half of Covey that learns: model, data, inner optimizer, evaluation, export.
//!
//! Start with [`open_backend`]: it opens a [`Device`] for a model, and what it gives, a [`Backend`], makes a
//! [`LanguageModel`], which judges and continues texts, or a [`Trainer`], which learns and makes contributions. The three
//! traits are all that anyone sees of a device: which parameters lie where, and how a forward pass is done, is decided
//! behind them, in [`cpu`]. Nobody else names a device's types.
//!
//! Around them: [`genesis`] decides the first state, the same for everyone to the bit. [`inner`] decides how many steps a
//! round has and at which learning rates, and drives a trainer through them. [`evaluate`] averages losses. [`moments`] is
//! the optimizer's file. How a pseudo-gradient becomes a contribution, and contributions a step, is decided in
//! `covey-sparseloco`; a trainer only does it where its parameters are.
//!
//! [`data`] turns documents into token shards named by BLAKE3 and reads them back. [`hf`] writes a state in Hugging Face's
//! layout and reads such folders; [`gguf`] writes it as one file for llama.cpp. [`generate`](mod@generate) continues texts,
//! [`chat`] makes one of a conversation.
//!
//! Knows nothing of networks or chains: when a round is over, what counts and what is kept, the node decides.

mod backend;
pub mod chat;
pub mod cpu;
pub mod data;
mod device;
pub mod eval;
pub mod evaluate;
mod files;
pub mod generate;
pub mod genesis;
pub mod gguf;
mod half;
pub mod hf;
pub mod inner;
pub mod moments;
mod stream;
#[cfg(test)]
mod testing;

pub use backend::{
    Backend, BackendError, Batch, BatchError, CONTEXT, EncodedContribution, LanguageModel, LoadError, Memory, Rates,
    SaveError, StepHyper, StepStats, Trainer, TryError,
};
pub use device::{Device, open_backend};
pub use files::open_regular;
