//! Whole swarms of real schedulers in virtual time: thousands of seeded histories with every fault that a peer can have,
//! and how close to the bound a swarm without faults comes.

#![allow(clippy::unwrap_used)]

mod check;
mod efficiency;
mod histories;
mod server;
mod sim;
