//! The deciding half of the exchange of large blobs: no socket, no clock, no file.
//!
//! A blob above 1 MiB travels in pieces, from as many peers at once as hold it. Start with [`scheduler`], whose page lists
//! every rule with its reason: a table that can be audited. It is told what happens, and the time, and answers with what
//! to do; `covey_gossip` has the sockets.
//!
//! | decided | where |
//! |---|---|
//! | which piece is asked of whom, how much at once, when of another | [`scheduler`] |
//! | what a peer is asked next; the last pieces of two | `scheduler/asking.rs` |
//! | whom to ask what it holds; when a source makes room for another | `scheduler/sources.rs` |
//! | which piece is next: begun ones, then the rarest | `scheduler/table.rs` |
//! | how fast a peer's link is taken to be | `scheduler/link.rs` |
//! | what a peer's silence, slowness or refusals cost it | `scheduler/watch.rs`, `scheduler/answers.rs` |
//! | who is sent bytes next, how many peers are served, what is refused | [`governor`] |
//! | what goes over the wire, byte by byte | [`frames`] |
//! | which transfers are urgent | [`Class`] |
//!
//! The scheduler and the governor are generic over what names a peer, so that a network of sockets drives them, or a
//! simulation: `tests/swarm/` has whole swarms in virtual time. Equal seeds and histories give equal decisions.

mod class;
pub mod frames;
pub mod governor;
pub mod scheduler;

pub use class::Class;
