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

#[cfg(test)]
mod tests {
    use super::super::needs::tests::finney;
    use super::*;
    use subxt::config::substrate::{Digest as Logs, DigestItem, SubstrateHeader};
    use subxt::utils::H256;

    fn hasher() -> DynamicHasher256 {
        DynamicHasher256::new(finney().metadata())
    }

    #[test]
    fn a_hash_follows_from_a_header() {
        // Polkadot's genesis.
        let header: Header = serde_json::from_value(serde_json::json!({
            "parentHash": hexed([0; 32]),
            "number": "0x0",
            "stateRoot": "0x29d0d972cd27cbc511e9589fcb7a4506d5eb6a9e8df205f00472e5ab354a4e17",
            "extrinsicsRoot": "0x03170a2e7597b7b7e3d84c05391d139a62b157e78786d8c082f29dcf4c111314",
            "digest": { "logs": [] },
        }))
        .unwrap();
        let hash = "91b171bb158e2d3848fa23a9f1c25182fb8e20313b2c1eb49219da7a70ce90c3".parse().unwrap();
        assert_eq!(header.head(&hasher()), Some(Head { number: BlockNumber(0), hash, parent: Digest::ZERO }));
    }

    #[test]
    fn a_header_with_logs_hashes_as_subxt_encodes_it() {
        let logs = vec![DigestItem::PreRuntime(*b"aura", vec![7; 8]), DigestItem::Seal(*b"aura", vec![9; 64])];
        let theirs = SubstrateHeader {
            parent_hash: H256([1; 32]),
            number: 7_123_456,
            state_root: H256([2; 32]),
            extrinsics_root: H256([3; 32]),
            digest: Logs { logs },
        };
        let text = serde_json::to_string(&theirs).unwrap();
        let ours: Header = serde_json::from_str(&text).unwrap();
        let head = ours.head(&hasher()).unwrap();
        assert_eq!(head.hash, Digest::new(hasher().hash(&theirs.encode()).0));
        assert_eq!((head.number, head.parent), (BlockNumber(7_123_456), Digest::new([1; 32])));
    }

    #[test]
    fn what_is_no_header_has_no_hash() {
        let with = |field: &str, value: &str| {
            let mut header = serde_json::json!({
                "parentHash": hexed([0; 32]), "number": "0x5", "stateRoot": hexed([1; 32]),
                "extrinsicsRoot": hexed([2; 32]), "digest": { "logs": ["0x00"] },
            });
            header[field] = value.into();
            let header: Header = serde_json::from_value(header).unwrap();
            header.head(&hasher())
        };
        assert!(with("number", "0x7fffffff").is_some());
        for (field, value) in [
            ("number", "5"),
            ("number", "0x100000000"),
            ("parentHash", "0x00"),
            ("stateRoot", "?"),
            ("extrinsicsRoot", "0xzz"),
        ] {
            assert_eq!(with(field, value), None, "{field} {value}");
        }
    }
}
