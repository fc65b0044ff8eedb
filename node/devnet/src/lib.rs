//! A Substrate chain in one process, for local swarms and for tests: FRAME pallets run natively under subtensor's
//! names, behind the JSON-RPC of a real node, with faults on demand.
//!
//! - `config`: what a devnet is told.
//! - `runtime`, `pallets`: the chain's rules.
//! - `chain`: blocks, states, forks, finality, the pool, the store.
//! - `rpc`, `server`: what clients may ask, over which connections; `faults`: what goes wrong with these.

pub mod chain;
mod config;
mod faults;
pub mod known;
pub mod pallets;
mod rpc;
pub mod runtime;
mod server;

pub use chain::{Replay, ReplayError, Replayed};
pub use config::{Blocks, ChainSpec, Config, Durability};
pub use pallets::subtensor::types::{GenesisMember, GenesisSubnet};
pub use rpc::{BlockInfo, Heads};
pub use server::{Devnet, Handle, StartError};
pub use sp_core::H256;
pub use sp_runtime::AccountId32;
