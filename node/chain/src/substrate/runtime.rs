//! A chain's runtime as its metadata describes it: how keys, arguments and calls are encoded, and answers decoded.
//! Nothing here asks the chain.

use covey_proto::Digest;
use subxt::config::substrate::{SpecVersionForRange, SubstrateConfigBuilder};
use subxt::config::{DefaultExtrinsicParamsBuilder, SubstrateConfig};
use subxt::error::DispatchError;
use subxt::events::Phase;
use subxt::ext::frame_decode;
use subxt::ext::frame_decode::storage::IntoEncodableValues;
use subxt::ext::scale_decode::{self, DecodeAsType};
use subxt::ext::scale_value::{Composite, Value};
use subxt::transactions::Signer;
use subxt::utils::{AccountId32, H256, MultiSignature};
use subxt::{ArcMetadata, Metadata, OfflineClient};

/// What could not be encoded or decoded by the chain's metadata: the chain has changed, or the client has a fault.
#[derive(Debug, thiserror::Error)]
#[error("{what} does not fit the chain's runtime {spec_version}: {why}")]
pub(super) struct Misfit {
    what: String,
    spec_version: u32,
    why: String,
}

/// Who signs: a hotkey or a coldkey.
pub(super) trait Sign: Sync {
    /// The account.
    fn account(&self) -> [u8; 32];
    /// Its sr25519 signature.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl Sign for covey_proto::HotkeyPair {
    fn account(&self) -> [u8; 32] {
        *self.hotkey().as_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        covey_proto::HotkeyPair::sign(self, message)
    }
}

impl Sign for covey_proto::ColdkeyPair {
    fn account(&self) -> [u8; 32] {
        *self.coldkey().as_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        covey_proto::ColdkeyPair::sign(self, message)
    }
}

struct SignerOf<'a>(&'a dyn Sign);

impl Signer<SubstrateConfig> for SignerOf<'_> {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.account())
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload))
    }
}

/// A call by its names: it is encoded by what the metadata says of them.
#[derive(Clone, Debug)]
pub(super) struct DynamicCall {
    /// The pallet.
    pub(super) pallet: &'static str,
    /// The call.
    pub(super) name: &'static str,
    /// Its arguments by name.
    pub(super) arguments: Composite<()>,
}

impl DynamicCall {
    /// The names of its arguments, in order.
    pub(super) fn argument_names(&self) -> Vec<String> {
        match &self.arguments {
            Composite::Named(all) => all.iter().map(|(name, _)| name.clone()).collect(),
            Composite::Unnamed(_) => Vec::new(),
        }
    }

    pub(super) fn new<const N: usize>(
        pallet: &'static str,
        name: &'static str,
        arguments: [(&'static str, Value<()>); N],
    ) -> DynamicCall {
        DynamicCall { pallet, name, arguments: Composite::named(arguments) }
    }
}

/// How long a transaction may wait: `period` blocks, a power of two, from a block that is final.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mortality {
    pub(super) period: u32,
    pub(super) birth: u32,
    pub(super) birth_hash: Digest,
}

/// A version of a chain's runtime. Immutable: an upgrade is another.
pub(super) struct Runtime {
    /// The chain's version of it.
    pub(super) spec_version: u32,
    /// The version of its transactions.
    pub(super) transaction_version: u32,
    metadata: ArcMetadata,
    genesis: Digest,
}

impl Runtime {
    pub(super) fn new(metadata: ArcMetadata, spec_version: u32, transaction_version: u32, genesis: Digest) -> Runtime {
        Runtime { spec_version, transaction_version, metadata, genesis }
    }

    /// The metadata.
    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn misfit(&self, what: impl Into<String>, why: impl std::fmt::Display) -> Misfit {
        Misfit { what: what.into(), spec_version: self.spec_version, why: why.to_string() }
    }

    /// Whether there is a storage item.
    pub(super) fn has_storage(&self, pallet: &str, item: &str) -> bool {
        let pallet = self.metadata.pallet_by_name(pallet);
        pallet.and_then(|pallet| pallet.storage()).is_some_and(|storage| storage.entry_by_name(item).is_some())
    }

    /// Whether there is a call.
    pub(super) fn has_call(&self, pallet: &str, name: &str) -> bool {
        self.metadata.pallet_by_name(pallet).is_some_and(|pallet| pallet.call_variant_by_name(name).is_some())
    }

    /// The key of a value in storage.
    pub(super) fn key(&self, pallet: &str, item: &str, keys: impl IntoEncodableValues) -> Result<Vec<u8>, Misfit> {
        frame_decode::storage::encode_storage_key(pallet, item, keys, &*self.metadata, self.metadata.types())
            .map_err(|why| self.misfit(format!("the key of {pallet}.{item}"), why))
    }

    /// A value of storage: what stands there, or else the item's default; none if it has none.
    pub(super) fn value<V: DecodeAsType>(
        &self,
        pallet: &str,
        item: &str,
        bytes: Option<&[u8]>,
    ) -> Result<Option<V>, Misfit> {
        let what = || format!("{pallet}.{item}");
        let of = self.metadata.pallet_by_name(pallet).and_then(|pallet| pallet.storage());
        let entry = of.and_then(|storage| storage.entry_by_name(item));
        let entry = entry.ok_or_else(|| self.misfit(what(), "there is no such storage"))?;
        let Some(mut bytes) = bytes.or(entry.default_value()) else { return Ok(None) };
        self.decode(&mut bytes, entry.value_ty()).map(Some).map_err(|why| self.misfit(what(), why))
    }

    /// The type of a storage item's value.
    pub(super) fn value_type(&self, pallet: &str, item: &str) -> Result<u32, Misfit> {
        let of = self.metadata.pallet_by_name(pallet).and_then(|pallet| pallet.storage());
        let entry = of.and_then(|storage| storage.entry_by_name(item));
        Ok(entry.ok_or_else(|| self.misfit(format!("{pallet}.{item}"), "there is no such storage"))?.value_ty())
    }

    /// Bytes as a type of the metadata.
    pub(super) fn decode<V: DecodeAsType>(&self, bytes: &mut &[u8], id: u32) -> Result<V, scale_decode::Error> {
        V::decode_as_type(bytes, id, self.metadata.types())
    }

    /// Name and encoded arguments of a runtime API's method.
    pub(super) fn api(
        &self,
        api: &str,
        method: &str,
        arguments: impl IntoEncodableValues,
    ) -> Result<(String, Vec<u8>), Misfit> {
        let types = self.metadata.types();
        let bytes =
            frame_decode::runtime_apis::encode_runtime_api_inputs(api, method, arguments, &*self.metadata, types)
                .map_err(|why| self.misfit(format!("{api}.{method}"), why))?;
        Ok((format!("{api}_{method}"), bytes))
    }

    /// The answer of a runtime API's method.
    pub(super) fn answer<V: DecodeAsType>(&self, api: &str, method: &str, mut bytes: &[u8]) -> Result<V, Misfit> {
        let what = || format!("the answer of {api}.{method}");
        let of = self.metadata.runtime_api_trait_by_name(api);
        let id = of.and_then(|api| Some(api.method_by_name(method)?.output_ty()));
        let id = id.ok_or_else(|| self.misfit(what(), "there is no such method"))?;
        self.decode(&mut bytes, id).map_err(|why| self.misfit(what(), why))
    }

    /// Milliseconds of a block; Bittensor's where the chain does not say.
    pub(super) fn slot_ms(&self) -> u64 {
        const BITTENSOR: u64 = 12_000;
        let aura = self.metadata.pallet_by_name("Aura");
        let slot = aura.and_then(|aura| <[u8; 8]>::try_from(aura.constant_by_name("SlotDuration")?.value()).ok());
        slot.map_or(BITTENSOR, u64::from_le_bytes).max(1)
    }

    /// Pallet and name of the error with which the extrinsic of this index failed, by a block's events; none if it did
    /// not.
    pub(super) fn failure(&self, events: &[u8], index: usize) -> Result<Option<(String, String)>, Misfit> {
        let misfit = |why: &dyn std::fmt::Display| self.misfit("System.Events", why);
        let client = self.offline()?;
        let events = client.events().from_bytes(events.to_vec());
        for event in events.iter() {
            let event = event.map_err(|why| misfit(&why))?;
            let is_ours = matches!(event.phase(), Phase::ApplyExtrinsic(at) if at as usize == index);
            if !is_ours || event.pallet_name() != "System" || event.event_name() != "ExtrinsicFailed" {
                continue;
            }
            let error = DispatchError::decode_from(event.field_bytes(), self.metadata.clone());
            return Ok(Some(match error.map_err(|why| misfit(&why))? {
                DispatchError::Module(error) => {
                    let details = error.details().map_err(|why| misfit(&why))?;
                    (details.pallet.name().to_owned(), details.variant.name.clone())
                }
                error => ("System".into(), error.to_string()),
            }));
        }
        Ok(None)
    }

    fn offline(&self) -> Result<subxt::OfflineClientAtBlock<SubstrateConfig>, Misfit> {
        let versions = SpecVersionForRange {
            block_range: 0..u64::MAX,
            spec_version: self.spec_version,
            transaction_version: self.transaction_version,
        };
        let config = SubstrateConfigBuilder::new()
            .set_genesis_hash(H256(*self.genesis.as_bytes()))
            .set_spec_version_for_block_ranges([versions])
            .set_metadata_for_spec_versions([(self.spec_version, self.metadata.clone())])
            .build();
        OfflineClient::new_with_config(config).at_block(0_u32).map_err(|why| self.misfit("signing", why))
    }

    /// The names of a call's arguments, in order.
    pub(super) fn call_arguments(&self, pallet: &str, name: &str) -> Option<Vec<String>> {
        let call = self.metadata.pallet_by_name(pallet)?.call_variant_by_name(name)?;
        Some(call.fields.iter().map(|field| field.name.clone().unwrap_or_default()).collect())
    }

    /// Which of these fields the answer of a runtime API's method has not: the fields of what is in its option.
    pub(super) fn answer_lacks(&self, api: &str, method: &str, fields: &[&'static str]) -> Vec<&'static str> {
        let names = || {
            let id = self.metadata.runtime_api_trait_by_name(api)?.method_by_name(method)?.output_ty();
            let types = self.metadata.types();
            let inner = types.resolve(id)?.type_params.first()?.ty?.id;
            match &types.resolve(inner)?.type_def {
                scale_info::TypeDef::Composite(of) => {
                    Some(of.fields.iter().filter_map(|field| field.name.clone()).collect::<Vec<String>>())
                }
                _ => None,
            }
        };
        let there = names().unwrap_or_default();
        fields.iter().copied().filter(|field| !there.iter().any(|name| name == field)).collect()
    }

    /// The bytes of a call, unsigned.
    pub(super) fn call_data(&self, call: &DynamicCall) -> Result<Vec<u8>, Misfit> {
        let payload = subxt::dynamic::tx(call.pallet, call.name, call.arguments.clone());
        let bytes = self.offline()?.tx().call_data(&payload);
        bytes.map_err(|why| self.misfit(format!("{}.{}", call.pallet, call.name), why))
    }

    /// The bytes of a signed transaction, as they are submitted.
    pub(super) fn sign(
        &self,
        pair: &dyn Sign,
        call: &DynamicCall,
        nonce: u64,
        mortality: Mortality,
    ) -> Result<Vec<u8>, Misfit> {
        let payload = subxt::dynamic::tx(call.pallet, call.name, call.arguments.clone());
        let Mortality { period, birth, birth_hash } = mortality;
        let params = DefaultExtrinsicParamsBuilder::<SubstrateConfig>::new()
            .nonce(nonce)
            .mortal_from_unchecked(period.into(), birth.into(), H256(*birth_hash.as_bytes()))
            .build();
        let signed = self.offline()?.tx().create_signable_offline(&payload, params);
        let signed = signed.and_then(|mut signable| signable.sign(&SignerOf(pair)));
        let name = || format!("{}.{}", call.pallet, call.name);
        Ok(signed.map_err(|why| self.misfit(name(), why))?.into_encoded())
    }
}

/// A hotkey or another account as a call's argument.
pub(super) fn account(bytes: &[u8; 32]) -> Value<()> {
    Value::from_bytes(bytes)
}

/// Numbers as a call's argument.
pub(super) fn numbers(all: impl IntoIterator<Item = u16>) -> Value<()> {
    Value::unnamed_composite(all.into_iter().map(|number| Value::u128(number.into())))
}
