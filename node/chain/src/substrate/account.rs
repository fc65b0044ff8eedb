//! What the chain keeps of an account, as far as this client reads it.

use subxt::ext::scale_decode::DecodeAsType;

/// What an account has of its own; the rest of it is left out.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct Account {
    /// Transactions that it has sent.
    pub(super) nonce: u32,
    /// Its money.
    pub(super) data: AccountData,
}

/// An account's money.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct AccountData {
    /// Rao that can be spent, less the deposit that keeps an account alive.
    pub(super) free: u64,
}
