//! GGUF: a state as one file that llama.cpp and its relatives run, and that `transformers` reads too.
//!
//! [`write()`] decides what the file says of the model; `tokens` has the tokenizer's part, `tensors` the parameters, `value`
//! and `quantise` how each is encoded. Version 3, little-endian, written in blocks: no copy of the state is made.
//!
//! ```text
//! "GGUF"  version  tensors  values   name, kind, value …   name, shape, type, place …   0 … to 32   tensors, each 0 … to 32
//! ```

mod error;
mod quantise;
mod tensors;
mod tokens;
mod value;

pub use error::GgufError;
pub use quantise::GgufType;

use crate::hf::files::{END_TOKENS, TOKENIZER_BYTES_MAX, read};
use crate::hf::{Chat, Companions};
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
use value::{Value, append_named};

/// Version of the format.
const VERSION: u32 = 3;
/// Version of the ways to round that a file may use.
const QUANTISATION_VERSION: u32 = 2;

/// What a GGUF file holds besides the state.
#[derive(Clone, Debug)]
pub struct GgufOptions {
    /// The numbers of matrices; vectors are f32 always.
    pub kind: GgufType,
    /// What people call the model.
    pub name: String,
    /// A model folder that this model goes on from: its chat template, end tokens and longest sequence are taken over.
    pub like: Option<PathBuf>,
    /// The conversations that it was trained on here, if it was.
    pub chat: Option<Chat>,
}

/// Writes `parameters`, a state of `model`, with the tokenizer at `tokenizer_json` into the file `path`, beside and then
/// moved into place; a file that is there is replaced.
///
/// # Errors
/// A state of another model or one that is not finite, a tokenizer that llama.cpp has no name for, a folder to be like that
/// is another model's, or the disk.
pub fn write(
    path: &Path,
    model: &Model,
    parameters: &[f32],
    tokenizer_json: &Path,
    options: &GgufOptions,
) -> Result<(), GgufError> {
    let layout = Layout::of(model);
    if parameters.len() != layout.elements() {
        return Err(GgufError::Elements { got: parameters.len(), expected: layout.elements() });
    }
    if let Some(at) = parameters.iter().position(|value| !value.is_finite()) {
        return Err(GgufError::NotFinite { at, value: parameters[at] });
    }
    let json = read(tokenizer_json, TOKENIZER_BYTES_MAX)?;
    let like = options.like.as_deref().map(|like| Companions::of_model(like, model)).transpose()?;
    let like = like.unwrap_or_default().talking(options.chat.as_ref());
    let mut values = model_values(model, &like, options);
    values.extend(tokens::metadata(&json, model.vocabulary)?);
    values.extend(end_values(&json, &like)?);
    let tensors = tensors::tensors(model, &layout, options.kind);
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|(name, value)| append_named(name, value, &mut head));
    tensors::append_table(&tensors, &mut head);
    head.resize(head.len().next_multiple_of(tensors::ALIGNMENT), 0);
    let beside = path.with_added_extension("partial");
    let all = || {
        // Of an earlier try; in a folder that is shared, a link of this name would lead what is written anywhere.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&beside)?);
        file.write_all(&head)?;
        tensors.iter().try_for_each(|tensor| tensor.write(parameters, &mut file))?;
        file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        fs::rename(&beside, path)
    };
    all().map_err(|source| {
        // The first error is the one to tell of.
        let _ = fs::remove_file(&beside);
        GgufError::Io { path: path.to_owned(), source }
    })
}

/// What llama.cpp must know to compute the model.
fn model_values(model: &Model, like: &Companions, options: &GgufOptions) -> Vec<(&'static str, Value)> {
    let count = |value: u32| Value::U32(value);
    let sequence = like.sequence_max().unwrap_or(0).max(model.sequence);
    vec![
        ("general.architecture", Value::Text("llama".into())),
        ("general.type", Value::Text("model".into())),
        ("general.name", Value::Text(options.name.clone())),
        ("general.file_type", count(options.kind.of_file())),
        ("general.quantization_version", count(QUANTISATION_VERSION)),
        ("llama.block_count", count(model.layers)),
        ("llama.context_length", count(sequence)),
        ("llama.embedding_length", count(model.width)),
        ("llama.feed_forward_length", count(model.feed_forward)),
        ("llama.attention.head_count", count(model.heads)),
        ("llama.attention.head_count_kv", count(model.kv_heads)),
        ("llama.attention.key_length", count(model.head_width())),
        ("llama.attention.value_length", count(model.head_width())),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(model.norm_epsilon as f32)),
        ("llama.rope.dimension_count", count(model.head_width())),
        ("llama.rope.freq_base", Value::F32(model.rope_theta as f32)),
        ("llama.vocab_size", count(model.vocabulary)),
    ]
}

/// What begins and ends a text, and how a chat is written.
fn end_values(json: &[u8], like: &Companions) -> Result<Vec<(&'static str, Value)>, GgufError> {
    let broken = |error: tokenizers::Error| GgufError::Tokenizer(error.to_string());
    let tokenizer = Tokenizer::from_bytes(json).map_err(broken)?;
    let named = END_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
    let (begin, end) =
        (like.token_id("bos_token_id").or(named), like.chat_end().or(like.token_id("eos_token_id")).or(named));
    let begins = tokenizer.encode("a", true).map_err(broken)?.get_ids().first().copied();
    let mut values = Vec::new();
    values.extend(begin.map(|id| ("tokenizer.ggml.bos_token_id", Value::U32(id))));
    values.extend(end.map(|id| ("tokenizer.ggml.eos_token_id", Value::U32(id))));
    values.extend(like.token_id("pad_token_id").map(|id| ("tokenizer.ggml.padding_token_id", Value::U32(id))));
    // Only where the tokenizer itself begins each text with it.
    values.push(("tokenizer.ggml.add_bos_token", Value::Bool(begin.is_some() && begins == begin)));
    values.extend(like.chat_template().map(|text| ("tokenizer.chat_template", Value::Text(text))));
    Ok(values)
}
