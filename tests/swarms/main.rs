//! Whole swarms: processes of the binary on a chain of their own, run to their end, and held against what they must be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod audit;
mod churn;
mod from_model;
mod honest;
mod killed;
mod memory;
mod phases;
mod resumed;
mod rig;
mod stranger;
