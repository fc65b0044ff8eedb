//! What travels by gossip and by request: announcements, peer records, requests and responses.

use crate::blob::{self, BlobRef, Manifest, PEER};
use crate::canonical::{self, canonical, digest};
use crate::entries::{Entries, fields};
use crate::error::DecodeError;
use crate::id::UIDS;
use crate::record::UidSet;
use crate::{BlockNumber, Digest, Hotkey, HotkeyPair, Round, SIGNATURE_BYTES, Uid, verify, wire};
use prost::Message;

/// Bytes of the largest announcement that gossip carries.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the largest shard that a run may send inside an announcement: gossip copies every message to several peers.
pub const INLINE_MAX: u32 = 64 * 1024;
/// Bytes of the largest blob that one response carries.
pub const BLOB_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the largest request.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Bytes of the largest response: a blob, or the announcements of a round.
pub const RESPONSE_BYTES_MAX: usize = BLOB_BYTES_MAX + 1024;
/// Announcements of one response: a uid has one a round.
pub const ROUND_ANNOUNCEMENTS_MAX: usize = UIDS;
/// Bytes of a signed peer record.
pub const PEER_RECORD_BYTES_MAX: usize = 2048;
/// Addresses of a peer record.
pub const PEER_ADDRESSES_MAX: usize = 8;
/// Peer records of one response: enough to enter a run through any of them, and 16 signatures take a millisecond.
pub const PEER_RECORDS_MAX: usize = 16;

/// A miner's reveal: the manifest whose digest it committed, with the shards small enough to come along.
///
/// It needs no signature. One byte string is right for each (uid, round), so anyone may repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What was committed.
    pub manifest: Manifest,
    /// The bytes of every shard not above the run's inline limit, in the manifest's order.
    pub inline: Vec<Vec<u8>>,
}

/// Why an announcement is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnnouncementError {
    /// Its bytes, or its manifest's, are not canonical.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The envelope's uid is not the manifest's.
    #[error("announced for uid {envelope}, but the manifest is uid {manifest}'s")]
    Author {
        /// In the envelope.
        envelope: u32,
        /// In the manifest.
        manifest: Uid,
    },
    /// The shards that come along are not those that should.
    #[error("carries {got} shards; {needed} of the manifest's are at most {limit} bytes")]
    ShardCount {
        /// Shards that came.
        got: usize,
        /// Shards that should.
        needed: usize,
        /// The run's inline limit.
        limit: u32,
    },
    /// A shard is not what the manifest names.
    #[error("shard {index} is not the blob that the manifest names")]
    Shard {
        /// Its place in the manifest.
        index: usize,
    },
}

/// What may come along in an announcement of these bytes: each shard is in the manifest too.
fn inline_shards(bytes: &[u8]) -> Entries {
    Entries { name: "shards", tag: 3, max: bytes.len() / (2 + blob::REF_BYTES_MIN), bytes_min: 0 }
}

impl Announcement {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = wire::Announcement {
            uid: self.manifest.uid.number(),
            manifest: self.manifest.to_bytes(),
            shards: self.inline.clone(),
        };
        message.encode_to_vec()
    }

    /// Reads and checks all that can be checked without the chain: form, author, the hashes of what comes along.
    ///
    /// # Errors
    /// What is wrong with it; its sender is to blame for all of it.
    pub fn from_bytes(bytes: &[u8], inline_max: u32) -> Result<Announcement, AnnouncementError> {
        let wire: wire::Announcement = canonical(bytes, ANNOUNCEMENT_BYTES_MAX, Some(inline_shards(bytes)))?;
        let manifest = Manifest::from_bytes(&wire.manifest)?;
        if manifest.uid.number() != wire.uid {
            return Err(AnnouncementError::Author { envelope: wire.uid, manifest: manifest.uid });
        }
        let announcement = Announcement { manifest, inline: wire.shards };
        let limit = u64::from(inline_max.min(INLINE_MAX));
        let needed = announcement.manifest.shards.iter().filter(|shard| shard.size <= limit).count();
        if needed != announcement.inline.len() {
            return Err(AnnouncementError::ShardCount { got: announcement.inline.len(), needed, limit: inline_max });
        }
        let small = announcement.manifest.shards.iter().enumerate().filter(|(_, shard)| shard.size <= limit);
        for ((index, named), bytes) in small.zip(&announcement.inline) {
            if BlobRef::of(bytes) != *named {
                return Err(AnnouncementError::Shard { index });
            }
        }
        Ok(announcement)
    }
}

/// Who speaks for a uid, and where: signed by the uid's hotkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The chain.
    pub genesis: Digest,
    /// The subnet.
    pub netuid: u16,
    /// The uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// When it registered.
    pub registered_at: BlockNumber,
    /// The libp2p peer id that speaks for it.
    pub peer: Vec<u8>,
    /// Where it listens, as multiaddr texts; at most [`PEER_ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// The highest wins.
    pub sequence: u64,
    /// The block after which it counts no more.
    pub expiry: BlockNumber,
}

/// A peer record whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPeerRecord {
    record: PeerRecord,
    signature: [u8; SIGNATURE_BYTES],
}

/// Why a peer record is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerRecordError {
    /// Its bytes are not canonical.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The hotkey did not sign it.
    #[error("the signature is not hotkey {0}'s")]
    Signature(Hotkey),
}

impl PeerRecord {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = wire::PeerRecord {
            genesis: self.genesis.as_bytes().to_vec(),
            netuid: self.netuid.into(),
            uid: self.uid.number(),
            hotkey: self.hotkey.as_bytes().to_vec(),
            registered_at: self.registered_at.0,
            peer: self.peer.clone(),
            addresses: self.addresses.clone(),
            sequence: self.sequence,
            expiry: self.expiry.0,
        };
        canonical::encode(PEER, &message)
    }

    fn from_bytes(bytes: &[u8]) -> Result<PeerRecord, DecodeError> {
        let addresses = Entries { name: "addresses", tag: 7, max: PEER_ADDRESSES_MAX, bytes_min: 0 };
        let wire: wire::PeerRecord = canonical::decode(PEER, bytes, PEER_RECORD_BYTES_MAX, Some(addresses))?;
        if wire.peer.len() > 64 {
            return Err(DecodeError::Field("peer"));
        }
        Ok(PeerRecord {
            genesis: digest(&wire.genesis, "genesis")?,
            netuid: u16::try_from(wire.netuid).map_err(|_| DecodeError::Field("netuid"))?,
            uid: canonical::uid(wire.uid)?,
            hotkey: canonical::hotkey(&wire.hotkey)?,
            registered_at: BlockNumber(wire.registered_at),
            peer: wire.peer,
            addresses: wire.addresses,
            sequence: wire.sequence,
            expiry: BlockNumber(wire.expiry),
        })
    }

    /// What a hotkey signs: never the form of an extrinsic.
    fn signed_text(bytes: &[u8]) -> Vec<u8> {
        format!("<Bytes>covey/1/peer:{}</Bytes>", Digest::of(bytes)).into_bytes()
    }

    /// Signs it.
    pub fn sign(self, pair: &HotkeyPair) -> SignedPeerRecord {
        let signature = pair.sign(&PeerRecord::signed_text(&self.to_bytes()));
        SignedPeerRecord { record: self, signature }
    }
}

impl SignedPeerRecord {
    /// What it says.
    pub fn record(&self) -> &PeerRecord {
        &self.record
    }

    /// As a message.
    pub fn to_wire(&self) -> wire::SignedPeerRecord {
        wire::SignedPeerRecord { record: self.record.to_bytes(), signature: self.signature.to_vec() }
    }

    /// Checks a message: its form and its signature. Whether the hotkey holds that uid is for whoever knows the chain.
    ///
    /// # Errors
    /// Bytes that are not canonical, or a signature that does not hold.
    pub fn from_wire(wire: &wire::SignedPeerRecord) -> Result<SignedPeerRecord, PeerRecordError> {
        let record = PeerRecord::from_bytes(&wire.record)?;
        let signature: [u8; SIGNATURE_BYTES] =
            wire.signature.as_slice().try_into().map_err(|_| DecodeError::Field("signature"))?;
        if !verify(&record.hotkey, &PeerRecord::signed_text(&wire.record), &signature) {
            return Err(PeerRecordError::Signature(record.hotkey));
        }
        Ok(SignedPeerRecord { record, signature })
    }
}

/// What one peer asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The blob of this name.
    Blob(Digest),
    /// The announcements of a round, but for the uids in the set.
    Announcements(Round, UidSet),
    /// Here is my peer record; what is yours?
    Record(SignedPeerRecord),
    /// Which members' peer records do you know, but for the uids in the set?
    Records(UidSet),
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// I have none.
    Nothing,
    /// A blob's bytes; whoever asked checks them against the name.
    Blob(Vec<u8>),
    /// Announcements' bytes, unchecked.
    Announcements(Vec<Vec<u8>>),
    /// My peer record.
    Record(SignedPeerRecord),
    /// Some members' peer records, at most [`PEER_RECORDS_MAX`]; each signature holds, membership is for who knows the
    /// chain.
    Records(Vec<SignedPeerRecord>),
}

/// A bitmap of uids.
fn uids(bytes: &[u8]) -> Result<UidSet, DecodeError> {
    bytes.try_into().map(UidSet::from_bytes).map_err(|_| DecodeError::Field("have"))
}

impl Request {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        use wire::request::Ask;
        let ask = match self {
            Request::Blob(root) => Ask::Blob(wire::BlobAsk { root: root.as_bytes().to_vec() }),
            Request::Announcements(round, have) => {
                Ask::Announcements(wire::RoundAsk { round: round.0, have: have.as_bytes().to_vec() })
            }
            Request::Record(record) => Ask::Record(record.to_wire()),
            Request::Records(have) => Ask::Records(wire::RecordsAsk { have: have.as_bytes().to_vec() }),
        };
        wire::Request { ask: Some(ask) }.encode_to_vec()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes that are too many or not canonical, or a record that does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Request, PeerRecordError> {
        use wire::request::Ask;
        let wire: wire::Request = canonical(bytes, REQUEST_BYTES_MAX, None)?;
        Ok(match canonical::need(wire.ask, "ask")? {
            Ask::Blob(ask) => Request::Blob(digest(&ask.root, "root")?),
            Ask::Announcements(ask) => Request::Announcements(Round(ask.round), uids(&ask.have)?),
            Ask::Record(record) => Request::Record(SignedPeerRecord::from_wire(&record)?),
            Ask::Records(ask) => Request::Records(uids(&ask.have)?),
        })
    }
}

/// Counts a response's lists. There is one answer: of two lists protobuf would make one.
fn check_lists(response: &[u8]) -> Result<(), DecodeError> {
    let mut answers = fields(response);
    let answer = answers.next().transpose()?;
    if answers.next().is_some() {
        return Err(DecodeError::NotCanonical);
    }
    match answer {
        Some((3, list)) => {
            Entries { name: "announcement", tag: 1, max: ROUND_ANNOUNCEMENTS_MAX, bytes_min: 0 }.check(list)
        }
        Some((5, list)) => {
            let bytes_min = 2 + SIGNATURE_BYTES;
            Entries { name: "record", tag: 1, max: PEER_RECORDS_MAX, bytes_min }.check(list)
        }
        _ => Ok(()),
    }
}

impl Response {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        use wire::response::Answer;
        let answer = match self {
            Response::Nothing => Answer::Nothing(wire::Nothing {}),
            Response::Blob(bytes) => Answer::Blob(bytes.clone()),
            Response::Announcements(list) => Answer::Announcements(wire::Announcements { announcement: list.clone() }),
            Response::Record(record) => Answer::Record(record.to_wire()),
            Response::Records(list) => {
                Answer::Records(wire::PeerRecords { record: list.iter().map(SignedPeerRecord::to_wire).collect() })
            }
        };
        wire::Response { answer: Some(answer) }.encode_to_vec()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes that are too many or not canonical, or a record that does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Response, PeerRecordError> {
        use wire::response::Answer;
        check_lists(bytes)?;
        let wire: wire::Response = canonical(bytes, RESPONSE_BYTES_MAX, None)?;
        Ok(match canonical::need(wire.answer, "answer")? {
            Answer::Nothing(_) => Response::Nothing,
            Answer::Blob(bytes) => Response::Blob(bytes),
            Answer::Announcements(list) => Response::Announcements(list.announcement),
            Answer::Record(record) => Response::Record(SignedPeerRecord::from_wire(&record)?),
            Answer::Records(list) => {
                let records = list.record.iter().map(SignedPeerRecord::from_wire);
                Response::Records(records.collect::<Result<_, _>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> SignedPeerRecord {
        let pair = HotkeyPair::from_seed([n; 32]);
        let record = PeerRecord {
            genesis: Digest::ZERO,
            netuid: 1,
            uid: Uid::from(n),
            hotkey: pair.hotkey(),
            registered_at: BlockNumber(1),
            peer: vec![n; 38],
            addresses: vec!["/ip4/1.2.3.4/tcp/1".into()],
            sequence: 1,
            expiry: BlockNumber(9),
        };
        record.sign(&pair)
    }

    #[test]
    fn peer_records_travel_at_most_16_at_a_time_in_one_form_and_each_with_its_signature() {
        let ask = Request::Records([Uid::from(3), Uid::from(250)].into_iter().collect());
        assert_eq!(Request::from_bytes(&ask.to_bytes()), Ok(ask.clone()));
        assert_eq!(ask.to_bytes().len(), 36);
        let list: Vec<_> = (0..PEER_RECORDS_MAX as u8 + 1).map(record).collect();
        for count in [0, 1, PEER_RECORDS_MAX] {
            let response = Response::Records(list[..count].to_vec());
            assert_eq!(Response::from_bytes(&response.to_bytes()), Ok(response));
        }
        let long = Response::Records(list.clone()).to_bytes();
        assert_eq!(Response::from_bytes(&long), Err(DecodeError::Count { name: "record", max: 16 }.into()));
        let good = Response::Records(list[..3].to_vec()).to_bytes();
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(Response::from_bytes(&other).is_err(), "byte {at}");
        }
    }
}
