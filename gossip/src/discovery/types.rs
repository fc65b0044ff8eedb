//! What goes into discovery, what comes out, and what it looks at on the way.

use crate::peers::place::Place;
use crate::peers::providers::Rank;
use crate::peers::way::Way;
use crate::peers::{Multiaddr, PeerKey};
use covey_proto::Digest;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LookUpId(pub(super) u64);

/// Somebody here that waits for the answer of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AskerId(pub(crate) u64);

/// A publication under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublicationId(pub(super) u64);

/// What identify says of a peer, and of which connection.
#[derive(Debug)]
pub(crate) struct IdentifyReport {
    pub(crate) peer: PeerKey,
    /// Whether this node dialled it.
    pub(crate) dialled: bool,
    pub(crate) way: Way,
    /// Where it says that it listens, if it signed that.
    pub(crate) listens: Option<Vec<Multiaddr>>,
    /// Where it thinks that this node is.
    pub(crate) observed: Multiaddr,
}

impl IdentifyReport {
    /// Whether the peer knows an address at which it has dialled this node itself.
    pub(super) fn dialled_here_directly(&self) -> bool {
        !self.dialled && self.way == Way::Direct
    }
}

/// What happened.
#[derive(Debug)]
pub(crate) enum DiscoveryEvent {
    /// A peer is connected that was not.
    Connected,
    /// The last connection to a peer is gone.
    Left { peer: PeerKey },
    /// Identify: where a peer is, and where it thinks that this node is.
    Identified(IdentifyReport),
    /// A peer answers look-ups; where it was dialled, if it was.
    Serves { peer: PeerKey, dialled: Option<Multiaddr> },
    /// A peer says that it provides a key.
    Offer { peer: PeerKey, key: Digest },
    /// A peer began to speak for a uid, or ceased to.
    Ranked { peer: PeerKey, member: bool },
    /// A peer is refused from now on.
    Banned { peer: PeerKey },
    /// A dial of a peer led nowhere.
    DialFailed { peer: PeerKey },
    /// Somebody here asks who holds a state.
    Wanted { state: Digest, asker: AskerId },
    /// Others say that these provide what a look-up is for, there.
    Found { look_up: LookUpId, providers: Vec<(PeerKey, Vec<Multiaddr>)> },
    /// A look-up has ended, or could not begin.
    LookUpEnded { look_up: LookUpId },
    /// A publication has ended: so many peers were told.
    Published { publication: PublicationId, with: u32 },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DiscoveryAction {
    /// Look up who provides a key.
    LookUp { look_up: LookUpId, key: Digest },
    /// Say that this node provides a key.
    Publish { publication: PublicationId, key: Digest },
    /// Say so no longer.
    Unpublish { key: Digest },
    /// Tell whoever asked.
    Answer { asker: AskerId, peers: Vec<PeerKey> },
    /// Ask a connected peer for the peer records that it knows.
    AskForRecords { peer: PeerKey },
    /// Put a peer into Kademlia's table with these addresses, instead of what it has there.
    Enter { peer: PeerKey, addresses: Vec<Multiaddr> },
    /// Take a peer out of that table.
    Remove { peer: PeerKey },
    /// Keep a provider's record for others.
    Keep(ProviderRecord),
    /// A provider's record is not kept.
    Refuse { peer: PeerKey },
    /// A provider ranks so from now on.
    Rank { peer: PeerKey, rank: Rank },
    /// Forget what a peer provides.
    Forget { peer: PeerKey },
    /// Tell others that this node can be reached there.
    ReachedAt { address: Multiaddr },
    /// There may be somebody to dial.
    DialSoon,
}

/// A record of who provides what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProviderRecord {
    pub(crate) key: Digest,
    pub(crate) peer: PeerKey,
    pub(crate) rank: Rank,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) place: Option<Place>,
}

/// An entry of Kademlia's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) peer: PeerKey,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// What discovery looks at and others own.
pub(crate) trait Surroundings {
    /// Peers with a connection.
    fn connected(&self) -> &BTreeSet<PeerKey>;
    /// Where a connected peer is seen; none if only a relay is.
    fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr>;
    /// Whether it has shown that it speaks for a uid.
    fn is_member(&self, peer: &PeerKey) -> bool;
    /// Whether a member's record names it.
    fn is_named(&self, peer: &PeerKey) -> bool;
    /// The addresses that a member signed with its hotkey.
    fn shown_addresses(&self, peer: &PeerKey) -> Vec<Multiaddr>;
    /// Whether it is refused.
    fn is_banned(&self, peer: &PeerKey) -> bool;
    /// Whether the chain was seen, so that records can be judged.
    fn sees_chain(&self) -> bool;
    /// Whether this node is a member of the run.
    fn takes_part(&self) -> bool;
    /// The states that this node says it holds.
    fn states(&self) -> Vec<Digest>;
    /// Whether nobody waits for this answer any more.
    fn is_gone(&self, asker: AskerId) -> bool;
    /// Whether Kademlia knows anybody to ask.
    fn can_ask(&mut self) -> bool;
    /// The bucket of Kademlia's table in which a peer belongs, with the peer itself if it is there.
    fn bucket_of(&mut self, peer: &PeerKey) -> Vec<Entry>;
}
