//! What a prepared data set is on disk: token shards named by their BLAKE3 hash, tokenizer.json, and the manifest.
//!
//! A shard is a run of u16 tokens, little-endian. `dataset.json` is canonical: compact JSON, fields in the order of
//! [`Manifest`]; its digest names the data set. A data set appears as a whole or not at all: it is written beside its
//! place, synced, and renamed.

use super::{DataError, Dataset};
use covey_proto::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the format.
pub const FORMAT: u32 = 1;
/// The manifest's file.
pub const MANIFEST_FILE: &str = "dataset.json";
/// The tokenizer's file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Tokens of a whole shard: 1 MiB, which a peer fetches in one go.
pub const SHARD_TOKENS: usize = 1 << 19;
/// A manifest is never larger: 2^15 shards (16 G tokens) of about 100 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// A tokenizer.json is never larger: 65,536 tokens of 64 bytes, twice, with room for escapes.
pub const TOKENIZER_BYTES_MAX: u64 = 32 << 20;
/// What a crashed process left beside the data set is removed after this time; another may be at work until then.
const STALE: Duration = Duration::from_secs(3600);

/// All that makes a data set; its BLAKE3 digest is the data set's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format: 1.
    pub format: u32,
    /// What people call it.
    pub name: String,
    /// BLAKE3 of tokenizer.json.
    pub tokenizer: Digest,
    /// Tokens: every token is below it.
    pub vocabulary: u32,
    /// The token after each document.
    pub end_of_text: u16,
    /// Documents trained on.
    pub train_documents: u64,
    /// Their text, in bytes.
    pub train_bytes: u64,
    /// Documents held out.
    pub heldout_documents: u64,
    /// Their text, in bytes.
    pub heldout_bytes: u64,
    /// Training shards, in order.
    pub train: Vec<ShardEntry>,
    /// Held-out shards, in order.
    pub heldout: Vec<ShardEntry>,
}

/// A token shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// BLAKE3 of its bytes; its file is this and `.tok`.
    pub digest: Digest,
    /// Tokens, from 1 to [`SHARD_TOKENS`].
    pub tokens: u32,
}

impl ShardEntry {
    /// The shard's file.
    pub fn file(&self) -> String {
        format!("{}.tok", self.digest)
    }
}

/// Why bytes are no manifest of a data set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestFault {
    /// They do not parse.
    #[error("{0}")]
    Json(String),
    /// They are of another version.
    #[error("format {0}; this version reads {FORMAT}")]
    Format(u32),
    /// They say the same in other words.
    #[error("not written as a manifest is (edited by hand?)")]
    NotCanonical,
    /// Tokens that shards cannot hold, or an end of text beyond them.
    #[error("vocabulary {vocabulary}, end of text {end_of_text}")]
    Vocabulary {
        /// Tokens of the vocabulary.
        vocabulary: u32,
        /// The token that ends a document.
        end_of_text: u16,
    },
    /// A shard of so many tokens.
    #[error("a shard of {0} tokens; from 1 to {SHARD_TOKENS} are allowed")]
    Shard(u32),
}

impl Manifest {
    /// The bytes that name the data set.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    /// Reads a manifest: only its canonical bytes will do.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestFault> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| ManifestFault::Json(e.to_string()))?;
        let Manifest { format, vocabulary, end_of_text, .. } = manifest;
        if format != FORMAT {
            return Err(ManifestFault::Format(format));
        }
        if manifest.to_bytes() != bytes {
            return Err(ManifestFault::NotCanonical);
        }
        if vocabulary > 1 << 16 || u32::from(end_of_text) >= vocabulary {
            return Err(ManifestFault::Vocabulary { vocabulary, end_of_text });
        }
        match manifest.train.iter().chain(&manifest.heldout).find(|s| !(1..=SHARD_TOKENS as u32).contains(&s.tokens)) {
            Some(shard) => Err(ManifestFault::Shard(shard.tokens)),
            None => Ok(manifest),
        }
    }

    /// The data set's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}

/// A data set being written beside its place.
pub(super) struct Writer {
    target: PathBuf,
    beside: PathBuf,
}

impl Writer {
    /// Makes the folder beside `target`; refuses a `target` that is somebody's.
    pub(super) fn new(target: &Path) -> Result<Writer, DataError> {
        if is_occupied(target)? {
            return Err(DataError::Occupied(target.to_path_buf()));
        }
        let name = target.file_name().ok_or_else(|| DataError::Occupied(target.to_path_buf()))?.to_string_lossy();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(DataError::write(parent))?;
        let prefix = format!(".{name}.preparing-");
        remove_stale(parent, &prefix);
        let beside = parent.join(format!("{prefix}{}", std::process::id()));
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(DataError::write(&beside))?;
        }
        fs::create_dir(&beside).map_err(DataError::write(&beside))?;
        Ok(Writer { target: target.to_path_buf(), beside })
    }

    /// Writes tokens as shards.
    pub(super) fn shards(&self, tokens: &[u16]) -> Result<Vec<ShardEntry>, DataError> {
        tokens
            .chunks(SHARD_TOKENS)
            .map(|chunk| {
                let bytes: Vec<u8> = chunk.iter().flat_map(|token| token.to_le_bytes()).collect();
                let entry = ShardEntry { digest: Digest::of(&bytes), tokens: chunk.len() as u32 };
                self.file(&entry.file(), &bytes)?;
                Ok(entry)
            })
            .collect()
    }

    /// Writes one file and syncs it.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        let path = self.beside.join(name);
        let mut file = File::create(&path).map_err(DataError::write(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(DataError::write(&path))
    }

    /// Puts the data set in its place; an older one there makes way, but the same one, whole, stays for its readers.
    pub(super) fn finish(self, manifest: &Manifest) -> Result<(), DataError> {
        self.file(MANIFEST_FILE, &manifest.to_bytes())?;
        sync_folder(&self.beside)?;
        if Dataset::open(&self.target, Some(manifest.digest())).is_ok() {
            return Ok(());
        }
        if self.target.exists() {
            remove_dataset(&self.target)?;
        }
        fs::rename(&self.beside, &self.target).map_err(DataError::write(&self.target))?;
        sync_folder(self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for Writer {
    /// Given up half-way: leave nothing. After `finish` there is nothing to find.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.beside);
    }
}

fn sync_folder(folder: &Path) -> Result<(), DataError> {
    // Windows has no such thing, and does not need it.
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(DataError::write(folder))?;
    }
    Ok(())
}

/// Whether `target` is there and holds anything else than a data set.
fn is_occupied(target: &Path) -> Result<bool, DataError> {
    match fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_some() && !target.join(MANIFEST_FILE).is_file()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DataError::Read { path: target.to_path_buf(), source }),
    }
}

/// Removes a data set's own files, the manifest last, and the folder if nothing else is in it.
fn remove_dataset(target: &Path) -> Result<(), DataError> {
    for entry in fs::read_dir(target).map_err(DataError::read(target))? {
        let path = entry.map_err(DataError::read(target))?.path();
        if path.extension().is_some_and(|extension| extension == "tok") || path.ends_with(TOKENIZER_FILE) {
            fs::remove_file(&path).map_err(DataError::write(&path))?;
        }
    }
    let manifest = target.join(MANIFEST_FILE);
    if manifest.exists() {
        fs::remove_file(&manifest).map_err(DataError::write(&manifest))?;
    }
    fs::remove_dir(target).map_err(DataError::write(target))
}

/// Removes folders that a crashed process left; failing is harmless.
fn remove_stale(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let shard = ShardEntry { digest: Digest::of(b"shard"), tokens: 7 };
        Manifest {
            format: FORMAT,
            name: "a".into(),
            tokenizer: Digest::ZERO,
            vocabulary: 300,
            end_of_text: 0,
            train_documents: 1,
            train_bytes: 10,
            heldout_documents: 1,
            heldout_bytes: 10,
            train: vec![shard],
            heldout: vec![shard],
        }
    }

    /// The digest names data sets in runs: this value must never change for format 1.
    #[test]
    fn the_digest_is_that_of_the_written_bytes_and_stays() {
        assert_eq!(Manifest::from_bytes(&manifest().to_bytes()), Ok(manifest()));
        assert_eq!(manifest().digest().short(), "3812960b");
    }

    #[test]
    fn manifests_that_cannot_be_are_refused_with_the_reason() {
        let fault = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::from_bytes(&manifest.to_bytes()).unwrap_err().to_string()
        };
        assert!(fault(|m| m.format = 2).contains("format 2; this version reads 1"));
        assert!(fault(|m| m.train[0].tokens = 0).contains("a shard of 0 tokens"));
        assert!(fault(|m| m.heldout[0].tokens = 600_000).contains("a shard of 600000 tokens"));
        assert!(fault(|m| m.end_of_text = 300).contains("end of text 300"));
        assert!(fault(|m| m.vocabulary = 70_000).contains("vocabulary 70000"));
        assert!(Manifest::from_bytes(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_canonical(at in 0_usize..500, byte: u8) {
            let mut bytes = manifest().to_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Manifest::from_bytes(&bytes) {
                proptest::prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }
}
