//! A state as a folder that `transformers` loads.

use super::companions::{Chat, Companions};
use super::config;
use super::fault::{HfError, TokenizerFault, at};
use super::files::{
    CONFIG, END_TOKENS, GENERATION, TOKENIZER, TOKENIZER_BYTES_MAX, TOKENIZER_CONFIG, is_of_an_export, read,
};
use super::write::{WeightType, write_synced, write_weights};
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Bytes of the tensors of a file beyond which there are several: what hubs and `transformers` cut at.
pub const SHARD_BYTES_MAX: u64 = 5_000_000_000;
/// The least that may be asked for: tests cut small models.
const SHARD_BYTES_MIN: u64 = 1 << 10;
/// Values of config.json that a model goes on with: they are not of its shape.
const CARRIED: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// How a state is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// The parameters' numbers.
    pub weights: WeightType,
    /// Bytes of the tensors in one file, at most; a larger tensor has a file of its own.
    pub shard_bytes_max: u64,
    /// A model folder that this model goes on from: its tokenizer_config.json, generation_config.json, chat template, end
    /// tokens and longest sequence are taken over.
    pub like: Option<PathBuf>,
    /// The conversations that it was trained on here, if it was.
    pub chat: Option<Chat>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions { weights: WeightType::F32, shard_bytes_max: SHARD_BYTES_MAX, like: None, chat: None }
    }
}

/// [`export_as`] in f32 and of a model that began here.
///
/// # Errors
/// As [`export_as`].
pub fn export(dir: &Path, model: &Model, parameters: &[f32], tokenizer_json: &Path) -> Result<(), HfError> {
    export_as(dir, model, parameters, tokenizer_json, &ExportOptions::default())
}

/// Writes `model.safetensors` (or its shards and their index), `config.json`, `tokenizer.json` (a copy),
/// `tokenizer_config.json` and `generation_config.json` into the folder `dir`; with a folder to be like, what that has
/// besides.
///
/// All is written into a folder beside and moved into place, so that `dir` is a whole export or none. An earlier export
/// is replaced.
///
/// # Errors
/// A state of another model or one that is not finite, a tokenizer that is none or has more tokens than the model, a
/// folder to be like that is another model's, a folder with other files, or the disk.
pub fn export_as(
    dir: &Path,
    model: &Model,
    parameters: &[f32],
    tokenizer_json: &Path,
    options: &ExportOptions,
) -> Result<(), HfError> {
    let layout = Layout::of(model);
    if parameters.len() != layout.elements() {
        return Err(HfError::Elements { got: parameters.len(), expected: layout.elements() });
    }
    if options.shard_bytes_max < SHARD_BYTES_MIN {
        return Err(HfError::ShardBytes { got: options.shard_bytes_max, min: SHARD_BYTES_MIN });
    }
    let tokenizer = read(tokenizer_json, TOKENIZER_BYTES_MAX)?;
    let end = end_of_text(&tokenizer, model)
        .map_err(|fault| HfError::Tokenizer { path: tokenizer_json.to_owned(), fault })?;
    let like = options.like.as_deref().map(|like| Companions::of_model(like, model)).transpose()?;
    let like = like.unwrap_or_default().talking(options.chat.as_ref());
    refuse_strangers(dir)?;
    let (beside, before) = (sibling(dir, "partial"), sibling(dir, "replaced"));
    if let Some(parent) = beside.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    remove(&before)?;
    create_anew(&beside)?;
    write_weights(&beside, &layout, parameters, options.weights, options.shard_bytes_max)?;
    write_small(&beside, model, options.weights, end, &like)?;
    write_synced(&beside.join(TOKENIZER), &tokenizer)?;
    if dir.exists() {
        fs::rename(dir, &before).map_err(at(dir))?;
    }
    fs::rename(&beside, dir).map_err(at(dir))?;
    remove(&before)
}

/// Removes a folder of an earlier try, if there is one. What is no folder, like a link, is removed itself and not followed.
fn remove(path: &Path) -> Result<(), HfError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(at(path))
}

/// Makes a folder that nobody else has made: in a folder that is shared, a link of this name would lead what is written
/// anywhere.
fn create_anew(path: &Path) -> Result<(), HfError> {
    remove(path)?;
    fs::create_dir(path).map_err(at(path))
}

/// Writes what is said beside the parameters: of a model that this one goes on from as it is there, else made here.
fn write_small(
    dir: &Path,
    model: &Model,
    weights: WeightType,
    end: Option<(String, u32)>,
    like: &Companions,
) -> Result<(), HfError> {
    let (token, id) = end.map(|(token, id)| (Some(token), Some(id))).unwrap_or_default();
    let mut config = config::write(model, weights.name(), id);
    for name in CARRIED {
        if let Some(value) = like.config(name) {
            config[name] = value.clone();
        }
    }
    // Trained on shorter sequences, it has not forgotten the longer ones.
    config["max_position_embeddings"] = like.sequence_max().unwrap_or(0).max(model.sequence).into();
    write_json(&dir.join(CONFIG), &config)?;
    for (name, bytes) in like.files() {
        write_synced(&dir.join(name), bytes)?;
    }
    if !like.has(TOKENIZER_CONFIG) {
        write_json(&dir.join(TOKENIZER_CONFIG), &tokenizer_config(model, token.as_deref()))?;
    }
    if !like.has(GENERATION) {
        let begins = &config["bos_token_id"];
        let ends = match like.chat_end() {
            None => config["eos_token_id"].clone(),
            Some(end) => ends_with(&config["eos_token_id"], end),
        };
        write_json(
            &dir.join(GENERATION),
            &json!({ "bos_token_id": begins, "eos_token_id": ends, "do_sample": false }),
        )?;
    }
    Ok(())
}

/// Token ids as config.json has them (one, several, none), and one more.
fn ends_with(ids: &Value, end: u32) -> Value {
    let mut all = match ids {
        Value::Array(ids) => ids.clone(),
        Value::Null => Vec::new(),
        id => vec![id.clone()],
    };
    if !all.contains(&end.into()) {
        all.push(end.into());
    }
    all.into()
}

fn sibling(dir: &Path, what: &str) -> PathBuf {
    let name = dir.file_name().map_or_else(|| "export".into(), |name| name.to_string_lossy());
    dir.with_file_name(format!(".{name}.{what}"))
}

/// An export replaces its folder whole, so the folder must hold nothing else.
fn refuse_strangers(dir: &Path) -> Result<(), HfError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(at(dir))?,
    };
    for entry in entries {
        let file = entry.map_err(at(dir))?.file_name().to_string_lossy().into_owned();
        if !is_of_an_export(&file) {
            return Err(HfError::Occupied { path: dir.to_owned(), file });
        }
    }
    Ok(())
}

/// The token that ends a document, if the tokenizer has one; or why it is no tokenizer of this model.
fn end_of_text(json: &[u8], model: &Model) -> Result<Option<(String, u32)>, TokenizerFault> {
    let tokenizer = Tokenizer::from_bytes(json).map_err(|error| TokenizerFault::Json(error.to_string()))?;
    let tokens = tokenizer.get_vocab_size(true);
    if tokens > model.vocabulary as usize {
        return Err(TokenizerFault::Vocabulary { tokens, vocabulary: model.vocabulary });
    }
    Ok(END_TOKENS.iter().find_map(|token| Some(((*token).to_owned(), tokenizer.token_to_id(token)?))))
}

fn tokenizer_config(model: &Model, end: Option<&str>) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.sequence,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(end) = end {
        config["bos_token"] = end.into();
        config["eos_token"] = end.into();
    }
    config
}

fn write_json(path: &Path, value: &Value) -> Result<(), HfError> {
    write_synced(path, format!("{value:#}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_somebody_put_at_the_temporary_s_name_is_not_written_into() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (victim, beside) = (folder.path().join("victim"), folder.path().join(".model.partial"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "precious").unwrap();
        for target in [victim.as_path(), &folder.path().join("nowhere"), &victim.join("file")] {
            symlink(target, &beside).unwrap();
            create_anew(&beside).unwrap();
            assert!(fs::symlink_metadata(&beside).unwrap().is_dir());
            assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
            assert!(!folder.path().join("nowhere").exists());
            // A folder of an earlier try goes, with what is in it.
            fs::write(beside.join("config.json"), "{}").unwrap();
            create_anew(&beside).unwrap();
            assert_eq!(fs::read_dir(&beside).unwrap().count(), 0);
            fs::remove_dir(&beside).unwrap();
        }
    }
}
