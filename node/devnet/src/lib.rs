//! A Substrate chain in one process, for local swarms and for tests: FRAME pallets run natively under subtensor's
//! names, behind the JSON-RPC of a real node, with faults on demand.
//!
//! It knows nothing of Covey. Whatever works against it works against Bittensor, as far as the names, types and rules go that
//! Covey and its users' tools touch: `tests/finney.rs` holds it against the real chain's metadata.
//!
//! Start with [`Config`] and [`Devnet`]: what a devnet is told, and the devnet as it runs. A [`ChainSpec`] is a chain, which
//! stays as it began; [`Blocks`] and [`Durability`] may differ from start to start.
//!
//! What is decided where:
//!
//! - the chain's rules: [`pallets`] has one file or folder a pallet, above all `subtensor`, whose storage, epochs, weights,
//!   stake and registration are files of their own; [`runtime`] says which pallets there are, under which numbers, what signs a
//!   transaction, and what the metadata shows.
//! - the chain itself: [`chain`]: `build` makes a block of transactions, `grow` says which block is the next, final, or
//!   abandoned, `pool` which transactions wait for it, `state` what was so at a block, `store` what survives `kill -9`, and
//!   `replay` executes all of it again, for audits.
//! - what clients may ask: `rpc`, a file for each family of methods; `server` listens, and makes blocks in time; `faults` are
//!   what goes wrong with these on demand.
//! - [`known`] is a small chain to try things on.
//!
//! One lock holds the chain. Everything behind it is synchronous, and a block takes about a millisecond. Events and errors are the real chain's, so that its clients say the same
//! things about the same mistakes. There is no consensus, one author, and finality follows at a fixed distance.

pub mod chain;
mod config;
mod faults;
pub mod known;
mod origin;
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
