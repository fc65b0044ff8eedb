//! Where a text ends: the model's own end tokens, and strings that a caller names.
//!
//! End tokens are what `config.json`, `generation_config.json` and `tokenizer_config.json` call so, all of them together;
//! where none says anything, the first of the names that tokenizers use. Reading the files is bounded; what they say is
//! checked against the vocabulary.

use crate::hf::{CONFIG, END_TOKENS, GENERATION, HfError, TOKENIZER_CONFIG, read_optional_json, token_text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// End tokens that a file may name: LLaMA 3.1 has three.
const LIST_MAX: usize = 64;

/// The tokens that end a text of a model, and the one that begins an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextEnds {
    /// Each ends a text, and is no part of it.
    pub end: Vec<u32>,
    /// What an empty text begins with.
    pub begin: Option<u32>,
}

impl TextEnds {
    /// By the tokenizer's names alone.
    pub fn of_tokenizer(tokenizer: &Tokenizer) -> TextEnds {
        let end = END_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
        TextEnds { end: end.into_iter().collect(), begin: end }
    }

    /// What the files of the folder `dir` say, or else the tokenizer's names; `vocabulary` is the model's.
    ///
    /// # Errors
    /// A file that does not parse, is too large, or names a token that there is not.
    pub fn load(dir: &Path, tokenizer: &Tokenizer, vocabulary: u32) -> Result<TextEnds, EndsError> {
        let mut ends = TextEnds::default();
        for name in [CONFIG, GENERATION] {
            let Some(file) = read_optional_json(&dir.join(name))? else { continue };
            let fault = |fault| EndsError::Token { path: dir.join(name), fault };
            ends.add(ids(&file, "eos_token_id", vocabulary).map_err(fault)?);
            ends.begin = ids(&file, "bos_token_id", vocabulary).map_err(fault)?.first().copied().or(ends.begin);
        }
        if let Some(file) = read_optional_json(&dir.join(TOKENIZER_CONFIG))? {
            let named = |name: &str| tokenizer.token_to_id(token_text(&file, name)?);
            ends.add(named("eos_token").into_iter().collect());
            ends.begin = ends.begin.or_else(|| named("bos_token"));
        }
        let by_name = TextEnds::of_tokenizer(tokenizer);
        if ends.end.is_empty() {
            ends.end = by_name.end;
        }
        ends.begin = ends.begin.or(by_name.begin);
        Ok(ends)
    }

    fn add(&mut self, tokens: Vec<u32>) {
        for token in tokens {
            if !self.end.contains(&token) {
                self.end.push(token);
            }
        }
    }
}

/// Why a folder does not say where its model's texts end.
#[derive(Debug, thiserror::Error)]
pub enum EndsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] HfError),
    /// A file names a token that there is not.
    #[error("{}: {fault}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: EndsFault,
    },
}

/// A token id that a file gets wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}; it must be a token below {vocabulary}, or a list of at most {LIST_MAX} of them")]
pub struct EndsFault {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Value,
    /// The model's vocabulary.
    pub vocabulary: u32,
}

/// A token id, a list of them, or none.
fn ids(file: &Value, name: &str, vocabulary: u32) -> Result<Vec<u32>, EndsFault> {
    let fault = |value: &Value| EndsFault { name: name.to_owned(), value: value.clone(), vocabulary };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocabulary);
        id.ok_or_else(|| fault(value))
    };
    match file.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() > LIST_MAX => {
            Err(fault(&Value::String(format!("{} tokens", list.len()))))
        }
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// Looks for strings that end a text, in a text that comes in pieces. What may be the beginning of one is held back.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    strings: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    /// Looks for each of `strings`; empty ones are never found.
    pub(crate) fn new(strings: &[String]) -> StopStrings {
        let strings = strings.iter().filter(|string| !string.is_empty()).cloned().collect();
        StopStrings { strings, held: String::new(), found: false }
    }

    /// Whether one was found.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next piece and gives what surely comes before any of the strings. Once one is found, nothing more comes.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(piece);
        let first = self.strings.iter().filter_map(|string| self.held.find(string.as_str())).min();
        let free = match first {
            Some(at) => {
                self.found = true;
                at
            }
            None => self.held.len() - self.strings.iter().map(|string| overlap(&self.held, string)).max().unwrap_or(0),
        };
        let rest = self.held.split_off(free);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, once nothing more comes.
    pub(crate) fn finish(&mut self) -> String {
        if self.found { String::new() } else { std::mem::take(&mut self.held) }
    }
}

/// Bytes of the longest end of `text` that `string` begins with, less than all of it.
fn overlap(text: &str, string: &str) -> usize {
    let lengths = string.char_indices().map(|(at, _)| at).rev();
    lengths.filter(|length| *length > 0).find(|length| text.ends_with(&string[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::word_tokenizer;
    use serde_json::json;
    use std::fs;

    fn ends(files: &[(&str, Value)]) -> Result<TextEnds, EndsError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        TextEnds::load(folder.path(), &word_tokenizer(), 24)
    }

    #[test]
    fn all_that_a_folder_calls_an_end_is_one() {
        let found = ends(&[
            ("config.json", json!({ "eos_token_id": 3, "bos_token_id": 1 })),
            ("generation_config.json", json!({ "eos_token_id": [5, 3], "bos_token_id": null })),
            ("tokenizer_config.json", json!({ "eos_token": { "content": "w7" }, "bos_token": "w2" })),
        ]);
        assert_eq!(found.unwrap(), TextEnds { end: vec![3, 5, 7], begin: Some(1) });
    }

    #[test]
    fn without_a_word_of_the_files_the_tokenizers_names_count() {
        assert_eq!(ends(&[("config.json", json!({}))]).unwrap(), TextEnds { end: vec![22], begin: Some(22) });
        assert_eq!(ends(&[]).unwrap(), TextEnds::of_tokenizer(&word_tokenizer()));
    }

    #[test]
    fn tokens_that_cannot_be_are_named() {
        for (value, message) in
            [(json!(24), "eos_token_id is 24; it must be a token below 24"), (json!([1, "x"]), "is \"x\"")]
        {
            let fault = ends(&[("generation_config.json", json!({ "eos_token_id": value }))]).unwrap_err().to_string();
            assert!(fault.contains(message) && fault.contains("generation_config.json"), "{fault}");
        }
        let fault = ends(&[("config.json", json!({ "eos_token_id": vec![1; 65] }))]).unwrap_err().to_string();
        assert!(fault.contains("65 tokens"), "{fault}");
    }

    #[test]
    fn a_stop_string_is_found_over_pieces_and_nothing_of_it_is_shown() {
        let mut stops = StopStrings::new(&["\n\n".into(), "END".into(), String::new()]);
        let pieces = ["a E", "N", "x\n", "b", "E", "ND", " more"];
        let shown: Vec<String> = pieces.iter().map(|piece| stops.push(piece)).collect();
        assert_eq!(shown, ["a ", "", "ENx", "\nb", "", "", ""]);
        assert!(stops.found() && stops.finish().is_empty());
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        let mut stops = StopStrings::new(&["🦀🦀".into()]);
        assert_eq!(stops.push("so 🦀"), "so ");
        assert_eq!((stops.finish().as_str(), stops.found()), ("🦀", false));
    }

    proptest::proptest! {
        #[test]
        fn cut_anyhow_the_same_is_shown(text in "[ab]{0,30}", stop in "[ab]{1,4}", at in 0usize..30) {
            let (left, right) = text.split_at(at.min(text.len()));
            let mut stops = StopStrings::new(std::slice::from_ref(&stop));
            let shown = stops.push(left) + &stops.push(right) + &stops.finish();
            proptest::prop_assert_eq!(shown, text.find(&stop).map_or(text.as_str(), |at| &text[..at]));
        }
    }
}
