//! Documents to tokens with a tokenizer that is given, not trained: a checkpoint's own.
//!
//! Decides nothing about how text is cut: that is in tokenizer.json, and the `tokenizers` crate does as it says, special
//! tokens that stand in the text included. No tokens are added but the end of text after each document. A token of a
//! conversation is learnt if it begins in a part that is.

use super::{DataError, Document};
use crate::CONTEXT;
use crate::hf::files::END_TOKENS;
use tokenizers::Tokenizer;

/// Documents that are encoded at a time, on all cores: what is known of each token besides its number is large.
const DOCUMENTS_AT_ONCE: usize = 64;

/// A tokenizer that was given.
pub(super) struct Given {
    tokenizer: Tokenizer,
    /// Tokens: every id is below it.
    pub(super) vocabulary: u32,
    /// The token after each document.
    pub(super) end_of_text: u32,
}

impl Given {
    /// The tokenizer in `json`, a tokenizer.json.
    ///
    /// # Errors
    /// It does not load, has no token that ends a text, or more than `vocabulary_max` tokens.
    pub(super) fn load(json: &[u8], vocabulary_max: u32) -> Result<Given, DataError> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| DataError::GivenTokenizer(error.to_string()))?;
        let last = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let vocabulary = last.saturating_add(1);
        if vocabulary > vocabulary_max {
            return Err(DataError::GivenVocabulary { got: vocabulary, max: vocabulary_max });
        }
        let end = END_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
        let end_of_text = end.ok_or_else(|| DataError::NoEnd(END_TOKENS.join(", ")))?;
        Ok(Given { tokenizer, vocabulary, end_of_text })
    }

    /// The tokens of all documents, each followed by the end of text, with [`CONTEXT`] where they are only read: of
    /// conversations also the end of text, for its own template says how an answer ends.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(super) fn encode(&self, documents: &[Document]) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::new();
        for some in documents.chunks(DOCUMENTS_AT_ONCE) {
            let texts: Vec<&str> = some.iter().map(|document| document.text.as_str()).collect();
            let encoded = match some.iter().any(|document| document.learnt.is_some()) {
                true => self.tokenizer.encode_batch(texts, false),
                false => self.tokenizer.encode_batch_fast(texts, false),
            };
            let encoded = encoded.map_err(|error| DataError::GivenTokenizer(error.to_string()))?;
            for (document, encoding) in some.iter().zip(encoded) {
                let Some(learnt) = &document.learnt else {
                    tokens.extend_from_slice(encoding.get_ids());
                    tokens.push(self.end_of_text);
                    continue;
                };
                let ids = encoding.get_ids().iter().zip(encoding.get_offsets());
                tokens.extend(ids.map(|(token, (from, _))| match learnt.iter().any(|range| range.contains(from)) {
                    true => *token,
                    false => token | CONTEXT,
                }));
                tokens.push(self.end_of_text | CONTEXT);
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::Words;
    use super::super::{Dataset, PrepareOptions, prepare, synthetic};
    use super::*;

    fn trained(documents: &[Document]) -> Vec<u8> {
        let mut words = Words::new();
        let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
        words.train(&lists, 400, &[]).json
    }

    /// Given what would have been trained, the data set is the same to the bit.
    #[test]
    fn a_given_tokenizer_makes_the_tokens_that_a_trained_one_makes() {
        let folder = tempfile::tempdir().unwrap();
        let options = PrepareOptions { vocabulary: 400, ..PrepareOptions::default() };
        let documents = || synthetic::documents(5, 100_000);
        let first = prepare(documents(), &options, &folder.path().join("trained"), &mut |_| ()).unwrap();
        let json = std::fs::read(folder.path().join("trained/tokenizer.json")).unwrap();
        let given = PrepareOptions { tokenizer: Some(json), vocabulary: 0, ..options };
        let again = prepare(documents(), &given, &folder.path().join("given"), &mut |_| ()).unwrap();
        assert_eq!(again, first);
        assert!(Dataset::open(&folder.path().join("given"), Some(first.digest)).is_ok());
    }

    #[test]
    fn of_a_conversation_the_answers_tokens_are_learnt_and_the_rest_is_read() {
        let given = Given::load(&trained(&synthetic::documents(1, 20_000)), 1 << 16).unwrap();
        let text = "user: Wíe?\nassistant: Só.\nuser: Ah!\n";
        let answer = text.find(" Só").unwrap()..text.find("user: Ah").unwrap();
        let talk = Document { learnt: Some(vec![answer.clone()]), ..Document::new("talk", text) };
        let tokens = given.encode(&[Document::new("text", "some text"), talk]).unwrap();
        let talk = &tokens[tokens.iter().position(|token| *token == given.end_of_text).unwrap() + 1..];
        let learnt: Vec<u32> = talk.iter().copied().filter(|token| token & CONTEXT == 0).collect();
        assert_eq!(given.tokenizer.decode(&learnt, false).unwrap(), text[answer]);
        let all: Vec<u32> = talk[..talk.len() - 1].iter().map(|token| token & !CONTEXT).collect();
        assert_eq!(given.tokenizer.decode(&all, false).unwrap(), text);
        assert_eq!(talk.last(), Some(&(given.end_of_text | CONTEXT)));
    }

    #[test]
    fn what_is_no_tokenizer_for_texts_is_refused() {
        let json = trained(&synthetic::documents(1, 20_000));
        assert!(matches!(Given::load(b"{}", 1 << 16), Err(DataError::GivenTokenizer(_))));
        let found = Given::load(&json, 399).err().map(|error| error.to_string()).unwrap();
        assert!(found.contains("400 tokens"), "{found}");
        let endless = String::from_utf8(json).unwrap().replace("<|endoftext|>", "<|nothing|>");
        let found = Given::load(endless.as_bytes(), 1 << 16).err().map(|error| error.to_string()).unwrap();
        assert!(found.contains("<|end_of_text|>"), "{found}");
    }
}
