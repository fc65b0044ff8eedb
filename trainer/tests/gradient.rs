//! The CPU backend against an f64 oracle: logits, loss, every element of the gradient by finite differences, AdamW.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;
mod oracle;

use common::{Draw, lively_state, small_model};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer, RopeScaling};
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_trainer::cpu::{CpuModel, CpuTrainer};
use covey_trainer::{BackendError, Batch, LanguageModel, StepHyper, Trainer, genesis};

/// Tied and not; with heads whose widths do not add up to the model's, wider and narrower, and stretched frequencies.
fn models() -> [Model; 4] {
    let stretched =
        RopeScaling { factor: 4.0, low_frequency_factor: 1.0, high_frequency_factor: 3.0, original_sequence: 16 };
    let wide = Model { head: Some(12), rope_scaling: Some(stretched), rope_theta: 50.0, ..small_model(true) };
    let narrow = Model { head: Some(2), ..small_model(false) };
    [small_model(true), small_model(false), wide, narrow]
}

fn rounded(state: &[f64]) -> Vec<f32> {
    state.iter().map(|value| *value as f32).collect()
}

fn judge(model: &Model, state: &[f64]) -> CpuModel {
    let mut judge = CpuModel::new(model, 2);
    judge.load(&mut as_le_bytes(&rounded(state))).unwrap();
    judge
}

fn trainer(model: &Model, state: &[f32]) -> CpuTrainer {
    let mut trainer = CpuTrainer::new(model, Optimizer::AdamW, 1);
    trainer.load(&mut as_le_bytes(state)).unwrap();
    trainer
}

fn parameters(trainer: &CpuTrainer, model: &Model) -> Vec<f32> {
    let mut out = vec![0.0; Layout::of(model).elements()];
    trainer.save(&mut as_le_bytes_mut(&mut out)).unwrap();
    out
}

fn loss(judge: &mut CpuModel, batch: Batch) -> Result<f64, BackendError> {
    Ok(judge.losses(&[batch])?[0])
}

fn rows(model: &Model, sequences: usize) -> Vec<u32> {
    let mut draw = Draw::new(9);
    (0..sequences * (model.sequence as usize + 1)).map(|_| draw.below(model.vocabulary)).collect()
}

#[test]
fn logits_and_loss_are_the_oracles() {
    for model in models() {
        let state = lively_state(&model, 1);
        let mut judge = judge(&model, &state);
        let rows = rows(&model, 3);
        let loss = loss(&mut judge, Batch::new(&model, rows.clone()).unwrap()).unwrap();
        assert!((loss - oracle::loss(&model, &state, &rows)).abs() < 1e-5, "{model:?}");
        for length in [1, 4, 7] {
            let logits = judge.logits(&rows[..length]).unwrap();
            let expected = oracle::logits(&model, &state, &rows[..length]).concat();
            for (at, (got, expected)) in logits.iter().zip(&expected).enumerate() {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 2e-5, "{model:?}, length {length}, logit {at}: {got}, expected {expected}");
            }
        }
    }
}

#[test]
fn every_element_of_the_gradient_is_the_slope_of_the_oracles_loss() {
    const STEP: f64 = 1e-5;
    for model in models() {
        let mut state = lively_state(&model, 2);
        let rows = rows(&model, 2);
        let mut trainer = trainer(&model, &rounded(&state));
        let (loss, gradient) = trainer.gradient(&Batch::new(&model, rows.clone()).unwrap()).unwrap();
        assert!((loss - oracle::loss(&model, &state, &rows)).abs() < 1e-5);
        for tensor in Layout::of(&model).tensors() {
            let (mut error, mut size) = (0.0f64, 0.0f64);
            for at in tensor.range() {
                let value = state[at];
                state[at] = value + STEP;
                let above = oracle::loss(&model, &state, &rows);
                state[at] = value - STEP;
                let below = oracle::loss(&model, &state, &rows);
                state[at] = value;
                let slope = (above - below) / (2.0 * STEP);
                error += (slope - f64::from(gradient[at])).powi(2);
                size += slope * slope;
            }
            let (error, size) = (error.sqrt(), size.sqrt());
            assert!(size > 1e-4, "{} does not matter here: gradient {size}", tensor.name);
            assert!(error < 2e-5 * size.max(0.01), "{model:?}, {}: off by {error} of {size}", tensor.name);
        }
    }
}

#[test]
fn steps_are_adamw_with_clipping() {
    let model = small_model(true);
    let mut state = lively_state(&model, 3);
    let batch = Batch::new(&model, rows(&model, 2)).unwrap();
    let mut trainer = trainer(&model, &rounded(&state));
    let hyper = StepHyper {
        rate: 0.01,
        embed_rate: 0.01,
        momentum: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 0.5,
    };
    let (mut first, mut second) = (vec![0.0f64; state.len()], vec![0.0f64; state.len()]);
    for step in 1..=5 {
        let gradient = trainer.gradient(&batch).unwrap().1.to_vec();
        let stats = trainer.step(&batch, &hyper).unwrap().unwrap();
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!((stats.gradient_norm - norm).abs() < 1e-6 * norm && norm > hyper.clip, "the clip bites at norm {norm}");
        let after = parameters(&trainer, &model);
        for at in 0..state.len() {
            let g = f64::from(gradient[at]) * hyper.clip / norm;
            first[at] = hyper.beta1 * first[at] + (1.0 - hyper.beta1) * g;
            second[at] = hyper.beta2 * second[at] + (1.0 - hyper.beta2) * g * g;
            let m = first[at] / (1.0 - hyper.beta1.powi(step));
            let v = second[at] / (1.0 - hyper.beta2.powi(step));
            state[at] =
                state[at] * (1.0 - hyper.rate * hyper.weight_decay) - hyper.rate * m / (v.sqrt() + hyper.epsilon);
            let got = f64::from(after[at]);
            // A gradient of nearly nothing has no certain sign, and Adam takes the sign's step.
            let allowed = if g.abs() < 1e-7 { 0.1 } else { 2e-5 };
            assert!((got - state[at]).abs() < allowed, "step {step}, element {at}: {got}, expected {}", state[at]);
            state[at] = got;
        }
    }
    assert_eq!(trainer.steps(), 5);
    trainer.reset_moments();
    assert_eq!(trainer.steps(), 0);
}

#[test]
fn one_batch_is_learned_by_heart() {
    let model = Model { width: 32, heads: 4, kv_heads: 2, ..small_model(true) };
    let mut trainer = trainer(&model, &genesis::initial_state(&model).unwrap());
    let batch = Batch::new(&model, rows(&model, 4)).unwrap();
    let hyper = StepHyper {
        rate: 0.02,
        embed_rate: 0.02,
        momentum: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: 1.0,
    };
    let first = trainer.step(&batch, &hyper).unwrap().unwrap().loss;
    // No knowledge: every token alike.
    assert!((first - f64::from(model.vocabulary).ln()).abs() < 0.1, "{first}");
    for _ in 0..150 {
        trainer.step(&batch, &hyper).unwrap();
    }
    // Rows that begin alike cannot be told apart at first, so a little remains.
    let (last, _) = trainer.gradient(&batch).unwrap();
    assert!(last < 0.15, "{last}");
}

#[test]
fn two_instances_on_two_threads_agree_to_the_bit() {
    let model = Model { sequence: 50, ..small_model(true) };
    let run = || {
        let mut trainer = trainer(&model, &genesis::initial_state(&model).unwrap());
        let hyper = StepHyper {
            rate: 0.01,
            embed_rate: 0.01,
            momentum: 0.0,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        };
        for _ in 0..5 {
            trainer.step(&Batch::new(&model, rows(&model, 25)).unwrap(), &hyper).unwrap();
        }
        parameters(&trainer, &model).iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(run);
        let right = scope.spawn(run);
        (left.join().unwrap(), right.join().unwrap())
    });
    assert!(left == right);
}

#[test]
fn what_belongs_to_another_model_is_refused_and_changes_nothing() {
    let model = small_model(true);
    let state = lively_state(&model, 4);
    let (mut judge, mut trainer) = (judge(&model, &state), trainer(&model, &rounded(&state)));
    let other = Model { sequence: 8, ..model.clone() };
    let strange = Batch::new(&other, rows(&other, 1)).unwrap();
    let hyper = StepHyper {
        rate: 0.01,
        embed_rate: 0.01,
        momentum: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 1.0,
    };
    assert!(matches!(trainer.step(&strange, &hyper), Err(BackendError::OtherModel { .. })));
    assert!(matches!(loss(&mut judge, strange), Err(BackendError::OtherModel { .. })));
    assert!(judge.logits(&[]).is_err() && judge.logits(&[23]).is_err() && judge.logits(&[0; 8]).is_err());
    assert_eq!((parameters(&trainer, &model), trainer.steps()), (rounded(&state), 0));
    let broken = vec![f32::NAN; state.len()];
    trainer.load(&mut as_le_bytes(&broken)).unwrap();
    assert!(trainer.step(&Batch::new(&model, rows(&model, 1)).unwrap(), &hyper).is_err());
    assert_eq!(trainer.steps(), 0);
    assert!(trainer.load(&mut as_le_bytes(&[0.0; 3])).is_err());
}
