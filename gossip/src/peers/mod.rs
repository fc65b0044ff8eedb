//! Whom to know, admit, dial and refuse. No socket, no clock: callers bring events and the time.

pub(crate) mod admission;
pub(crate) mod bans;
pub(crate) mod book;
pub(crate) mod bucket;
pub(crate) mod cache;
pub(crate) mod dialer;
pub(crate) mod external;
mod key;
pub(crate) mod leads;
pub(crate) mod place;
pub(crate) mod providers;

#[cfg(test)]
pub(crate) use key::test_peer;
pub use key::{NotAPeer, PeerKey};
