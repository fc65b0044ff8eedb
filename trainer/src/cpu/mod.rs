//! The CPU backend: f32, the same bits for the same input with the same binary on one machine, on any number of threads.
//!
//! Forward and backward passes are written by hand (`network.rs`) into buffers made once. Another processor, with other
//! vector instructions, may round differently. [`open`] is the door; the types behind it have names for this crate's own
//! tests, which look at gradients.

mod angles;
mod attention;
mod blocks;
mod continuation;
mod groups;
mod kernels;
mod language_model;
mod muon;
mod network;
mod optimizer;
mod passes;
mod pool;
mod product;
mod row_tasks;
mod rows;
mod shape;
mod trainer;

pub use language_model::CpuModel;
pub use trainer::CpuTrainer;

use crate::backend::{Backend, BackendError, LanguageModel, Memory, Trainer};
use continuation::Continuation;
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer};
use covey_simd::Level;
use network::Network;
use optimizer::Moments;
use passes::Passes;
use pool::Pool;
use shape::Shape;
use std::sync::Arc;

/// Opens the CPU for `model`; calls work on as many threads as `threads`, at least one. What is made of it shares them: one
/// call has them all, and those beside it work alone.
///
/// # Errors
/// A model whose numbers do not fit together.
pub fn open(threads: usize, model: &Model) -> Result<Box<dyn Backend>, BackendError> {
    check(model)?;
    Ok(Box::new(Cpu { model: model.clone(), pool: Arc::new(Pool::new(threads)) }))
}

/// What a layout and the products rely on.
fn check(model: &Model) -> Result<(), BackendError> {
    let must = |holds: bool, what| if holds { Ok(()) } else { Err(BackendError::Model { what }) };
    let Model { vocabulary, width, layers, heads, kv_heads, feed_forward, sequence, .. } = *model;
    let numbers = [vocabulary, width, layers, heads, kv_heads, feed_forward, sequence];
    must(!numbers.contains(&0) && model.head != Some(0), "none of something")?;
    must(model.head.is_some() || width.is_multiple_of(heads), "a width that its heads do not divide")?;
    must(model.head_width().is_multiple_of(2), "heads of an odd width")?;
    must(heads.is_multiple_of(kv_heads), "heads that its key and value heads do not divide")
}

struct Cpu {
    model: Model,
    pool: Arc<Pool>,
}

impl Cpu {
    fn memory(&self, arrays: usize, activations: usize) -> Memory {
        let shape = Shape::of(&self.model);
        Memory { parameters: 4 * (arrays * shape.elements) as u64, activations: 4 * activations as u64 }
    }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        let instructions = match covey_simd::level() {
            Level::Portable => "",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2, ",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512, ",
        };
        let threads = self.pool.threads();
        format!("cpu ({instructions}{threads} thread{})", if threads == 1 { "" } else { "s" })
    }

    fn model(&self) -> Result<Box<dyn LanguageModel>, BackendError> {
        Ok(Box::new(CpuModel::with(&self.model, self.pool.clone())))
    }

    fn trainer(&self, optimizer: Optimizer) -> Result<Box<dyn Trainer>, BackendError> {
        Ok(Box::new(CpuTrainer::with(&self.model, optimizer, self.pool.clone(), Passes::Both { keep: None })))
    }

    fn model_memory(&self) -> Memory {
        let (shape, threads) = (Shape::of(&self.model), self.pool.threads());
        let of_one = |threads| Network::elements(&shape, Passes::Forward, threads);
        self.memory(1, of_one(threads) + (threads - 1) * of_one(1))
    }

    fn context_bytes(&self, tokens: usize) -> u64 {
        Continuation::bytes(&Shape::of(&self.model), tokens, self.pool.threads())
    }

    fn trainer_memory(&self, optimizer: Optimizer) -> Memory {
        let (shape, passes) = (Shape::of(&self.model), Passes::Both { keep: None });
        // Parameters, gradient, feedback.
        let besides = self.memory(3, Network::elements(&shape, passes, self.pool.threads()));
        let (moments, workspace) = Moments::elements(&Layout::of(&self.model), optimizer);
        Memory {
            parameters: besides.parameters + 4 * moments as u64,
            activations: besides.activations + 4 * workspace as u64,
        }
    }
}

fn finite(what: &'static str, value: f64) -> Result<f64, BackendError> {
    if value.is_finite() { Ok(value) } else { Err(BackendError::NotFinite { what, value }) }
}

#[cfg(test)]
mod tests;
