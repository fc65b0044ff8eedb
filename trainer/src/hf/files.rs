//! The files of a model folder in Hugging Face's layout, by name, and how much of each is read.

use super::fault::{HfError, at};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The model's numbers.
pub(crate) const CONFIG: &str = "config.json";
/// The parameters, in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Which of several files has which parameters.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// What `transformers` wants to know of the tokenizer besides.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Which tokens are special, in folders of transformers 4.
pub(crate) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// How a chat is written, in a file of its own.
pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Defaults of `model.generate`.
pub(crate) const GENERATION: &str = "generation_config.json";
/// Tokens that end a document, as tokenizers name them; the first that there is counts. The end of one document is where
/// the next begins, so it begins a text too.
pub(crate) const END_TOKENS: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];
/// Bytes of the largest tokenizer.json that is read; Gemma's, of 262,145 tokens, has 33 MB.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Bytes of the largest config.json that is read.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The file of parameters `number`, from 0, of `of`.
pub(crate) fn shard_name(number: usize, of: usize) -> String {
    format!("model-{:05}-of-{of:05}.safetensors", number + 1)
}

/// Whether an export may have written a file of this name.
pub(crate) fn is_of_an_export(name: &str) -> bool {
    const NAMES: [&str; 8] =
        [CONFIG, WEIGHTS, INDEX, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE, GENERATION];
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let shard = numbers.and_then(|numbers| numbers.split_once("-of-"));
    NAMES.contains(&name)
        || shard.is_some_and(|(one, other)| one.parse::<u32>().is_ok() && other.parse::<u32>().is_ok())
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, HfError> {
    let file = match crate::open_regular(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(HfError::Missing { path: path.to_owned() }),
        other => other.map_err(at(path))?,
    };
    let got = file.metadata().map_err(at(path))?.len();
    if got > max {
        return Err(HfError::TooLarge { path: path.to_owned(), got, max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(got).unwrap_or(0));
    // The file may grow while it is read.
    file.take(max).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_knows_its_own_files() {
        assert_eq!(shard_name(2, 12), "model-00003-of-00012.safetensors");
        assert!(is_of_an_export(&shard_name(0, 1)) && is_of_an_export("config.json"));
        for other in ["notes.txt", "model-mine.safetensors", "model-1-of-x.safetensors", "pytorch_model.bin"] {
            assert!(!is_of_an_export(other), "{other}");
        }
    }
}
