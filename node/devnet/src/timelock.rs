//! Locking to a round of a beacon, as drand's quicknet and subtensor do it: Boneh and Franklin's encryption to an
//! identity, which is a round's number, over BLS12-381; the round's signature opens it.
//!
//! Only what a chain does is here: signing a round, opening what was locked. Formats are those of the Python package
//! `bittensor-core`, with which tests compare.

/// The signature of a round by a secret scalar; none for the scalar zero.
pub fn sign_round(_secret: &[u8; 32], _round: u64) -> Option<Vec<u8>> {
    None
}

/// What was locked, if the signature opens it.
pub fn open(_sealed: &[u8], _signature: &[u8]) -> Option<Vec<u8>> {
    None
}
