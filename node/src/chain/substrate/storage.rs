//! Values of storage: several by one request, at one block.

use super::header::{hexed, unhex};
use super::link::{Failure, Link};
use super::runtime::{Misfit, Runtime};
use crate::chain::LedgerError;
use covey_proto::{BlockNumber, Digest};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use subxt::ext::frame_decode::storage::IntoEncodableValues;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::rpcs::client::rpc_params;

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

/// A value's place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pallet: &'static str,
    item: &'static str,
    key: Vec<u8>,
}

impl Place {
    pub(super) fn new(
        runtime: &Runtime,
        pallet: &'static str,
        item: &'static str,
        keys: impl IntoEncodableValues,
    ) -> Result<Place, Misfit> {
        Ok(Place { pallet, item, key: runtime.key(pallet, item, keys)? })
    }
}

/// Values that were read together.
pub(super) struct Values {
    runtime: Arc<Runtime>,
    by_key: HashMap<String, Option<String>>,
}

impl Values {
    /// What stands in a place, or else its default; none if it has none.
    pub(super) fn get<V: DecodeAsType>(&self, place: &Place) -> Result<Option<V>, LedgerError> {
        let unanswered = || LedgerError::Unreachable(format!("{}.{} was not answered", place.pallet, place.item));
        let text = self.by_key.get(&hexed(&place.key)).cloned().ok_or_else(unanswered)?;
        let bytes = match text {
            Some(text) => {
                let what = || LedgerError::Unreachable(format!("{}.{} is no bytes", place.pallet, place.item));
                Some(unhex(&text).ok_or_else(what)?)
            }
            None => None,
        };
        Ok(self.runtime.value(place.pallet, place.item, bytes.as_deref())?)
    }

    /// The same of what always has a value.
    pub(super) fn need<V: DecodeAsType>(&self, place: &Place) -> Result<V, LedgerError> {
        let nothing = || LedgerError::Unfit(format!("{}.{} has no value", place.pallet, place.item));
        self.get(place)?.ok_or_else(nothing)
    }
}

#[derive(Deserialize)]
struct ChangeSet {
    changes: Vec<(String, Option<String>)>,
}

impl Link {
    /// The values of some places after a block, or after the newest, by one request.
    pub(super) async fn read(
        &self,
        runtime: &Arc<Runtime>,
        places: &[&Place],
        at: Option<Digest>,
    ) -> Result<Values, LedgerError> {
        let keys: Vec<String> = places.iter().map(|place| hexed(&place.key)).collect();
        let params = rpc_params![keys, at.map(|hash| hexed(hash.as_bytes()))];
        let sets: Vec<ChangeSet> = self.ask("state_queryStorageAt", params).await.map_err(LedgerError::from)?;
        let by_key = sets.into_iter().flat_map(|set| set.changes).collect();
        Ok(Values { runtime: runtime.clone(), by_key })
    }

    /// The bytes of one place after a final block, as text.
    pub(super) async fn raw(
        &self,
        place: &Place,
        block: BlockNumber,
        hash: Digest,
    ) -> Result<Option<String>, LedgerError> {
        let params = rpc_params![hexed(&place.key), hexed(hash.as_bytes())];
        let asked = self.ask_at(block, "state_getStorage", params).await;
        asked.map_err(|failure| super::views::stateless(self, block, failure))
    }
}

/// Whether a refusal says that a block's state is gone. A block that is not known may only not have come yet.
pub(super) fn is_stateless(failure: &Failure) -> bool {
    let Failure::Refused(error) = failure else { return false };
    error.message.contains("discarded")
}

/// Whether a refusal says that a block is not known.
pub(super) fn is_unknown(failure: &Failure) -> bool {
    let Failure::Refused(error) = failure else { return false };
    error.message.contains("UnknownBlock") || error.message.contains("not found in the database")
}

#[cfg(test)]
mod tests {
    use super::*;
    use subxt::rpcs::UserError;

    #[test]
    fn only_a_discarded_state_is_gone() {
        let refused = |message: &str| Failure::Refused(UserError { code: 4003, message: message.into(), data: None });
        assert!(is_stateless(&refused("Client error: UnknownBlock: State already discarded for 0x12")));
        assert!(is_stateless(&refused("Api called for an unknown Block: State already discarded for 0x12")));
        let unknown = refused("Client error: UnknownBlock: Header was not found in the database: 0x12");
        assert!(!is_stateless(&unknown) && is_unknown(&unknown));
        assert!(!is_stateless(&Failure::Unreachable("discarded".into())));
    }
}
