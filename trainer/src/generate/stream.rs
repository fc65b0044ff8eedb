//! Tokens become text piece by piece, so that the pieces together are the text of all tokens, to the byte.
//!
//! What a token adds may not be known before the next: a character may take several tokens, and where bytes stand for
//! what the vocabulary lacks (`<0xF0>`), a later byte can still make a whole run of them unreadable. Until the text is
//! sure it is held back. A piece is what the text of a window of tokens has more than before; the window moves on, so that
//! a long text does not cost its square.

use tokenizers::Tokenizer;

/// Tokens after which a window may move on.
const WINDOW: usize = 64;
/// Tokens that stay in a window that moves on: decoders that treat a text's first token differently do so here.
const KEPT: usize = 16;

/// A text that grows by tokens.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The tokens of the window.
    tokens: Vec<u32>,
    /// The window's text that was given away.
    given: String,
    /// Whether no later token can change the text so far.
    closed: bool,
    /// Where the next window begins: tokens of this one, after which the text was closed; 0 before it is known.
    boundary: usize,
}

impl<'a> TextStream<'a> {
    /// No tokens yet. Special tokens are no part of the text.
    pub fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream { tokenizer, tokens: Vec::new(), given: String::new(), closed: true, boundary: 0 }
    }

    /// Takes the next token and gives the text that is sure now, often none.
    ///
    /// # Errors
    /// The tokenizer cannot decode.
    pub fn push(&mut self, token: u32) -> tokenizers::Result<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens, true)?;
        self.closed = self.closes(token, &text);
        if !self.closed {
            return Ok(String::new());
        }
        let piece = self.give(text);
        self.move_on()?;
        Ok(piece)
    }

    /// What was held back, once nothing more comes.
    ///
    /// # Errors
    /// The tokenizer cannot decode.
    pub fn finish(mut self) -> tokenizers::Result<String> {
        let text = self.tokenizer.decode(&self.tokens, true)?;
        Ok(self.give(text))
    }

    /// Whether the window's `text` stays as it is, whatever follows its last `token`.
    fn closes(&self, token: u32, text: &str) -> bool {
        let Some(name) = self.tokenizer.id_to_token(token) else { return self.closed };
        if self.tokenizer.get_added_vocabulary().is_special_token(&name) {
            // It is no part of the text: what was open still is.
            return self.closed;
        }
        let is_byte = name.len() == 6 && name.starts_with("<0x") && name.ends_with('>');
        !is_byte && !text.ends_with('\u{fffd}')
    }

    fn give(&mut self, text: String) -> String {
        let piece = text.strip_prefix(self.given.as_str()).unwrap_or_default().to_owned();
        self.given = text;
        piece
    }

    /// Forgets the window's first tokens, if it has become long.
    fn move_on(&mut self) -> tokenizers::Result<()> {
        if self.boundary == 0 && self.tokens.len() >= WINDOW - KEPT {
            self.boundary = self.tokens.len();
        }
        if self.tokens.len() >= WINDOW && self.tokens.len() - self.boundary >= KEPT {
            let kept = self.tokenizer.decode(&self.tokens[self.boundary..], true)?;
            // A text that begins with nothing may lose the space that follows.
            if !kept.is_empty() {
                self.tokens.drain(..self.boundary);
                self.given = kept;
                self.boundary = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::Words;
    use crate::data::{Document, synthetic};
    use crate::testing::word_tokenizer;
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq};
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    /// Every byte and merges of it, as GPT-2's and LLaMA 3's.
    static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| {
        let mut documents = synthetic::documents(5, 30_000);
        documents.push(Document::new("awkward", "naïve café 中文 текст 🦀🦀🦀🦀 🇫🇷🇫🇷 it's  we'll".repeat(40)));
        let mut words = Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        Tokenizer::from_bytes(words.train(&lists, 500, &[]).json).unwrap()
    });

    fn tokenizer(model: Value, decoder: Value, special: &[(u32, &str)]) -> Tokenizer {
        let special: Vec<Value> = special
            .iter()
            .map(|(id, content)| {
                json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true })
            })
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": special, "pre_tokenizer": null, "decoder": decoder, "model": model,
        });
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    /// As LLaMA 2's: words with `▁` for a space, and bytes for what the vocabulary lacks.
    static BYTE_FALLBACK: LazyLock<Tokenizer> = LazyLock::new(|| {
        let words = ["<unk>", "<s>", "</s>", "▁", "▁a", "a", "▁▁", "é", "\u{fffd}", "▁🦀", "\n"].map(str::to_owned);
        let tokens = words.into_iter().chain((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        let vocabulary: serde_json::Map<String, Value> =
            tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect();
        let model = json!({ "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": [] });
        let decoder = json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
            { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] });
        tokenizer(model, decoder, &[(0, "<unk>"), (1, "<s>"), (2, "</s>")])
    });

    static METASPACE: LazyLock<Tokenizer> = LazyLock::new(|| {
        let words = ["<unk>", "▁", "▁a", "b", "▁▁", "é", "▁🦀▁", "</s>"];
        let vocabulary: serde_json::Map<String, Value> =
            words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
        let model = json!({ "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [] });
        let decoder = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
        tokenizer(model, decoder, &[(7, "</s>")])
    });

    fn streamed(tokenizer: &Tokenizer, tokens: &[u32]) -> (String, Vec<String>) {
        let mut stream = TextStream::new(tokenizer);
        let mut pieces: Vec<String> = tokens.iter().map(|token| stream.push(*token).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        (pieces.concat(), pieces)
    }

    #[test]
    fn an_emoji_over_several_tokens_comes_when_it_is_whole() {
        let tokens = BYTE_LEVEL.encode("a 🦀b", false).unwrap().get_ids().to_vec();
        let bytes: Vec<u32> =
            "🦙".bytes().map(|byte| BYTE_FALLBACK.token_to_id(&format!("<0x{byte:02X}>")).unwrap()).collect();
        assert_eq!(streamed(&BYTE_LEVEL, &tokens).0, "a 🦀b");
        let with = |after: &[u32]| streamed(&BYTE_FALLBACK, &[bytes.as_slice(), after].concat()).1;
        assert_eq!(with(&[4]), ["", "", "", "", "🦙 a", ""]);
        // A byte that fits nothing makes the whole run unreadable: none of it may have been shown.
        assert_eq!(with(&[11 + 0xff, 4]), ["", "", "", "", "", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd} a", ""]);
    }

    #[test]
    fn a_long_text_comes_out_of_moving_windows() {
        let text = "The naïve crab 🦀 said: 中文 — and  went on.\n".repeat(40);
        let tokens = BYTE_LEVEL.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        assert_eq!(streamed(&BYTE_LEVEL, &tokens).0, text);
        let mut stream = TextStream::new(&BYTE_LEVEL);
        for token in &tokens {
            stream.push(*token).unwrap();
            assert!(stream.tokens.len() <= WINDOW + 4, "the window moves on");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn the_pieces_are_the_text_of_all_tokens(draws in proptest::collection::vec(any::<u32>(), 0..300)) {
            for tokenizer in [&*BYTE_LEVEL, &*BYTE_FALLBACK, &*METASPACE, &word_tokenizer()] {
                let size = tokenizer.get_vocab_size(true) as u32;
                let tokens: Vec<u32> = draws.iter().map(|draw| draw % size).collect();
                prop_assert_eq!(streamed(tokenizer, &tokens).0, tokenizer.decode(&tokens, true).unwrap());
            }
        }
        #[test]
        fn and_so_are_they_where_words_outnumber_bytes(draws in proptest::collection::vec(0u32..16, 0..300)) {
            for tokenizer in [&*BYTE_FALLBACK, &*METASPACE] {
                let size = tokenizer.get_vocab_size(true) as u32;
                let tokens: Vec<u32> = draws.iter().map(|draw| draw % size).collect();
                prop_assert_eq!(streamed(tokenizer, &tokens).0, tokenizer.decode(&tokens, true).unwrap());
            }
        }
    }
}
