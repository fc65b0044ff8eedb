//! A byte-level BPE tokenizer.json as llama.cpp holds a tokenizer: tokens, their kinds, merges, and the name of the
//! expression that cuts text into words.
//!
//! llama.cpp knows such expressions by name only. Those of GPT-2 (and so of tokenizers that are trained here), SmolLM and
//! LLaMA 3 are recognised; a tokenizer with another one would cut text otherwise there, and is refused. So is SentencePiece's
//! kind, with byte fallback, whose scores tokenizer.json does not have.

use super::error::GgufError;
use super::value::Value;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

/// LLaMA 3's expression, as its tokenizer.json has it.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// What is read of tokenizer.json; of its vocabulary and added tokens the tokenizers crate knows more.
#[derive(Deserialize)]
struct File {
    model: Bpe,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// A merge, as tokenizers wrote it until 0.20 and since.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair([String; 2]),
}

/// The tokenizer's part of the metadata. There are as many tokens as the model has; those beyond the tokenizer's are unused.
pub(super) fn metadata(json: &[u8], vocabulary: u32) -> Result<Vec<(&'static str, Value)>, GgufError> {
    let broken = |error: String| GgufError::Tokenizer(error);
    let tokenizer = Tokenizer::from_bytes(json).map_err(|error| broken(error.to_string()))?;
    let file: File = serde_json::from_slice(json).map_err(|error| broken(error.to_string()))?;
    if file.model.kind != "BPE" || file.model.byte_fallback {
        let kind = if file.model.byte_fallback { "BPE with byte fallback".to_owned() } else { file.model.kind };
        return Err(GgufError::TokenizerKind(kind));
    }
    let words = words(&file)?;
    let (tokens, kinds) = tokens(&tokenizer, vocabulary)?;
    let merge = |merge| match merge {
        Merge::Text(text) => text,
        Merge::Pair(pair) => pair.join(" "),
    };
    let merges = file.model.merges.into_iter().map(merge).collect();
    Ok(vec![
        ("tokenizer.ggml.model", Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Text(words.into())),
        ("tokenizer.ggml.tokens", Value::Texts(tokens)),
        ("tokenizer.ggml.token_type", Value::I32s(kinds)),
        ("tokenizer.ggml.merges", Value::Texts(merges)),
    ])
}

/// llama.cpp's name of how the tokenizer cuts text into words.
fn words(file: &File) -> Result<&'static str, GgufError> {
    if !file.normalizer.is_null() {
        return Err(GgufError::TokenizerKind(format!("one with the normalizer {}", file.normalizer)));
    }
    let kind = |step: &Json| step["type"].as_str().map(str::to_owned).unwrap_or_default();
    let flag = |step: &Json, name: &str, default: bool| step[name].as_bool().unwrap_or(default);
    let bytes = |step: &Json, own_words: bool| {
        kind(step) == "ByteLevel" && !flag(step, "add_prefix_space", true) && flag(step, "use_regex", true) == own_words
    };
    let steps = match file.pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(&file.pre_tokenizer),
    };
    match steps {
        [last] if bytes(last, true) => Ok("gpt-2"),
        [digits, last] if kind(digits) == "Digits" && flag(digits, "individual_digits", false) && bytes(last, true) => {
            Ok("smollm")
        }
        [split, last]
            if kind(split) == "Split"
                && split["pattern"]["Regex"] == LLAMA_3
                && split["behavior"] == "Isolated"
                && !flag(split, "invert", false)
                && bytes(last, false) =>
        {
            Ok("llama-bpe")
        }
        _ => Err(GgufError::TokenizerKind(format!("one with the pre-tokenizer {}", file.pre_tokenizer))),
    }
}

fn tokens(tokenizer: &Tokenizer, vocabulary: u32) -> Result<(Vec<String>, Vec<i32>), GgufError> {
    let by_id: BTreeMap<u32, String> = tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    if let Some((&id, _)) = by_id.last_key_value().filter(|(id, _)| **id >= vocabulary) {
        return Err(GgufError::Token { id, vocabulary });
    }
    let added = tokenizer.get_added_tokens_decoder();
    let token = |id: u32| match (by_id.get(&id), added.get(&id)) {
        (Some(token), Some(added)) => (token.clone(), if added.special { CONTROL } else { USER_DEFINED }),
        (Some(token), None) => (token.clone(), NORMAL),
        (None, _) => (format!("[PAD{id}]"), UNUSED),
    };
    Ok((0..vocabulary).map(token).unzip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(pre_tokenizer: Json) -> File {
        serde_json::from_value(json!({ "model": { "type": "BPE" }, "pre_tokenizer": pre_tokenizer })).unwrap()
    }

    #[test]
    fn how_text_is_cut_is_known_by_llama_cpps_name_or_refused() {
        let bytes = |own: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": own });
        let both = |first: Json, last: Json| json!({ "type": "Sequence", "pretokenizers": [first, last] });
        let digits = |each: bool| json!({ "type": "Digits", "individual_digits": each });
        let split = |text: &str| json!({ "type": "Split", "pattern": { "Regex": text }, "behavior": "Isolated", "invert": false });
        let name = |pre: Json| words(&file(pre)).ok();
        assert_eq!(name(bytes(true)), Some("gpt-2"));
        assert_eq!(name(both(digits(true), bytes(true))), Some("smollm"));
        assert_eq!(name(both(split(LLAMA_3), bytes(false))), Some("llama-bpe"));
        let unknown = [bytes(false), both(digits(false), bytes(true)), both(split(r"\w+"), bytes(false)), Json::Null];
        for pre in unknown {
            let fault = words(&file(pre.clone())).unwrap_err().to_string();
            assert!(fault.contains("llama.cpp") || fault.contains("pre-tokenizer"), "{pre}: {fault}");
        }
    }

    #[test]
    fn tokens_have_their_kinds_and_a_model_may_have_more_of_them() {
        let documents = crate::data::synthetic::documents(1, 20_000);
        let mut words = crate::data::tokenizer::Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        let trained = words.train(&lists, 300, &[]);
        let found: BTreeMap<_, _> = metadata(&trained.json, 302).unwrap().into_iter().collect();
        let Value::Texts(tokens) = &found["tokenizer.ggml.tokens"] else { panic!("texts") };
        let Value::I32s(kinds) = &found["tokenizer.ggml.token_type"] else { panic!("numbers") };
        let Value::Texts(merges) = &found["tokenizer.ggml.merges"] else { panic!("texts") };
        assert_eq!((tokens.len(), kinds.len(), merges.len()), (302, 302, 300 - 257));
        assert_eq!((tokens[0].as_str(), kinds[0], kinds[1]), ("<|endoftext|>", CONTROL, NORMAL));
        assert_eq!((tokens[300].as_str(), kinds[301]), ("[PAD300]", UNUSED));
        assert!(merges.iter().all(|merge| merge.split(' ').count() == 2));
        assert!(matches!(metadata(&trained.json, 299), Err(GgufError::Token { id: 299, vocabulary: 299 })));
        let fallback = br#"{"model":{"type":"BPE","byte_fallback":true,"vocab":{},"merges":[]}}"#;
        assert!(matches!(metadata(fallback, 299), Err(GgufError::TokenizerKind(kind)) if kind.contains("fallback")));
        let words = br#"{"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
        assert!(matches!(metadata(words, 299), Err(GgufError::TokenizerKind(kind)) if kind == "WordLevel"));
    }
}
