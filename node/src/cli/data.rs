//! `covey data`: from text to token shards.

use super::{Done, Failure, Plain, shown};
use crate::corpus::{Corpus, VOCABULARY};
use clap::{Args, Subcommand};
use covey_proto::{Digest, Round};
use covey_trainer::chat::{ChatError, ChatTemplate};
use covey_trainer::data::{Dataset, DatasetSummary, Document, PrepareOptions, prepare, read_documents};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the largest tokenizer.json that is read, as the data set's own is.
const TOKENIZER_BYTES_MAX: u64 = covey_trainer::data::shards::TOKENIZER_BYTES_MAX;

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// Make a data set: the default corpus, or your own text.
    Prepare(PrepareArgs),
    /// Show what a prepared data set holds.
    Show {
        /// Its folder.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    /// Your own text: a .txt, .md or .jsonl file, or a folder of them. May be repeated: to replay some text among
    /// conversations, say. Without it, the default corpus is fetched by cargo.
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Where the data set goes. Default: a folder of the cache (COVEY_CACHE, or ~/.cache/covey).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Tokens of the tokenizer that is trained on the text.
    #[arg(long, default_value_t = VOCABULARY)]
    vocabulary: u32,
    /// A model's tokenizer.json, or the model's folder, to encode with instead of training a tokenizer: for a run that goes
    /// on from that model.
    #[arg(long, value_name = "PATH", conflicts_with = "vocabulary")]
    tokenizer: Option<PathBuf>,
    /// How conversations ("messages" in .jsonl) become text: chatml, a Jinja file, or a model's folder.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
}

/// ROUND:PATH.
pub(super) fn phase(text: &str) -> Result<(Round, PathBuf), String> {
    let (round, path) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not ROUND:PATH, like 60:chats.jsonl"))?;
    let round = round.parse().map_err(|_| format!("{round:?} is no round"))?;
    Ok((Round(round), path.into()))
}

/// The chat template of that name, in that file, or of that model's folder.
///
/// # Errors
/// There is none.
pub(super) fn chat_template(place: &str) -> Result<ChatTemplate, Failure> {
    let path = Path::new(place);
    match ChatTemplate::named(place) {
        Some(template) => Ok(template),
        None if path.is_dir() => {
            Ok(ChatTemplate::load(path)?.ok_or_else(|| ChatError::None { path: path.to_owned() })?)
        }
        None if path.is_file() => Ok(ChatTemplate::read(path)?),
        None => {
            let names: Vec<&str> = ChatTemplate::names().collect();
            Err(Plain(format!("--chat-template {place}: neither {}, nor a file, nor a folder", names.join(", ")))
                .into())
        }
    }
}

/// What cuts text into tokens.
#[derive(Clone, Debug)]
pub(super) enum Tokens {
    /// A tokenizer of at most so many tokens, trained on the text.
    Trained(u32),
    /// A tokenizer.json.
    Given(Vec<u8>),
}

impl Tokens {
    /// The tokenizer in a model's folder, or in that file.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than any tokenizer.
    pub(super) fn given(path: &Path) -> Result<Tokens, Failure> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let fault = |error: std::io::Error| Plain(format!("{}: {error}", file.display()));
        let mut json = Vec::new();
        std::fs::File::open(&file)
            .map_err(fault)?
            .take(TOKENIZER_BYTES_MAX + 1)
            .read_to_end(&mut json)
            .map_err(fault)?;
        match json.len() as u64 > TOKENIZER_BYTES_MAX {
            true => Err(Plain(format!("{}: over {TOKENIZER_BYTES_MAX} bytes", file.display())).into()),
            false => Ok(Tokens::Given(json)),
        }
    }

    /// Tokens that the tokenizer may have at most; not looked at if it is given.
    fn vocabulary(&self) -> u32 {
        match self {
            Tokens::Trained(vocabulary) => *vocabulary,
            Tokens::Given(_) => 0,
        }
    }

    fn json(&self) -> Option<Vec<u8>> {
        match self {
            Tokens::Trained(_) => None,
            Tokens::Given(json) => Some(json.clone()),
        }
    }

    /// What the folder of prepared data is named by.
    fn name(&self) -> String {
        match self {
            Tokens::Trained(vocabulary) => vocabulary.to_string(),
            Tokens::Given(json) => Digest::of(json).short(),
        }
    }
}

pub(super) fn run(command: DataCommand) -> Result<Done, Failure> {
    match command {
        DataCommand::Prepare(args) => {
            let tokens = match &args.tokenizer {
                Some(path) => Tokens::given(path)?,
                None => Tokens::Trained(args.vocabulary),
            };
            let template = args.chat_template.as_deref().map(chat_template).transpose()?;
            let dataset = match args.data.is_empty() {
                false => own(&args.data, &tokens, template.as_ref(), args.out.as_deref())?,
                true => corpus(&tokens, args.out.as_deref())?,
            };
            describe(&dataset);
        }
        DataCommand::Show { dir } => describe(&Dataset::open(&dir, None)?),
    }
    Ok(Done::Well)
}

/// The data set for a swarm: the user's own text, or the default corpus; prepared now if it is not there.
pub(super) fn for_swarm(
    path: Option<&Path>,
    tokens: &Tokens,
    template: Option<&ChatTemplate>,
) -> Result<Arc<Dataset>, Failure> {
    let dataset = match path {
        Some(folder) if folder.join("dataset.json").is_file() => Dataset::open(folder, None)?,
        Some(path) => own(&[path.to_owned()], tokens, template, None)?,
        None => corpus(tokens, None)?,
    };
    Ok(Arc::new(dataset))
}

/// The data sets of a node, one for each phase of its run. Text is cut by a tokenizer of `vocabulary` tokens, in later phases
/// by the first one's.
///
/// # Errors
/// Something at those places is neither a data set nor text.
pub(super) fn for_node(first: &Path, later: &[PathBuf], vocabulary: u32) -> Result<Vec<Arc<Dataset>>, Failure> {
    let first = for_swarm(Some(first), &Tokens::Trained(vocabulary), None)?;
    let given = Tokens::given(&first.tokenizer_path())?;
    let later = later.iter().map(|path| for_swarm(Some(path), &given, None));
    std::iter::once(Ok(first.clone())).chain(later).collect()
}

fn corpus(tokens: &Tokens, out: Option<&Path>) -> Result<Dataset, Failure> {
    let Tokens::Trained(vocabulary) = *tokens else {
        return Err(Plain(
            "give the text to train on (--data): with a model's own tokenizer there is no default".into(),
        )
        .into());
    };
    let cache = out.map_or_else(cache, |out| Ok(out.to_owned()))?;
    let mut last = String::new();
    let corpus = Corpus::fetch_and_prepare(&cache, vocabulary, &mut |stage| say(&mut last, stage.to_string()))?;
    if let Some(made) = &corpus.made {
        report(&made.summary);
    }
    Ok(corpus.dataset)
}

fn own(
    paths: &[PathBuf],
    tokens: &Tokens,
    template: Option<&ChatTemplate>,
    out: Option<&Path>,
) -> Result<Dataset, Failure> {
    let read = |path: &PathBuf| read_documents(path, template);
    let documents: Vec<Document> =
        paths.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let mut hasher = blake3::Hasher::new();
    for document in &documents {
        hasher.update(&(document.name.len() as u64).to_le_bytes()).update(document.name.as_bytes());
        hasher.update(&(document.text.len() as u64).to_le_bytes()).update(document.text.as_bytes());
        hasher.update(&document.bytes_learnt().to_le_bytes());
    }
    let content = Digest::new(*hasher.finalize().as_bytes());
    let folder = match out {
        Some(out) => out.to_owned(),
        None => {
            let chat =
                template.map_or_else(String::new, |of| format!("-{}", Digest::of(of.source().as_bytes()).short()));
            cache()?.join(format!("own-{}-{}{chat}", content.short(), tokens.name()))
        }
    };
    // The cache's folder is named by the text; another one may hold anything, and is made again.
    if out.is_none()
        && let Ok(dataset) = Dataset::open(&folder, None)
    {
        return Ok(dataset);
    }
    let names = paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    let name = names.collect::<Vec<_>>().join(", ");
    let mut last = String::new();
    let (vocabulary, tokenizer) = (tokens.vocabulary(), tokens.json());
    let (chat_template, marks) = template.map(|of| (of.source().to_owned(), of.marks())).unzip();
    let marks = marks.unwrap_or_default();
    let options = PrepareOptions { name, vocabulary, tokenizer, chat_template, marks, ..PrepareOptions::default() };
    let summary = prepare(documents, &options, &folder, &mut |stage| say(&mut last, stage.to_string()))?;
    report(&summary);
    Ok(Dataset::open(&folder, Some(summary.digest))?)
}

/// Says each stage once, however often its numbers change.
fn say(last: &mut String, stage: String) {
    let words: String = stage.chars().filter(|letter| !letter.is_ascii_digit()).collect();
    if *last != words {
        eprintln!("data: {stage}");
        *last = words;
    }
}

fn report(summary: &DatasetSummary) {
    eprintln!(
        "data: {} training and {} held-out tokens, {:.2} bytes a token",
        summary.train_tokens,
        summary.heldout_tokens,
        summary.bytes_per_token()
    );
}

fn describe(dataset: &Dataset) {
    let manifest = dataset.manifest();
    println!("data set          {}", dataset.digest());
    println!("name              {}", shown::line(&manifest.name));
    println!("vocabulary        {}", dataset.vocabulary());
    let (all, learnt) = (dataset.train_tokens(), dataset.train_tokens_learnt());
    println!("training          {} tokens, {} bytes of text", dataset.train_tokens(), dataset.train_text_bytes());
    println!("held out          {} tokens, {} bytes of text", dataset.heldout_tokens(), dataset.heldout_bytes());
    if let Some(template) = dataset.chat_template_path() {
        println!("conversations     {} of the training tokens are only read", all - learnt);
        println!("chat template     {}", template.display());
    }
    println!("tokenizer         {}", dataset.tokenizer_path().display());
}

/// Where prepared data is kept: `COVEY_CACHE`, or the user's cache folder.
fn cache() -> Result<PathBuf, Failure> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("COVEY_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("covey")))
        .or_else(|| var("HOME").map(|home| home.join(".cache").join("covey")))
        .ok_or_else(|| Plain("no folder for prepared data: set COVEY_CACHE".into()).into())
}
