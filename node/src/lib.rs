//! What makes a peer of Covey, and a swarm of them: everything that knows of chain, network and trainer at once.
//!
//! Start with [`peer`]: one node, built from one configuration. Its loop feeds the round's state machine (`covey_round`) with
//! what happens and does what it says; a round's parts (mining, validating, gathering what is offered, applying, catching up,
//! submitting) have rooms of their own in there. What they share with others is outside:
//!
//! - [`disk`]: a node's folder, what survives a crash at any instant; and the folder that a swarm leaves.
//! - [`compute`]: heavy work, never more of it at a time than there are cores.
//! - [`contribution`]: from a digest on the chain to decoded shards: what is checked before a vote.
//! - [`data`]: the data sets of a run's phases.
//! - [`scoring`], [`evaluation`]: what a contribution, or a state, is worth by its loss.
//! - [`misbehave`]: miners that break the rules, so that a swarm can show what it does about them.
//!
//! [`chain`], a crate of its own, is the ledger as all of them see it, a trait; behind it Bittensor or a devnet, through
//! subxt, or a chain in memory. A call is signed once and followed until it is final: that is decided there and in the peer's submitting.
//!
//! One node becomes a process in [`service`], told by a node.toml ([`config`]) and a key ([`wallet`]), seen from outside
//! through [`observe`]. [`supervise`] looks after processes. `swarm` runs many on one machine, with a chain of their own;
//! [`report`] shows what came of it, and `audit` computes it all again, believing nothing: these need the feature `devnet`.
//!
//! [`serve`] answers with a model, or a node's newest state, behind OpenAI's interface.
//!
//! Without a node: [`watch`] follows any run from the chain and the topics alone; [`lab`] compares methods in one process,
//! with neither network nor chain; [`preset`] holds ready-made runs, [`footprint`] says how much memory a node of one
//! will need, [`corpus`] has the default training text. [`cli`] is the
//! command line: a file a command, which decides what is printed and with which exit code, and nothing else.

#[cfg(feature = "devnet")]
pub mod audit;
pub mod cli;
pub mod compute;
pub mod config;
pub mod contribution;
pub mod corpus;
pub mod data;
pub mod disk;
pub mod evaluation;
pub mod footprint;
pub mod lab;
pub mod misbehave;
pub mod observe;
pub mod peer;
pub mod preset;
pub mod report;
pub mod scoring;
pub mod serve;
pub mod service;
pub mod shapes;
pub mod supervise;
#[cfg(feature = "devnet")]
pub mod swarm;
#[cfg(test)]
mod testing;
pub mod wallet;
pub mod watch;

pub use covey_chain as chain;
