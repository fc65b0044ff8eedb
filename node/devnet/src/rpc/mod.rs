//! JSON-RPC: what clients may ask, in the words of a real node.
//!
//! Each family of methods has a file: `legacy` (`chain_`, `state_`, `author_` …), `transactions`, `archive`, `chain_head`, and
//! `operate`, which no real node has. They share what every method has (`context`, with what clients hold in `follow` and
//! answers at hand in `views`), its arguments (`args`) and its errors, in a real node's numbers (`error`).

mod archive;
mod args;
mod chain_head;
mod context;
mod error;
mod follow;
mod legacy;
mod operate;
mod transactions;
mod views;

use args::{Args, hexed, unhex};
pub(crate) use context::Context;
use context::{body_json, header_json, method};
use error::RpcError;
use jsonrpsee::RpcModule;
use serde_json::json;

pub use operate::{BlockInfo, Heads};

/// The same without what only a devnet's operator may do: anybody who finds the port may read and send transactions.
pub(crate) fn without_operation(mut module: RpcModule<Context>) -> RpcModule<Context> {
    let names: Vec<&'static str> = module.method_names().filter(|name| name.starts_with("covey_")).collect();
    for name in names {
        module.remove_method(name);
    }
    module
}

/// Everything that there is, with the list of itself.
pub(crate) fn module(context: Context) -> Result<RpcModule<Context>, jsonrpsee::core::RegisterMethodError> {
    let mut module = RpcModule::new(context);
    legacy::register(&mut module)?;
    transactions::register(&mut module)?;
    archive::register(&mut module)?;
    chain_head::register(&mut module)?;
    operate::register(&mut module)?;
    let mut names: Vec<String> = module.method_names().map(str::to_owned).collect();
    names.push("rpc_methods".into());
    names.sort();
    module.register_method("rpc_methods", move |_, _, _| json!({ "methods": names }))?;
    Ok(module)
}
