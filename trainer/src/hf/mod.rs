//! Hugging Face's layout: a state becomes a folder that `transformers` loads as it is, and a folder becomes a state.
//!
//! Names, shapes and the rotary convention are already Hugging Face's ([`covey_proto::layout`]), so nothing is permuted.
//! [`export`] writes, [`load`] reads and checks. A loaded state continues texts in [`crate::generate`].

mod config;
mod export;
mod load;
mod settings;

pub use config::ConfigFault;
pub use export::export;
pub use load::{load, load_model, load_tokenizer, read_tokenizer};
pub(crate) use settings::{read_optional_json, read_optional_text, token_text};

use safetensors::Dtype;
use std::path::{Path, PathBuf};

/// The model's numbers.
pub(crate) const CONFIG: &str = "config.json";
/// The parameters.
const WEIGHTS: &str = "model.safetensors";
/// The tokenizer.
const TOKENIZER: &str = "tokenizer.json";
/// What `transformers` wants to know of the tokenizer besides.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Defaults of `model.generate`.
pub(crate) const GENERATION: &str = "generation_config.json";
/// Tokens that end a document, as tokenizers name them; the first that there is counts. The end of one document is where
/// the next begins, so it begins a text too.
pub(crate) const END_TOKENS: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];
/// Bytes of the largest tokenizer.json that is read; Gemma's, of 262,145 tokens, has 33 MB.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Bytes of the largest config.json that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

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
    #[error("{} is missing: a model folder has config.json and model.safetensors (one file, not shards)", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of settings that does not parse.
    #[error("{} does not parse: {message}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
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
    /// A state of another model.
    #[error("{got} parameters; the model has {expected}")]
    Elements {
        /// Parameters that came.
        got: usize,
        /// Parameters of the model.
        expected: usize,
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

/// What is wrong with a model.safetensors.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WeightsFault {
    /// It does not parse.
    #[error("is cut short or no safetensors: {0}")]
    File(String),
    /// It cannot be written.
    #[error("{0}")]
    Write(String),
    /// A tensor too many.
    #[error("tensor {0} belongs to no model of this config.json")]
    Stranger(String),
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
    #[error("tensor {name} is {got:?}; only F32 and BF16 are read")]
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
    /// A state that must not be written.
    #[error("parameter {at} is {value}; only a finite state is written")]
    State {
        /// The parameter.
        at: usize,
        /// Its value.
        value: f32,
    },
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> HfError + '_ {
    move |source| HfError::Io { path: path.to_owned(), source }
}

/// Reads a file of at most `max` bytes.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, HfError> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(HfError::Missing { path: path.to_owned() });
        }
        other => other.map_err(at(path))?,
    };
    let got = file.metadata().map_err(at(path))?.len();
    if got > max {
        return Err(HfError::TooLarge { path: path.to_owned(), got, max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(got).unwrap_or(0));
    // The file may grow while it is read.
    file.take(max).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(bytes)
}
