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
