//! The peer-to-peer half of Covey: says what exists, moves the bytes.
//!
//! Start with [`start`] and [`Handle`]: all that others see, with a stream of [`Event`]s. [`store`] keeps what was
//! verified. `exchange` decides what to ask of whom, `peers` whom to know: neither touches a socket. `swarm` is where
//! libp2p lives, and where it ends.

mod config;
mod event;
mod exchange;
mod handle;
mod identity;
mod peers;
mod shared;
pub mod store;
mod swarm;
mod traffic;

pub use config::{Config, Limits};
pub use event::{Event, Events, Ticket, Verdict};
pub use exchange::fetch::{FetchError, FetchLimits, Hint};
pub use exchange::serve::ServeLimits;
pub use handle::{Handle, PeerInfo, PublishError, Published};
pub use identity::IdentityError;
pub use peers::admission::ConnectionLimits;
pub use peers::bucket::Rate;
pub use peers::{NotAPeer, PeerKey};
pub use swarm::{StartError, start};
pub use traffic::{Tally, Traffic};
