//! A folder of Hugging Face's layout as a model and its state.

use super::config;
use super::fault::{HfError, TokenizerFault};
use super::files::{CONFIG, CONFIG_BYTES_MAX, TOKENIZER, TOKENIZER_BYTES_MAX, read};
use super::weights::Checkpoint;
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use std::path::Path;
use tokenizers::Tokenizer;

/// Reads the model that `config.json` of the folder `dir` speaks of. Its sequence is `max_position_embeddings`; it has no
/// seed, since its state is not drawn.
///
/// # Errors
/// A missing file, a model that is not LLaMA, or numbers that cannot be or are not supported, by name.
pub fn load_model(dir: &Path) -> Result<Model, HfError> {
    let path = dir.join(CONFIG);
    config::read(&read(&path, CONFIG_BYTES_MAX)?).map_err(|fault| HfError::Config { path, fault })
}

/// Reads [`load_model`]'s model and its state, from `model.safetensors` or from the shards of
/// `model.safetensors.index.json`: f32, or bf16 and f16 widened. Takes the memory of the state and a block.
///
/// # Errors
/// As [`load_model`]; a file cut short or too large, a tensor that is missing, of another shape or not finite.
pub fn load(dir: &Path) -> Result<(Model, Vec<f32>), HfError> {
    let model = load_model(dir)?;
    let state = Checkpoint::open(dir, &Layout::of(&model))?.read()?;
    Ok((model, state))
}

/// Reads `tokenizer.json` of the folder `dir` ([`read_tokenizer`]).
///
/// # Errors
/// A missing file, or one that is too large or no tokenizer.
pub fn load_tokenizer(dir: &Path) -> Result<Tokenizer, HfError> {
    read_tokenizer(&dir.join(TOKENIZER))
}

/// Reads a tokenizer's file. Truncation and padding that it may ask for are off: no text is cut unseen.
///
/// # Errors
/// A missing file, or one that is too large or no tokenizer.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer, HfError> {
    let whole = |mut tokenizer: Tokenizer| -> tokenizers::Result<Tokenizer> {
        tokenizer.with_truncation(None)?.with_padding(None);
        Ok(tokenizer)
    };
    Tokenizer::from_bytes(read(path, TOKENIZER_BYTES_MAX)?)
        .and_then(whole)
        .map_err(|error| HfError::Tokenizer { path: path.to_owned(), fault: TokenizerFault::Json(error.to_string()) })
}
