//! The peer-to-peer half of Covey: says what exists, moves the bytes.
//!
//! Start with [`start`] and [`Handle`]: all that others see, with a stream of [`Event`]s. A node publishes and judges
//! announcements, fetches blobs by their name, says which state it holds, and is told who is connected and who speaks for
//! which uid. [`store`] keeps what was verified.
//!
//! # Where what is decided
//!
//! What decides is plain state: events and the time in, actions out, no socket and no clock.
//!
//! | room | decides |
//! |---|---|
//! | `peers/` | whom to know, believe, admit, dial and refuse; by which way a peer is reached, and which of several connections stays |
//! | `small/` | of whom a small blob is asked, and who is answered |
//! | `announcements/` | which announcements are looked at, kept for others, asked for, tried again |
//! | `discovery/` | what is looked up and published, who is in Kademlia's table, whose lists of records are asked for |
//! | `downloads.rs` | who waits for which large blob |
//! | crate `covey_exchange` | which piece of a large blob is asked of whom, and who is sent pieces next |
//!
//! What acts is `links/`, a task for each stream of pieces, and `network/`, one task that owns every socket: that is where
//! libp2p lives, and where it ends. `network/mod.rs` lists which of its files owns which state.
//!
//! # Imports
//!
//! They point one way, down this list; rooms of one line do not know each other.
//!
//! ```text
//! network                                   the shell: sockets, the loop, the start of a node
//! links      handle                         streams of pieces; the face of a node
//! shared     command                        what handles and the network both touch; what one asks of the other
//! config     event   metrics                settings and bounds; what the node is told; what people are shown
//! downloads  traffic                        large blobs that are awaited; counters
//! discovery  small   announcements          what decides
//! peers      identity                       peers and their addresses; the node's key
//! ```
//!
//! What goes over the wire, byte by byte, with limits and penalties, is section 20 of `docs/protocol.md`.

mod announcements;
mod command;
mod config;
mod discovery;
mod downloads;
mod event;
mod handle;
mod identity;
mod links;
mod metrics;
mod network;
mod peers;
mod shared;
mod small;
mod traffic;

pub use command::{PublishError, Published};
pub use config::{Config, Congestion, Limits, LinkLimits, TransportOptions};
/// The blob store.
pub use covey_blobs as store;
pub use covey_exchange::Class;
pub use covey_exchange::governor::{ByteRate, GovernorLimits};
pub use covey_exchange::scheduler::{Limits as SchedulerLimits, Progress};
pub use event::{Event, Events, Ticket, Verdict};
pub use handle::Handle;
pub use identity::IdentityError;
pub use metrics::{Gauges, PeerInfo, ScoreGauges, TopicGauges};
pub use network::{StartError, check_address, start};
pub use peers::admission::ConnectionLimits;
pub use peers::bucket::Rate;
pub use peers::{NotAPeer, PeerKey};
pub use small::answers::ServeLimits;
#[doc(hidden)]
pub use small::codec::taken_and_written_again;
pub use small::terms::{FetchError, FetchLimits, Hint};
pub use traffic::{Tally, Traffic};
