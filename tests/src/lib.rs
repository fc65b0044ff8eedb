//! What tests of several crates share. The tests themselves are in `tests/tests/`, and whole swarms in `tests/swarms/`.
//!
//! Start with [`fuzz`]: every decoder of bytes that somebody else wrote, as a plain function from bytes to "is it valid", which
//! panics where the decoder breaks what it promises: one encoding, bounds, bits that come back. `fuzz::TARGETS` lists them. They
//! run in three ways: over a corpus on every machine (`tests/tests/fuzz.rs`), over inputs that [`fuzz::mutate`] makes of it from
//! a seed, and under libFuzzer with coverage (`tests/fuzz/`, a workspace of its own, with a README).
//!
//! [`foreign`] makes other people's software ready, in the versions that lists in `tests/interop/` name: Node.js with a node and
//! a chain client in JavaScript, Python with Bittensor's client and wallets. Where there is no network, tests that need them
//! are skipped, and say so.
//!
//! What is where, of tests that need more than one crate:
//!
//! - `tests/tests/house.rs`, with `house/`: rules of the house that a reviewer would otherwise have to look for
//! - `tests/tests/interop.rs`, `foreign.rs`, `wallet.rs`: other languages and other people's files
//! - `tests/chain.rs`: the chain's client against devnets with faults; `keys.rs`: an operator's way to a registered hotkey
//! - `tests/cli.rs`: the binary as a person meets it; `tests/swarms/`: whole swarms, killed, audited, cheated
//! - `tests/wan/`: a crate, an emulated wide-area network; `tests/wide.rs` uses it
//! - `tests/rivals/`: a workspace of its own, which measures Covey beside others
//!
//! A crate's own tests are beside its code. Nothing here is part of the product.

pub mod foreign;
pub mod fuzz;
