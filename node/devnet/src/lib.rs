//! A Substrate chain in one process, for local swarms and for tests.

pub mod pallets;
pub mod runtime;
pub mod timelock;
