//! node.toml: all that one node is told by its operator. What the nodes of a run must agree on stands in run.toml, which
//! it names; chain and subnet are that file's alone.
//!
//! [`NodeConfig`] is the file as it is used: complete, checked, and the same whatever was left out (`settings`). `read` takes
//! it from text and names every fault at once, each a [`Fault`]; `write` says every key with what it is for, and is what
//! `covey init` writes; `units` are sizes and rates as people write them.

mod fault;
mod read;
mod settings;
mod units;
mod write;

pub use crate::chain::substrate::ENDPOINTS_MAX;
pub use fault::{ConfigError, Fault, FaultKind};
pub(crate) use read::is_name;
pub use settings::{
    ADDRESSES_MAX, ChainConfig, FINNEY, LOG_FILTER, NetworkConfig, NodeConfig, STATUS, StorageConfig, WALLETS,
    WalletConfig, of_home,
};
pub use units::{Mbit, NotARate, NotASize, Size};

#[cfg(test)]
mod tests;
