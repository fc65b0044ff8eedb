//! A tokenizer for the small model, for the tests that export it.

use std::path::{Path, PathBuf};

/// A word-level tokenizer of 23 tokens: w0 to w21 and the end of text.
pub(crate) fn word_tokenizer(folder: &Path) -> PathBuf {
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..22).map(|at| (format!("w{at}"), at.into())).collect();
    vocabulary.insert("<|endoftext|>".into(), 22.into());
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [], "decoder": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    });
    let path = folder.join("given-tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}
