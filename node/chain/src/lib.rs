//! The chain as a node sees it: blocks, finality, a subnet's members and commitments, signed calls.
//!
//! Start with [`Ledger`], the trait. It asks for nothing that a Substrate chain does not offer: everything is asynchronous
//! and fallible, a commitment overwrites the one before, old state is gone after [`STATE_KEPT`] blocks. [`memory`] implements
//! it inside the process, for simulation; [`substrate`] is the client of a chain, Bittensor's or a devnet's.
//!
//! Knows nothing of networks, models or nodes. What is signed, when it is sent again and given up is decided in
//! `covey-round`; what a round makes of a view of the chain, too.

mod ledger;
pub mod memory;
pub mod substrate;

pub use covey_round::submit::{Fate, SignedCall};
pub use ledger::{Call, Heads, Ledger, LedgerError, STATE_KEPT, Weights};
