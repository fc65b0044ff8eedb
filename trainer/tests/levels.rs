//! What processors with fewer vector instructions compute. A test binary of its own: the level is one for the process.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use covey_proto::run::{Model, Optimizer};
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use covey_trainer::cpu::{CpuModel, CpuTrainer};
use covey_trainer::{Batch, LanguageModel, StepHyper, Trainer, genesis};

#[test]
fn what_processors_with_less_run_computes_the_same() {
    let model = Model {
        vocabulary: 67,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        feed_forward: 24,
        sequence: 40,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    };
    let rows = (0..2 * 41).map(|at| at * at % 67).collect();
    let batch = Batch::new(&model, rows).unwrap();
    let initial = genesis::initial_state(&model).unwrap();
    let hyper = StepHyper {
        rate: 0.01,
        embed_rate: 0.01,
        momentum: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 0.1,
    };
    let at = |level| {
        covey_simd::lower_to(level);
        let mut trainer = CpuTrainer::new(&model, Optimizer::AdamW, 1);
        trainer.load(&mut as_le_bytes(&initial)).unwrap();
        let (loss, gradient) = trainer.gradient(&batch).unwrap();
        let gradient = gradient.to_vec();
        trainer.step(&batch, &hyper).unwrap();
        let mut after = vec![0.0; initial.len()];
        trainer.save(&mut as_le_bytes_mut(&mut after)).unwrap();
        let mut judge = CpuModel::new(&model, 1);
        judge.load(&mut as_le_bytes(&after)).unwrap();
        (loss, gradient, judge.losses(std::slice::from_ref(&batch)).unwrap()[0])
    };
    let best = at(covey_simd::best());
    for level in covey_simd::levels() {
        let (loss, gradient, after) = at(level);
        assert!((loss - best.0).abs() < 1e-5 && (after - best.2).abs() < 1e-3, "{level:?}: {loss}, {after}");
        for (at, (got, expected)) in gradient.iter().zip(&best.1).enumerate() {
            assert!((got - expected).abs() <= 1e-5, "{level:?}, element {at}: {got}, expected {expected}");
        }
    }
}
