//! The CPU backend against an f64 oracle: logits, loss, every element of the gradient by finite differences, AdamW.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;
mod oracle;

use common::{Draw, lively_state, small_model};
use covey_proto::layout::Layout;
use covey_trainer::cpu::CpuBackend;
use covey_trainer::{Backend, Batch, StepHyper, genesis};

fn loaded(model: &covey_proto::run::Model, state: &[f64]) -> CpuBackend {
    let mut backend = CpuBackend::new(model);
    backend.load(&state.iter().map(|value| *value as f32).collect::<Vec<_>>()).unwrap();
    backend
}

fn rows(model: &covey_proto::run::Model, sequences: usize) -> Vec<u32> {
    let mut draw = Draw::new(9);
    (0..sequences * (model.sequence as usize + 1)).map(|_| draw.below(model.vocabulary)).collect()
}

#[test]
fn logits_and_loss_are_the_oracles() {
    for tied in [true, false] {
        let model = small_model(tied);
        let state = lively_state(&model, 1);
        let mut backend = loaded(&model, &state);
        let rows = rows(&model, 3);
        let loss = backend.loss(&Batch::new(&model, rows.clone()).unwrap()).unwrap();
        assert!((loss - oracle::loss(&model, &state, &rows)).abs() < 1e-5, "tied {tied}");
        for length in [1, 4, 7] {
            let logits = backend.logits(&rows[..length]).unwrap();
            let expected = oracle::logits(&model, &state, &rows[..length]).concat();
            for (at, (got, expected)) in logits.iter().zip(&expected).enumerate() {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 2e-5, "tied {tied}, length {length}, logit {at}: {got}, expected {expected}");
            }
        }
    }
}

#[test]
fn every_element_of_the_gradient_is_the_slope_of_the_oracles_loss() {
    const STEP: f64 = 1e-5;
    for tied in [true, false] {
        let model = small_model(tied);
        let mut state = lively_state(&model, 2);
        let rows = rows(&model, 2);
        let (loss, gradient) = loaded(&model, &state).gradient(&Batch::new(&model, rows.clone()).unwrap()).unwrap();
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
            assert!(error < 2e-5 * size.max(0.01), "tied {tied}, {}: off by {error} of {size}", tensor.name);
        }
    }
}

#[test]
fn steps_are_adamw_with_clipping() {
    let model = small_model(true);
    let mut state = lively_state(&model, 3);
    let batch = Batch::new(&model, rows(&model, 2)).unwrap();
    let mut backend = loaded(&model, &state);
    let hyper = StepHyper { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 0.5 };
    let (mut first, mut second) = (vec![0.0f64; state.len()], vec![0.0f64; state.len()]);
    for step in 1..=5 {
        let gradient = backend.gradient(&batch).unwrap().1;
        let stats = backend.step(&batch, &hyper).unwrap();
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!((stats.gradient_norm - norm).abs() < 1e-6 * norm && norm > hyper.clip, "the clip bites at norm {norm}");
        let mut after = vec![0.0; state.len()];
        backend.parameters(&mut after).unwrap();
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
    let moments = backend.moments();
    assert_eq!((moments.steps, backend.steps()), (5, 5));
    backend.reset_moments();
    assert_eq!(backend.moments(), covey_trainer::Moments::zero(state.len()));
    backend.set_moments(moments.clone()).unwrap();
    assert_eq!(backend.moments(), moments);
}

#[test]
fn one_batch_is_learned_by_heart() {
    let model = covey_proto::run::Model { width: 32, heads: 4, kv_heads: 2, ..small_model(true) };
    let mut backend = CpuBackend::new(&model);
    backend.load(&genesis::initial_state(&model)).unwrap();
    let batch = Batch::new(&model, rows(&model, 4)).unwrap();
    let hyper = StepHyper { rate: 0.02, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0, clip: 1.0 };
    let first = backend.step(&batch, &hyper).unwrap().loss;
    // No knowledge: every token alike.
    assert!((first - f64::from(model.vocabulary).ln()).abs() < 0.1, "{first}");
    for _ in 0..150 {
        backend.step(&batch, &hyper).unwrap();
    }
    // Rows that begin alike cannot be told apart at first, so a little remains.
    let last = backend.loss(&batch).unwrap();
    assert!(last < 0.15, "{last}");
}

#[test]
fn two_instances_on_two_threads_agree_to_the_bit() {
    let model = covey_proto::run::Model { sequence: 50, ..small_model(true) };
    let run = || {
        let mut backend = CpuBackend::new(&model);
        backend.load(&genesis::initial_state(&model)).unwrap();
        let hyper = StepHyper { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 };
        for _ in 0..5 {
            backend.step(&Batch::new(&model, rows(&model, 25)).unwrap(), &hyper).unwrap();
        }
        let mut state = vec![0.0; backend.moments().first.len()];
        backend.parameters(&mut state).unwrap();
        state.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
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
    let mut backend = loaded(&model, &lively_state(&model, 4));
    let other = covey_proto::run::Model { sequence: 8, ..model.clone() };
    let batch = Batch::new(&other, rows(&other, 1)).unwrap();
    assert!(backend.loss(&batch).is_err());
    assert!(backend.load(&[0.0; 3]).is_err());
    assert!(backend.logits(&[]).is_err() && backend.logits(&[23]).is_err() && backend.logits(&[0; 8]).is_err());
    let mut broken = vec![0.0; Layout::of(&model).elements()];
    backend.parameters(&mut broken).unwrap();
    broken[0] = f32::NAN;
    broken.fill(f32::NAN);
    backend.load(&broken).unwrap();
    let hyper = StepHyper { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 };
    assert!(backend.step(&Batch::new(&model, rows(&model, 1)).unwrap(), &hyper).is_err());
    assert_eq!(backend.steps(), 0);
}
