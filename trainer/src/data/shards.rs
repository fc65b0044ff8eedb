//! What a prepared data set is on disk: token shards named by their BLAKE3 hash, tokenizer.json, and the manifest.
//!
//! A shard is a run of tokens, little-endian: u16, or u32 where the vocabulary is larger or some tokens are only read
//! ([`crate::CONTEXT`]: the highest bit). `dataset.json` is canonical: compact JSON, fields in the order of
//! [`Manifest`]; its digest names the data set. How the folder comes to be, `writer.rs` decides; [`Dataset`](super::Dataset)
//! reads it.

use super::tokens::Width;
use covey_proto::Digest;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Version of the format with two bytes a token.
pub const FORMAT: u32 = 1;
/// Version of the format with four.
pub const FORMAT_WIDE: u32 = 2;
/// The manifest's file.
pub const MANIFEST_FILE: &str = "dataset.json";
/// The tokenizer's file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The chat template's file, where conversations are among the documents.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Bytes of a whole shard, which a peer fetches in one go.
pub const SHARD_BYTES: usize = 1 << 20;
/// A manifest is never larger: 2^15 shards (16 G tokens of two bytes) of about 100 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// A tokenizer.json is never larger; Gemma's, of 262,145 tokens, has 33 MB.
pub const TOKENIZER_BYTES_MAX: u64 = 128 << 20;

/// All that makes a data set; its BLAKE3 digest is the data set's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format: 1, or 2 where a token has four bytes.
    pub format: u32,
    /// What people call it.
    pub name: String,
    /// BLAKE3 of tokenizer.json.
    pub tokenizer: Digest,
    /// Tokens: every token is below it.
    pub vocabulary: u32,
    /// The token after each document.
    pub end_of_text: u32,
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
    /// BLAKE3 of chat_template.jinja, by which conversations became text, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<Digest>,
}

/// A token shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// BLAKE3 of its bytes; its file is this and `.tok`.
    pub digest: Digest,
    /// Tokens, at least 1 and at most [`SHARD_BYTES`] of them.
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
    #[error("format {0}; this version reads {FORMAT} and {FORMAT_WIDE}")]
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
        end_of_text: u32,
    },
    /// A shard of so many tokens.
    #[error("a shard of {got} tokens; from 1 to {max} are allowed")]
    Shard {
        /// Its tokens.
        got: u32,
        /// The most.
        max: usize,
    },
    /// A shard that is named twice: a small data set that would fill any memory.
    #[error("shard {0} is named twice; a text that repeats itself is to be given once")]
    Twice(Digest),
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
        let width = manifest.width().ok_or(ManifestFault::Format(format))?;
        if manifest.to_bytes() != bytes {
            return Err(ManifestFault::NotCanonical);
        }
        if vocabulary > width.vocabulary_max() || end_of_text >= vocabulary {
            return Err(ManifestFault::Vocabulary { vocabulary, end_of_text });
        }
        let max = SHARD_BYTES / width.bytes();
        match manifest.shards().find(|shard| !(1..=max).contains(&(shard.tokens as usize))) {
            Some(shard) => return Err(ManifestFault::Shard { got: shard.tokens, max }),
            None => manifest.named_once()?,
        }
        Ok(manifest)
    }

    fn shards(&self) -> impl Iterator<Item = &ShardEntry> {
        self.train.iter().chain(&self.heldout)
    }

    /// Refuses a shard that is named twice.
    pub(super) fn named_once(&self) -> Result<(), ManifestFault> {
        let mut names = HashSet::new();
        match self.shards().find(|shard| !names.insert(shard.digest)) {
            Some(shard) => Err(ManifestFault::Twice(shard.digest)),
            None => Ok(()),
        }
    }

    /// How wide its tokens are; none of a format that is not known.
    pub fn width(&self) -> Option<Width> {
        match self.format {
            FORMAT => Some(Width::Narrow),
            FORMAT_WIDE => Some(Width::Wide),
            _ => None,
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
        let shard = |name: &[u8]| ShardEntry { digest: Digest::of(name), tokens: 7 };
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
            train: vec![shard(b"shard")],
            heldout: vec![shard(b"other")],
            chat_template: None,
        }
    }

    /// The digest names data sets in runs: this value must never change for format 1.
    #[test]
    fn the_digest_is_that_of_the_written_bytes_and_stays() {
        assert_eq!(Manifest::from_bytes(&manifest().to_bytes()), Ok(manifest()));
        let pinned = Manifest { heldout: manifest().train, ..manifest() };
        assert_eq!(pinned.digest().short(), "3812960b");
    }

    #[test]
    fn manifests_that_cannot_be_are_refused_with_the_reason() {
        let fault = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::from_bytes(&manifest.to_bytes()).unwrap_err().to_string()
        };
        assert!(fault(|m| m.format = 3).contains("format 3; this version reads 1 and 2"));
        assert!(fault(|m| m.train[0].tokens = 0).contains("a shard of 0 tokens"));
        assert!(fault(|m| m.heldout[0].tokens = 600_000).contains("a shard of 600000 tokens"));
        assert!(fault(|m| m.train = vec![m.train[0]; 42_000]).contains("is named twice"));
        assert!(fault(|m| m.heldout = m.train.clone()).contains("is named twice"));
        assert!(fault(|m| m.end_of_text = 300).contains("end of text 300"));
        assert!(fault(|m| m.vocabulary = 70_000).contains("vocabulary 70000"));
        let wide = |m: &mut Manifest, vocabulary| (m.format, m.vocabulary) = (FORMAT_WIDE, vocabulary);
        let mut large = manifest();
        wide(&mut large, 1 << 20);
        assert_eq!(Manifest::from_bytes(&large.to_bytes()), Ok(large));
        assert!(fault(|m| (m.format, m.vocabulary) = (FORMAT_WIDE, 2_000_000)).contains("vocabulary 2000000"));
        assert!(fault(|m| (m.format, m.train[0].tokens) = (FORMAT_WIDE, 300_000)).contains("from 1 to 262144"));
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
