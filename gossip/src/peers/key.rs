//! A peer's name, as the rest of Covey sees it.

use libp2p::PeerId;
use std::fmt;
use std::str::FromStr;

/// Who a peer is: the hash of the key that its connections prove. Displays in the usual base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(PeerId);

/// Bytes or a text that name no peer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} names no peer")]
pub struct NotAPeer(String);

impl PeerKey {
    /// The peer of these bytes, as a peer record has them.
    ///
    /// # Errors
    /// Bytes that are no multihash of a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<PeerKey, NotAPeer> {
        let shown = || NotAPeer(format!("{:02x?}", bytes.get(..8).unwrap_or(bytes)));
        PeerId::from_bytes(bytes).map(PeerKey).map_err(|_| shown())
    }

    /// The bytes for a peer record.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    pub(crate) fn of(id: PeerId) -> PeerKey {
        PeerKey(id)
    }

    pub(crate) fn id(&self) -> PeerId {
        self.0
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.get(text.len().saturating_sub(8)..).unwrap_or(&text))
    }
}

impl FromStr for PeerKey {
    type Err = NotAPeer;
    fn from_str(text: &str) -> Result<PeerKey, NotAPeer> {
        PeerId::from_str(text).map(PeerKey).map_err(|_| NotAPeer(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
pub(crate) fn test_peer(n: u8) -> PeerKey {
    let key = libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
    PeerKey(key.public().to_peer_id())
}

/// Peers without keys, in no order: for tests of what thousands do.
#[cfg(test)]
pub(crate) fn many_peers(count: u32) -> Vec<PeerKey> {
    let peer = |n: u32| {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend_from_slice(covey_proto::Digest::of(&n.to_le_bytes()).as_bytes());
        PeerKey::from_bytes(&bytes).unwrap()
    };
    (0..count).map(peer).collect()
}
