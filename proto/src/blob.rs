//! Structured blobs: eight bytes of kind and version, then one protobuf message in its one canonical form.
//!
//! A manifest says what a contribution is; a header what became of a round; a state manifest what a state is made of.
//! Each is named by the BLAKE3 of all its bytes.

use crate::canonical::{decode, digest, encode, hotkey, uid};
use crate::entries::Entries;
use crate::id::UIDS;
use crate::{Digest, Hotkey, Round, RunId, Uid, wire};

pub use crate::error::DecodeError;

/// Kind and version of a run's canonical bytes.
pub const RUN: &[u8; 8] = b"CVYRUN01";
/// Kind and version of a contribution's manifest.
pub const MANIFEST: &[u8; 8] = b"CVYMAN01";
/// Kind and version of a round's header.
pub const HEADER: &[u8; 8] = b"CVYHDR01";
/// Kind and version of a state manifest.
pub const STATE: &[u8; 8] = b"CVYSTA01";
/// Kind and version of a peer record.
pub const PEER: &[u8; 8] = b"CVYPEE01";

/// Bytes of a run: five schedules of 64 points of 15 bytes, and some 60 numbers.
pub const RUN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a header: 256 selected of 41 bytes, six digests.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a manifest or a state manifest: 64 Ki blobs of 46 bytes.
pub const LIST_BYTES_MAX: usize = 3 * 1024 * 1024 + 4096;
/// Bytes of a digest as a field: its tag, its length, itself.
const DIGEST_FIELD_BYTES: usize = 2 + 32;
/// Bytes of the shortest [`BlobRef`] in a list, with its tag and length; an empty blob's size is left out.
pub(crate) const REF_BYTES_MIN: usize = 2 + DIGEST_FIELD_BYTES;

/// A blob by name and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobRef {
    /// BLAKE3 of its bytes.
    pub root: Digest,
    /// Its bytes.
    pub size: u64,
}

impl BlobRef {
    /// The name and size of `bytes`.
    pub fn of(bytes: &[u8]) -> BlobRef {
        BlobRef { root: Digest::of(bytes), size: bytes.len() as u64 }
    }
    fn to_wire(self) -> wire::BlobRef {
        wire::BlobRef { root: self.root.as_bytes().to_vec(), size: self.size }
    }
    fn from_wire(wire: wire::BlobRef) -> Result<BlobRef, DecodeError> {
        Ok(BlobRef { root: digest(&wire.root, "root")?, size: wire.size })
    }
}

/// The blobs that a list of [`LIST_BYTES_MAX`] may name.
fn refs(tag: u32) -> Entries {
    Entries { name: "shards", tag, max: LIST_BYTES_MAX / REF_BYTES_MIN, bytes_min: DIGEST_FIELD_BYTES }
}

fn refs_from_wire(refs: Vec<wire::BlobRef>) -> Result<Vec<BlobRef>, DecodeError> {
    refs.into_iter().map(BlobRef::from_wire).collect()
}

/// What a contribution is: who made it, on what, and the shards it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: Round,
    /// Its author.
    pub uid: Uid,
    /// Its author's key: a uid that changes hands is another peer.
    pub hotkey: Hotkey,
    /// The block at which the author registered.
    pub registered_at: u32,
    /// head(round − 1): what it was trained on.
    pub base: Digest,
    /// Sequences trained on.
    pub samples: u32,
    /// The shard codec's version.
    pub codec: u32,
    /// The shards, by parameter range.
    pub shards: Vec<BlobRef>,
}

impl Manifest {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = wire::Manifest {
            run: self.run.0.as_bytes().to_vec(),
            round: self.round.0,
            uid: self.uid.number(),
            hotkey: self.hotkey.as_bytes().to_vec(),
            registered_at: self.registered_at,
            base: self.base.as_bytes().to_vec(),
            samples: self.samples,
            codec: self.codec,
            shards: self.shards.iter().map(|shard| shard.to_wire()).collect(),
        };
        encode(MANIFEST, &message)
    }
    /// Its name: what its author commits.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes that are too many, of another kind, not canonical or out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, DecodeError> {
        let wire: wire::Manifest = decode(MANIFEST, bytes, LIST_BYTES_MAX, Some(refs(9)))?;
        Ok(Manifest {
            run: RunId(digest(&wire.run, "run")?),
            round: Round(wire.round),
            uid: uid(wire.uid)?,
            hotkey: hotkey(&wire.hotkey)?,
            registered_at: wire.registered_at,
            base: digest(&wire.base, "base")?,
            samples: wire.samples,
            codec: wire.codec,
            shards: refs_from_wire(wire.shards)?,
        })
    }
}

/// What became of a round. Headers form a chain: each names its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: Round,
    /// head(round − 1); the run id's digest in round 0.
    pub parent: Digest,
    /// Hash of the anchor block.
    pub hash_a: Digest,
    /// Hash of the commit deadline's block.
    pub hash_c: Digest,
    /// Hash of the vote deadline's block.
    pub hash_v: Digest,
    /// What was applied, by uid rising; nothing if the round was void.
    pub selected: Vec<(Uid, Digest)>,
    /// The state root after the round.
    pub state: Digest,
}

impl Header {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let selected = |(uid, manifest): &(Uid, Digest)| wire::Selected {
            uid: uid.number(),
            manifest: manifest.as_bytes().to_vec(),
        };
        let message = wire::Header {
            run: self.run.0.as_bytes().to_vec(),
            round: self.round.0,
            parent: self.parent.as_bytes().to_vec(),
            hash_a: self.hash_a.as_bytes().to_vec(),
            hash_c: self.hash_c.as_bytes().to_vec(),
            hash_v: self.hash_v.as_bytes().to_vec(),
            selected: self.selected.iter().map(selected).collect(),
            state: self.state.as_bytes().to_vec(),
        };
        encode(HEADER, &message)
    }
    /// The head: the header's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes that are too many, of another kind, not canonical, or a selection whose uids do not rise.
    pub fn from_bytes(bytes: &[u8]) -> Result<Header, DecodeError> {
        let selected = Entries { name: "selected", tag: 7, max: UIDS, bytes_min: DIGEST_FIELD_BYTES };
        let wire: wire::Header = decode(HEADER, bytes, HEADER_BYTES_MAX, Some(selected))?;
        let selected = wire
            .selected
            .iter()
            .map(|entry| Ok((uid(entry.uid)?, digest(&entry.manifest, "manifest")?)))
            .collect::<Result<Vec<_>, DecodeError>>()?;
        if selected.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(DecodeError::Field("selected"));
        }
        Ok(Header {
            run: RunId(digest(&wire.run, "run")?),
            round: Round(wire.round),
            parent: digest(&wire.parent, "parent")?,
            hash_a: digest(&wire.hash_a, "hash_a")?,
            hash_c: digest(&wire.hash_c, "hash_c")?,
            hash_v: digest(&wire.hash_v, "hash_v")?,
            selected,
            state: digest(&wire.state, "state")?,
        })
    }
}

/// What a state is made of: runs of elements, f32 little-endian, each a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateManifest {
    /// Elements in all.
    pub elements: u64,
    /// The runs, in order.
    pub shards: Vec<BlobRef>,
}

impl StateManifest {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let shards = self.shards.iter().map(|shard| shard.to_wire()).collect();
        encode(STATE, &wire::State { elements: self.elements, shards })
    }
    /// The state root.
    pub fn root(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
    /// Reads canonical bytes, and checks that the shards are runs of `shard_elements` (the last shorter) of a state of
    /// `elements`.
    ///
    /// # Errors
    /// Bytes that are too many, of another kind, not canonical, or of another state's shape.
    pub fn from_bytes(bytes: &[u8], elements: usize, shard_elements: usize) -> Result<StateManifest, DecodeError> {
        let wire: wire::State = decode(STATE, bytes, LIST_BYTES_MAX, Some(refs(2)))?;
        let shards = refs_from_wire(wire.shards)?;
        let whole = (shard_elements as u64).saturating_mul(4);
        let mut left = (elements as u64).saturating_mul(4);
        for shard in &shards {
            if shard.size == 0 || shard.size != whole.min(left) {
                return Err(DecodeError::Field("shards"));
            }
            left -= shard.size;
        }
        if left != 0 || wire.elements != elements as u64 {
            return Err(DecodeError::Field("elements"));
        }
        Ok(StateManifest { elements: wire.elements, shards })
    }
}

#[cfg(test)]
mod tests;
