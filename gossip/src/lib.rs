//! The peer-to-peer half of Covey: says what exists, moves the bytes.

mod exchange;
mod peers;
pub mod store;
