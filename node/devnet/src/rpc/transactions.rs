//! Transactions: handing them over, and hearing what becomes of them, in the old words and in the new.

use super::{Args, Context, RpcError, hexed, method};
use crate::chain::{Status, hash_of};
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionMessage};
use serde_json::{Value, json, value::to_raw_value};
use sp_core::H256;
use tokio::sync::mpsc;

type Statuses = Option<mpsc::Receiver<Status>>;

pub(super) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    method(module, "author_submitExtrinsic", |args, context| {
        let (hash, _) = context.chain().submit(&args.bytes(0)?, false)?;
        Ok(hexed(hash.0))
    })?;
    method(module, "author_pendingExtrinsics", |_, context| {
        Ok(context.chain().pending().into_iter().map(hexed).collect::<Vec<_>>())
    })?;
    method(module, "transaction_v1_broadcast", |args, context| {
        let bytes = args.bytes(0)?;
        // The broadcaster does not say what is wrong with a transaction; it would try again later.
        let _ = context.chain().submit(&bytes, false);
        Ok(Some(hexed(hash_of(&bytes).0)))
    })?;
    method(module, "transaction_v1_stop", |_, _| Ok(Value::Null))?;
    let (name, end) = ("author_submitAndWatchExtrinsic", "author_unwatchExtrinsic");
    module.register_subscription(name, "author_extrinsicUpdate", end, |params, pending, context, _| async move {
        match submit(&Args::parse(&params), &context) {
            Ok((_, statuses)) => watch(pending, statuses, old_words).await,
            Err(error) => pending.reject(ErrorObjectOwned::from(error)).await,
        }
    })?;
    let (name, end) = ("transactionWatch_v1_submitAndWatch", "transactionWatch_v1_unwatch");
    module.register_subscription(
        name,
        "transactionWatch_v1_watchEvent",
        end,
        |params, pending, context, _| async move {
            match submit(&Args::parse(&params), &context) {
                Ok((_, statuses)) => watch(pending, statuses, new_words).await,
                Err(error) => {
                    let Ok(sink) = pending.accept().await else { return };
                    let error = ErrorObjectOwned::from(error);
                    let why =
                        error.data().map_or(error.message().to_owned(), |data| data.get().trim_matches('"').to_owned());
                    let event = json!({ "event": "invalid", "error": why });
                    if let Ok(message) = to_raw_value(&event) {
                        // A client that is gone does not read it.
                        let _ = sink.send(SubscriptionMessage::from(message)).await;
                    }
                }
            }
        },
    )?;
    Ok(())
}

fn submit(args: &Args, context: &Context) -> Result<(H256, Statuses), RpcError> {
    Ok(context.chain().submit(&args.bytes(0)?, true)?)
}

async fn watch(pending: PendingSubscriptionSink, statuses: Statuses, words: fn(Status) -> Option<Value>) {
    let (Ok(sink), Some(mut statuses)) = (pending.accept().await, statuses) else { return };
    loop {
        tokio::select! {
            status = statuses.recv() => {
                let Some(status) = status else { return };
                let Some(message) = words(status).and_then(|event| to_raw_value(&event).ok()) else { continue };
                if sink.send(SubscriptionMessage::from(message)).await.is_err() {
                    return;
                }
                if status.is_last() {
                    return;
                }
            }
            () = sink.closed() => return,
        }
    }
}

fn old_words(status: Status) -> Option<Value> {
    Some(match status {
        Status::Ready => "ready".into(),
        Status::Future => "future".into(),
        Status::InBlock(hash, _) => json!({ "inBlock": hexed(hash.0) }),
        Status::Retracted(hash) => json!({ "retracted": hexed(hash.0) }),
        Status::Final(hash, _) => json!({ "finalized": hexed(hash.0) }),
        Status::Usurped(by) => json!({ "usurped": hexed(by.0) }),
        Status::Invalid => "invalid".into(),
        Status::Dropped => "dropped".into(),
    })
}

fn new_words(status: Status) -> Option<Value> {
    let block = |hash: H256, at: u32| json!({ "hash": hexed(hash.0), "index": at });
    Some(match status {
        Status::Ready | Status::Future => json!({ "event": "validated" }),
        Status::InBlock(hash, at) => json!({ "event": "bestChainBlockIncluded", "block": block(hash, at) }),
        Status::Retracted(_) => json!({ "event": "bestChainBlockIncluded", "block": null }),
        Status::Final(hash, at) => json!({ "event": "finalized", "block": block(hash, at) }),
        Status::Usurped(_) => json!({ "event": "invalid", "error": "another transaction took its place" }),
        Status::Invalid => json!({ "event": "invalid", "error": "it is no longer valid" }),
        Status::Dropped => json!({ "event": "dropped", "error": "the pool has let go of it" }),
    })
}
