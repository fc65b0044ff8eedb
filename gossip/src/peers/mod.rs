//! Whom to know, admit, dial and refuse. No socket, no clock: callers bring events and the time.

pub(crate) mod admission;
pub(crate) mod bans;
pub(crate) mod book;
pub(crate) mod bucket;
pub(crate) mod cache;
pub(crate) mod circulation;
pub(crate) mod dialer;
pub(crate) mod external;
mod key;
pub(crate) mod leads;
pub(crate) mod lines;
pub(crate) mod place;
pub(crate) mod providers;
pub(crate) mod way;

pub use key::{NotAPeer, PeerKey};
#[cfg(test)]
pub(crate) use key::{many_peers, test_peer};
/// An address, as libp2p writes them: all that those who decide know of libp2p.
pub(crate) use libp2p::Multiaddr;
