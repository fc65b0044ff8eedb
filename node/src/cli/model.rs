//! `covey export`, `covey generate` and `covey model`.

mod describe;

pub(super) use describe::{ModelCommand, run as model};

use super::{Done, Failure, Plain};
use crate::disk::folder::{Folder, NodeState};
use clap::Args;
use covey_proto::run::Run;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Device, open_backend};
use std::io::Write;
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

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// A folder that `covey export` wrote, or another LLaMA model in Hugging Face's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The text to continue.
    prompt: String,
    /// Tokens to add at most.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Makes the choice at a temperature above 0 repeatable.
    #[arg(long, default_value_t = 0)]
    seed: u64,
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

pub(super) fn generate(args: &GenerateArgs) -> Result<Done, Failure> {
    use covey_trainer::hf;
    let (model, parameters) = hf::load(&args.model)?;
    let tokenizer = hf::load_tokenizer(&args.model)?;
    let mut loaded = open_backend(&Device::Cpu { threads: 1 }, &model)?.model()?;
    loaded.load(&mut as_le_bytes(&parameters))?;
    drop(parameters);
    let sampling = hf::Sampling { tokens_max: args.tokens, temperature: args.temperature, seed: args.seed };
    let mut out = std::io::stdout().lock();
    // A closed pipe is no error: whoever read has enough.
    let mut say = |text: &str| drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    say(&args.prompt);
    hf::generate(&mut *loaded, &model, &tokenizer, &args.prompt, &sampling, &mut say)?;
    println!();
    Ok(Done::Well)
}
