//! A conversation becomes one text, as the model's own template says.
//!
//! Templates are Jinja in the dialect of `transformers` (utils/chat_template_utils.py): `chat_template` in
//! tokenizer_config.json, a string or a list of named ones, or a file chat_template.jinja, which counts before it. They
//! come from strangers: what one may compute and write is bounded, and it sees nothing but the messages, the special
//! tokens and the date. What Jinja lacks and templates use is in `dialect`.

mod dialect;

use crate::hf::{HfError, TOKENIZER_CONFIG, read_optional_json, read_optional_text, token_text};
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The file beside a tokenizer.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Bytes of the largest template; the longest of known models has some 20 KB.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// What rendering may cost: instructions, and each 64 bytes that a template makes. Some hundred megabytes of text, or a
/// second or two; a conversation of a thousand messages takes a hundredth.
const FUEL: u64 = 5_000_000;
/// Templates that are known by name, with the tokens that they write and no text has.
const NAMED: [(&str, &str, &[&str]); 1] = [(
    "chatml",
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    &["<|im_start|>", "<|im_end|>"],
)];
/// The template that is taken of several.
const DEFAULT: &str = "default";

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A model's template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// What it writes that no text has, as far as that is known.
    marks: &'static [&'static str],
    /// `bos_token` and the like.
    tokens: BTreeMap<String, String>,
}

/// Why there is no template, or no text of it.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] HfError),
    /// The folder has no template.
    #[error(
        "{} has no chat template: the model was not made for conversations; continue a text instead, or put a chat_template.jinja there",
        path.display()
    )]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// A template's file that is not there.
    #[error("{} is missing: it was to be the chat template", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A template that is none, or too long.
    #[error("{}: chat_template is {what}; it must be a text of at most {TEMPLATE_BYTES_MAX} bytes, or a list of such with names, one of them \"default\"", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// The template is no Jinja.
    #[error("the chat template does not parse: {0}")]
    Parse(String),
    /// The template refuses the conversation, or takes too long over it.
    #[error("the chat template does not take this conversation: {0}")]
    Render(String),
}

impl ChatTemplate {
    /// The template of the folder `dir`, if it has one.
    ///
    /// # Errors
    /// A file that cannot be read, or a template that is none.
    pub fn load(dir: &Path) -> Result<Option<ChatTemplate>, ChatError> {
        let path = dir.join(TOKENIZER_CONFIG);
        let config = read_optional_json(&path)?.unwrap_or_default();
        let source = match read_optional_text(&dir.join(TEMPLATE_FILE), TEMPLATE_BYTES_MAX as u64)? {
            Some(source) => Some(source),
            None => in_config(&config, &path)?,
        };
        let named = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        let tokens = named.filter_map(|(name, _)| Some((name.clone(), token_text(&config, name)?.to_owned())));
        source.map(|source| ChatTemplate::new(&source, tokens.collect())).transpose()
    }

    /// The template in a file of its own, which names no special tokens but by their text.
    ///
    /// # Errors
    /// The file cannot be read, or is no Jinja.
    pub fn read(path: &Path) -> Result<ChatTemplate, ChatError> {
        let source = read_optional_text(path, TEMPLATE_BYTES_MAX as u64)?;
        let source = source.ok_or_else(|| ChatError::NoFile { path: path.to_owned() })?;
        ChatTemplate::new(&source, BTreeMap::new())
    }

    /// A template from its source; `tokens` are the special tokens that it may name, `bos_token` and the like.
    ///
    /// # Errors
    /// The source is no Jinja.
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<ChatTemplate, ChatError> {
        let parse = |error: minijinja::Error| ChatError::Parse(error.to_string());
        let mut environment = dialect::environment().map_err(parse)?;
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(DEFAULT, dialect::without_generation_tags(source)).map_err(parse)?;
        Ok(ChatTemplate { environment, source: source.to_owned(), marks: &[], tokens })
    }

    /// The template of that name, if it is a known one.
    pub fn named(name: &str) -> Option<ChatTemplate> {
        let (_, source, marks) = NAMED.iter().find(|(of, ..)| *of == name)?;
        Some(ChatTemplate { marks, ..ChatTemplate::new(source, BTreeMap::new()).ok()? })
    }

    /// Names that [`named`](Self::named) knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, ..)| *name)
    }

    /// Its source. It does not say the special tokens that it may name.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The tokens that a named template writes and no text has; a tokenizer that is trained for it gets them.
    pub fn marks(&self) -> &'static [&'static str] {
        self.marks
    }

    /// The token that ends what the assistant says, if `tokenizer` has one for what the template writes there.
    pub fn end_of_answer(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let after = self.after_answer()?;
        let first = tokenizer.encode(after, false).ok()?.get_ids().first().copied()?;
        tokenizer.get_added_tokens_decoder().contains_key(&first).then_some(first)
    }

    fn after_answer(&self) -> Option<String> {
        const ANSWER: &str = "Yes";
        let messages = [Message::new("user", "No?"), Message::new("assistant", ANSWER)];
        let text = self.render(&messages, false).ok()?;
        text.rfind(ANSWER).and_then(|at| text.get(at + ANSWER.len()..)).map(str::to_owned)
    }

    /// The text of a conversation; with `answer`, up to where the assistant's next message begins.
    ///
    /// # Errors
    /// The template refuses the messages (an order of roles, say) or does not come to an end.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, ChatError> {
        let render = |error: minijinja::Error| ChatError::Render(reason(&error));
        let template = self.environment.get_template(DEFAULT).map_err(render)?;
        let of = |message: &Message| Value::from_pairs([("role", &message.role[..]), ("content", &message.content)]);
        let messages: Vec<Value> = messages.iter().map(of).collect();
        let tokens = Value::from_pairs(self.tokens.iter().map(|(name, token)| (&name[..], &token[..])));
        let none = Value::from(());
        let conversation =
            context! { messages, add_generation_prompt => answer, tools => none.clone(), documents => none };
        template.render(context! { ..conversation, ..tokens }).map_err(render)
    }
}

/// What the template itself says, where it says something.
fn reason(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.to_string(), str::to_owned)
}

/// The template in tokenizer_config.json, at `path`, if there is one.
fn in_config(config: &serde_json::Value, path: &Path) -> Result<Option<String>, ChatError> {
    use serde_json::Value::{Array, Null, String as Text};
    let kind = |what: String| Err(ChatError::Kind { path: path.to_owned(), what });
    match config.get("chat_template") {
        None | Some(Null) => Ok(None),
        Some(Text(source)) if source.len() <= TEMPLATE_BYTES_MAX => Ok(Some(source.clone())),
        Some(Text(source)) => kind(format!("{} bytes long", source.len())),
        Some(Array(list)) => {
            let named =
                |entry: &&serde_json::Value| entry.get("name").and_then(serde_json::Value::as_str) == Some(DEFAULT);
            let source = list.iter().find(named).and_then(|entry| entry.get("template")?.as_str());
            match source.filter(|source| source.len() <= TEMPLATE_BYTES_MAX) {
                Some(source) => Ok(Some(source.to_owned())),
                None => kind(format!("a list of {} without a fit \"default\"", list.len())),
            }
        }
        Some(other) => kind(format!("{other:.40}")),
    }
}

#[cfg(test)]
mod tests;
