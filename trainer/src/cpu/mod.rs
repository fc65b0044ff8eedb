//! The CPU backend: f32, one thread an instance, the same bits for the same input with the same binary on one machine.
//!
//! Forward and backward passes are written by hand (`model`) into buffers made once. Many instances may run in one
//! process, one a thread. Another processor, with other vector instructions, may round differently.

mod attention;
mod kernels;
mod model;
mod shape;
mod simd;

use crate::backend::{Backend, BackendError, Batch, Moments, StepHyper, StepStats};
use covey_proto::run::Model;
use kernels::{AdamW, adamw, sum_of_squares};
use model::{Group, Network};
use simd::Into;

/// Parameters, optimizer moments and buffers in memory.
pub struct CpuBackend {
    network: Network,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: Moments,
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl CpuBackend {
    /// A backend for `model`, all parameters and moments zero. Buffers take a few times the parameters' memory.
    ///
    /// # Panics
    /// If the model's numbers cannot be: heads that do not divide the width, say. A checked
    /// [`Run`](covey_proto::run::Run) has none such.
    pub fn new(model: &Model) -> CpuBackend {
        CpuBackend::keeping(model, None)
    }

    fn keeping(model: &Model, keep: Option<bool>) -> CpuBackend {
        let network = Network::new(model, keep);
        let elements = network.shape.elements;
        CpuBackend {
            parameters: vec![0.0; elements],
            gradient: vec![0.0; elements],
            moments: Moments::zero(elements),
            inputs: Vec::new(),
            targets: Vec::new(),
            network,
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), BackendError> {
        let shape = &self.network.shape;
        if batch.sequence() == shape.sequence && batch.vocabulary() == shape.vocabulary {
            return Ok(());
        }
        Err(BackendError::OtherModel {
            sequence: batch.sequence(),
            vocabulary: batch.vocabulary(),
            model_sequence: shape.sequence,
            model_vocabulary: shape.vocabulary,
        })
    }

    fn check_length(&self, got: usize) -> Result<(), BackendError> {
        let expected = self.network.shape.elements;
        if got == expected { Ok(()) } else { Err(BackendError::Elements { got, expected }) }
    }

    /// Calls `run` with each group of sequences and sums what it gives.
    fn groups(&mut self, batch: &Batch, mut run: impl FnMut(&mut Self, usize, &Group<'_>) -> f64) -> f64 {
        let (row, at_once) = (batch.sequence() + 1, self.network.sequences_max());
        let (mut inputs, mut targets) = (std::mem::take(&mut self.inputs), std::mem::take(&mut self.targets));
        let mut sum = 0.0;
        for (number, sequences) in batch.tokens().chunks(at_once * row).enumerate() {
            inputs.clear();
            targets.clear();
            for sequence in sequences.chunks_exact(row) {
                inputs.extend_from_slice(&sequence[..row - 1]);
                targets.extend_from_slice(&sequence[1..]);
            }
            sum += run(self, number, &Group { inputs: &inputs, targets: &targets, length: row - 1 });
        }
        (self.inputs, self.targets) = (inputs, targets);
        sum
    }

    /// Leaves the gradient of the mean loss in `self.gradient`; gives the mean loss.
    fn compute_gradient(&mut self, batch: &Batch) -> Result<f64, BackendError> {
        self.check(batch)?;
        let positions = batch.predictions() as f64;
        let weight = (1.0 / positions) as f32;
        let loss = self.groups(batch, |own, number, group| {
            let into = if number == 0 { Into::Set } else { Into::Add };
            own.network.gradient(&own.parameters, &mut own.gradient, group, weight, into)
        }) / positions;
        finite("loss", loss)
    }
}

fn finite(what: &'static str, value: f64) -> Result<f64, BackendError> {
    if value.is_finite() { Ok(value) } else { Err(BackendError::NotFinite { what, value }) }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        match simd::level() {
            simd::Level::Portable => "cpu",
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => "cpu (AVX2)",
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => "cpu (AVX-512)",
        }
    }

    fn load(&mut self, parameters: &[f32]) -> Result<(), BackendError> {
        self.check_length(parameters.len())?;
        self.parameters.copy_from_slice(parameters);
        Ok(())
    }

    fn parameters(&self, out: &mut [f32]) -> Result<(), BackendError> {
        self.check_length(out.len())?;
        out.copy_from_slice(&self.parameters);
        Ok(())
    }

    fn step(&mut self, batch: &Batch, hyper: &StepHyper) -> Result<StepStats, BackendError> {
        let loss = self.compute_gradient(batch)?;
        let gradient_norm = finite("gradient norm", sum_of_squares(&self.gradient).sqrt())?;
        let clipped = if gradient_norm > hyper.clip { hyper.clip / gradient_norm } else { 1.0 };
        self.moments.steps += 1;
        let steps = i32::try_from(self.moments.steps).unwrap_or(i32::MAX);
        let numbers = AdamW {
            scale: clipped as f32,
            beta1: hyper.beta1 as f32,
            beta2: hyper.beta2 as f32,
            keep1: (1.0 - hyper.beta1) as f32,
            keep2: (1.0 - hyper.beta2) as f32,
            rate: (hyper.rate / (1.0 - hyper.beta1.powi(steps))) as f32,
            inverse_root2: (1.0 / (1.0 - hyper.beta2.powi(steps)).sqrt()) as f32,
            epsilon: hyper.epsilon as f32,
            decay: (1.0 - hyper.rate * hyper.weight_decay) as f32,
        };
        let Moments { first, second, .. } = &mut self.moments;
        adamw(&mut self.parameters, first, second, &self.gradient, &numbers);
        Ok(StepStats { loss, gradient_norm, tokens: batch.predictions() })
    }

    fn gradient(&mut self, batch: &Batch) -> Result<(f64, Vec<f32>), BackendError> {
        let loss = self.compute_gradient(batch)?;
        Ok((loss, self.gradient.clone()))
    }

    fn loss(&mut self, batch: &Batch) -> Result<f64, BackendError> {
        self.check(batch)?;
        let sum = self.groups(batch, |own, _, group| own.network.loss(&own.parameters, group));
        finite("loss", sum / batch.predictions() as f64)
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BackendError> {
        let shape = &self.network.shape;
        if tokens.is_empty() || tokens.len() > shape.sequence {
            return Err(BackendError::Length { got: tokens.len(), max: shape.sequence });
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= shape.vocabulary) {
            return Err(BackendError::Token { token, vocabulary: shape.vocabulary });
        }
        Ok(self.network.logits(&self.parameters, tokens))
    }

    fn moments(&self) -> Moments {
        self.moments.clone()
    }

    fn steps(&self) -> u64 {
        self.moments.steps
    }

    fn set_moments(&mut self, moments: Moments) -> Result<(), BackendError> {
        self.check_length(moments.first.len())?;
        self.check_length(moments.second.len())?;
        self.moments = moments;
        Ok(())
    }

    fn reset_moments(&mut self) {
        self.moments.first.fill(0.0);
        self.moments.second.fill(0.0);
        self.moments.steps = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{small_model, tokens};

    #[test]
    fn probabilities_computed_again_give_the_same_gradient_as_kept_ones() {
        // Longer than two blocks of queries, and no multiple of a block.
        let model = Model { sequence: 75, ..small_model() };
        let batch = Batch::new(&model, tokens(&model, 3, 1)).unwrap();
        let parameters = crate::genesis::initial_state(&model);
        let [kept, again] = [true, false].map(|keep| {
            let mut backend = CpuBackend::keeping(&model, Some(keep));
            backend.load(&parameters).unwrap();
            backend.gradient(&batch).unwrap()
        });
        assert_eq!(kept.0, again.0);
        for (at, (kept, again)) in kept.1.iter().zip(&again.1).enumerate() {
            assert!((kept - again).abs() <= 1e-6, "element {at}: {kept} kept, {again} computed again");
        }
    }

    #[test]
    fn what_processors_with_less_run_computes_the_same() {
        let model = Model { sequence: 40, ..small_model() };
        let batch = Batch::new(&model, tokens(&model, 2, 4)).unwrap();
        let gradient = |lowered: Option<simd::Level>| {
            simd::LOWERED.set(lowered);
            let mut backend = CpuBackend::new(&model);
            backend.load(&crate::genesis::initial_state(&model)).unwrap();
            let result = backend.gradient(&batch).unwrap();
            let hyper = StepHyper { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 0.1 };
            backend.step(&batch, &hyper).unwrap();
            simd::LOWERED.set(None);
            (result.0, result.1, backend.loss(&batch).unwrap())
        };
        let best = gradient(None);
        #[cfg(target_arch = "x86_64")]
        let lower = [simd::Level::Portable, simd::Level::Avx2];
        #[cfg(not(target_arch = "x86_64"))]
        let lower = [simd::Level::Portable];
        for level in lower.into_iter().filter(|level| *level < simd::level()) {
            let (loss, gradient, after) = gradient(Some(level));
            assert!((loss - best.0).abs() < 1e-5 && (after - best.2).abs() < 1e-3, "{level:?}: {loss}, {after}");
            for (at, (got, expected)) in gradient.iter().zip(&best.1).enumerate() {
                assert!((got - expected).abs() <= 1e-5, "{level:?}, element {at}: {got}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_batch_larger_than_the_buffers_is_the_mean_of_its_parts() {
        let model = Model { sequence: 100, ..small_model() };
        let all = tokens(&model, 24, 2);
        let parameters = crate::genesis::initial_state(&model);
        let mut backend = CpuBackend::new(&model);
        backend.load(&parameters).unwrap();
        assert!(backend.network.sequences_max() < 24);
        let (loss, gradient) = backend.gradient(&Batch::new(&model, all.clone()).unwrap()).unwrap();
        let mut mean = vec![0.0f64; gradient.len()];
        let mut mean_loss = 0.0;
        for part in all.chunks(all.len() / 4) {
            let (loss, gradient) = backend.gradient(&Batch::new(&model, part.to_vec()).unwrap()).unwrap();
            mean_loss += loss / 4.0;
            mean.iter_mut().zip(gradient).for_each(|(mean, part)| *mean += f64::from(part) / 4.0);
        }
        assert!((loss - mean_loss).abs() < 1e-6);
        for (at, (whole, mean)) in gradient.iter().zip(&mean).enumerate() {
            assert!((f64::from(*whole) - mean).abs() <= 1e-6, "element {at}: {whole} whole, {mean} in parts");
        }
        assert!((backend.loss(&Batch::new(&model, all).unwrap()).unwrap() - loss).abs() < 1e-6);
    }
}
