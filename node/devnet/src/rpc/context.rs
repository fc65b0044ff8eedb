//! What every method has: the chain behind its lock, the faults that are to happen, what clients hold.

use super::args::{Args, hexed};
use super::error::RpcError;
use super::follow::Follow;
use super::views::Views;
use crate::chain::{Chain, ChainBlock, Event, State};
use crate::faults::Faults;
use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use sp_core::H256;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, broadcast};

/// What every method has.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) chain: Arc<Mutex<Chain>>,
    pub(crate) faults: Faults,
    /// Clients that follow the chain, by the id of their subscription.
    pub(super) follows: Arc<Mutex<HashMap<String, Follow>>>,
    pub(super) views: Arc<Views>,
    /// Places for those that look up what clients follow: see [`SCANS_MAX`].
    pub(super) scans: Arc<Semaphore>,
}

/// Subscriptions whose keys are looked up at once. Each holds one of the threads that answer requests, of which there are
/// some hundred.
const SCANS_MAX: usize = 2;

impl Context {
    pub(crate) fn new(chain: Chain, faults: Faults) -> Self {
        let (chain, scans) = (Arc::new(Mutex::new(chain)), Arc::new(Semaphore::new(SCANS_MAX)));
        Self { chain, faults, follows: Arc::default(), views: Arc::default(), scans }
    }

    /// The chain. A method that panicked has not left it half changed: what changes it writes last.
    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens from now on, and the newest and the newest final block up to now.
    pub(super) fn events(&self) -> (broadcast::Receiver<Event>, Arc<ChainBlock>, Arc<ChainBlock>) {
        let chain = self.chain();
        (chain.events(), chain.best().clone(), chain.finalised().clone())
    }

    /// A state, of the newest block unless a hash is given.
    pub(super) fn state(&self, at: Option<H256>) -> Result<State, RpcError> {
        let chain = self.chain();
        Ok(match at {
            Some(hash) => chain.state(&hash)?,
            None => chain.best_state(),
        })
    }
}

/// Registers a method whose body is synchronous, on a thread where it may take its time.
pub(super) fn method<R>(
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

/// A header as legacy methods show it.
pub(super) fn header_json(sealed: &ChainBlock) -> Value {
    serde_json::to_value(&sealed.header).unwrap_or(Value::Null)
}

/// Extrinsics in hex.
pub(super) fn body_json(sealed: &ChainBlock) -> Vec<String> {
    sealed.body.iter().map(hexed).collect()
}
