//! JSON-RPC: what clients may ask, in the words of a real node. Each file has one family of methods; what they share
//! is here.

mod archive;
mod chain_head;
mod legacy;
mod operate;
mod transactions;
mod views;

use crate::chain::{Chain, ChainError, PoolError, Sealed, State, StateError, StoreError, SubmitError};
use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};
use sp_core::H256;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

use crate::chain::Event;
use crate::faults::Faults;
pub use operate::{BlockInfo, Heads};

/// What every method has.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) chain: Arc<Mutex<Chain>>,
    pub(crate) faults: Faults,
    follows: Arc<Mutex<HashMap<String, chain_head::Follow>>>,
    views: Arc<views::Views>,
}

impl Context {
    pub(crate) fn new(chain: Chain, faults: Faults) -> Self {
        Self { chain: Arc::new(Mutex::new(chain)), faults, follows: Arc::default(), views: Arc::default() }
    }

    /// The chain. A method that panicked has not left it half changed: what changes it writes last.
    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens from now on, and the newest and the newest final block up to now.
    fn events(&self) -> (broadcast::Receiver<Event>, Arc<Sealed>, Arc<Sealed>) {
        let chain = self.chain();
        (chain.events(), chain.best().clone(), chain.finalised().clone())
    }

    /// A state, of the newest block unless a hash is given.
    fn state(&self, at: Option<H256>) -> Result<State, RpcError> {
        let chain = self.chain();
        Ok(match at {
            Some(hash) => chain.state(&hash)?,
            None => chain.best_state(),
        })
    }
}

/// Why a method gives no answer, in a real node's numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("Client error: Execution failed: {0}")]
    Call(#[from] crate::chain::CallError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Chain(#[from] ChainError),
    #[error("Invalid params: {0}")]
    Params(String),
    #[error("Invalid block hash")]
    NoBlock,
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let text = error.to_string();
        let bare = |code, message: &str| Self::owned(code, message, None::<()>);
        match error {
            RpcError::State(_) | RpcError::Call(_) | RpcError::Store(_) => bare(4003, &text),
            RpcError::Chain(_) => bare(-32_000, &text),
            RpcError::Params(_) => bare(-32_602, &text),
            RpcError::NoBlock => bare(-32_801, &text),
            RpcError::Submit(error) => match error {
                SubmitError::Format(_) => bare(1001, &text),
                SubmitError::Call(_) => bare(1002, &text),
                SubmitError::Refused(TransactionValidityError::Invalid(why)) => {
                    let data = match why {
                        InvalidTransaction::Custom(number) => format!("Custom error: {number}"),
                        why => <&'static str>::from(why).to_owned(),
                    };
                    Self::owned(1010, "Invalid Transaction", Some(data))
                }
                SubmitError::Refused(TransactionValidityError::Unknown(why)) => {
                    Self::owned(1011, "Unknown Transaction Validity", Some(<&'static str>::from(why)))
                }
                SubmitError::Pool(PoolError::Already(hash)) => Self::owned(1013, text, Some(format!("{hash:?}"))),
                SubmitError::Pool(PoolError::Priority { .. }) => Self::owned(
                    1014,
                    text,
                    Some("The transaction has too low priority to replace another transaction already in the pool."),
                ),
                SubmitError::Pool(PoolError::Full) => Self::owned(
                    1016,
                    "Immediately Dropped",
                    Some("The transaction couldn't enter the pool because of the limit"),
                ),
            },
        }
    }
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

/// Registers a method whose body is synchronous, on a thread where it may take its time.
fn method<R>(
    module: &mut RpcModule<Context>,
    name: &'static str,
    body: impl Fn(Args, &Context) -> Result<R, RpcError> + Send + Sync + Clone + 'static,
) -> Result<(), jsonrpsee::core::RegisterMethodError>
where
    R: serde::Serialize + Clone + Send + 'static,
{
    module.register_blocking_method(name, move |params, context, _| {
        body(Args::parse(&params), &context).map_err(ErrorObjectOwned::from)
    })?;
    Ok(())
}

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

fn to_hash(text: &str) -> Result<H256, RpcError> {
    let bytes: Result<[u8; 32], _> = unhex(text)?.try_into();
    bytes.map(H256).map_err(|_| RpcError::Params(format!("{text:.80}: a hash has 32 bytes")))
}

pub(crate) fn hexed(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// A header as legacy methods show it.
fn header_json(sealed: &Sealed) -> Value {
    serde_json::to_value(&sealed.header).unwrap_or(Value::Null)
}

/// Extrinsics in hex.
fn body_json(sealed: &Sealed) -> Vec<String> {
    sealed.body.iter().map(hexed).collect()
}
