//! `covey export`, `covey generate` and `covey model`.

mod describe;
mod generate;

pub(super) use describe::{ModelCommand, run as model};
pub(super) use generate::{GenerateArgs, generate};

use super::{Done, Failure, Plain};
use crate::disk::folder::{Folder, NodeState};
use clap::Args;
use covey_proto::run::Run;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The --out folder of a swarm.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Where the model goes: a new folder.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(super) fn export(args: &ExportArgs) -> Result<Done, Failure> {
    let folder = Folder::at(&args.from);
    let path = folder.run();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Plain(format!("{}: {error}: is this the --out folder of a swarm?", path.display())))?;
    let run = Run::from_toml(&text)?;
    let newest = folder.newest_state(run.layout().elements())?;
    let NodeState { node, state } =
        newest.ok_or_else(|| Plain(format!("no node in {} has a state", args.from.display())))?;
    let round = state.tip.round.map_or_else(|| "none".to_owned(), |round| round.to_string());
    let parameters = state.parameters;
    covey_trainer::hf::export(&args.to, &run.model, &parameters, &folder.tokenizer())?;
    println!("{}: {node}'s state after round {round}, {} parameters", args.to.display(), parameters.len());
    println!("try: covey generate --model {} \"The\"", args.to.display());
    Ok(Done::Well)
}
