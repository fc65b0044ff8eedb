//! `covey state`: what a node has saved, held against a root.

use super::{Done, Failure, Plain};
use crate::disk::state_check::{Difference, check, run_file};
use clap::{Args, Subcommand};
use covey_proto::Digest;
use covey_proto::run::Run;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Hash a node's newest state and hold it against a root; name the runs of elements that differ.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A node's folder: OUT/nodes/NAME of a swarm.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The root that the state should have, 64 hexadecimal digits [default: the one that it was saved with].
    #[arg(long, value_name = "ROOT")]
    root: Option<Digest>,
    /// The run file [default: run.toml in DIR, or in the swarm's folder].
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
}

pub(super) fn run(command: StateCommand) -> Result<Done, Failure> {
    match command {
        StateCommand::Verify(args) => verify(args),
    }
}

fn verify(args: VerifyArgs) -> Result<Done, Failure> {
    let folder = args.folder;
    let path = args.run.or_else(|| run_file(&folder)).ok_or_else(|| {
        Plain(format!("no run.toml in {} or in its swarm's folder: give one with --run", folder.display()))
    })?;
    let text = std::fs::read_to_string(&path).map_err(|error| Plain(format!("{}: {error}", path.display())))?;
    let run = Run::from_toml(&text)?;
    let start = Instant::now();
    let check = check(&folder, &run, args.root)?;
    let took = start.elapsed().as_secs_f64();
    let round =
        check.state.tip.round.map_or_else(|| "before round 0".to_owned(), |round| format!("after round {round}"));
    println!(
        "{}: the state {round}, {} parameters in {} runs",
        folder.display(),
        check.state.parameters.len(),
        check.runs
    );
    println!("root {} (read and hashed in {took:.2} s)", check.computed);
    if check.computed == check.expected {
        println!("as expected");
        return Ok(Done::Well);
    }
    println!("expected {}", check.expected);
    match check.difference {
        Difference::None => {}
        Difference::Runs { named, count } => {
            for run in &named {
                let (first, last) = (run.elements.start, run.elements.end - 1);
                println!("run {} differs: elements {first} to {last}, of {}", run.number, run.tensors.join(", "));
            }
            if count > named.len() {
                println!("and {} more of {} runs", count - named.len(), check.runs);
            }
        }
        Difference::Unknown(why) => println!("where it differs is not known: {why}"),
    }
    Ok(Done::Differs)
}
