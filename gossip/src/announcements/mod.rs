//! Announcements: which of them are looked at, which are kept for others, and how a round's are asked for. No I/O.
//!
//! What an announcement means is the node's to say; here it is bytes that claim an author and a round.

pub(crate) mod claims;
pub(crate) mod kept;
