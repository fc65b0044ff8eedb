//! What is done: a line of JSON for each finished run, kept so that an interrupted laboratory goes on where it stopped.
//!
//! Lines are only ever appended, whole, and reach the disk before the next run starts. A last line without its line break
//! is what a kill left of one: it is dropped, and its run made again.

use super::{Experiment, LabError, Method, Point, VERSION};
use covey_proto::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Its name in a laboratory's folder.
pub const FILE: &str = "results.jsonl";

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`] of the program that made it.
    pub version: u32,
    /// [`Experiment::key`].
    pub key: Digest,
    /// What the grid called it.
    pub name: String,
    /// The method.
    pub method: Method,
    /// Of the data order.
    pub seed: u64,
    /// Miners.
    pub miners: u32,
    /// Rounds.
    pub rounds: u32,
    /// Elements of the model.
    pub parameters: u64,
    /// The run, as its run.toml.
    pub run: String,
    /// Evaluations, by rising round; empty if it failed.
    pub curve: Vec<Point>,
    /// Why there is no curve: it diverged, mostly. The same settings would fail again.
    pub failed: Option<String>,
    /// Wall time.
    pub seconds: f64,
}

impl Record {
    /// Of an experiment that is over.
    pub fn new(name: &str, experiment: &Experiment, outcome: Result<Vec<Point>, LabError>, seconds: f64) -> Record {
        let Experiment { method, run, miners, rounds, seed, .. } = experiment;
        let (curve, failed) = match outcome {
            Ok(curve) => (curve, None),
            Err(why) => (Vec::new(), Some(why.to_string())),
        };
        Record {
            version: VERSION,
            key: experiment.key(),
            name: name.to_owned(),
            method: *method,
            seed: *seed,
            miners: *miners,
            rounds: *rounds,
            parameters: run.layout().elements() as u64,
            run: run.to_toml(),
            curve,
            failed,
            seconds,
        }
    }
}

/// Why results cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The system refuses.
    #[error("{path}: {error}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Another process has them.
    #[error("{path} is in use by another covey lab; stop it, or give this one another --out")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no record.
    #[error("{path}, line {line}: {error}; remove the line, and its run is made again")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
}

/// The results of a folder, open for more. Locked while it lives.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    file: File,
    done: BTreeMap<Digest, Record>,
}

impl Results {
    /// Opens the results of a folder, which is made if it is not there.
    ///
    /// # Errors
    /// No such folder can be, another process has it, or a whole line is no record.
    pub fn open(folder: &Path) -> Result<Results, ResultsError> {
        let path = folder.join(FILE);
        let failed = |error| ResultsError::File { path: path.clone(), error };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ResultsError::Locked { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < bytes.len() {
            tracing::info!(bytes = bytes.len() - whole, "a torn last line is dropped");
            file.set_len(whole as u64).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(failed)?;
        // The folder's entry of a new file must survive what the file does.
        file.sync_all().and_then(|()| File::open(folder)?.sync_all()).map_err(failed)?;
        let mut done = BTreeMap::new();
        let lines = bytes[..whole].split(|byte| *byte == b'\n').enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            let record: Record = serde_json::from_slice(line).map_err(|error| ResultsError::Line {
                path: path.clone(),
                line: number + 1,
                error,
            })?;
            done.insert(record.key, record);
        }
        Ok(Results { path, file, done })
    }

    /// The record of an experiment, if it is done.
    pub fn get(&self, key: &Digest) -> Option<&Record> {
        self.done.get(key)
    }

    /// Adds a record. When this returns, it is on the disk.
    ///
    /// # Errors
    /// The system refuses: what was written of the line is taken back.
    pub fn append(&mut self, record: Record) -> Result<(), ResultsError> {
        let failed = |error| ResultsError::File { path: self.path.clone(), error };
        let mut line = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let start = self.file.stream_position().map_err(failed)?;
        if let Err(error) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Should this fail too, the next start drops the torn line.
            let _ = self.file.set_len(start).and_then(|()| self.file.seek(SeekFrom::Start(start)));
            return Err(failed(error));
        }
        // As it will be read: numbers are the same whether a run is from today or from before.
        let written = serde_json::from_slice(&line).unwrap_or(record);
        self.done.insert(written.key, written);
        Ok(())
    }
}
