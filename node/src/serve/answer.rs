//! Answers in OpenAI's forms: whole, or as the chunks of a stream.

use super::request::Kind;
use covey_trainer::generate::Finish;
use serde_json::{Value, json};

/// What all parts of one answer say of it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// The request's number: the answer's name.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    /// Which state answered.
    pub(super) state: String,
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

impl Usage {
    fn to_json(self) -> Value {
        let Usage { prompt, completion } = self;
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End(_) | Finish::Stop => "stop",
        Finish::Length | Finish::Broken => "length",
    }
}

impl Head {
    fn with(&self, object: &str, choices: Value) -> Value {
        let prefix = match self.kind {
            Kind::Completion => "cmpl",
            Kind::Chat => "chatcmpl",
        };
        json!({ "id": format!("{prefix}-{:016x}", self.number), "object": object, "created": self.created,
                "model": self.model, "system_fingerprint": self.state, "choices": choices })
    }

    /// The whole answer.
    pub(super) fn whole(&self, text: &str, finish: Finish, usage: Usage) -> Value {
        let (object, said) = match self.kind {
            Kind::Completion => ("text_completion", json!({ "text": text })),
            Kind::Chat => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                ("chat.completion", json!({ "message": message }))
            }
        };
        let mut answer = self.with(object, json!([choice(said, Some(finish))]));
        answer["usage"] = usage.to_json();
        answer
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        };
        self.with(object, choices)
    }

    /// The chunk that begins a stream, where there is one.
    pub(super) fn begin(&self) -> Option<Value> {
        let delta = || json!({ "delta": { "role": "assistant", "content": "" } });
        (self.kind == Kind::Chat).then(|| self.chunk(json!([choice(delta(), None)])))
    }

    /// A piece of the text.
    pub(super) fn piece(&self, text: &str) -> Value {
        let said = match self.kind {
            Kind::Completion => json!({ "text": text }),
            Kind::Chat => json!({ "delta": { "content": text } }),
        };
        self.chunk(json!([choice(said, None)]))
    }

    /// The chunk that says why the text ended.
    pub(super) fn end(&self, finish: Finish) -> Value {
        let said = match self.kind {
            Kind::Completion => json!({ "text": "" }),
            Kind::Chat => json!({ "delta": {} }),
        };
        self.chunk(json!([choice(said, Some(finish))]))
    }

    /// The chunk with the counts.
    pub(super) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage.to_json();
        chunk
    }
}

/// The one choice that there is.
fn choice(mut said: Value, finish: Option<Finish>) -> Value {
    said["index"] = 0.into();
    said["logprobs"] = Value::Null;
    said["finish_reason"] = finish.map_or(Value::Null, |finish| reason(finish).into());
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: Kind) -> Head {
        Head { kind, number: 26, created: 1_700_000_000, model: "m".into(), state: "round 3".into() }
    }

    #[test]
    fn a_whole_answer_has_text_reason_and_counts() {
        let usage = Usage { prompt: 3, completion: 2 };
        assert_eq!(
            head(Kind::Completion).whole("hi", Finish::Length, usage),
            json!({ "id": "cmpl-000000000000001a", "object": "text_completion", "created": 1_700_000_000, "model": "m",
                    "system_fingerprint": "round 3",
                    "choices": [{ "text": "hi", "index": 0, "logprobs": null, "finish_reason": "length" }],
                    "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } })
        );
        let chat = head(Kind::Chat).whole("hi", Finish::End(0), usage);
        assert_eq!(chat["object"], "chat.completion");
        assert_eq!(chat["choices"][0]["message"], json!({ "role": "assistant", "content": "hi", "refusal": null }));
        assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn a_stream_begins_with_the_role_and_ends_with_the_reason() {
        let head = head(Kind::Chat);
        assert_eq!(head.begin().unwrap()["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        assert_eq!(
            head.piece("x")["choices"][0],
            json!({ "delta": { "content": "x" }, "index": 0, "logprobs": null, "finish_reason": null })
        );
        assert_eq!(head.end(Finish::Stop)["choices"][0]["finish_reason"], "stop");
        assert_eq!(head.usage(Usage { prompt: 1, completion: 0 })["choices"], json!([]));
    }
}
