//! `archive_v1` and `chainSpec_v1`: any block by hash or number, without following the chain. States are only those
//! that are kept.

use super::{Args, Context, RpcError, body_json, hexed, method, unhex};
use crate::chain::State;
use codec::Encode;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{RpcModule, SubscriptionMessage};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};
use sp_runtime::traits::Header as _;

/// Keys that one query answers at most.
pub(super) const ITEMS_MAX: usize = 16_384;

/// A question about storage, of `archive_v1_storage` and `chainHead_v1_storage`.
#[derive(Deserialize)]
pub(super) struct Query {
    key: String,
    #[serde(rename = "type")]
    kind: String,
}

pub(super) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    for name in ["chainSpec_v1_genesisHash", "archive_v1_genesisHash"] {
        method(module, name, |_, context| Ok(hexed(context.chain().genesis().0)))?;
    }
    method(module, "chainSpec_v1_chainName", |_, _| Ok("Covey Devnet"))?;
    method(module, "chainSpec_v1_properties", |_, _| {
        Ok(json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }))
    })?;
    method(module, "archive_v1_finalizedHeight", |_, context| Ok(*context.chain().finalised().header.number()))?;
    method(module, "archive_v1_hashByHeight", |args, context| {
        let hash = context.chain().hash(args.get(0)?)?;
        Ok(hash.map(|hash| hexed(hash.0)).into_iter().collect::<Vec<_>>())
    })?;
    method(module, "archive_v1_header", |args, context| {
        let hash = args.hash(0)?.ok_or(RpcError::NoBlock)?;
        Ok(context.chain().block(&hash)?.map(|sealed| hexed(sealed.header.encode())))
    })?;
    method(module, "archive_v1_body", |args, context| {
        let hash = args.hash(0)?.ok_or(RpcError::NoBlock)?;
        Ok(context.chain().block(&hash)?.map(|sealed| body_json(&sealed)))
    })?;
    method(module, "archive_v1_call", |args, context| {
        let hash = args.hash(0)?.ok_or(RpcError::NoBlock)?;
        let Ok(state) = context.state(Some(hash)) else { return Ok(Value::Null) };
        Ok(match context.views.call(&state, &args.get::<String>(1)?, &args.bytes(2)?) {
            Ok(answer) => json!({ "success": true, "value": hexed(answer) }),
            Err(error) => json!({ "success": false, "error": error.to_string() }),
        })
    })?;
    let (name, end) = ("archive_v1_storage", "archive_v1_stopStorage");
    module.register_subscription(name, "archive_v1_storageEvent", end, |params, pending, context, _| async move {
        let args = Args::parse(&params);
        let items = match items(&args, &context) {
            Ok(items) => items,
            Err(error) => return pending.reject(ErrorObjectOwned::from(error)).await,
        };
        let Ok(sink) = pending.accept().await else { return };
        let events = items.into_iter().map(|mut item| {
            item["event"] = "storage".into();
            item
        });
        for event in events.chain([json!({ "event": "storageDone" })]) {
            let Ok(message) = to_raw_value(&event) else { return };
            if sink.send(SubscriptionMessage::from(message)).await.is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn items(args: &Args, context: &Context) -> Result<Vec<Value>, RpcError> {
    let hash = args.hash(0)?.ok_or(RpcError::NoBlock)?;
    answer(&context.state(Some(hash))?, &args.get::<Vec<Query>>(1)?)
}

/// Answers questions about one state.
pub(super) fn answer(state: &State, queries: &[Query]) -> Result<Vec<Value>, RpcError> {
    let value =
        |key: &[u8]| Ok::<_, RpcError>(state.get(key)?.map(|it| json!({ "key": hexed(key), "value": hexed(it) })));
    let hash =
        |key: &[u8]| Ok::<_, RpcError>(state.hash(key)?.map(|it| json!({ "key": hexed(key), "hash": hexed(it.0) })));
    let mut items = Vec::new();
    for Query { key, kind } in queries {
        let key = unhex(key)?;
        let keys = if kind.starts_with("descendants") { state.keys(&key, None, ITEMS_MAX)? } else { vec![key] };
        for key in &keys {
            items.extend(match &kind[..] {
                "value" | "descendantsValues" => value(key)?,
                "hash" | "descendantsHashes" => hash(key)?,
                kind => {
                    return Err(RpcError::Params(format!(
                        "{kind:.40}: no kind of storage query that is answered here"
                    )));
                }
            });
        }
        if items.len() > ITEMS_MAX {
            return Err(RpcError::Params(format!("more than {ITEMS_MAX} items: ask for less at a time")));
        }
    }
    Ok(items)
}
