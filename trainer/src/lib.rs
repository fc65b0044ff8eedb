//! The half of Covey that learns: model, data, inner optimizer, evaluation, export.
//!
//! Start with [`Backend`]: a device that holds parameters and optimizer moments; [`cpu::CpuBackend`] is the one that runs
//! everywhere. [`genesis`] makes the first state, [`inner`] drives one round's steps, [`evaluate`] judges a state. [`data`]
//! turns documents into token shards named by BLAKE3 and reads them back; [`hf`] writes a state in Hugging Face's layout
//! and continues prompts from it. Knows nothing of networks or chains.

mod backend;
pub mod cpu;
pub mod data;
pub mod evaluate;
pub mod genesis;
pub mod hf;
pub mod inner;
#[cfg(test)]
mod testing;

pub use backend::{Backend, BackendError, Batch, BatchError, Moments, MomentsError, StepHyper, StepStats};
