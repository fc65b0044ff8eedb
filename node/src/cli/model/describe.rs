//! `covey model`: what a model is, and what it takes to train it, before anybody does.

use super::super::{Done, Failure, Plain};
use crate::footprint::{Footprint, footprint};
use crate::report::units::{bytes, short, thousands};
use crate::service::DEVICE;
use crate::shapes::{of_preset, shape, shapes};
use clap::{Args, Subcommand};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer, Run};
use covey_round::engine::Roles;
use covey_trainer::hf;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Characters of a line's name.
const NAME: usize = 14;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ModelCommand {
    /// Parameters, memory of each role, sizes and FLOPs of a model; without a name, the shapes that have one.
    Describe(DescribeArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DescribeArgs {
    /// A shape by name, or a folder in Hugging Face's layout.
    #[arg(value_name = "SHAPE|FOLDER")]
    model: Option<String>,
    /// Tokens of a sequence, if not the model's own.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    sequence: Option<u32>,
    /// Whose settings of compression and rounds: a preset.
    #[arg(long, default_value = "internet")]
    preset: String,
    /// The inner optimizer: adamw or muon. Default: the preset's.
    #[arg(long, value_parser = optimizer)]
    optimizer: Option<Optimizer>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn optimizer(text: &str) -> Result<Optimizer, String> {
    match text {
        "adamw" => Ok(Optimizer::AdamW),
        "muon" => Ok(Optimizer::Muon),
        other => Err(format!("{other:?} is neither adamw nor muon")),
    }
}

pub(in crate::cli) fn run(command: ModelCommand) -> Result<Done, Failure> {
    let ModelCommand::Describe(args) = command;
    let Some(name) = &args.model else {
        print!("{}", list());
        return Ok(Done::Well);
    };
    let model = find(name)?;
    let mut run = of_preset(&args.preset).ok_or_else(|| Plain(format!("no preset {:?}", args.preset)))?;
    run.model = Model { sequence: args.sequence.unwrap_or(model.sequence), ..model };
    if let Some(optimizer) = args.optimizer {
        run.inner.optimizer = optimizer;
    }
    let description = describe(name, &run)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&description)?),
        false => print!("{}", text(&description, &run)),
    }
    Ok(Done::Well)
}

fn find(name: &str) -> Result<Model, Failure> {
    if let Some(shape) = shape(name) {
        return Ok(shape.model);
    }
    let folder = Path::new(name);
    if !folder.is_dir() {
        let known: Vec<String> = shapes().into_iter().map(|shape| shape.name).collect();
        return Err(Plain(format!("{name:?} is no folder, and no shape of: {}", known.join(", "))).into());
    }
    Ok(hf::load_model(folder)?)
}

fn list() -> String {
    let mut page = format!(
        "{:<14} {:>11}  {:>6} {:>6} {:>6} {:>8}\n",
        "shape", "parameters", "layers", "width", "heads", "tokens"
    );
    for shape in shapes() {
        let Model { layers, width, heads, kv_heads, vocabulary, .. } = shape.model;
        let parameters = short(Layout::of(&shape.model).elements() as u64);
        let heads = if heads == kv_heads { heads.to_string() } else { format!("{heads}/{kv_heads}") };
        let row = format!(
            "{:<14} {parameters:>11}  {layers:>6} {width:>6} {heads:>6} {:>8}  {}",
            shape.name,
            thousands(vocabulary.into()),
            shape.whose
        );
        // A string takes whatever is written to it.
        let _ = writeln!(page, "{row}");
    }
    page
}

/// What is known of a model before it is trained. Bytes and parameters.
#[derive(Debug, Serialize)]
struct Description {
    name: String,
    parameters: u64,
    embedding_parameters: u64,
    state_bytes: u64,
    contribution_bytes: u64,
    flops_a_token: Flops,
    memory: Vec<Memory>,
}

/// Floating point operations a token, a multiplication and an addition counted as two.
#[derive(Debug, Serialize)]
struct Flops {
    forward: u64,
    training: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    role: &'static str,
    process: u64,
    state: u64,
    device: u64,
    activations: u64,
    contributions: u64,
    total: u64,
}

fn describe(name: &str, run: &Run) -> Result<Description, Failure> {
    let layout = run.layout();
    let embedding =
        |tensor: &&covey_proto::layout::Tensor| !tensor.name.starts_with("model.layers.") && tensor.shape.len() == 2;
    let forward = forward_flops(&run.model, &layout);
    let roles = [
        ("miner", Roles { miner: true, validator: false }),
        ("validator", Roles { miner: false, validator: true }),
        ("seeder", Roles::default()),
    ];
    let memory = roles.into_iter().map(|(role, roles)| Ok(memory(role, footprint(run, roles, &DEVICE)?)));
    Ok(Description {
        name: name.to_owned(),
        parameters: layout.elements() as u64,
        embedding_parameters: layout.tensors().iter().filter(embedding).map(|tensor| tensor.elements() as u64).sum(),
        state_bytes: 4 * layout.elements() as u64,
        contribution_bytes: crate::footprint::contribution_bytes(run, &layout),
        flops_a_token: Flops { forward, training: 3 * forward },
        memory: memory.collect::<Result<_, Failure>>()?,
    })
}

fn memory(role: &'static str, of: Footprint) -> Memory {
    // The data set is not the model's.
    let Footprint { process, state, device, activations, data, contributions } = of;
    let total = of.total() - data;
    Memory { role, process, state, device, activations, contributions, total }
}

/// Two for each weight of a matrix that multiplies a token (all but the embedding that is only looked up), and the causal
/// attention: on average half a sequence of keys and of values, two each for every element of the queries.
fn forward_flops(model: &Model, layout: &Layout) -> u64 {
    let looked_up = |name: &str| name == "model.embed_tokens.weight" && !model.tied;
    let matrices = layout.tensors().iter().filter(|tensor| tensor.shape.len() == 2 && !looked_up(&tensor.name));
    let weights: u64 = matrices.map(|tensor| tensor.elements() as u64).sum();
    let attention = u64::from(model.layers) * u64::from(model.query_width()) * (u64::from(model.sequence) + 1);
    2 * weights + 2 * attention
}

fn text(of: &Description, run: &Run) -> String {
    let model = &run.model;
    let mut page = String::new();
    let mut line = |name: &str, says: String| {
        // A string takes whatever is written to it.
        let _ = writeln!(page, "{name:<NAME$} {says}");
    };
    line(&of.name, format!("{} parameters", thousands(of.parameters)));
    let (embedding, rest) = (short(of.embedding_parameters), short(of.parameters - of.embedding_parameters));
    let tied = if model.tied { "tied" } else { "not tied" };
    line("", format!("{embedding} in embedding and output ({tied}), {rest} in the layers"));
    line(
        "layers",
        format!("{} of width {}, feed-forward {}", model.layers, model.width, thousands(model.feed_forward.into())),
    );
    line(
        "heads",
        format!("{} of {} elements, {} for keys and values", model.heads, model.head_width(), model.kv_heads),
    );
    line(
        "tokens",
        format!("{}, sequences of {}", thousands(model.vocabulary.into()), thousands(model.sequence.into())),
    );
    line(
        "FLOPs a token",
        format!("{} forward, {} to train on it", short(of.flops_a_token.forward), short(of.flops_a_token.training)),
    );
    line("state", format!("{}, fetched by whoever joins", bytes(of.state_bytes)));
    let k = run.compress.k.count(covey_proto::Round(0));
    line(
        "contribution",
        format!("about {}, k = {k} of 4,096, {} quantiser", bytes(of.contribution_bytes), quantiser(run)),
    );
    let optimizer = if run.inner.optimizer == Optimizer::Muon { "Muon" } else { "AdamW" };
    line("memory", format!("on a processor, with {optimizer}; data apart"));
    let cells = |name: &str, cells: Vec<String>| {
        cells.into_iter().fold(format!("  {name:<20} "), |row, cell| format!("{row} {cell:>12}"))
    };
    let mut row = |name: &str, column: &dyn Fn(&Memory) -> String| {
        let _ = writeln!(page, "{}", cells(name, of.memory.iter().map(column).collect()));
    };
    row("", &|memory| memory.role.to_owned());
    row("state it stands on", &|memory| bytes(memory.state));
    row("trains and judges", &|memory| bytes(memory.device));
    row("activations", &|memory| bytes(memory.activations));
    row("contributions", &|memory| bytes(memory.contributions));
    row("process", &|memory| bytes(memory.process));
    row("together", &|memory| bytes(memory.total));
    row("bytes a parameter", &|memory| format!("{:.1}", memory.total as f64 / of.parameters as f64));
    page
}

fn quantiser(run: &Run) -> &'static str {
    use covey_proto::run::Quantiser;
    match run.compress.quantiser {
        Quantiser::Sign => "sign",
        Quantiser::TwoMagnitudes => "two-magnitudes",
        Quantiser::Templar => "templar",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str) -> (Description, Run) {
        let mut run = of_preset("internet").unwrap();
        run.model = find(name).unwrap();
        (describe(name, &run).unwrap(), run)
    }

    #[test]
    fn every_shape_is_described_in_eighty_columns() {
        for shape in shapes() {
            let (description, run) = described(&shape.name);
            for line in text(&description, &run).lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", shape.name);
            }
        }
        for line in list().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn the_flops_are_six_a_weight_and_the_attentions() {
        let (description, run) = described("templar-1b");
        let weights = 16 * (4 * 2048 * 2048 + 3 * 2048 * 8192) + 32_000 * 2048;
        let attention = 16 * 2048 * (u64::from(run.model.sequence) + 1);
        assert_eq!(description.flops_a_token.training, 6 * (weights + attention));
    }

    #[test]
    fn muon_holds_less_than_adamw() {
        let (adamw, mut run) = described("smollm2-135m");
        run.inner.optimizer = Optimizer::Muon;
        let muon = describe("smollm2-135m", &run).unwrap();
        let hidden = adamw.parameters - adamw.embedding_parameters;
        let saved = adamw.memory[0].device - muon.memory[0].device;
        assert!(saved > 39 * hidden / 10 && saved <= 4 * hidden, "{saved} of {hidden}");
    }

    #[test]
    fn who_is_neither_shape_nor_folder_is_told_what_there_is() {
        let error = find("nobody's").unwrap_err().to_string();
        assert!(error.contains("covenant-72b") && error.contains("nobody's"), "{error}");
    }
}
