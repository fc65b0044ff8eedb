//! Locking bytes to a round of a drand beacon: how Bittensor hides weights until an epoch is over.
//!
//! Why it is needed: a validator that could read the others' weights before it sets its own would copy them, and earn as much
//! for no work. So weights go on the chain locked, and the chain opens them when the beacon has published the signature of a
//! round that lies some epochs ahead. Nobody can open them before.
//!
//! Start with [`lock()`]: bytes, the beacon's public key and a round's number become bytes that only that round's signature
//! opens. [`open`] is the other direction, and refuses whatever was tampered with. A node locks; the devnet, which has a beacon
//! of its own and keeps no secrets, opens. [`secret`], [`public_key`] and [`sign_round`] make that beacon: a real one is
//! drand's quicknet, whose secret no single party has.
//!
//! All of it is one file, `lock`: identity-based encryption after Boneh and Franklin over BLS12-381, in the byte layout of
//! the package `bittensor-core`, against whose output the tests compare. When to lock, to which round, and what is in the
//! bytes is for the callers: `covey`'s chain client (`chain/substrate/weights.rs`) and the devnet's pallet.
//!
//! For example: a validator at round 1000 of a beacon with three seconds a round locks its row to round 1100. For five minutes
//! the row is 5,000 bytes at most of nothing that anybody can read; then the beacon signs round 1100, and the next epoch of
//! the chain opens it, whether or not the validator is still there.
//!
//! Pure functions of their arguments and of the randomness that they are given; an opened message says nothing of who locked
//! it, so that whoever reads it must check what is inside.

mod lock;

pub use lock::{lock, open, public_key, secret, sign_round};
