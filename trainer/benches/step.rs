//! Tokens a second of one training step and of evaluation, one thread: `cargo bench -p covey-trainer`.
//!
//! The rival on the same shapes: `tests/interop/time_pytorch.py`. The best of the repetitions is what the machine can
//! do; the median is what it did beside its other work.

use covey_proto::run::{Model, Optimizer};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Batch, Device, StepHyper, genesis, open_backend};
use std::time::Instant;

const HYPER: StepHyper = StepHyper {
    rate: 1e-3,
    embed_rate: 1e-3,
    momentum: 0.0,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    clip: 1.0,
};

fn model(width: u32, feed_forward: u32, vocabulary: u32) -> Model {
    Model {
        vocabulary,
        width,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        feed_forward,
        sequence: 128,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    }
}

/// Best and median seconds of `repetitions` calls, after two that warm up.
fn time(repetitions: usize, mut call: impl FnMut()) -> (f64, f64) {
    call();
    call();
    let mut seconds: Vec<f64> = (0..repetitions)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[seconds.len() / 2])
}

fn main() {
    for (width, feed_forward, vocabulary) in [(128, 256, 2048), (192, 512, 4096)] {
        let model = model(width, feed_forward, vocabulary);
        let backend = open_backend(&Device::Cpu { threads: 1 }, &model).expect("a model that can be");
        let (trainer, judge) = (backend.trainer(Optimizer::AdamW), backend.model());
        let (mut trainer, mut judge) = (trainer.expect("there is room"), judge.expect("there is room"));
        let parameters = genesis::initial_state(&model).expect("it has a seed");
        trainer.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
        judge.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
        let sequences = 8;
        let tokens = (0..sequences * 129).map(|at| (at * 7919 + at / 13 * 104_729) % vocabulary).collect();
        let batch = Batch::new(&model, tokens).expect("whole rows of known tokens");
        let count = batch.predictions() as f64;
        println!("{} parameters, {count} tokens a step, {}", parameters.len(), backend.name());
        let (best, median) = time(30, || assert!(trainer.step(&batch, &HYPER).is_ok()));
        println!("  step      best {:7.0}  median {:7.0} tokens/s", count / best, count / median);
        let (best, median) = time(30, || assert!(judge.losses(std::slice::from_ref(&batch)).is_ok()));
        println!("  evaluate  best {:7.0}  median {:7.0} tokens/s", count / best, count / median);
    }
}
