//! What an evaluation has found so far, a line an item, so that one that is stopped goes on where it was. Nothing is believed
//! that another model or other questions have left; a line that a crash cut off is asked again.

use crate::cli::{Failure, Plain};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of the largest file of findings that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// One item's findings.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    task: usize,
    item: usize,
    log_likelihoods: Vec<f64>,
}

/// Log-likelihoods by task and item.
#[derive(Debug)]
pub(super) struct Progress {
    file: Option<(PathBuf, File)>,
    found: BTreeMap<(usize, usize), Vec<f64>>,
}

impl Progress {
    /// What was found for this `key`, in the file beside `out`; a file of another key is begun anew. Without `out` nothing is
    /// kept.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn open(out: Option<&Path>, key: &Value) -> Result<Progress, Failure> {
        let Some(out) = out else { return Ok(Progress { file: None, found: BTreeMap::new() }) };
        let path = out.with_added_extension("progress.jsonl");
        let fault = |error: std::io::Error| Plain(format!("{}: {error}", path.display()));
        let (found, whole) = match File::open(&path) {
            Ok(file) => read(file, key).map_err(fault)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (BTreeMap::new(), 0),
            Err(error) => return Err(fault(error).into()),
        };
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(fault)?;
        file.set_len(whole).map_err(fault)?;
        if whole == 0 {
            writeln!(file, "{key}").map_err(fault)?;
        } else {
            eprintln!("{}: {} items are done already", path.display(), found.len());
        }
        Ok(Progress { file: Some((path.clone(), file)), found })
    }

    /// Whether an item is done.
    pub(super) fn has(&self, task: usize, item: usize) -> bool {
        self.found.contains_key(&(task, item))
    }

    /// What was found of a task, by item.
    pub(super) fn of(&self, task: usize) -> Vec<&[f64]> {
        self.found.range((task, 0)..=(task, usize::MAX)).map(|(_, found)| found.as_slice()).collect()
    }

    /// Takes in what was found.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn note(&mut self, task: usize, item: usize, log_likelihoods: Vec<f64>) -> Result<(), Failure> {
        if let Some((path, file)) = &mut self.file {
            let line = Line { task, item, log_likelihoods: log_likelihoods.clone() };
            let text = serde_json::to_string(&line).map_err(|error| Plain(error.to_string()))?;
            writeln!(file, "{text}").map_err(|error| Plain(format!("{}: {error}", path.display())))?;
        }
        self.found.insert((task, item), log_likelihoods);
        Ok(())
    }

    /// Sees to it that what was noted is on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        if let Some((path, file)) = &self.file {
            file.sync_data().map_err(|error| Plain(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// All is written elsewhere.
    pub(super) fn remove(self) {
        if let Some((path, _)) = self.file {
            // Left behind, it is read again: no harm.
            let _ = fs::remove_file(path);
        }
    }
}

/// The findings under that key, and the bytes of whole lines; none of another key's.
fn read(file: File, key: &Value) -> std::io::Result<(BTreeMap<(usize, usize), Vec<f64>>, u64)> {
    let mut lines = BufReader::new(file.take(FILE_BYTES_MAX));
    let (mut found, mut whole, mut line) = (BTreeMap::new(), 0, String::new());
    while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
        let is_head = whole == 0;
        if is_head && serde_json::from_str::<Value>(&line).ok().as_ref() != Some(key) {
            return Ok((found, 0));
        }
        if !is_head {
            let Ok(Line { task, item, log_likelihoods }) = serde_json::from_str(&line) else { break };
            found.insert((task, item), log_likelihoods);
        }
        whole += line.len() as u64;
        line.clear();
    }
    Ok((found, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_found_is_found_again_and_a_cut_line_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.json");
        let key = json!({ "model": "a" });
        let mut progress = Progress::open(Some(&out), &key).unwrap();
        progress.note(0, 1, vec![-1.5, -0.1]).unwrap();
        progress.note(1, 0, vec![-1e-300]).unwrap();
        progress.sync().unwrap();
        drop(progress);
        let path = folder.path().join("out.json.progress.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"task\":1,\"item\":1,\"log_li")).unwrap();
        let mut progress = Progress::open(Some(&out), &key).unwrap();
        assert_eq!(progress.of(0), [&[-1.5, -0.1][..]]);
        assert!(progress.has(1, 0) && !progress.has(1, 1) && !progress.has(0, 0));
        progress.note(1, 1, vec![-2.0]).unwrap();
        drop(progress);
        assert_eq!(Progress::open(Some(&out), &key).unwrap().of(1), [&[-1e-300][..], &[-2.0][..]]);
        let other = Progress::open(Some(&out), &json!({ "model": "b" })).unwrap();
        assert!(other.of(0).is_empty() && other.of(1).is_empty(), "another model's are nobody's");
        other.remove();
        assert!(!path.exists());
    }
}
