//! `chainHead_v1`: a client follows the chain with all its forks, and asks about blocks that it has not let go of.

use super::archive::{Query, answer};
use super::follow::Follow;
use super::{Args, Context, RpcError, body_json, hexed, method};
use crate::chain::{ChainBlock, Event};
use crate::runtime::VERSION;
use codec::Encode;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{RpcModule, SubscriptionMessage, SubscriptionSink};
use serde_json::{Map, Value, json, value::to_raw_value};
use sp_core::H256;
use std::sync::{Arc, PoisonError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc};

/// Blocks that one client may hold.
const PINNED_MAX: usize = 1_024;
/// Operations of one client at a time; one more is answered "limitReached". Each has a thread while it looks for its
/// answer, and none while that waits to be sent.
const OPERATIONS_MAX: usize = 64;
/// Answers of operations that wait to be sent; while a client does not read them, its operations wait.
const ANSWERS_MAX: usize = 1_024;
/// Items of one answer.
const ITEMS_A_MESSAGE: usize = 256;

pub(super) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    let (name, end) = ("chainHead_v1_follow", "chainHead_v1_unfollow");
    module.register_subscription(name, "chainHead_v1_followEvent", end, |params, pending, context, _| async move {
        let with_runtime = Args::parse(&params).optional(0).ok().flatten().unwrap_or(false);
        let Ok(sink) = pending.accept().await else { return };
        let id = id_text(&sink);
        follow(&sink, &id, &context, with_runtime).await;
        let stop = to_raw_value(&json!({ "event": "stop" }));
        context.follows.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Ok(message) = stop {
            // Mostly the client is gone, and this goes nowhere.
            let _ = sink.send(SubscriptionMessage::from(message)).await;
        }
    })?;
    method(module, "chainHead_v1_header", |args, context| {
        let hash = pinned(&args, context)?;
        let Some(hash) = hash else { return Ok(None) };
        Ok(context.chain().block(&hash)?.map(|sealed| hexed(sealed.header.encode())))
    })?;
    method(module, "chainHead_v1_unpin", |args, context| {
        let hashes = match args.value(1) {
            Value::Array(all) => {
                all.iter().filter_map(Value::as_str).map(super::args::to_hash).collect::<Result<Vec<_>, _>>()?
            }
            _ => vec![args.hash(1)?.ok_or(RpcError::NoBlock)?],
        };
        let mut follows = context.follows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follow) = follows.get_mut(&args.get::<String>(0)?) {
            if hashes.iter().any(|hash| !follow.pinned.contains(hash)) {
                return Err(RpcError::NoBlock);
            }
            for hash in &hashes {
                follow.pinned.remove(hash);
            }
        }
        Ok(Value::Null)
    })?;
    method(module, "chainHead_v1_continue", |_, _| Ok(Value::Null))?;
    method(module, "chainHead_v1_stopOperation", |_, _| Ok(Value::Null))?;
    operation(module, "chainHead_v1_body", |_, context, hash| {
        let sealed = context.chain().block(&hash)?.ok_or(RpcError::NoBlock)?;
        Ok(vec![json!({ "event": "operationBodyDone", "value": body_json(&sealed) })])
    })?;
    operation(module, "chainHead_v1_call", |args, context, hash| {
        let state = context.state(Some(hash))?;
        let output = context.views.call(&state, &args.get::<String>(2)?, &args.bytes(3)?)?;
        Ok(vec![json!({ "event": "operationCallDone", "output": hexed(output) })])
    })?;
    operation(module, "chainHead_v1_storage", |args, context, hash| {
        let items = answer(&context.state(Some(hash))?, &args.get::<Vec<Query>>(2)?)?;
        let pages =
            items.chunks(ITEMS_A_MESSAGE).map(|page| json!({ "event": "operationStorageItems", "items": page }));
        Ok(pages.chain([json!({ "event": "operationStorageDone" })]).collect())
    })
}

fn id_text(sink: &SubscriptionSink) -> String {
    match serde_json::to_value(sink.subscription_id()) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(_) => String::new(),
    }
}

/// The block that a method names, if its follower holds it; none if there is no such follower.
fn pinned(args: &Args, context: &Context) -> Result<Option<H256>, RpcError> {
    let hash = args.hash(1)?.ok_or(RpcError::NoBlock)?;
    let follows = context.follows.lock().unwrap_or_else(PoisonError::into_inner);
    match follows.get(&args.get::<String>(0)?) {
        Some(follow) if follow.pinned.contains(&hash) => Ok(Some(hash)),
        Some(_) => Err(RpcError::NoBlock),
        None => Ok(None),
    }
}

/// Registers a method whose answer comes as events of the subscription, after the reply that names it.
fn operation(
    module: &mut RpcModule<Context>,
    name: &'static str,
    body: impl Fn(&Args, &Context, H256) -> Result<Vec<Value>, RpcError> + Send + Sync + Clone + 'static,
) -> Result<(), RegisterMethodError> {
    module.register_async_method(name, move |params, context, _| {
        let (args, body) = (Args::parse(&params), body.clone());
        async move {
            let limit = || Ok::<_, ErrorObjectOwned>(json!({ "result": "limitReached" }));
            let Some(hash) = pinned(&args, &context).map_err(ErrorObjectOwned::from)? else { return limit() };
            let (id, answers, permit) = {
                let mut follows = context.follows.lock().unwrap_or_else(PoisonError::into_inner);
                let name = args.get::<String>(0)?;
                let follow = follows.get_mut(&name).ok_or(RpcError::NoBlock)?;
                let Ok(permit) = follow.running.clone().try_acquire_owned() else { return limit() };
                follow.operations += 1;
                (follow.operations.to_string(), follow.answers.clone(), permit)
            };
            let operation = id.clone();
            tokio::spawn(async move {
                let _running = permit;
                let events = events_of(move || body(&args, &context, hash)).await;
                for mut event in events {
                    event["operationId"] = operation.clone().into();
                    // No thread waits here: who does not read holds up its own operations, and nobody else's.
                    if answers.send(event).await.is_err() {
                        // A follower that is gone needs no answer.
                        return;
                    }
                }
            });
            Ok(json!({ "result": "started", "operationId": id }))
        }
    })?;
    Ok(())
}

/// What an operation answers, found on a thread where it may take its time.
async fn events_of(body: impl FnOnce() -> Result<Vec<Value>, RpcError> + Send + 'static) -> Vec<Value> {
    let error = match tokio::task::spawn_blocking(body).await {
        Ok(Ok(events)) => return events,
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("a fault of the devnet: {error}"),
    };
    vec![json!({ "event": "operationError", "error": error })]
}

/// Tells a follower what happens until it is gone or too far behind.
async fn follow(sink: &SubscriptionSink, id: &str, context: &Context, with_runtime: bool) {
    let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
    let (mut events, finalised, above, best) = {
        let chain = context.chain();
        (chain.events(), chain.finalised().clone(), chain.unfinal(), chain.best().clone())
    };
    let pinned = above.iter().map(|sealed| sealed.hash).chain([finalised.hash]).collect();
    let running = Arc::new(Semaphore::new(OPERATIONS_MAX));
    let follow = Follow { answers, pinned, operations: 0, running };
    context.follows.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), follow);
    let mut first = json!({ "event": "initialized", "finalizedBlockHashes": [hexed(finalised.hash.0)] });
    if with_runtime {
        first["finalizedBlockRuntime"] = runtime();
    }
    let mut out = vec![first];
    out.extend(above.iter().map(|sealed| new_block(sealed, with_runtime)));
    out.push(json!({ "event": "bestBlockChanged", "bestBlockHash": hexed(best.hash.0) }));
    loop {
        for event in out.drain(..) {
            let Ok(message) = to_raw_value(&event) else { return };
            if sink.send(SubscriptionMessage::from(message)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    if !pin(context, id, &event) {
                        return;
                    }
                    tell(&event, with_runtime, &mut out);
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            Some(answer) = answered.recv() => out.push(answer),
            () = sink.closed() => return,
        }
    }
}

/// Holds new blocks for a follower; false when it holds too many.
fn pin(context: &Context, id: &str, event: &Event) -> bool {
    let Event::Best { enacted, .. } = event else { return true };
    let mut follows = context.follows.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(follow) = follows.get_mut(id) else { return false };
    follow.pinned.extend(enacted.iter().map(|sealed| sealed.hash));
    follow.pinned.len() <= PINNED_MAX
}

fn tell(event: &Event, with_runtime: bool, out: &mut Vec<Value>) {
    match event {
        Event::Best { enacted, .. } => {
            out.extend(enacted.iter().map(|sealed| new_block(sealed, with_runtime)));
            if let Some(best) = enacted.last() {
                out.push(json!({ "event": "bestBlockChanged", "bestBlockHash": hexed(best.hash.0) }));
            }
        }
        Event::Final { blocks, pruned } => {
            let hashes: Vec<String> = blocks.iter().map(|sealed| hexed(sealed.hash.0)).collect();
            let pruned: Vec<String> = pruned.iter().map(|hash| hexed(hash.0)).collect();
            out.push(json!({ "event": "finalized", "finalizedBlockHashes": hashes, "prunedBlockHashes": pruned }));
        }
    }
}

fn new_block(sealed: &ChainBlock, with_runtime: bool) -> Value {
    let mut event = json!({
        "event": "newBlock",
        "blockHash": hexed(sealed.hash.0),
        "parentBlockHash": hexed(sealed.header.parent_hash.0),
    });
    if with_runtime {
        event["newRuntime"] = Value::Null;
    }
    event
}

fn runtime() -> Value {
    let apis: Map<String, Value> = VERSION.apis.iter().map(|(id, version)| (hexed(id), json!(version))).collect();
    json!({
        "type": "valid",
        "spec": {
            "specName": VERSION.spec_name,
            "implName": VERSION.impl_name,
            "specVersion": VERSION.spec_version,
            "implVersion": VERSION.impl_version,
            "transactionVersion": VERSION.transaction_version,
            "apis": apis,
        },
    })
}
