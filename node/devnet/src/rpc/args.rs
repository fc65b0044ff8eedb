//! A call's arguments, by place and in hexadecimal, as bytes and hashes.

use super::error::RpcError;
use serde_json::Value;
use sp_core::H256;

/// A call's arguments by place; those left out are null.
pub(crate) struct Args(Vec<Value>);

impl Args {
    pub(crate) fn parse(params: &jsonrpsee::types::Params<'_>) -> Self {
        Self(match params.parse::<Value>() {
            Ok(Value::Array(all)) => all,
            // By name nobody calls these methods; what is needed is then said to be missing.
            _ => Vec::new(),
        })
    }

    pub(crate) fn value(&self, at: usize) -> &Value {
        self.0.get(at).unwrap_or(&Value::Null)
    }

    /// Any type that serde reads; null is none.
    pub(crate) fn optional<V: serde::de::DeserializeOwned>(&self, at: usize) -> Result<Option<V>, RpcError> {
        serde_json::from_value(self.value(at).clone())
            .map_err(|error| RpcError::Params(format!("argument {at}: {error}")))
    }

    pub(crate) fn get<V: serde::de::DeserializeOwned>(&self, at: usize) -> Result<V, RpcError> {
        self.optional(at)?.ok_or_else(|| RpcError::Params(format!("argument {at} is missing")))
    }

    pub(crate) fn bytes(&self, at: usize) -> Result<Vec<u8>, RpcError> {
        unhex(&self.get::<String>(at)?)
    }

    pub(crate) fn hash(&self, at: usize) -> Result<Option<H256>, RpcError> {
        self.optional::<String>(at)?.map(|text| to_hash(&text)).transpose()
    }
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, RpcError> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|error| RpcError::Params(format!("{text:.80}: {error}")))
}

pub(super) fn to_hash(text: &str) -> Result<H256, RpcError> {
    let bytes: Result<[u8; 32], _> = unhex(text)?.try_into();
    bytes.map(H256).map_err(|_| RpcError::Params(format!("{text:.80}: a hash has 32 bytes")))
}

pub(crate) fn hexed(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}
