//! A byte-level BPE in Hugging Face's tokenizer.json, and text to tokens with it.
//!
//! Decides how text is cut into words (GPT-2's expression, as readers of such files do it) and what the file says. The
//! file is written here, field by field, so that its bytes depend on no crate's version; the `tokenizers` crate reads
//! it back and encodes every different word once. [`super::bpe`] learns the merges.

use super::{DataError, Document, bpe};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::iter::once;
use std::sync::LazyLock;
use tokenizers::Model as _;
use tokenizers::utils::SysRegex;

/// The one special token: it follows every document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Its id.
pub const END_OF_TEXT_ID: u16 = 0;
/// The end of text and every byte.
pub const VOCABULARY_MIN: u32 = bpe::BASE;
/// Trained tokens are u16.
pub const VOCABULARY_MAX: u32 = 1 << 16;

/// GPT-2's expression for words, which `ByteLevel` with `use_regex` stands for in tokenizer.json.
static WORD: LazyLock<SysRegex> = LazyLock::new(|| {
    SysRegex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
        .expect("a constant expression that tests compile")
});

/// Documents as lists of words, each different word held once.
pub struct Words<'t> {
    words: Vec<&'t str>,
    ids: HashMap<&'t str, u32>,
}

impl<'t> Words<'t> {
    /// No words.
    pub fn new() -> Words<'t> {
        Words { words: Vec::new(), ids: HashMap::new() }
    }

    /// Cuts `document` into words and returns their numbers here.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the expression gives up, which no text is known to make it do.
    pub fn read(&mut self, document: &'t Document) -> Result<Vec<u32>, DataError> {
        let text = document.text.as_str();
        let mut end = 0;
        let mut list = Vec::with_capacity(text.len() / 5);
        for (from, to) in WORD.find_iter(text) {
            let word = text.get(from..to).filter(|_| from == end).unwrap_or_default();
            end = to;
            list.push(*self.ids.entry(word).or_insert_with(|| {
                self.words.push(word);
                (self.words.len() - 1) as u32
            }));
        }
        if end != text.len() {
            return Err(DataError::Tokenizer(format!("{}: no word found at byte {end}", document.name)));
        }
        Ok(list)
    }

    /// Trains a tokenizer of up to `vocabulary` tokens on how often words occur in `lists`; fewer if no more
    /// pairs repeat. The last of them are `marks`, which are tokens wherever they stand.
    pub fn train(&self, lists: &[Vec<u32>], vocabulary: u32, marks: &[&str]) -> Trained {
        let mut counts = vec![0_u64; self.words.len()];
        for word in lists.iter().flatten() {
            counts[*word as usize] += 1;
        }
        let words: Vec<(&[u8], u64)> = self.words.iter().map(|word| word.as_bytes()).zip(counts).collect();
        let merges = bpe::learn(&words, vocabulary.saturating_sub(marks.len() as u32));
        Trained { json: to_json(&merges, marks), vocabulary: (merges.tokens.len() + marks.len()) as u32 }
    }

    /// The tokens of every word, by the tokenizer in `json`.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the tokenizer does not load or lacks a byte.
    pub fn encode(&self, json: &[u8]) -> Result<Encoded, DataError> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|e| DataError::Tokenizer(e.to_string()))?;
        let mut encoded = Encoded { tokens: Vec::new(), ends: Vec::with_capacity(self.words.len()) };
        let chars = byte_chars();
        let mut spelled = String::new();
        for word in &self.words {
            spelled.clear();
            spelled.extend(word.bytes().map(|byte| chars[usize::from(byte)]));
            let tokens = tokenizer.get_model().tokenize(&spelled).map_err(|e| DataError::Tokenizer(e.to_string()))?;
            for token in tokens {
                let id = u16::try_from(token.id).map_err(|e| DataError::Tokenizer(e.to_string()))?;
                encoded.tokens.push(id);
            }
            encoded.ends.push(encoded.tokens.len());
        }
        Ok(encoded)
    }
}

impl Default for Words<'_> {
    fn default() -> Self {
        Words::new()
    }
}

/// A tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// The bytes of tokenizer.json.
    pub json: Vec<u8>,
    /// Its tokens.
    pub vocabulary: u32,
}

/// The tokens of every word of a [`Words`].
pub struct Encoded {
    tokens: Vec<u16>,
    ends: Vec<usize>,
}

impl Encoded {
    /// Appends a document's tokens and the end of text to `out`.
    ///
    /// # Panics
    /// If `list` is not from the [`Words`] that this was made of.
    pub fn append(&self, list: &[u32], out: &mut Vec<u16>) {
        for word in list {
            let word = *word as usize;
            let from = if word == 0 { 0 } else { self.ends[word - 1] };
            out.extend_from_slice(&self.tokens[from..self.ends[word]]);
        }
        out.push(END_OF_TEXT_ID);
    }
}

/// GPT-2's printable character for every byte: itself where it prints, else the next from U+0100 on.
fn byte_chars() -> [char; 256] {
    let mut next = 0x100_u32;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}

/// tokenizer.json: the order of the fields is the order in the file.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Option<()>,
    pre_tokenizer: ByteLevel,
    post_processor: Option<()>,
    decoder: ByteLevel,
    model: Model<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct ByteLevel {
    r#type: &'static str,
    add_prefix_space: bool,
    trim_offsets: bool,
    use_regex: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: Option<()>,
    unk_token: Option<()>,
    continuing_subword_prefix: Option<()>,
    end_of_word_suffix: Option<()>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'a>,
    merges: Vec<[&'a str; 2]>,
}

/// Tokens by id, written as a map in the order of the ids.
struct Vocabulary<'a>(&'a [String]);

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

fn to_json(merges: &bpe::Merges, marks: &[&str]) -> Vec<u8> {
    let chars = byte_chars();
    let spell = |bytes: &Vec<u8>| bytes.iter().map(|byte| chars[usize::from(*byte)]).collect::<String>();
    let mut tokens: Vec<String> = merges.tokens.iter().map(spell).collect();
    tokens[usize::from(END_OF_TEXT_ID)] = END_OF_TEXT.to_owned();
    let marks = (merges.tokens.len() as u32..).zip(marks.iter().copied());
    let added = |(id, content)| AddedToken {
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
    };
    let byte_level = || ByteLevel { r#type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
    let file = File {
        version: "1.0",
        truncation: None,
        padding: None,
        added_tokens: once((u32::from(END_OF_TEXT_ID), END_OF_TEXT)).chain(marks).map(added).collect(),
        normalizer: None,
        pre_tokenizer: byte_level(),
        post_processor: None,
        decoder: byte_level(),
        model: Model {
            r#type: "BPE",
            dropout: None,
            unk_token: None,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: Vocabulary(&tokens),
            merges: merges.pairs.iter().map(|(a, b)| [*a, *b].map(|id| tokens[usize::from(id)].as_str())).collect(),
        },
    };
    serde_json::to_vec(&file).expect("strings, numbers and booleans always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;

    fn trained(documents: &[Document], vocabulary: u32) -> (Vec<u8>, Vec<Vec<u16>>) {
        let mut words = Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        let json = words.train(&lists, vocabulary, &[]).json;
        let encoded = words.encode(&json).unwrap();
        let tokens = lists
            .iter()
            .map(|list| {
                let mut tokens = Vec::new();
                encoded.append(list, &mut tokens);
                tokens
            })
            .collect();
        (json, tokens)
    }

    /// Text that a tokenizer could trip over: contractions, runs of spaces, other scripts, the special token's letters.
    fn awkward() -> Vec<Document> {
        let text =
            "it's  we'll\t\tthey'd   \n\n  naïve café Ⅷ ½ 中文 текст 🦀🦀  x²\u{301} <endoftext> |end|\u{200b}of  ";
        let mut documents = synthetic::documents(5, 60_000);
        documents.push(Document::new("awkward", text));
        documents
    }

    #[test]
    fn tokens_are_those_of_the_tokenizers_crate_and_decode_to_the_text() {
        let documents = awkward();
        let (json, tokens) = trained(&documents, 700);
        let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), 700);
        for (document, tokens) in documents.iter().zip(&tokens) {
            let (end, ours) = tokens.split_last().unwrap();
            let ours: Vec<u32> = ours.iter().map(|id| u32::from(*id)).collect();
            assert_eq!(*end, END_OF_TEXT_ID);
            assert_eq!(tokenizer.encode(document.text.as_str(), false).unwrap().get_ids(), ours, "{}", document.name);
            assert_eq!(tokenizer.decode(&ours, false).unwrap(), document.text);
        }
        let end = tokenizer.encode(END_OF_TEXT, false).unwrap();
        assert_eq!(end.get_ids(), [u32::from(END_OF_TEXT_ID)]);
    }

    #[test]
    fn the_file_is_what_the_tokenizers_crate_would_write() {
        let (json, _) = trained(&awkward(), 400);
        let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
        let ours: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(ours, theirs);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_comes_back_from_its_tokens(text in "\\PC*[ \n\t]{0,6}\\PC*") {
            let document = Document::new("any", text);
            let (json, tokens) = trained(std::slice::from_ref(&document), 300);
            let tokenizer = tokenizers::Tokenizer::from_bytes(&json).unwrap();
            let ours: Vec<u32> = tokens[0][..tokens[0].len() - 1].iter().map(|id| u32::from(*id)).collect();
            proptest::prop_assert_eq!(tokenizer.decode(&ours, false).unwrap(), document.text.as_str());
            let theirs = tokenizer.encode(document.text.as_str(), false).unwrap();
            proptest::prop_assert_eq!(theirs.get_ids(), ours);
        }
    }

    #[test]
    fn marks_are_the_last_tokens_wherever_they_stand() {
        let documents = awkward();
        let mut words = Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        let trained = words.train(&lists, 500, &["<|im_start|>", "<|im_end|>"]);
        assert_eq!(trained.vocabulary, 500);
        let tokenizer = tokenizers::Tokenizer::from_bytes(&trained.json).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&trained.json).unwrap(), theirs);
        let encoded = tokenizer.encode("<|im_start|>a<|im_end|>", false).unwrap();
        assert_eq!((encoded.get_ids()[0], *encoded.get_ids().last().unwrap(), encoded.len()), (498, 499, 3));
    }

    #[test]
    fn training_again_gives_the_same_bytes() {
        assert_eq!(trained(&awkward(), 600), trained(&awkward(), 600));
    }
}
