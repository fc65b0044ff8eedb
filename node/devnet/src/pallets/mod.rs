//! The pallets that answer to subtensor's names: what they decide is in each; how they hang together is in `runtime`.
//!
//! They are no copy of subtensor: the names, argument types, storage keys, rules and errors are those of the public
//! metadata and of its documentation, for the parts that Covey and its users' clients touch, and no more.

pub mod aura;
pub mod commitments;
pub mod drand;
pub mod settings;
pub mod subtensor;
