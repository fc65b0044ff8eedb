//! Tokens and floating-point operations a second of a training step and of evaluation, on one thread and two, at three
//! sizes: `cargo bench -p covey-trainer --bench step -- [--json FILE] [--threads 1,2] [--sizes 0.85M,5M,56M]`.
//!
//! The limit is measured beside them: what a loop of fused multiply-adds in registers reaches on as many threads. A step
//! counts what [`sizes::operations`] says. The best of the repetitions is what the machine can do; the median is
//! what it did beside its other work.
//!
//! The rival on the same shapes: `tests/rivals`, `trainer`.

mod sizes;

use covey_proto::run::Optimizer;
use covey_simd::vectorised;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Device, genesis, open_backend};
use serde_json::{Value, json};
use sizes::{HYPER, Size, operations, sizes};
use std::time::Instant;

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
    let (trainer, judge) = (backend.trainer(Optimizer::AdamW), backend.model());
    let (mut trainer, mut judge) = (trainer.expect("there is room"), judge.expect("there is room"));
    let parameters = genesis::initial_state(model).expect("it has a seed");
    trainer.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
    judge.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
    let batch = size.batch();
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
