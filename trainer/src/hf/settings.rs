//! Files of settings that a model folder may have, and may lack.

use super::fault::HfError;
use super::files::read;
use serde_json::Value;
use std::path::Path;

/// Bytes of the largest file of settings that is read; a tokenizer_config.json lists every added token.
const SETTINGS_BYTES_MAX: u64 = 16 << 20;

/// The JSON in a file; none if the file is not there.
pub(crate) fn read_optional_json(path: &Path) -> Result<Option<Value>, HfError> {
    match read(path, SETTINGS_BYTES_MAX) {
        Err(HfError::Missing { .. }) => Ok(None),
        other => match serde_json::from_slice(&other?) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(HfError::Json { path: path.to_owned(), fault: error.to_string() }),
        },
    }
}

/// The text in a file of at most `max` bytes; none if the file is not there.
pub(crate) fn read_optional_text(path: &Path, max: u64) -> Result<Option<String>, HfError> {
    match read(path, max) {
        Err(HfError::Missing { .. }) => Ok(None),
        other => match String::from_utf8(other?) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(HfError::Json { path: path.to_owned(), fault: error.to_string() }),
        },
    }
}

/// A special token of a tokenizer_config.json: a string, or an object whose `content` is one.
pub(crate) fn token_text<'a>(file: &'a Value, name: &str) -> Option<&'a str> {
    let token = file.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_not_there_is_none_and_one_that_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        assert!(read_optional_json(&path).unwrap().is_none() && read_optional_text(&path, 9).unwrap().is_none());
        fs::write(&path, "{\"a\": 1").unwrap();
        let fault = read_optional_json(&path).unwrap_err().to_string();
        assert!(fault.contains("settings.json") && fault.contains("EOF"), "{fault}");
        fs::write(&path, [0xff]).unwrap();
        assert!(read_optional_text(&path, 9).unwrap_err().to_string().contains("invalid utf-8"));
        fs::write(&path, "too long").unwrap();
        assert!(read_optional_text(&path, 7).unwrap_err().to_string().contains("the limit is 7"));
    }

    #[test]
    fn a_token_is_a_text_or_has_one() {
        let file = serde_json::json!({ "a": "<s>", "b": { "content": "</s>", "lstrip": false }, "c": 1, "d": null });
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(|name| token_text(&file, name)),
            [Some("<s>"), Some("</s>"), None, None, None]
        );
    }
}
