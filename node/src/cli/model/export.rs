//! `covey export`: a state in a format that others read.

use crate::cli::{Done, Failure, Plain};
use crate::disk::folder::{Folder, NodeState};
use clap::{Args, ValueEnum};
use covey_proto::run::{Model, Run};
use covey_trainer::chat::ChatTemplate;
use covey_trainer::gguf::{self, GgufOptions, GgufType};
use covey_trainer::hf::{self, Chat, ExportOptions, SHARD_BYTES_MAX, WeightType};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The --out folder of a swarm, whose newest state is exported.
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    from: Option<PathBuf>,
    /// A model's folder in Hugging Face's layout, to be written in another format.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the model goes: a new folder, or with --format gguf a file.
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// What is written.
    #[arg(long, value_enum, default_value = "hf")]
    format: Format,
    /// The numbers of the parameters.
    #[arg(long = "type", visible_alias = "dtype", value_enum, default_value = "f32")]
    kind: Kind,
    /// Bytes of one file of parameters, at most; a larger model becomes several files with an index.
    #[arg(long, value_name = "BYTES", default_value_t = SHARD_BYTES_MAX)]
    shard_bytes: u64,
    /// The model's folder that this one goes on from: chat template, end tokens and the like are taken over [default: that
    /// of --from-model].
    #[arg(long, value_name = "DIR")]
    like: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A folder in Hugging Face's layout.
    Hf,
    /// A file for llama.cpp.
    Gguf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// 4 bytes: the state's own bits.
    F32,
    /// 2 bytes, rounded to the nearest.
    Bf16,
    /// 34 bytes for 32 values, in a GGUF file.
    #[value(name = "q8_0")]
    Q8_0,
}

pub(in crate::cli) fn export(args: &ExportArgs) -> Result<Done, Failure> {
    // Before anything large is read.
    let weights = match (args.format, args.kind) {
        (_, Kind::F32) => WeightType::F32,
        (Format::Hf, Kind::Q8_0) => {
            return Err(Plain("q8_0 is a type of GGUF files: give --format gguf, or --type bf16".into()).into());
        }
        _ => WeightType::Bf16,
    };
    let source = Source::read(args)?;
    let Source { name, what, model, parameters, tokenizer, like, chat } = source;
    match args.format {
        Format::Hf => {
            let options = ExportOptions { weights, shard_bytes_max: args.shard_bytes, like, chat };
            hf::export_as(&args.to, &model, &parameters, &tokenizer, &options)?;
        }
        Format::Gguf => {
            let kind = match args.kind {
                Kind::F32 => GgufType::F32,
                Kind::Bf16 => GgufType::Bf16,
                Kind::Q8_0 => GgufType::Q8_0,
            };
            gguf::write(&args.to, &model, &parameters, &tokenizer, &GgufOptions { kind, name, like, chat })?;
        }
    }
    println!("{}: {what}, {} parameters", args.to.display(), parameters.len());
    match args.format {
        Format::Hf => println!("try: covey generate --model {} \"The\"", args.to.display()),
        Format::Gguf => println!("try: llama-cli -m {} -p \"The\"", args.to.display()),
    }
    Ok(Done::Well)
}

/// What is exported.
struct Source {
    /// What people call it.
    name: String,
    /// What it is, for the person who asked.
    what: String,
    model: Model,
    parameters: Vec<f32>,
    tokenizer: PathBuf,
    like: Option<PathBuf>,
    /// The conversations that it was trained on, if it was.
    chat: Option<Chat>,
}

impl Source {
    fn read(args: &ExportArgs) -> Result<Source, Failure> {
        let named = |dir: &Path| dir.file_name().map_or("covey".into(), |name| name.to_string_lossy().into_owned());
        if let Some(dir) = &args.model {
            let (model, parameters) = hf::load(dir)?;
            let like = Some(args.like.clone().unwrap_or_else(|| dir.clone()));
            let (what, tokenizer) = (format!("the model in {}", dir.display()), dir.join("tokenizer.json"));
            return Ok(Source { name: named(dir), what, model, parameters, tokenizer, like, chat: None });
        }
        let from = args.from.as_deref().unwrap_or(Path::new("."));
        let folder = Folder::at(from);
        let path = folder.run();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Plain(format!("{}: {error}: is this the --out folder of a swarm?", path.display())))?;
        let run = Run::from_toml(&text)?;
        let newest = folder.newest_state(run.layout().elements())?;
        let NodeState { node, state } =
            newest.ok_or_else(|| Plain(format!("no node in {} has a state", from.display())))?;
        let round = state.tip.round.map_or_else(|| "none".to_owned(), |round| round.to_string());
        Ok(Source {
            name: named(from),
            what: format!("{node}'s state after round {round}"),
            model: run.model,
            parameters: state.parameters,
            tokenizer: folder.tokenizer(),
            like: args.like.clone().or_else(|| Some(folder.model()).filter(|model| model.is_dir())),
            chat: chat(&folder)?,
        })
    }
}

/// How the swarm's conversations became text, if it trained on some.
fn chat(folder: &Folder) -> Result<Option<Chat>, Failure> {
    let path = folder.chat_template();
    if !path.is_file() {
        return Ok(None);
    }
    let template = ChatTemplate::read(&path)?;
    let end = template.end_of_answer(&hf::read_tokenizer(&folder.tokenizer())?);
    Ok(Some(Chat { template: template.source().to_owned(), end }))
}
