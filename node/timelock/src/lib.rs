//! Locking bytes to a round of a drand beacon: how Bittensor hides weights until an epoch is over. A node locks, and the
//! devnet, which has a beacon of its own, opens.

mod lock;

pub use lock::{lock, open, public_key, secret, sign_round};
