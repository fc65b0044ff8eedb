//! The beacon that weights are locked to: when which round appears. Its key is read from the chain, which opens them.

use subxt::ext::scale_decode::DecodeAsType;

/// `Drand.BeaconConfig`, as far as it matters. On Bittensor it is drand's quicknet; a devnet has a beacon of its own.
#[derive(Clone, Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct Stored {
    /// A point of G2, compressed: 96 bytes.
    pub(super) public_key: Vec<u8>,
    /// Seconds between two rounds.
    pub(super) period: u32,
    /// Seconds since 1970 of round 1.
    pub(super) genesis_time: u32,
}
