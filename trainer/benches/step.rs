//! Tokens and floating-point operations a second of a training step and of evaluation, on one thread and two, at three
//! sizes: `cargo bench -p covey-trainer --bench step -- [--json FILE] [--threads 1,2] [--sizes 0.85M,5M,56M]`.
//!
//! The limit is measured beside them: what a loop of fused multiply-adds in registers reaches on as many threads. A step
//! counts 6 operations for each weight of a matrix and token, and 12·T/2·width a layer for causal attention over T tokens;
//! norms, softmax and the optimizer count nothing. The best of the repetitions is what the machine can do; the median is
//! what it did beside its other work.
//!
//! The rival on the same shapes: `tests/rivals`, `trainer`.

use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_simd::vectorised;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Batch, Device, StepHyper, genesis, open_backend};
use serde_json::{Value, json};
use std::time::Instant;

const HYPER: StepHyper = StepHyper { rate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, clip: 1.0 };

/// A model, and how many sequences a step has.
struct Size {
    name: &'static str,
    sequences: usize,
    repetitions: usize,
    model: Model,
}

fn sizes() -> [Size; 3] {
    let small = Model {
        vocabulary: 2048,
        width: 128,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        feed_forward: 256,
        sequence: 128,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: 1,
    };
    let medium = Model { vocabulary: 4096, width: 256, feed_forward: 704, sequence: 256, tied: false, ..small.clone() };
    let large = Model {
        vocabulary: 32_000,
        width: 512,
        layers: 8,
        heads: 8,
        kv_heads: 4,
        feed_forward: 1408,
        sequence: 512,
        ..medium.clone()
    };
    [
        Size { name: "0.85M", sequences: 8, repetitions: 60, model: small },
        Size { name: "5M", sequences: 8, repetitions: 12, model: medium },
        Size { name: "56M", sequences: 4, repetitions: 4, model: large },
    ]
}

/// Operations of one step.
fn operations(model: &Model, tokens: f64) -> f64 {
    let layout = Layout::of(model);
    let matrices = layout.tensors().iter().filter(|tensor| !tensor.name.contains("norm"));
    let weights: usize = matrices
        .filter(|tensor| model.tied || !tensor.name.contains("embed"))
        .map(|tensor| tensor.elements())
        .sum();
    let attention = 12.0 * f64::from(model.sequence) / 2.0 * f64::from(model.width) * f64::from(model.layers);
    tokens * (6.0 * weights as f64 + attention)
}

/// Best and median seconds of `repetitions` calls, after one that warms up.
fn time(repetitions: usize, mut call: impl FnMut()) -> (f64, f64) {
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

vectorised! {
    /// As many fused multiply-adds as 192 lanes take in `rounds`: enough of them to hide the latency of each.
    fn fused(rounds: usize, factor: f32) -> f32 {
        let mut sums = [[0.0f32; 16]; 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                for lane in sum.iter_mut() {
                    *lane = if FMA { lane.mul_add(factor, 1e-3) } else { *lane * factor + 1e-3 };
                }
            }
        }
        sums.iter().flatten().sum()
    }
}

/// Operations a second of [`fused`] on as many threads.
fn peak(threads: usize) -> f64 {
    const ROUNDS: usize = 200_000;
    let run = || std::hint::black_box(fused(ROUNDS, std::hint::black_box(0.999)));
    let all = || {
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(run)));
            run();
        });
    };
    (ROUNDS * 12 * 16 * 2 * threads) as f64 / time(40, all).0
}

fn measure(size: &Size, threads: usize, peak: f64) -> Value {
    let model = &size.model;
    let backend = open_backend(&Device::Cpu { threads }, model).expect("a model that can be");
    let (trainer, judge) = (backend.trainer(), backend.model());
    let (mut trainer, mut judge) = (trainer.expect("there is room"), judge.expect("there is room"));
    let parameters = genesis::initial_state(model);
    trainer.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
    judge.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
    let row = model.sequence as usize + 1;
    let tokens = (0..size.sequences * row).map(|at| ((at * 7919 + at / 13 * 104_729) % 65_521) as u32 % model.vocabulary);
    let batch = Batch::new(model, tokens.collect()).expect("whole rows of known tokens");
    let count = batch.predictions() as f64;
    println!("{} parameters, {count} tokens a step, {}", parameters.len(), backend.name());
    let step = time(size.repetitions, || assert!(trainer.step(&batch, &HYPER).is_ok()));
    let gflops = operations(model, count) / step.0 / 1e9;
    let percent = 100.0 * gflops * 1e9 / peak;
    println!("  step      best {:7.0}  median {:7.0} tokens/s", count / step.0, count / step.1);
    println!("            best {gflops:7.1} GFLOP/s, {percent:.1} % of {:.1}", peak / 1e9);
    let evaluation = time(size.repetitions, || assert!(judge.losses(std::slice::from_ref(&batch)).is_ok()));
    println!("  evaluate  best {:7.0}  median {:7.0} tokens/s", count / evaluation.0, count / evaluation.1);
    json!({
        "model": size.name, "parameters": parameters.len(), "tokens": count, "threads": threads,
        "step_seconds": { "best": step.0, "median": step.1 },
        "evaluate_seconds": { "best": evaluation.0, "median": evaluation.1 },
        "gflops": gflops, "peak_gflops": peak / 1e9, "percent_of_peak": percent,
    })
}

/// What follows `name` among the arguments.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn main() {
    let threads = option("--threads").unwrap_or_else(|| "1,2".to_owned());
    let wanted = option("--sizes").unwrap_or_else(|| "0.85M,5M,56M".to_owned());
    let mut results = Vec::new();
    for threads in threads.split(',').map(|number| number.parse().expect("--threads takes numbers: 1,2")) {
        let peak = peak(threads);
        for size in sizes().iter().filter(|size| wanted.split(',').any(|name| name == size.name)) {
            results.push(measure(size, threads, peak));
        }
    }
    if let Some(file) = option("--json") {
        let text = serde_json::to_string_pretty(&results).expect("numbers and texts");
        std::fs::write(&file, text).expect("the file that --json names can be written");
    }
}
