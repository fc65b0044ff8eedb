//! What a prepared data set is on disk: token shards named by their BLAKE3 hash, tokenizer.json, and the manifest.
//!
//! A shard is a run of u16 tokens, little-endian. `dataset.json` is canonical: compact JSON, fields in the order of
//! [`Manifest`]; its digest names the data set. How the folder comes to be, `writer.rs` decides; [`Dataset`](super::Dataset)
//! reads it.

use covey_proto::Digest;
use serde::{Deserialize, Serialize};

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
