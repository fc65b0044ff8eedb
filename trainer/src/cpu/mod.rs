//! The CPU backend: f32, the same bits for the same input with the same binary on one machine, on any number of threads.
//!
//! Forward and backward passes are written by hand (`network.rs`) into buffers made once. Another processor, with other
//! vector instructions, may round differently. [`open`] is the door; the types behind it have names for this crate's own
//! tests, which look at gradients.

mod attention;
mod groups;
mod kernels;
mod language_model;
mod muon;
mod network;
mod optimizer;
mod passes;
mod product;
mod shape;
mod trainer;

pub use language_model::CpuModel;
pub use trainer::CpuTrainer;

use crate::backend::{Backend, BackendError, LanguageModel, Memory, Trainer};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer};
use covey_simd::Level;
use network::Network;
use optimizer::Moments;
use passes::Passes;
use shape::Shape;

/// Opens the CPU for `model`; calls work on as many threads as `threads`, at least one.
///
/// # Errors
/// A model whose numbers do not fit together.
pub fn open(threads: usize, model: &Model) -> Result<Box<dyn Backend>, BackendError> {
    check(model)?;
    Ok(Box::new(Cpu { model: model.clone(), threads: threads.max(1) }))
}

/// What a layout and the products rely on.
fn check(model: &Model) -> Result<(), BackendError> {
    let must = |holds: bool, what| if holds { Ok(()) } else { Err(BackendError::Model { what }) };
    let Model { vocabulary, width, layers, heads, kv_heads, feed_forward, sequence, .. } = *model;
    let numbers = [vocabulary, width, layers, heads, kv_heads, feed_forward, sequence];
    must(!numbers.contains(&0), "none of something")?;
    must(width.is_multiple_of(heads), "a width that its heads do not divide")?;
    must((width / heads).is_multiple_of(2), "heads of an odd width")?;
    must(model.head_width() == width / heads, "a width of heads that is not the model's divided by their number")?;
    must(model.rope_scaling.is_none(), "rotary frequencies that are stretched")?;
    must(heads.is_multiple_of(kv_heads), "heads that its key and value heads do not divide")
}

struct Cpu {
    model: Model,
    threads: usize,
}

impl Cpu {
    fn memory(&self, arrays: usize, networks: usize, passes: Passes) -> Memory {
        let shape = Shape::of(&self.model);
        let activations = networks * Network::elements(&shape, passes);
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
        let threads = self.threads;
        format!("cpu ({instructions}{threads} thread{})", if threads == 1 { "" } else { "s" })
    }

    fn model(&self) -> Result<Box<dyn LanguageModel>, BackendError> {
        Ok(Box::new(CpuModel::new(&self.model, self.threads)))
    }

    fn trainer(&self, optimizer: Optimizer) -> Result<Box<dyn Trainer>, BackendError> {
        Ok(Box::new(CpuTrainer::new(&self.model, optimizer, self.threads)))
    }

    fn model_memory(&self) -> Memory {
        self.memory(1, self.threads, Passes::Forward)
    }

    fn trainer_memory(&self, optimizer: Optimizer) -> Memory {
        // Parameters, gradient, feedback.
        let besides = self.memory(3, 1, Passes::Both { keep: None });
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
