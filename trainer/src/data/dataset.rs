//! A prepared data set, opened and checked: the sequences that a node trains and is judged on.

use super::shards::{MANIFEST_BYTES_MAX, MANIFEST_FILE, TEMPLATE_FILE, TOKENIZER_BYTES_MAX, TOKENIZER_FILE};
use super::tokens::{Tokens, Width};
use super::{DataError, Manifest, ShardEntry};
use crate::{Batch, BatchError, open_regular};
use covey_proto::Digest;
use covey_proto::run::Model;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A chat template is never larger.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;

/// A data set whose every byte has been checked against its manifest. Tokens are held once: share it in an `Arc`.
#[derive(Debug)]
pub struct Dataset {
    folder: PathBuf,
    digest: Digest,
    manifest: Manifest,
    train: Tokens,
    heldout: Tokens,
}

impl Dataset {
    /// Opens the data set in `folder`; with `expected`, only that one.
    ///
    /// # Errors
    /// [`DataError::Unprepared`] if there is none, [`DataError::WrongDataset`] if it is another one,
    /// [`DataError::Damaged`] naming the file that does not hash, is cut short, or holds a token past the vocabulary.
    pub fn open(folder: &Path, expected: Option<Digest>) -> Result<Dataset, DataError> {
        let path = folder.join(MANIFEST_FILE);
        if !path.is_file() {
            return Err(DataError::Unprepared(folder.to_path_buf()));
        }
        let bytes = read_bounded(&path, MANIFEST_BYTES_MAX)?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(DataError::WrongDataset { path: folder.to_path_buf(), expected, got: digest });
        }
        let manifest = Manifest::from_bytes(&bytes).map_err(|fault| DataError::damaged(&path, fault.to_string()))?;
        let tokenizer = folder.join(TOKENIZER_FILE);
        if Digest::of(&read_bounded(&tokenizer, TOKENIZER_BYTES_MAX)?) != manifest.tokenizer {
            return Err(DataError::damaged(&tokenizer, format!("its hash is not {}", manifest.tokenizer)));
        }
        if let Some(expected) = manifest.chat_template {
            let template = folder.join(TEMPLATE_FILE);
            if Digest::of(&read_bounded(&template, TEMPLATE_BYTES_MAX)?) != expected {
                return Err(DataError::damaged(&template, format!("its hash is not {expected}")));
            }
        }
        let train = read_shards(folder, &manifest, &manifest.train)?;
        let heldout = read_shards(folder, &manifest, &manifest.heldout)?;
        Ok(Dataset { folder: folder.to_path_buf(), digest, manifest, train, heldout })
    }

    /// The data set's name: BLAKE3 of its manifest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tokens: all are below it. At most 2²⁰.
    pub fn vocabulary(&self) -> u32 {
        self.manifest.vocabulary
    }

    /// The token after each document.
    pub fn end_of_text(&self) -> u32 {
        self.manifest.end_of_text
    }

    /// The folder's tokenizer.json.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.folder.join(TOKENIZER_FILE)
    }

    /// The folder's chat_template.jinja, if conversations are among the documents.
    pub fn chat_template_path(&self) -> Option<PathBuf> {
        self.manifest.chat_template.map(|_| self.folder.join(TEMPLATE_FILE))
    }

    /// Training sequences of `sequence` + 1 tokens: one starts every `sequence` tokens, so that every token but the
    /// first is predicted once.
    pub fn samples(&self, sequence: u32) -> u64 {
        samples(&self.train, sequence)
    }

    /// Held-out sequences, counted as [`samples`](Self::samples) counts.
    pub fn heldout_samples(&self, sequence: u32) -> u64 {
        samples(&self.heldout, sequence)
    }

    /// These training sequences as one batch for `model`.
    ///
    /// # Errors
    /// No samples at all, or tokens that the model's vocabulary does not have.
    ///
    /// # Panics
    /// If a sample is not below [`samples`](Self::samples).
    pub fn batch(&self, model: &Model, samples: impl IntoIterator<Item = u64>) -> Result<Batch, BatchError> {
        batch(&self.train, model, samples)
    }

    /// These held-out sequences as one batch for `model`.
    ///
    /// # Errors
    /// No samples at all, or tokens that the model's vocabulary does not have.
    ///
    /// # Panics
    /// If a sample is not below [`heldout_samples`](Self::heldout_samples).
    pub fn heldout_batch(&self, model: &Model, samples: impl IntoIterator<Item = u64>) -> Result<Batch, BatchError> {
        batch(&self.heldout, model, samples)
    }

    /// Text behind the held-out tokens that are learnt, in bytes.
    pub fn heldout_bytes(&self) -> u64 {
        self.manifest.heldout_bytes
    }

    /// Held-out tokens, ends of text included.
    pub fn heldout_tokens(&self) -> u64 {
        self.heldout.len() as u64
    }

    /// Text behind the training tokens that are learnt, in bytes.
    pub fn train_text_bytes(&self) -> u64 {
        self.manifest.train_bytes
    }

    /// Training tokens, ends of text included.
    pub fn train_tokens(&self) -> u64 {
        self.train.len() as u64
    }

    /// Training tokens that are learnt: all but those of a conversation that others than the assistant say.
    pub fn train_tokens_learnt(&self) -> u64 {
        self.train.learnt()
    }

    /// A held-out loss in nats a token as bits a byte of text, which does not depend on the tokenizer.
    pub fn bits_per_byte(&self, nats_per_token: f64) -> f64 {
        nats_per_token / std::f64::consts::LN_2 * self.heldout.learnt() as f64
            / self.manifest.heldout_bytes.max(1) as f64
    }

    /// All training tokens in order.
    pub(super) fn train(&self) -> &Tokens {
        &self.train
    }

    /// All held-out tokens in order.
    pub(super) fn heldout(&self) -> &Tokens {
        &self.heldout
    }
}

fn samples(tokens: &Tokens, sequence: u32) -> u64 {
    (tokens.len() as u64).saturating_sub(1) / u64::from(sequence.max(1))
}

fn extend_by_sample(out: &mut Vec<u32>, tokens: &Tokens, sequence: u32, index: u64) {
    let count = samples(tokens, sequence);
    assert!(index < count, "sequence {index} of {count}");
    let start = index as usize * sequence as usize;
    out.extend(tokens.run(start, sequence as usize + 1));
}

fn batch(tokens: &Tokens, model: &Model, samples: impl IntoIterator<Item = u64>) -> Result<Batch, BatchError> {
    let mut rows = Vec::new();
    for index in samples {
        extend_by_sample(&mut rows, tokens, model.sequence, index);
    }
    Batch::new(model, rows)
}

/// Reads a file that must be there and be no larger than `max`.
fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(|e| DataError::damaged(path, e.to_string()))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(DataError::read(path))?;
    if bytes.len() as u64 > max {
        return Err(DataError::damaged(path, format!("over {max} bytes")));
    }
    Ok(bytes)
}

/// Refuses a shard's file that is no regular one of so many bytes.
fn check_shard(path: &Path, bytes_wanted: u64) -> Result<(), DataError> {
    let metadata = fs::metadata(path).map_err(|e| DataError::damaged(path, e.to_string()))?;
    let found = metadata.len();
    if !metadata.is_file() {
        return Err(DataError::damaged(path, "it is no regular file"));
    }
    if found != bytes_wanted {
        let what = if found < bytes_wanted { "truncated" } else { "overlong" };
        return Err(DataError::damaged(path, format!("{what} shard: {found} of {bytes_wanted} bytes")));
    }
    Ok(())
}

/// Bytes of memory that can be had without swapping, where the system says it.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn read_shards(folder: &Path, manifest: &Manifest, entries: &[ShardEntry]) -> Result<Tokens, DataError> {
    let width = manifest.width().unwrap_or(Width::Narrow);
    let mut tokens = Tokens::new(width);
    // All of them are there before memory is taken for any.
    for entry in entries {
        check_shard(&folder.join(entry.file()), u64::from(entry.tokens) * width.bytes() as u64)?;
    }
    let all: u64 = entries.iter().map(|entry| u64::from(entry.tokens)).sum();
    let bytes = all.saturating_mul(width.bytes() as u64);
    if memory().is_some_and(|there| there < bytes) || !tokens.reserve(usize::try_from(all).unwrap_or(usize::MAX)) {
        return Err(DataError::Memory { path: folder.to_path_buf(), bytes });
    }
    for entry in entries {
        let path = folder.join(entry.file());
        let bytes_wanted = u64::from(entry.tokens) * width.bytes() as u64;
        let bytes = read_bounded(&path, bytes_wanted)?;
        if Digest::of(&bytes) != entry.digest {
            return Err(DataError::damaged(&path, "its bytes do not hash to its name"));
        }
        let from = tokens.len();
        tokens.extend_from_bytes(&bytes);
        if let Some(token) = tokens.beyond(from, manifest.vocabulary) {
            let fault = format!("token {token}, but the vocabulary is {}", manifest.vocabulary);
            return Err(DataError::damaged(&path, fault));
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_model;

    #[test]
    fn tokens_that_no_memory_holds_are_refused_and_do_not_end_the_process() {
        for width in [Width::Narrow, Width::Wide] {
            assert!(!Tokens::new(width).reserve(usize::MAX / 8));
            assert!(Tokens::new(width).reserve(1000));
        }
        if cfg!(target_os = "linux") {
            assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        }
    }

    #[test]
    fn a_batch_is_its_sequences_in_the_order_asked_for() {
        let model = Model { sequence: 3, ..small_model() };
        let tokens = Tokens::Narrow((0..10).collect());
        let rows = batch(&tokens, &model, [2, 0]).unwrap();
        assert_eq!(rows.tokens(), [6, 7, 8, 9, 0, 1, 2, 3]);
        assert_eq!(batch(&tokens, &model, []), Err(BatchError::Length { got: 0, row: 4 }));
        let beyond = BatchError::Token { token: 9, at: 3, vocabulary: 9 };
        assert_eq!(batch(&tokens, &Model { vocabulary: 9, ..model }, [2]), Err(beyond));
    }
}
