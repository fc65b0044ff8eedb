//! `covey lab`: experiments without network or chain.

use super::{Done, Failure, Plain, data};
use crate::lab::{Experiment, Method, Point, run as experiment};
use crate::preset::Template;
use clap::Args;
use covey_proto::Digest;
use covey_proto::run::{Chain, Data};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// swarm, dense (whole pseudo-gradients), alone (one miner), adamw (all data in one batch).
    #[arg(long, value_name = "METHOD", default_values = ["swarm", "alone", "adamw"])]
    method: Vec<Method>,
    /// demo, covenant, tiny, or a run file.
    #[arg(long, default_value = "demo")]
    preset: String,
    /// Change a number of the preset: inner.steps=10, compress.k=256, inner.rate=[[0,0.004],[48,0.0004]].
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rounds. Default: as many as the learning-rate schedule has.
    #[arg(long)]
    rounds: Option<u32>,
    /// Miners.
    #[arg(long, default_value_t = 4)]
    miners: usize,
    /// Seeds of the data order: as many runs of each method.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    seeds: Vec<u64>,
    /// Evaluate every so many rounds.
    #[arg(long, default_value_t = 10)]
    every: u32,
    /// Held-out sequences of an evaluation.
    #[arg(long, default_value_t = 512)]
    sequences: u64,
    /// Your own text or a prepared data set. Default: the default corpus.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Append a line of JSON for each run to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cores. Default: all.
    #[arg(long)]
    cores: Option<usize>,
}

pub(super) fn run(args: LabArgs) -> Result<Done, Failure> {
    let template = Template::load(&args.preset)?.with(&args.set)?;
    let vocabulary = template.vocabulary().ok_or_else(|| Plain(format!("{} has no model.vocabulary", args.preset)))?;
    let data = data::for_swarm(args.data.as_deref(), vocabulary)?;
    let template = template.with(&[format!("model.vocabulary={}", data.vocabulary())])?;
    let chain = Chain { genesis: Digest::ZERO, netuid: 0, start: 1000, genesis_state: Digest::ZERO };
    let run = template.resolve(&chain, &Data { digest: data.digest(), samples: 1 })?;
    let run = Arc::new(run);
    let rounds = args.rounds.unwrap_or_else(|| template.rounds());
    println!("method   seed  rounds    loss  bits/byte     tokens  bytes a miner  seconds");
    for method in &args.method {
        for seed in &args.seeds {
            let one = Experiment {
                method: *method,
                run: run.clone(),
                data: data.clone(),
                miners: args.miners,
                rounds,
                seed: *seed,
                every: args.every,
                sequences: args.sequences,
                cores: args.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            };
            let start = std::time::Instant::now();
            let curve = experiment(&one, |point| {
                eprint!("\r{method} seed {seed}: round {}/{rounds}  loss {:.4}   ", point.round, point.loss);
            })?;
            eprint!("\r{:60}\r", "");
            let Some(last) = curve.last() else { continue };
            println!(
                "{:<8} {seed:>4}  {:>6}  {:>6.4}  {:>9.4}  {:>9}  {:>13}  {:>7.1}",
                method.to_string(),
                last.round,
                last.loss,
                data.bits_per_byte(last.loss),
                last.tokens,
                last.bytes,
                start.elapsed().as_secs_f64()
            );
            append(&args, *method, *seed, &curve)?;
        }
    }
    Ok(Done::Well)
}

fn append(args: &LabArgs, method: Method, seed: u64, curve: &[Point]) -> Result<(), Failure> {
    use std::io::Write;
    let Some(path) = &args.json else { return Ok(()) };
    let line = serde_json::json!({
        "method": method, "seed": seed, "preset": args.preset, "set": args.set, "miners": args.miners, "curve": curve,
    });
    let write = || writeln!(std::fs::File::options().create(true).append(true).open(path)?, "{line}");
    write().map_err(|error: std::io::Error| Plain(format!("{}: {error}", path.display())).into())
}
