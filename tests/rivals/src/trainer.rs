//! A training step beside PyTorch's, eager and compiled, on the same shapes: one step each in turn, on one thread and two.

use crate::report::{Report, keep_least, seconds};
use crate::torch::Torch;
use covey_proto::run::{Model, Optimizer};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Device, Trainer, genesis, open_backend};

#[path = "../../../trainer/benches/sizes/mod.rs"]
mod sizes;
use sizes::{HYPER, Size, operations};

/// The most cores that are measured.
const THREADS_MAX: usize = 2;

/// Fills the report: best seconds of each, how much faster Covey is, and the better of the two as the one that counts.
pub fn measure(report: &mut Report) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for size in sizes::sizes() {
        for threads in 1..=cores.min(THREADS_MAX) {
            // A process a number of threads: what torch.compile generated for one need not be right for another.
            let rivals = ["eager", "compile"].map(|kind| start(&size, kind));
            compare(report, &size, threads, rivals);
        }
    }
}

fn start(size: &Size, kind: &str) -> Option<Torch> {
    let Model { vocabulary, width, layers, heads, kv_heads, feed_forward, sequence, tied, .. } = size.model;
    let numbers = [vocabulary, width, layers, heads, kv_heads, feed_forward, sequence, u32::from(tied)];
    let mut arguments = vec![kind.to_owned()];
    arguments.extend(numbers.iter().map(u32::to_string));
    arguments.push(size.sequences.to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Torch::start("torch_train.py", &arguments)
}

/// Our side: a trainer that knows the model.
fn ours(size: &Size, threads: usize) -> Box<dyn Trainer> {
    let backend = open_backend(&Device::Cpu { threads }, &size.model).expect("a model that can be");
    let mut trainer = backend.trainer(Optimizer::AdamW).expect("there is room");
    let parameters = genesis::initial_state(&size.model).expect("it has a seed");
    trainer.load(&mut as_le_bytes(&parameters)).expect("the state is this model's");
    trainer
}

fn compare(report: &mut Report, size: &Size, threads: usize, mut rivals: [Option<Torch>; 2]) {
    let (mut trainer, batch) = (ours(size, threads), size.batch());
    let mut step = || seconds(|| assert!(trainer.step(&batch, &HYPER).is_ok())).0;
    step();
    let (mut covey, mut torch) = (f64::INFINITY, [f64::INFINITY; 2]);
    for _ in 0..size.repetitions {
        keep_least(&mut covey, step());
        for (rival, least) in rivals.iter_mut().zip(&mut torch) {
            let turn = rival.as_mut().and_then(|rival| rival.turn(threads));
            keep_least(least, turn.unwrap_or(f64::INFINITY));
        }
    }
    let name = |what: &str| format!("{}_{threads}_{what}", size.name);
    if let Some(rival) = &rivals[0] {
        report.text(&name("rival"), &rival.version);
    }
    report.number(&name("step"), covey * 1e3, 2, "ms");
    let gflops = operations(&size.model, batch.predictions() as f64) / covey / 1e9;
    report.number(&name("gflops"), gflops, 1, "GFLOP/s");
    for (kind, least) in ["eager", "compile"].into_iter().zip(torch) {
        if least.is_finite() {
            report.number(&name(kind), least * 1e3, 2, "ms, PyTorch");
        }
    }
    let better = torch[0].min(torch[1]);
    if better.is_finite() {
        report.number(&name("vs_better"), better / covey, 2, "x the better of PyTorch's two (goal: 1.3)");
    }
}
