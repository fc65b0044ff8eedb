//! The half of Covey that learns: model, data, inner optimizer, evaluation, export.
//!
//! Start with [`Backend`]: a device that holds parameters and optimizer moments; [`cpu::CpuBackend`] is the one that runs
//! everywhere. [`inner`] drives one round's steps over it. [`data`] turns documents into token shards named by BLAKE3 and
//! reads them back; [`hf`] writes a state in Hugging Face's layout and continues prompts from it. Knows nothing of
//! networks or chains.

pub mod data;
