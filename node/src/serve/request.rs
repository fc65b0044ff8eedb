//! A request's body becomes what is to be generated, or an error that names the field.
//!
//! Fields that OpenAI's clients send and that change nothing here are ignored, as are unknown ones. What would change the
//! text and is not done is refused: silence would be a wrong answer. A field that is null counts as absent.

use super::error::ApiError;
use covey_trainer::chat::Message;
use covey_trainer::generate::Sampling;
use serde_json::{Map, Value};

/// Stop strings of a request; OpenAI's own limit is 4.
const STOPS_MAX: usize = 16;
/// Messages of a conversation.
const MESSAGES_MAX: usize = 4096;
/// Tokens of a completion whose length is not said, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;

/// What the request continues.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Conversation(Vec<Message>),
}

/// The two kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Completion,
    Chat,
}

/// What is to be generated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) model: Option<String>,
    pub(super) prompt: Prompt,
    /// None: to the end of the context.
    pub(super) tokens_max: Option<usize>,
    pub(super) sampling: Sampling,
    pub(super) stop: Vec<String>,
    /// Piece by piece.
    pub(super) stream: bool,
    /// Counts of tokens at the end of a stream.
    pub(super) usage: bool,
}

impl Asked {
    /// Reads a body; `seed` is what counts where the request has none.
    pub(super) fn read(kind: Kind, body: &[u8], seed: u64) -> Result<Asked, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| ApiError::Body(error.to_string()))?;
        let fields = Fields(value.as_object().ok_or_else(|| ApiError::Body(shown(&value)))?);
        fields.refuse_what_is_not_done()?;
        let (prompt, tokens_max) = match kind {
            Kind::Completion => (fields.prompt()?, Some(fields.count("max_tokens")?.unwrap_or(COMPLETION_TOKENS))),
            Kind::Chat => {
                let newer = fields.count("max_completion_tokens")?;
                (Prompt::Conversation(fields.messages()?), newer.or(fields.count("max_tokens")?))
            }
        };
        let options = fields.object("stream_options")?;
        let usage = options.map_or(Ok(None), |options| Fields(options).flag("include_usage"))?;
        let sampling = Sampling {
            temperature: fields.number("temperature")?.unwrap_or(1.0),
            top_k: fields.count("top_k")?.unwrap_or(0),
            top_p: fields.number("top_p")?.unwrap_or(1.0),
            min_p: fields.number("min_p")?.unwrap_or(0.0),
            repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(1.0),
            seed: fields.seed()?.unwrap_or(seed),
        };
        sampling.check().map_err(|fault| value_fault(fault.name, &fault.value.into(), fault.needed))?;
        Ok(Asked {
            kind,
            model: fields.text("model")?.map(str::to_owned),
            prompt,
            tokens_max,
            sampling,
            stop: fields.stop()?,
            stream: fields.flag("stream")?.unwrap_or(false),
            usage: usage.unwrap_or(false),
        })
    }
}

fn value_fault(name: &str, value: &Value, needed: &str) -> ApiError {
    ApiError::Value { name: name.to_owned(), value: shown(value), needed: needed.to_owned() }
}

/// A value as a person may read it, not at full length.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A JSON object whose fields are asked for by type.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The field as `read` takes it, or what it must be.
    fn typed<T>(&self, name: &str, needed: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| value_fault(name, value, needed))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.typed(name, "a number", Value::as_f64)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let read = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        self.typed(name, "a whole number from 0", read)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.typed(name, "an object", Value::as_object)
    }

    fn seed(&self) -> Result<Option<u64>, ApiError> {
        let read = |value: &Value| value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64));
        self.typed("seed", "a whole number", read)
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let string = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let read = |value: &Value| match value {
            Value::Array(list) if list.len() <= STOPS_MAX => list.iter().map(string).collect(),
            value => Some(vec![string(value)?]),
        };
        let needed = format!("a string, or a list of at most {STOPS_MAX}, none of them empty");
        Ok(self.typed("stop", &needed, read)?.unwrap_or_default())
    }

    fn prompt(&self) -> Result<Prompt, ApiError> {
        let tokens = |list: &[Value]| {
            let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
            list.iter().map(token).collect::<Option<Vec<u32>>>().filter(|tokens| !tokens.is_empty())
        };
        let read = |value: &Value| match value {
            Value::String(text) => Some(Prompt::Text(text.clone())),
            Value::Array(list) => match list.as_slice() {
                [Value::String(text)] => Some(Prompt::Text(text.clone())),
                [Value::Array(only)] => Some(Prompt::Tokens(tokens(only)?)),
                list => Some(Prompt::Tokens(tokens(list)?)),
            },
            _ => None,
        };
        let needed = "one prompt: a string, or a list of tokens";
        self.typed("prompt", needed, read)?.ok_or(ApiError::Missing { name: "prompt" })
    }

    fn messages(&self) -> Result<Vec<Message>, ApiError> {
        let needed = format!("a list of 1 to {MESSAGES_MAX} messages");
        let list = |value: &'a Value| value.as_array().filter(|list| (1..=MESSAGES_MAX).contains(&list.len()));
        let list = self.typed("messages", &needed, list)?.ok_or(ApiError::Missing { name: "messages" })?;
        list.iter().enumerate().map(|(at, value)| message(at, value)).collect()
    }

    /// What changes a text and is not done here.
    fn refuse_what_is_not_done(&self) -> Result<(), ApiError> {
        let is_empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            value => *value == Value::Bool(false) || value.as_f64() == Some(0.0),
        };
        let penalty = "use repetition_penalty, whose neutral value is 1";
        let undone = [
            ("presence_penalty", penalty),
            ("frequency_penalty", penalty),
            ("logit_bias", "leave it out"),
            ("logprobs", "leave it out"),
            ("top_logprobs", "leave it out"),
            ("suffix", "only the end of a text is continued"),
            ("echo", "put the prompt before the answer"),
            ("tools", "say in a message what there is"),
            ("functions", "say in a message what there is"),
        ];
        for (name, instead) in undone {
            if self.get(name).is_some_and(|value| !is_empty(value) || (name == "logprobs" && value.is_number())) {
                return Err(ApiError::Unsupported { name, instead });
            }
        }
        for name in ["n", "best_of"] {
            if self.count(name)?.is_some_and(|count| count != 1) {
                return Err(ApiError::Unsupported { name, instead: "ask once for each text that you want" });
            }
        }
        let format = self.object("response_format")?.and_then(|format| format.get("type")).and_then(Value::as_str);
        if format.is_some_and(|format| format != "text") {
            return Err(ApiError::Unsupported { name: "response_format", instead: "only text is written" });
        }
        Ok(())
    }
}

/// A message, whose content is a string, or a list of parts that are texts.
fn message(at: usize, value: &Value) -> Result<Message, ApiError> {
    let name = |field: &str| format!("messages[{at}]{field}");
    let fields = value.as_object().ok_or_else(|| value_fault(&name(""), value, "an object"))?;
    let missing = Value::Null;
    let role = fields.get("role").unwrap_or(&missing);
    let role = role.as_str().ok_or_else(|| value_fault(&name(".role"), role, "a string"))?;
    let content = fields.get("content").unwrap_or(&missing);
    let part = |part: &Value| match part.get("type").and_then(Value::as_str) {
        Some("text") => part.get("text")?.as_str().map(str::to_owned),
        _ => None,
    };
    let text = match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        // An assistant's message may have none.
        Value::Null if role == "assistant" => Some(String::new()),
        _ => None,
    };
    let content = text.ok_or_else(|| value_fault(&name(".content"), content, "a string, or a list of texts"))?;
    // OpenAI's newer word for the same; no template knows it.
    Ok(Message::new(if role == "developer" { "system" } else { role }, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: Kind, body: Value) -> Result<Asked, ApiError> {
        Asked::read(kind, body.to_string().as_bytes(), 7)
    }

    #[test]
    fn what_is_not_said_is_as_openai_has_it() {
        let asked =
            read(Kind::Completion, json!({ "prompt": "a", "user": "me", "metadata": { "x": 1 }, "stop": null }))
                .unwrap();
        assert_eq!((asked.tokens_max, asked.sampling.temperature, asked.sampling.seed), (Some(16), 1.0, 7));
        assert!(!asked.stream && !asked.usage && asked.stop.is_empty() && asked.model.is_none());
        let asked = read(Kind::Chat, json!({ "messages": [{ "role": "user", "content": "a" }] })).unwrap();
        assert_eq!(asked.tokens_max, None);
    }

    #[test]
    fn all_forms_of_a_prompt_are_taken() {
        let prompt = |prompt: Value| read(Kind::Completion, json!({ "prompt": prompt })).unwrap().prompt;
        assert_eq!(prompt(json!("a")), Prompt::Text("a".into()));
        assert_eq!(prompt(json!(["a"])), Prompt::Text("a".into()));
        assert_eq!(prompt(json!([1, 2])), Prompt::Tokens(vec![1, 2]));
        assert_eq!(prompt(json!([[1, 2]])), Prompt::Tokens(vec![1, 2]));
    }

    #[test]
    fn all_forms_of_a_conversation_are_taken() {
        let body = json!({ "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }], "name": "me" },
            { "role": "assistant", "content": null },
        ], "max_tokens": 3, "max_completion_tokens": 5, "stop": ["x", "y"], "seed": -1, "stream": true,
           "stream_options": { "include_usage": true }, "temperature": 0, "n": 1, "tools": [], "presence_penalty": 0.0 });
        let asked = read(Kind::Chat, body).unwrap();
        let expected =
            [("system", "Be brief."), ("user", "ab"), ("assistant", "")].map(|(role, text)| Message::new(role, text));
        assert_eq!(asked.prompt, Prompt::Conversation(expected.into()));
        assert_eq!((asked.tokens_max, asked.sampling.seed, asked.sampling.temperature), (Some(5), u64::MAX, 0.0));
        assert!(asked.stream && asked.usage && asked.stop == ["x", "y"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_it_must_be() {
        let cases = [
            (Kind::Completion, json!({}), "prompt is missing"),
            (Kind::Completion, json!({ "prompt": ["a", "b"] }), "prompt is [\"a\",\"b\"]; it must be one prompt"),
            (Kind::Completion, json!({ "prompt": [-1] }), "it must be one prompt"),
            (
                Kind::Completion,
                json!({ "prompt": "a", "temperature": "hot" }),
                "temperature is \"hot\"; it must be a number",
            ),
            (Kind::Completion, json!({ "prompt": "a", "temperature": -1 }), "temperature is -1.0; it must be 0 to 100"),
            (Kind::Completion, json!({ "prompt": "a", "top_p": 0 }), "top_p is 0.0; it must be above 0"),
            (
                Kind::Completion,
                json!({ "prompt": "a", "max_tokens": -1 }),
                "max_tokens is -1; it must be a whole number",
            ),
            (Kind::Completion, json!({ "prompt": "a", "stop": [""] }), "none of them empty"),
            (
                Kind::Completion,
                json!({ "prompt": "a", "stream": "yes" }),
                "stream is \"yes\"; it must be true or false",
            ),
            (Kind::Completion, json!({ "prompt": "a", "n": 2 }), "n is not supported: ask once"),
            (Kind::Completion, json!({ "prompt": "a", "logprobs": 0 }), "logprobs is not supported"),
            (Kind::Completion, json!({ "prompt": "a", "presence_penalty": 0.5 }), "use repetition_penalty"),
            (Kind::Chat, json!({ "messages": [] }), "a list of 1 to"),
            (Kind::Chat, json!({ "messages": [{ "content": "a" }] }), "messages[0].role is null; it must be a string"),
            (
                Kind::Chat,
                json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
                "messages[0].content",
            ),
            (Kind::Chat, json!({ "messages": "hi" }), "messages is \"hi\""),
        ];
        for (kind, body, message) in cases {
            let error = read(kind, body.clone()).unwrap_err().to_string();
            assert!(error.contains(message), "{body}: {error}");
        }
        assert!(matches!(Asked::read(Kind::Chat, b"{", 0), Err(ApiError::Body(_))));
        assert!(matches!(Asked::read(Kind::Chat, b"[]", 0), Err(ApiError::Body(_))));
    }
}
