//! Block headers as nodes show them, and the hash that follows from one: nobody need be asked for it.

use covey_proto::{BlockNumber, Digest};
use serde::Deserialize;
use subxt::config::Hasher as _;
use subxt::config::substrate::DynamicHasher256;
use subxt::ext::codec::{Compact, Encode};

/// Bytes of a header's digest that are read: an ordinary one has some 200.
const DIGEST_BYTES_MAX: usize = 64 << 10;

/// A header as JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    parent_hash: String,
    number: String,
    state_root: String,
    extrinsics_root: String,
    digest: HeaderDigest,
}

#[derive(Clone, Debug, Deserialize)]
struct HeaderDigest {
    logs: Vec<String>,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The block's number.
    pub(super) number: BlockNumber,
    /// Its hash.
    pub(super) hash: Digest,
    /// Its parent's.
    pub(super) parent: Digest,
}

impl Header {
    /// The number alone.
    pub(super) fn number(&self) -> Option<BlockNumber> {
        u32::from_str_radix(self.number.strip_prefix("0x")?, 16).ok().map(BlockNumber)
    }

    /// Number and hashes; none for what is no header.
    pub(super) fn head(&self, hasher: &DynamicHasher256) -> Option<Head> {
        let (number, parent) = (self.number()?, digest(&self.parent_hash)?);
        let mut bytes = parent.as_bytes().to_vec();
        Compact(number.0).encode_to(&mut bytes);
        bytes.extend(digest(&self.state_root)?.as_bytes());
        bytes.extend(digest(&self.extrinsics_root)?.as_bytes());
        Compact(u32::try_from(self.digest.logs.len()).ok()?).encode_to(&mut bytes);
        for log in &self.digest.logs {
            bytes.extend(unhex(log)?);
            if bytes.len() > DIGEST_BYTES_MAX {
                return None;
            }
        }
        Some(Head { number, hash: Digest::new(hasher.hash(&bytes).0), parent })
    }
}

/// Bytes of "0x…".
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}

/// A hash of "0x…".
pub(super) fn digest(text: &str) -> Option<Digest> {
    Some(Digest::new(unhex(text)?.try_into().ok()?))
}

/// "0x…" of bytes.
pub(super) fn hexed(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}
