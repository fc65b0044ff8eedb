//! What Covey's peers say to one another, as checked types: hashes, ids, the run's configuration, canonical bytes.
//!
//! Hostile bytes become a checked type here, once, with limits checked before anything is allocated; whoever holds a
//! [`blob::Manifest`] or a [`record::Record`] need not check it again. No I/O, no async, no clock: everything is a function
//! of its arguments, and every crate may depend on this one.
//!
//! Start with [`run::Run`], all that makes a run: what two nodes must agree on before they understand one another, checked
//! as a whole, every fault at once. Its parts have modules of their own: a model's shapes, and [`schedule`], numbers that
//! change with the round. [`layout`] follows from the shapes: how parameters lie in one flat state, and how that is cut into
//! chunks of 4,096.
//!
//! Then follow a contribution on its way. A miner names its shards in a [`blob::Manifest`]; a [`record::Record`] of at most
//! 114 bytes puts that manifest's hash into the miner's slot on the chain, and a validator's vote likewise. [`chain`] is what a
//! node has read from the chain at one block: members and slots. [`message`] holds what travels by gossip and by request, the
//! announcement of a manifest above all, and [`pieces`] how a large blob is cut so that many peers can serve it at once. What
//! came of the round is a [`blob::Header`], and the state after it a [`blob::StateManifest`].
//!
//! What is decided where: that a value has *one* encoding, in `canonical` (a name is a hash of bytes, so a second encoding
//! would be a second name); that a list cannot take more memory than its bytes justify, in `entries`; what text a key signs, in
//! `sign`; how addresses are written, in `ss58`; numbers that follow from a seed, in [`random`]. The formats, byte by byte,
//! are those of `docs/protocol.md`, and a change here is a change there.

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
