//! What tests of several crates share.

pub mod foreign;
pub mod fuzz;
