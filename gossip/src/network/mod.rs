//! Where libp2p lives, and where it ends: one task owns every socket. What decides is elsewhere, without libp2p.
//!
//! [`start`] makes what outlives a fault ([`lasting`]) and the task that runs it. That task is watched ([`supervise`]): a
//! panic drops the swarm, and a new one is built around what outlives it. One life of the network is [`running`]: its loop selects an event
//! and hands it to whoever owns the state that it is about. Each owner is a type in a file of its own, which is given what
//! it needs, and puts what others must do into a queue ([`effects`]).
//!
//! | owner | of what | who decides for it |
//! |---|---|---|
//! | [`connections`] | connections, as they come and go | `peers/lines.rs`; admission: [`gate`] asks `peers/admission.rs` |
//! | [`dialling`] | dials under way, the file of peers | `peers/dialer.rs`, `leads.rs`, `cache.rs` |
//! | [`listeners`] | where it listens | `peers/external.rs` |
//! | [`requests`] | small requests, both ways | `small/answers.rs` |
//! | [`small_blobs`] | fetches of small blobs | `small/fetch.rs` |
//! | [`gossip`] | announcements, tickets | `announcements/` |
//! | [`records`] | peer records as they go round | `peers/book.rs`, `circulation.rs` |
//! | [`lookups`] | Kademlia's queries | `discovery/`; [`kademlia`] holds libp2p's short |
//! | [`pieces`], [`piece_links`] | large blobs, their streams | `covey_exchange`; the streams themselves: `links/` |
//!
//! Pulls of announcements are owned by the loop itself (`announcements/pull.rs`).

mod behaviour;
mod connections;
mod dialling;
mod effects;
mod error;
mod gate;
mod gossip;
mod jobs;
mod kademlia;
mod lasting;
mod listeners;
mod look;
mod lookups;
mod mail;
mod metered;
mod names;
mod piece_links;
mod pieces;
mod records;
mod requests;
mod running;
mod small_blobs;
mod sockets;
mod start;
mod supervise;
mod transport;

pub use error::StartError;
pub use start::{check_address, start};
