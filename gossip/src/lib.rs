//! The peer-to-peer half of Covey: says what exists, moves the bytes.
//!
//! Start with [`start`] and [`Handle`]: all that others see, with a stream of [`Event`]s. [`store`] keeps what was
//! verified. `small` and `announcements` decide what to ask of whom, `peers` whom to know: none of them touches a socket; what decides about
//! large blobs is a crate of its own, `covey_exchange`. `links` moves them, a stream a task; `network` is where libp2p lives,
//! and where it ends.
//!
//! What goes over the wire, byte by byte, with limits and penalties, is section 20 of `docs/protocol.md`.

mod announcements;
mod config;
mod discover;
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

pub use config::{Config, Congestion, Limits, TransportOptions};
/// The blob store.
pub use covey_blobs as store;
pub use covey_exchange::Class;
pub use covey_exchange::governor::{ByteRate, GovernorLimits};
pub use covey_exchange::scheduler::{Limits as SchedulerLimits, Progress};
pub use event::{Event, Events, Ticket, Verdict};
pub use handle::{Handle, PublishError, Published};
pub use identity::IdentityError;
pub use links::LinkLimits;
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
