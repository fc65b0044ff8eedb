//! Announcements: which of them are looked at ([`claims`]), which are kept for others ([`kept`]), how a round's are asked
//! for ([`pull`]), which own ones are tried again ([`unpublished`]). No I/O.
//!
//! What an announcement means is the node's to say; here it is bytes that claim an author and a round.

pub(crate) mod claims;
pub(crate) mod kept;
pub(crate) mod pull;
pub(crate) mod unpublished;
