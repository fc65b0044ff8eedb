//! The space that a chain leaves for commitments in an epoch, and whether a run's rounds fit into it.

use subxt::ext::scale_decode::DecodeAsType;

/// `Commitments.UsedSpaceOf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct Used {
    /// The epoch that is counted.
    pub(super) last_epoch: u64,
    /// Bytes used in it.
    pub(super) used_space: u64,
}
