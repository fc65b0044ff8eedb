//! What Covey's peers say to one another, as checked types: hashes, ids, the run's configuration, canonical bytes.
//!
//! Hostile bytes become a checked type here, once, with limits checked before allocation; inside, types carry the
//! proof. No I/O, no async, no clock. Start with [`run::Run`]: all that makes a run. [`layout`] says how a model's
//! parameters are cut into chunks; [`chain`] what a node has read from the chain; [`record`] what a hotkey commits there.
//! [`blob`] holds the structured blobs (manifest, header, state), [`message`] what travels by gossip and request,
//! [`pieces`] how a blob is cut for the exchange.

pub mod blob;
mod canonical;
pub mod chain;
mod entries;
mod error;
mod hash;
mod id;
pub mod layout;
pub mod message;
mod model;
pub mod pieces;
pub mod random;
pub mod record;
pub mod run;
pub mod schedule;
mod sign;
mod ss58;

/// The protobuf messages of `covey.proto`, unchecked. Use the checked types of the other modules.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/covey.wire.rs"));
}

pub use hash::{Digest, derive};
pub use id::{BlockNumber, Coldkey, Hotkey, Round, RunId, Uid};
pub use sign::{ColdkeyPair, HotkeyPair, SIGNATURE_BYTES, verify};
pub use ss58::Ss58Error;
