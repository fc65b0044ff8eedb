//! The methods of old: `state_`, `chain_`, `system_`, and their subscriptions. Most clients still use these.

use super::{Args, Context, RpcError, body_json, header_json, hexed, method, unhex};
use crate::chain::{CallError, ChainBlock, Event, State};
use crate::runtime::VERSION;
use codec::{DecodeAll, Encode};
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{RpcModule, SubscriptionMessage, SubscriptionSink};
use serde_json::{Value, json, value::to_raw_value};
use sp_core::H256;
use sp_core::crypto::Ss58Codec;
use sp_runtime::AccountId32;
use sp_runtime::traits::Header as _;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Keys of one page.
const PAGE_MAX: u32 = 1_000;
/// Blocks that one query of changes may go over.
const RANGE_MAX: u32 = 1_000;

/// Hashes that one request may ask for.
const HASHES_MAX: usize = 1_024;
/// Keys that one subscription may follow: each is looked up at every block.
const FOLLOWED_MAX: usize = 1_024;
/// Bytes of a key that is followed: it is kept as long as the client is there. Runtimes' keys have some hundred.
const FOLLOWED_BYTES_MAX: usize = 1_024;
/// Values that one query of changes may look up: its keys by its blocks. A look-up takes some microseconds.
const LOOKUPS_MAX: usize = 16_384;

pub(super) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    state(module)?;
    chain(module)?;
    system(module)?;
    subscriptions(module)
}

fn state(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    fn get(args: &Args, context: &Context) -> Result<Option<String>, RpcError> {
        Ok(context.state(args.hash(1)?)?.get(&args.bytes(0)?)?.map(hexed))
    }
    method(module, "state_getStorage", |args, context| get(&args, context))?;
    module.register_alias("state_getStorageAt", "state_getStorage")?;
    method(module, "state_getStorageHash", |args, context| {
        Ok(context.state(args.hash(1)?)?.hash(&args.bytes(0)?)?.map(|hash| hexed(hash.0)))
    })?;
    method(module, "state_getStorageSize", |args, context| {
        Ok(context.state(args.hash(1)?)?.get(&args.bytes(0)?)?.map(|value| value.len()))
    })?;
    method(module, "state_getKeysPaged", |args, context| {
        let prefix = args.optional::<String>(0)?.map(|text| unhex(&text)).transpose()?.unwrap_or_default();
        let count: u32 = args.get(1)?;
        if count > PAGE_MAX {
            return Err(RpcError::Params(format!("count {count} exceeds the maximum of {PAGE_MAX}")));
        }
        let start = args.optional::<String>(2)?.map(|text| unhex(&text)).transpose()?;
        let keys = context.state(args.hash(3)?)?.keys(&prefix, start.as_deref(), count as usize)?;
        Ok(keys.into_iter().map(hexed).collect::<Vec<_>>())
    })?;
    module.register_alias("state_getKeysPagedAt", "state_getKeysPaged")?;
    method(module, "state_queryStorageAt", |args, context| {
        let keys: Vec<String> = args.get(0)?;
        few(keys.len(), 1)?;
        let at = args.hash(1)?.unwrap_or_else(|| context.chain().best().hash);
        Ok(vec![changes(context, at, &keys)?])
    })?;
    method(module, "state_queryStorage", |args, context| {
        let (keys, from) = (args.get::<Vec<String>>(0)?, args.get::<String>(1)?);
        let (from, to) = (super::args::to_hash(&from)?, args.hash(2)?);
        let mut sets = Vec::new();
        let blocks = range(context, from, to)?;
        few(keys.len(), blocks.len())?;
        for hash in blocks {
            sets.push(changes(context, hash, &keys)?);
        }
        Ok(sets)
    })?;
    method(module, "state_call", |args, context| {
        let (name, data) = (args.get::<String>(0)?, args.bytes(1)?);
        Ok(hexed(context.views.call(&context.state(args.hash(2)?)?, &name, &data)?))
    })?;
    module.register_alias("state_callAt", "state_call")?;
    method(module, "state_getMetadata", |args, context| {
        // The answer is the metadata itself, without the length that the runtime API puts before it.
        let opaque = context.views.call(&context.state(args.hash(0)?)?, "Metadata_metadata", &[])?;
        let metadata = Vec::<u8>::decode_all(&mut &opaque[..]).map_err(|_| CallError::Answer("Metadata_metadata"))?;
        Ok(hexed(metadata))
    })?;
    method(module, "state_getRuntimeVersion", |_, _| Ok(json!(VERSION)))?;
    module.register_alias("chain_getRuntimeVersion", "state_getRuntimeVersion")?;
    Ok(())
}

/// The best chain from one block to another.
fn range(context: &Context, from: H256, to: Option<H256>) -> Result<Vec<H256>, RpcError> {
    let chain = context.chain();
    let number = |hash: H256| chain.block(&hash)?.map(|sealed| *sealed.header.number()).ok_or(RpcError::NoBlock);
    let (first, last) = (number(from)?, number(to.unwrap_or(chain.best().hash))?);
    if last.saturating_sub(first) >= RANGE_MAX {
        return Err(RpcError::Params(format!("{} blocks exceed the maximum of {RANGE_MAX}", last - first)));
    }
    (first..=last).map(|number| chain.hash(number)?.ok_or(RpcError::NoBlock)).collect()
}

/// Refuses to look up more values at once than a client should wait for.
fn few(keys: usize, blocks: usize) -> Result<(), RpcError> {
    let lookups = keys.saturating_mul(blocks);
    if lookups > LOOKUPS_MAX {
        return Err(RpcError::Params(format!(
            "{keys} keys in {blocks} blocks are {lookups} values, more than the maximum of {LOOKUPS_MAX}: ask for fewer \
             keys or blocks at a time"
        )));
    }
    Ok(())
}

fn changes(context: &Context, at: H256, keys: &[String]) -> Result<Value, RpcError> {
    let state = context.state(Some(at))?;
    let mut all = Vec::with_capacity(keys.len());
    for key in keys {
        all.push(json!([key, state.get(&unhex(key)?)?.map(hexed)]));
    }
    Ok(json!({ "block": hexed(at.0), "changes": all }))
}

fn chain(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    fn find(context: &Context, at: Option<H256>) -> Result<Option<Arc<ChainBlock>>, RpcError> {
        let chain = context.chain();
        Ok(match at {
            Some(hash) => chain.block(&hash)?,
            None => Some(chain.best().clone()),
        })
    }
    method(module, "chain_getBlockHash", |args, context| {
        let one = |value: &Value| -> Result<Value, RpcError> {
            let number = match value {
                Value::String(text) => u32::from_str_radix(text.trim_start_matches("0x"), 16).ok(),
                value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
            };
            let number = number.ok_or_else(|| RpcError::Params(format!("{value}: a block's number")))?;
            Ok(context.chain().hash(number)?.map_or(Value::Null, |hash| hexed(hash.0).into()))
        };
        match args.value(0) {
            Value::Null => Ok(hexed(context.chain().best().hash.0).into()),
            Value::Array(all) if all.len() > HASHES_MAX => {
                Err(RpcError::Params(format!("{} blocks exceed the maximum of {HASHES_MAX} a request", all.len())))
            }
            Value::Array(all) => all.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::Array),
            value => one(value),
        }
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    method(module, "chain_getHeader", |args, context| {
        Ok(find(context, args.hash(0)?)?.map(|sealed| header_json(&sealed)))
    })?;
    method(module, "chain_getBlock", |args, context| {
        Ok(find(context, args.hash(0)?)?.map(|sealed| {
            json!({
                "block": { "header": header_json(&sealed), "extrinsics": body_json(&sealed) },
                "justifications": null,
            })
        }))
    })?;
    method(module, "chain_getFinalizedHead", |_, context| Ok(hexed(context.chain().finalised().hash.0)))?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;
    Ok(())
}

fn system(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    method(module, "system_chain", |_, _| Ok("Covey Devnet"))?;
    method(module, "system_name", |_, _| Ok("covey-devnet"))?;
    method(module, "system_version", |_, _| Ok(env!("CARGO_PKG_VERSION")))?;
    method(module, "system_chainType", |_, _| Ok("Local"))?;
    method(module, "system_properties", |_, _| {
        Ok(json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }))
    })?;
    method(module, "system_health", |_, _| Ok(json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false })))?;
    method(module, "system_accountNextIndex", |args, context| {
        let text = args.get::<String>(0)?;
        let account =
            AccountId32::from_ss58check(&text).map_err(|error| RpcError::Params(format!("{text:.80}: {error}")))?;
        Ok(context.chain().next_nonce(&account)?)
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;
    method(module, "payment_queryInfo", |args, context| {
        let bytes = args.bytes(0)?;
        let mut data = bytes.clone();
        data.extend((bytes.len() as u32).encode());
        let info: pallet_transaction_payment::RuntimeDispatchInfo<u64> =
            context.state(args.hash(1)?)?.ask("TransactionPaymentApi_query_info", &data)?;
        let weight = json!({ "ref_time": info.weight.ref_time(), "proof_size": info.weight.proof_size() });
        Ok(json!({ "weight": weight, "class": info.class, "partialFee": info.partial_fee.to_string() }))
    })
}

fn subscriptions(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    let heads: [(&'static str, &'static str, &'static str, Kind); 3] = [
        ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads", Kind::Best),
        ("chain_subscribeFinalizedHeads", "chain_finalizedHead", "chain_unsubscribeFinalizedHeads", Kind::Final),
        ("chain_subscribeAllHeads", "chain_allHead", "chain_unsubscribeAllHeads", Kind::Best),
    ];
    for (name, notification, end, kind) in heads {
        module.register_subscription(name, notification, end, move |_, pending, context, _| async move {
            if let Ok(sink) = pending.accept().await {
                follow_heads(&sink, &context, kind).await;
            }
        })?;
    }
    module.register_alias("chain_subscribeNewHead", "chain_subscribeNewHeads")?;
    module.register_alias("chain_unsubscribeNewHead", "chain_unsubscribeNewHeads")?;
    let (name, end) = ("state_subscribeRuntimeVersion", "state_unsubscribeRuntimeVersion");
    module.register_subscription(name, "state_runtimeVersion", end, |_, pending, _, _| async move {
        let Ok(sink) = pending.accept().await else { return };
        // The one version that there is.
        if send(&sink, &json!(VERSION)).await {
            sink.closed().await;
        }
    })?;
    module.register_alias("chain_subscribeRuntimeVersion", "state_subscribeRuntimeVersion")?;
    module.register_alias("chain_unsubscribeRuntimeVersion", "state_unsubscribeRuntimeVersion")?;
    let (name, end) = ("state_subscribeStorage", "state_unsubscribeStorage");
    module.register_subscription(name, "state_storage", end, |params, pending, context, _| async move {
        let keys: Result<Vec<String>, RpcError> = Args::parse(&params).get(0);
        match keys.and_then(|keys| followed(&keys)) {
            Ok(keys) => {
                if let Ok(sink) = pending.accept().await {
                    follow_storage(&sink, &context, keys).await;
                }
            }
            Err(error) => pending.reject(ErrorObjectOwned::from(error)).await,
        }
    })?;
    Ok(())
}

/// The keys that a client follows.
fn followed(keys: &[String]) -> Result<Vec<Vec<u8>>, RpcError> {
    if keys.len() > FOLLOWED_MAX {
        let why = format!("{} keys exceed the maximum of {FOLLOWED_MAX} a subscription", keys.len());
        return Err(RpcError::Params(why));
    }
    if let Some(key) = keys.iter().find(|key| key.len() > 2 + 2 * FOLLOWED_BYTES_MAX) {
        let why = format!("a key of {} digits exceeds the maximum of {FOLLOWED_BYTES_MAX} bytes", key.len());
        return Err(RpcError::Params(why));
    }
    keys.iter().map(|key| unhex(key)).collect()
}

/// Sends to a client; false if it is gone.
async fn send(sink: &SubscriptionSink, value: &Value) -> bool {
    match to_raw_value(value) {
        Ok(message) => sink.send(SubscriptionMessage::from(message)).await.is_ok(),
        Err(_) => false,
    }
}

/// Tells a client each new block of a kind. One that is too far behind goes on from the newest.
async fn follow_heads(sink: &SubscriptionSink, context: &Context, kind: Kind) {
    let (mut events, best, finalised) = context.events();
    let mut blocks = vec![if kind == Kind::Best { best } else { finalised }];
    loop {
        for block in blocks.drain(..) {
            if !send(sink, &header_json(&block)).await {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event::Best { enacted, .. }) if kind == Kind::Best => blocks.extend(enacted),
                Ok(Event::Final { blocks: new, .. }) if kind == Kind::Final => blocks.extend(new),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    let (again, best, finalised) = context.events();
                    events = again;
                    blocks.push(if kind == Kind::Best { best } else { finalised });
                }
                Err(RecvError::Closed) => return,
            },
            () = sink.closed() => return,
        }
    }
}

/// Tells a client the values of some keys, and then those that change.
async fn follow_storage(sink: &SubscriptionSink, context: &Context, keys: Vec<Vec<u8>>) {
    let mut seen = Seen::new();
    let keys = Arc::new(keys);
    let mut events = context.events().0;
    loop {
        let Some((at, new, now_seen)) = look_up(context, keys.clone(), seen).await else { return };
        seen = now_seen;
        if !new.is_empty() && !send(sink, &json!({ "block": hexed(at.0), "changes": new })).await {
            return;
        }
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Best { .. }) | Err(RecvError::Lagged(_)) => break,
                    Ok(Event::Final { .. }) => {}
                    Err(RecvError::Closed) => return,
                },
                () = sink.closed() => return,
            }
        }
    }
}

/// The values of keys that a client was told last.
type Seen = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// What of these keys has changed in the newest block, and what has been seen then. On a thread where it may take its time,
/// and only so many at once: the threads of the runtime answer the other clients.
async fn look_up(context: &Context, keys: Arc<Vec<Vec<u8>>>, mut seen: Seen) -> Option<(H256, Vec<Value>, Seen)> {
    let place = context.scans.clone().acquire_owned().await.ok()?;
    let context = context.clone();
    let scan = tokio::task::spawn_blocking(move || {
        let _place = place;
        let (at, state) = {
            let chain = context.chain();
            (chain.best().hash, chain.best_state())
        };
        let new = changed(&state, &keys, &mut seen).ok()?;
        Some((at, new, seen))
    });
    scan.await.ok()?
}

/// Keys whose values are not those that were seen last, with their values.
fn changed(state: &State, keys: &[Vec<u8>], seen: &mut Seen) -> Result<Vec<Value>, CallError> {
    let mut new = Vec::new();
    for key in keys {
        let value = state.get(key)?;
        if seen.get(key) != Some(&value) {
            new.push(json!([hexed(key), value.as_ref().map(hexed)]));
            seen.insert(key.clone(), value);
        }
    }
    Ok(new)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Best,
    Final,
}
