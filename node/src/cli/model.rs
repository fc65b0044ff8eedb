//! `covey export`, `covey generate` and `covey model`.

mod describe;
mod export;

pub(super) use describe::{ModelCommand, run as model};
pub(super) use export::{ExportArgs, export};

use super::{Done, Failure};
use clap::Args;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::hf;
use covey_trainer::{Device, open_backend};
use std::io::Write;
use std::path::PathBuf;

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

pub(super) fn generate(args: &GenerateArgs) -> Result<Done, Failure> {
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
