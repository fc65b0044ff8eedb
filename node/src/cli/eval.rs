//! `covey eval`: what a model knows, by multiple choice and by perplexity, as lm-eval measures it.
//!
//! [`tasks`] reads files and says what the model is asked, in tokens; here it is asked; [`progress`] keeps what was found, so
//! that nothing is asked twice; [`results`] makes numbers and a table of it.

mod progress;
mod results;
mod tasks;

use super::{Done, Failure, Plain};
use clap::Args;
use covey_proto::Digest;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::eval::task::{LAYOUTS, Layout};
use covey_trainer::generate::TextEnds;
use covey_trainer::{Device, LanguageModel, hf, open_backend};
use progress::Progress;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use tasks::{Asked, Asking, Task};

/// Tokens of context that are used unless more are asked for: activations grow with it.
const CONTEXT: u32 = 2048;
/// Items or texts that are asked at a time, for each thread.
const AT_ONCE: usize = 4;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// A model's folder in Hugging Face's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to ask: .jsonl files of multiple-choice items (with ARC's, HellaSwag's, PIQA's or MMLU's keys, or query, choices
    /// and gold), or texts: .txt, .md, or .jsonl with a "text" a line.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    tasks: Vec<PathBuf>,
    /// The layout of the items, where their keys do not say it: arc, hellaswag, piqa, mmlu, plain.
    #[arg(long, value_name = "NAME", value_parser = layout)]
    layout: Option<Layout>,
    /// Only the first so many items of each file.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// So many answered examples before each question.
    #[arg(long, default_value_t = 0, requires = "examples")]
    shots: usize,
    /// The file whose first items the examples are.
    #[arg(long, value_name = "FILE", requires = "shots")]
    examples: Option<PathBuf>,
    /// Tokens that the model sees at once; the model's own, at most 2,048, unless said.
    #[arg(long)]
    context: Option<u32>,
    /// Cores to use; all, unless said.
    #[arg(long)]
    threads: Option<usize>,
    /// Where all numbers go, as JSON. What is done is kept beside it: the same command goes on where it was stopped.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn layout(name: &str) -> Result<Layout, String> {
    let names: Vec<&str> = LAYOUTS.iter().map(|(name, _)| *name).collect();
    Layout::named(name).ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))
}

pub(super) fn run(args: &EvalArgs) -> Result<Done, Failure> {
    let mut model = hf::load_model(&args.model)?;
    let tokenizer = hf::load_tokenizer(&args.model)?;
    let sequence = args.context.unwrap_or(CONTEXT).min(model.sequence).max(2);
    let examples = match &args.examples {
        Some(path) => tasks::examples(path, args.layout, args.shots)?,
        None => Vec::new(),
    };
    let read = |path: &PathBuf| tasks::read(path, args.layout, args.limit);
    let tasks = args.tasks.iter().map(read).collect::<Result<Vec<Task>, Failure>>()?;
    let begin = TextEnds::load(&args.model, &tokenizer, model.vocabulary)?.begin.unwrap_or(0);
    let asking = Asking { tokenizer: &tokenizer, examples: &examples, begin, sequence: sequence as usize };
    let asked = tasks.iter().map(|task| asking.ask(task)).collect::<Result<Vec<_>, Failure>>()?;
    // Activations are as long as what is asked, not as what could be.
    model.sequence = asked.iter().flatten().map(Asked::longest).max().unwrap_or(2).max(2) as u32;
    let (_, parameters) = hf::load(&args.model)?;
    let key = key(&parameters, &asked)?;
    let mut progress = Progress::open(args.out.as_deref(), &key)?;
    let threads = args.threads.unwrap_or_else(crate::service::all_cores).max(1);
    let mut device = open_backend(&Device::Cpu { threads }, &model)?.model()?;
    device.load(&mut as_le_bytes(&parameters))?;
    drop(parameters);
    for (number, (task, asked)) in tasks.iter().zip(&asked).enumerate() {
        answer(&mut *device, (number, &task.name), asked, &mut progress, threads)?;
    }
    let found = tasks.iter().zip(&asked).enumerate();
    let results: Vec<Value> =
        found.map(|(number, (task, asked))| results::of(task, asked, &progress.of(number))).collect();
    print!("{}", results::table(&results));
    if let Some(out) = &args.out {
        let all =
            json!({ "model": args.model, "key": key, "shots": args.shots, "context": sequence, "tasks": results });
        write(out, &format!("{all:#}\n"))?;
        progress.remove();
    }
    Ok(Done::Well)
}

/// What the numbers depend on: the parameters, and every token that is asked.
fn key(parameters: &[f32], asked: &[Vec<Asked>]) -> Result<Value, Failure> {
    let mut model = blake3::Hasher::new();
    model.update_reader(as_le_bytes(parameters))?;
    let mut tokens = blake3::Hasher::new();
    for list in asked.iter().flatten().flat_map(|asked| &asked.lists) {
        tokens.update(&(list.len() as u64).to_le_bytes());
        list.iter().for_each(|token| {
            tokens.update(&token.to_le_bytes());
        });
    }
    let name = |hasher: blake3::Hasher| Digest::new(*hasher.finalize().as_bytes()).to_string();
    Ok(json!({ "model": name(model), "asked": name(tokens) }))
}

/// Asks what has not been asked yet, some at a time on all threads.
fn answer(
    device: &mut dyn LanguageModel,
    (number, name): (usize, &str),
    asked: &[Asked],
    progress: &mut Progress,
    threads: usize,
) -> Result<(), Failure> {
    let shows = std::io::stderr().is_terminal();
    let left: Vec<usize> = (0..asked.len()).filter(|item| !progress.has(number, *item)).collect();
    let mut done = asked.len() - left.len();
    for items in left.chunks(threads * AT_ONCE) {
        let lists: Vec<Vec<u32>> = items.iter().flat_map(|item| asked[*item].lists.iter().cloned()).collect();
        let mut losses = device.text_losses(&lists)?.into_iter();
        for item in items {
            let log_likelihoods = losses.by_ref().take(asked[*item].lists.len()).map(|loss| -loss).collect();
            progress.note(number, *item, log_likelihoods)?;
        }
        progress.sync()?;
        done += items.len();
        if shows {
            eprint!("\r{name}: {done}/{} ", asked.len());
        }
    }
    if shows {
        eprintln!();
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_added_extension("partial");
    let all = || {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    all().map_err(|error: std::io::Error| Plain(format!("{}: {error}", path.display())).into())
}
