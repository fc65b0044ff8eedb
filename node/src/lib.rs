//! What makes a peer of Covey, and a swarm of them: everything that knows of chain, network and trainer at once.
//!
//! Start with [`peer`]: one node, from one [`config`]. [`chain`] is the ledger as a node sees it, [`scoring`] Gauntlet's
//! evaluations. [`service`] makes a process of a node, [`supervise`] looks after processes. `swarm` runs many nodes on
//! one machine and leaves a [`disk::folder`], [`report`] shows what came of it, `audit` computes it again: these two need a
//! chain of their own, the feature `devnet`. [`watch`] follows
//! any run from outside, [`lab`] compares methods without network or chain.
//! [`disk::state_check`] holds a saved state against a root. [`preset`] holds ready-made runs, [`corpus`] the default training text, [`cli`] the command line.

#[cfg(feature = "devnet")]
pub mod audit;
pub mod chain;
pub mod cli;
pub mod compute;
pub mod config;
pub mod contribution;
pub mod corpus;
pub mod disk;
pub mod evaluation;
pub mod lab;
pub mod misbehave;
pub mod observe;
pub mod peer;
pub mod preset;
pub mod report;
pub mod scoring;
pub mod service;
pub mod supervise;
#[cfg(feature = "devnet")]
pub mod swarm;
#[cfg(test)]
mod testing;
pub mod wallet;
pub mod watch;
