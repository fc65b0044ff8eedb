//! Values of storage: several by one request, at one block; and the nonces of accounts, at the newest block or a final one.

use super::account::Account;
use super::header::{hexed, unhex};
use super::link::Link;
use super::runtime::{Misfit, Runtime};
use crate::LedgerError;
use covey_proto::{BlockNumber, Digest, Hotkey};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use subxt::ext::frame_decode::storage::IntoEncodableValues;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::rpcs::client::rpc_params;

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
        asked.map_err(|failure| self.no_state(block, failure))
    }

    /// The nonce that the chain expects next of an account, what waits in its pool included.
    pub(super) async fn next_nonce(&self, account: &[u8; 32]) -> Result<u64, LedgerError> {
        let text = Hotkey::new(*account).to_string();
        self.ask("system_accountNextIndex", rpc_params![text]).await.map_err(LedgerError::from)
    }

    /// The nonces of accounts after a final block.
    pub(super) async fn final_nonces(
        &self,
        runtime: &Arc<Runtime>,
        accounts: &[[u8; 32]],
        hash: Digest,
    ) -> Result<Vec<u64>, LedgerError> {
        let places = accounts.iter().map(|account| Place::new(runtime, "System", "Account", (*account,)));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let values = self.read(runtime, &places.iter().collect::<Vec<_>>(), Some(hash)).await?;
        places.iter().map(|place| Ok(values.need::<Account>(place)?.nonce.into())).collect()
    }
}
