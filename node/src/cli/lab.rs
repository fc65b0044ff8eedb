//! `covey lab`: experiments without network or chain. Decides how one asks for them: a grid file, or a few flags.

use super::{Done, Failure, Plain, data};
use crate::lab::{Experiment, Grid, Method, Point, Progress, conduct, resolve, run as experiment};
use crate::preset::Template;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// A grid file: many experiments and seeds. What is done already is not done again.
    #[arg(value_name = "GRID.toml", requires = "out", conflicts_with_all = QUICK)]
    grid: Option<PathBuf>,
    /// Where a grid's results, table and report go, and where it goes on after an interruption.
    #[arg(long, value_name = "DIR", requires = "grid")]
    out: Option<PathBuf>,
    /// swarm, exact (the same without rounding), dense (whole pseudo-gradients), diloco (those with momentum), alone (one
    /// miner), all (all data in one batch, by the run's own optimizer).
    #[arg(long, value_name = "METHOD", default_values = ["swarm", "alone", "all"])]
    method: Vec<Method>,
    /// demo, covenant, internet, tiny, or a run file.
    #[arg(long, default_value = "demo")]
    preset: String,
    /// Change a number of the preset: inner.steps=10, compress.k=256, inner.rate=[[0,0.004],[48,0.0004]].
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rounds. Default: as many as the learning-rate schedule has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Miners.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    miners: u32,
    /// Seeds of the data order: as many runs of each method.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    seeds: Vec<u64>,
    /// Evaluate every so many rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Held-out sequences of an evaluation.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
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

/// What a grid file says by itself.
const QUICK: [&str; 9] = ["method", "preset", "set", "rounds", "miners", "seeds", "every", "sequences", "json"];

pub(super) fn run(args: LabArgs) -> Result<Done, Failure> {
    let cores = args.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    match (&args.grid, &args.out) {
        (Some(grid), Some(out)) => laboratory(grid, out, args.data.as_deref(), cores),
        _ => quick(&args, cores),
    }
}

fn laboratory(grid: &Path, out: &Path, text: Option<&Path>, cores: usize) -> Result<Done, Failure> {
    let grid = Grid::load(grid)?;
    // All rows have the same, or the grid would not have been read.
    let vocabulary = grid.rows.first().map_or(0, |row| row.vocabulary());
    let data = data::for_swarm(text, &data::Tokens::Trained(vocabulary), None)?;
    let table = conduct(&grid, out, &data, cores, &mut Progress::new())?;
    println!("{}", table.markdown(&data.manifest().name));
    println!("{}", out.join("report.html").display());
    Ok(Done::Well)
}

fn quick(args: &LabArgs, cores: usize) -> Result<Done, Failure> {
    let preset = Template::load(&args.preset)?;
    let vocabulary = preset.clone().with(&args.set)?.vocabulary();
    let vocabulary = vocabulary.ok_or_else(|| Plain(format!("{} has no model.vocabulary", args.preset)))?;
    let data = data::for_swarm(args.data.as_deref(), &data::Tokens::Trained(vocabulary), None)?;
    println!("method   seed  rounds    loss  bits/byte     tokens  bytes a miner  seconds");
    for method in &args.method {
        let defaults = method.defaults().map(|(key, value)| format!("{key}={value}"));
        let changes: Vec<String> = defaults.into_iter().chain(args.set.iter().cloned()).collect();
        let template = preset.clone().with(&changes)?.with(&[format!("model.vocabulary={}", data.vocabulary())])?;
        let run = Arc::new(resolve(&template, data.digest())?);
        let rounds = args.rounds.unwrap_or_else(|| template.rounds());
        for seed in &args.seeds {
            let one = Experiment {
                every: args.every,
                sequences: args.sequences,
                ..Experiment::new(*method, run.clone(), args.miners, rounds, *seed)
            };
            let start = std::time::Instant::now();
            let curve = experiment(&one, &data, cores, |round, point| {
                if let Some(point) = point {
                    eprint!("\r{method} seed {seed}: round {round}/{rounds}  loss {:.4}   ", point.loss);
                }
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
            append(args, *method, *seed, &curve)?;
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
