//! Discovery: what is looked up and published when, who is put into Kademlia's table, which providers' records are kept,
//! and whose lists of peer records are asked for. A state machine: events and the time in, [`DiscoveryAction`]s out.
//!
//! Start with [`machine`]. It has no socket and no clock, and knows Kademlia only as [`Surroundings`] that it may look at;
//! `network/lookups.rs` carries out what it decides. What is found are hints for the dialer. That a peer speaks for a uid
//! is only ever its own word over its own connection (`peers/book.rs`).
//!
//! A peer that is reached through a relay takes no part in this: nobody could dial it where it seems to be, so it is neither
//! put into the table nor kept as a provider, and no witness of where this node is.

mod keys;
mod lists;
mod look_ups;
mod machine;
mod neighbours;
mod publications;
mod types;

pub(crate) use keys::run_key;
pub(crate) use machine::Discovery;
pub(crate) use types::{
    AskerId, DiscoveryAction, DiscoveryEvent, Entry, IdentifyReport, LookUpId, ProviderRecord, PublicationId,
    Surroundings,
};

#[cfg(test)]
mod tests;
