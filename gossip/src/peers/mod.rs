//! Whom to know, admit, dial and refuse. No socket, no clock: callers bring events and the time.

pub(crate) mod admission;
pub(crate) mod bans;
pub(crate) mod book;
pub(crate) mod bucket;
pub(crate) mod dialer;
mod key;

#[cfg(test)]
pub(crate) use key::test_peer;
pub use key::{NotAPeer, PeerKey};
