//! Tokens and floating-point operations a second of a training step and of evaluation, on one thread and two, at three
//! sizes: `cargo bench -p covey-trainer --bench step -- [--json FILE] [--threads 1,2] [--sizes 0.85M,5M,56M]`.
//! With `--pool` it measures instead what it costs to share work among as many threads.
//!
//! The limit is measured beside them: what a loop of fused multiply-adds in registers reaches on as many threads. A step
//! counts what [`sizes::operations`] says. The best of the repetitions is what the machine can do; the median is
//! what it did beside its other work.
//!
//! The rival on the same shapes: `tests/rivals`, `trainer`.

#[path = "../src/cpu/pool.rs"]
#[allow(dead_code, unused_imports)] // Its tests run with the crate.
mod pool;
mod sizes;

use covey_proto::run::Optimizer;
use covey_simd::vectorised;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Device, genesis, open_backend};
use serde_json::{Value, json};
use sizes::{HYPER, Size, operations, sizes};
use std::time::{Duration, Instant};

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

/// Lanes of one sum; more than any processor's vectors have.
const LANES: usize = 16;

/// One fused multiply-add a lane, by value, so that sums stay in registers.
#[inline(always)]
fn again<const FMA: bool>(mut sum: [f32; LANES], factor: f32) -> [f32; LANES] {
    for lane in &mut sum {
        *lane = if FMA { lane.mul_add(factor, 1e-3) } else { *lane * factor + 1e-3 };
    }
    sum
}

vectorised! {
    /// `rounds` multiply-adds in each lane of ten sums: enough of them to hide the latency of each.
    fn fused(rounds: usize, factor: f32) -> f32 {
        let zero = [0.0f32; LANES];
        let (mut a, mut b, mut c, mut d, mut e) = (zero, zero, zero, zero, zero);
        let (mut f, mut g, mut h, mut i, mut j) = (zero, zero, zero, zero, zero);
        for _ in 0..rounds {
            a = again::<FMA>(a, factor);
            b = again::<FMA>(b, factor);
            c = again::<FMA>(c, factor);
            d = again::<FMA>(d, factor);
            e = again::<FMA>(e, factor);
            f = again::<FMA>(f, factor);
            g = again::<FMA>(g, factor);
            h = again::<FMA>(h, factor);
            i = again::<FMA>(i, factor);
            j = again::<FMA>(j, factor);
        }
        [a, b, c, d, e, f, g, h, i, j].as_flattened().iter().sum()
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
    (ROUNDS * 10 * LANES * 2 * threads) as f64 / time(40, all).0
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

/// Prints what a call of the pool costs beside its tasks: tasks that do nothing, and tasks of 20 µs, the shortest of a step.
fn measure_pool(threads: usize) {
    const CALLS: usize = 2_000;
    let pool = pool::Pool::new(threads);
    let work = |length: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < length {}
    };
    let cost = |length: Duration| {
        let (best, median) = time(9, || (0..CALLS).for_each(|_| pool.each(0..threads, |_| work(length))));
        [best, median].map(|seconds| (seconds / CALLS as f64 - length.as_secs_f64()) * 1e6)
    };
    let ([best, median], [long_best, long_median]) = (cost(Duration::ZERO), cost(Duration::from_micros(20)));
    println!(
        "{threads} threads: a call costs {best:.2} us at best, {median:.2} median; with tasks of 20 us {long_best:.2}, {long_median:.2}"
    );
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
        if std::env::args().any(|argument| argument == "--pool") {
            measure_pool(threads);
            continue;
        }
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
