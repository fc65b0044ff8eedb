//! What can be wrong with a model folder; each error names the file, and what would do.

use super::config::ConfigFault;
use safetensors::Dtype;
use std::path::{Path, PathBuf};

/// Why a model folder could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HfError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A file that must be there is not.
    #[error(
        "{} is missing: a model folder has config.json, tokenizer.json, and model.safetensors or its shards with \
         model.safetensors.index.json",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file larger than it can be.
    #[error("{} has {got} bytes; the limit is {max}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        got: u64,
        /// Bytes that it may have.
        max: u64,
    },
    /// The folder holds files that an export would not overwrite but delete.
    #[error("{} holds {file}, which no export wrote: name a new folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// The first such file.
        file: String,
    },
    /// A config.json that is no LLaMA model's, or whose numbers cannot be.
    #[error("{}: {fault}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: ConfigFault,
    },
    /// A tokenizer.json that does not parse or does not fit the model.
    #[error("{}: {fault}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: TokenizerFault,
    },
    /// Parameters that are cut short, misshapen, misnamed or not finite.
    #[error("{}: {fault}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: WeightsFault,
    },
    /// A small file beside the model that is no JSON object.
    #[error("{}: {fault}; it must be a JSON object", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A folder to be like that is of another model.
    #[error("{} is another model's than the state: {differs} differs", path.display())]
    OtherModel {
        /// The folder.
        path: PathBuf,
        /// The first number that differs, by its name in config.json.
        differs: &'static str,
    },
    /// A state of another model.
    #[error("{got} parameters; the model has {expected}")]
    Elements {
        /// Parameters that came.
        got: usize,
        /// Parameters of the model.
        expected: usize,
    },
    /// Shards that are too small.
    #[error("shards of at most {got} bytes; the least is {min}")]
    ShardBytes {
        /// As asked.
        got: u64,
        /// The least.
        min: u64,
    },
}

/// What is wrong with a tokenizer.json.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenizerFault {
    /// It does not parse.
    #[error("is no tokenizer: {0}")]
    Json(String),
    /// It is another model's.
    #[error("has {tokens} tokens; the model has {vocabulary}")]
    Vocabulary {
        /// Its tokens.
        tokens: usize,
        /// The model's.
        vocabulary: u32,
    },
}

/// What is wrong with a file of parameters, or with the index of several.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WeightsFault {
    /// It does not parse.
    #[error("is cut short or no safetensors: {0}")]
    File(String),
    /// A head that is too long to be read.
    #[error("is no safetensors of this model: its head has {got} bytes; the limit is {max}")]
    Head {
        /// Its bytes.
        got: u64,
        /// Bytes that it may have.
        max: u64,
    },
    /// An index that does not parse.
    #[error("is no index: {0}")]
    Index(String),
    /// An index that leads elsewhere.
    #[error("names the file {0:?}; only files of the same folder that end in .safetensors are read")]
    IndexFile(String),
    /// A tensor in another file than the index says.
    #[error("holds tensor {name}; the index says that it is in {}", place.as_deref().unwrap_or("no file"))]
    Elsewhere {
        /// The tensor.
        name: String,
        /// The file that the index names for it.
        place: Option<String>,
    },
    /// It cannot be written.
    #[error("{0}")]
    Write(String),
    /// A tensor too many.
    #[error("tensor {0} belongs to no model of this config.json")]
    Stranger(String),
    /// A tensor of a model without its head.
    #[error(
        "tensor {0} has no prefix \"model.\": these are the parameters of a LlamaModel alone; save the whole \
         LlamaForCausalLM"
    )]
    Prefix(String),
    /// A tensor too few.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// A tensor of another shape.
    #[error("tensor {name} has shape {got:?}; config.json asks for {needed:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that it must have.
        needed: Vec<usize>,
    },
    /// A tensor of other numbers.
    #[error("tensor {name} is {got:?}; only F32, BF16 and F16 are read")]
    Kind {
        /// The tensor.
        name: String,
        /// Its numbers.
        got: Dtype,
    },
    /// A tensor whose bytes are fewer than its shape asks for.
    #[error("tensor {0} is cut short")]
    Short(String),
    /// A tensor with a number that is none.
    #[error("tensor {name} holds {value}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The number.
        value: f32,
    },
    /// An output matrix of a model that says it has none of its own.
    #[error(
        "lm_head.weight differs from the embedding at element {at}, but config.json ties them: set \
         tie_word_embeddings to false"
    )]
    NotTied {
        /// The first element that differs, row-major.
        at: usize,
    },
    /// A state that must not be written.
    #[error("parameter {at} is {value}; only a finite state is written")]
    State {
        /// The parameter.
        at: usize,
        /// Its value.
        value: f32,
    },
}

/// For `map_err`: the disk's refusal, with the file.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> HfError + '_ {
    move |source| HfError::Io { path: path.to_owned(), source }
}
