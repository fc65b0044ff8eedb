//! What a model folder says beside its parameters and its tokenizer: how a chat is written, what ends a text, which
//! defaults generation has. An export that continues a model takes it over as it is.

use super::config;
use super::fault::{HfError, at};
use super::files::{
    CHAT_TEMPLATE, CONFIG, CONFIG_BYTES_MAX, GENERATION, SPECIAL_TOKENS, TOKENIZER, TOKENIZER_BYTES_MAX,
    TOKENIZER_CONFIG, read,
};
use super::load::load_model;
use covey_proto::run::Model;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// Bytes of the largest such file that is read: tokenizer_config.json lists added tokens, LLaMA 3's in 50 kB.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are taken over byte for byte, where there are.
const FILES: [&str; 4] = [TOKENIZER_CONFIG, GENERATION, SPECIAL_TOKENS, CHAT_TEMPLATE];

/// How a model that was trained on conversations writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// The source of its chat template.
    pub template: String,
    /// The token that ends an answer, if it is one token.
    pub end: Option<u32>,
}

/// What stands beside a model's parameters.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// By file name.
    files: Vec<(&'static str, Vec<u8>)>,
    /// config.json.
    config: Map<String, Value>,
    /// The token that ends an answer, where this model learnt it.
    chat_end: Option<u32>,
}

impl Companions {
    /// Reads those of the model folder `dir`.
    ///
    /// # Errors
    /// A file that is too large, or a JSON file that holds no object.
    pub fn read(dir: &Path) -> Result<Companions, HfError> {
        let mut files = Vec::new();
        for name in FILES {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            let bytes = read(&path, FILE_BYTES_MAX)?;
            if name.ends_with(".json") {
                object(&path, &bytes)?;
            }
            files.push((name, bytes));
        }
        let path = dir.join(CONFIG);
        let config = object(&path, &read(&path, CONFIG_BYTES_MAX)?)?;
        Ok(Companions { files, config, chat_end: None })
    }

    /// [`Companions::read`], if the folder's model has the shapes of `model`; of sequences and seeds nothing is asked.
    ///
    /// # Errors
    /// As there; a config.json that cannot be; or another model's.
    pub fn of_model(dir: &Path, model: &Model) -> Result<Companions, HfError> {
        let theirs = load_model(dir)?;
        match config::first_difference(&theirs, model) {
            Some(differs) => Err(HfError::OtherModel { path: dir.to_owned(), differs }),
            None => Companions::read(dir),
        }
    }

    /// The same with these conversations for its own: which tokens end a text is said anew.
    #[must_use]
    pub fn talking(mut self, chat: Option<&Chat>) -> Companions {
        if let Some(Chat { template, end }) = chat {
            self.files.retain(|(name, _)| ![CHAT_TEMPLATE, GENERATION].contains(name));
            self.files.push((CHAT_TEMPLATE, template.clone().into_bytes()));
            self.chat_end = *end;
        }
        self
    }

    /// The token that ends an answer, where this model learnt it.
    pub fn chat_end(&self) -> Option<u32> {
        self.chat_end
    }

    /// The files, by name, to be written as they are.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// Whether that file is among them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(of, _)| *of == name)
    }

    /// A value of config.json that is not null.
    pub(super) fn config(&self, name: &str) -> Option<&Value> {
        self.config.get(name).filter(|value| !value.is_null())
    }

    /// The id of config.json's token of that name, like `eos_token_id`; of several the first.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        let value = self.config(name)?;
        let first = value.as_array().map_or(Some(value), |several| several.first())?;
        first.as_u64().and_then(|id| u32::try_from(id).ok())
    }

    /// The longest sequence that config.json promises.
    pub fn sequence_max(&self) -> Option<u32> {
        self.config("max_position_embeddings")?.as_u64().and_then(|tokens| u32::try_from(tokens).ok())
    }

    /// The chat template: of its own file, or of tokenizer_config.json, where a list of several has one called `default`.
    pub fn chat_template(&self) -> Option<String> {
        let bytes = |name: &str| self.files.iter().find(|(of, _)| *of == name).map(|(_, bytes)| bytes);
        if let Some(text) = bytes(CHAT_TEMPLATE).and_then(|bytes| String::from_utf8(bytes.clone()).ok()) {
            return Some(text);
        }
        let config: Value = serde_json::from_slice(bytes(TOKENIZER_CONFIG)?).ok()?;
        let template = config.get("chat_template")?;
        let named = |several: &Vec<Value>| {
            let default = several.iter().find(|one| one.get("name").is_some_and(|name| name == "default"))?;
            default.get("template")?.as_str().map(str::to_owned)
        };
        template.as_str().map(str::to_owned).or_else(|| template.as_array().and_then(named))
    }
}

/// Copies what makes a model folder but for its parameters: config.json, tokenizer.json and [`Companions`].
///
/// # Errors
/// A file that must be there is not, is too large or no JSON object; the disk.
pub fn copy_companions(from: &Path, to: &Path) -> Result<(), HfError> {
    let companions = Companions::read(from)?;
    fs::create_dir_all(to).map_err(at(to))?;
    let whole = [
        (CONFIG, read(&from.join(CONFIG), CONFIG_BYTES_MAX)?),
        (TOKENIZER, read(&from.join(TOKENIZER), TOKENIZER_BYTES_MAX)?),
    ];
    let all = whole.iter().map(|(name, bytes)| (*name, bytes.as_slice())).chain(companions.files());
    for (name, bytes) in all {
        let path = to.join(name);
        fs::write(&path, bytes).map_err(at(&path))?;
    }
    Ok(())
}

fn object(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>, HfError> {
    let fault = |fault: String| HfError::Json { path: path.to_owned(), fault };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(fault("is none".into())),
        Err(error) => Err(fault(error.to_string())),
    }
}
