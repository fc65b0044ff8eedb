//! A state as a folder that `transformers` loads.

use super::{
    CONFIG, END_TOKENS, GENERATION, HfError, TOKENIZER, TOKENIZER_BYTES_MAX, TOKENIZER_CONFIG, TokenizerFault, WEIGHTS,
    WeightsFault, at, config, read,
};
use covey_proto::layout::{Layout, Tensor};
use covey_proto::run::Model;
use covey_sparseloco::state::as_le_bytes;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Writes `model.safetensors` (f32), `config.json`, `tokenizer.json` (a copy), `tokenizer_config.json` and
/// `generation_config.json` into the folder `dir`.
///
/// All is written into a folder beside and moved into place, so that `dir` is a whole export or none. An earlier export
/// is replaced.
///
/// # Errors
/// A state of another model or one that is not finite, a tokenizer that is none or has more tokens than the model, a
/// folder with other files, or the disk.
pub fn export(dir: &Path, model: &Model, parameters: &[f32], tokenizer_json: &Path) -> Result<(), HfError> {
    let layout = Layout::of(model);
    if parameters.len() != layout.elements() {
        return Err(HfError::Elements { got: parameters.len(), expected: layout.elements() });
    }
    let tokenizer = read(tokenizer_json, TOKENIZER_BYTES_MAX)?;
    let end = end_of_text(&tokenizer, model)
        .map_err(|fault| HfError::Tokenizer { path: tokenizer_json.to_owned(), fault })?;
    refuse_strangers(dir)?;
    let (beside, before) = (sibling(dir, "partial"), sibling(dir, "replaced"));
    for old in [&beside, &before] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(at(old))?;
        }
    }
    fs::create_dir_all(&beside).map_err(at(&beside))?;
    write_weights(&beside.join(WEIGHTS), &layout, parameters)?;
    let token = end.as_ref().map(|(token, _)| token.as_str());
    let id = end.as_ref().map(|(_, id)| *id);
    write_json(&beside.join(CONFIG), &config::write(model, id))?;
    write_json(&beside.join(TOKENIZER_CONFIG), &tokenizer_config(model, token))?;
    write_json(&beside.join(GENERATION), &json!({ "bos_token_id": id, "eos_token_id": id, "do_sample": false }))?;
    write(&beside.join(TOKENIZER), &tokenizer)?;
    if dir.exists() {
        fs::rename(dir, &before).map_err(at(dir))?;
    }
    fs::rename(&beside, dir).map_err(at(dir))?;
    if before.exists() {
        fs::remove_dir_all(&before).map_err(at(&before))?;
    }
    Ok(())
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
        if ![CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, GENERATION].contains(&file.as_str()) {
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

struct View<'a> {
    tensor: &'a Tensor,
    values: &'a [f32],
}

impl safetensors::View for View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(as_le_bytes(self.values))
    }
    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}

fn write_weights(path: &Path, layout: &Layout, parameters: &[f32]) -> Result<(), HfError> {
    let fault = |fault: WeightsFault| HfError::Weights { path: path.to_owned(), fault };
    if let Some(at) = parameters.iter().position(|value| !value.is_finite()) {
        return Err(fault(WeightsFault::State { at, value: parameters[at] }));
    }
    let views =
        layout.tensors().iter().map(|tensor| (&tensor.name, View { tensor, values: &parameters[tensor.range()] }));
    // transformers refuses a file that does not say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| fault(WeightsFault::Write(error.to_string())))?;
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

fn write_json(path: &Path, value: &Value) -> Result<(), HfError> {
    write(path, format!("{value:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), HfError> {
    use std::io::Write;
    let mut file = fs::File::create(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}
