//! One connection to one endpoint: how it is made, what is checked before it counts, and what is subscribed to on it.

use super::header::{Header, digest, hexed, unhex};
use super::needs;
use super::runtime::Runtime;
use super::settings::{Bounds, Endpoint};
use covey_proto::{BlockNumber, Digest};
use serde::Deserialize;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use subxt::Metadata;
use subxt::ext::codec::{Decode, Encode};
use subxt::rpcs::client::{RpcClient, RpcParams, RpcSubscription, rpc_params};
use subxt::rpcs::{Error as RpcError, UserError};
use tokio::sync::Notify;

/// Versions of metadata that are asked for, the newest first. Older ones know no runtime APIs.
const METADATA_VERSIONS: [u32; 2] = [16, 15];

/// Why an endpoint is of no use.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// It does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// It is of another chain.
    #[error("it follows another chain: its genesis is {theirs}, {needed} is needed")]
    OtherChain {
        /// Its genesis hash.
        theirs: Digest,
        /// The one that was asked for, or that another endpoint has.
        needed: Digest,
    },
    /// The chain's runtime lacks what this client needs.
    #[error(transparent)]
    Unfit(#[from] needs::Unfit),
}

/// Why a request has no answer that could be used.
#[derive(Debug)]
pub(super) enum AskError {
    /// The endpoint answered: with an error.
    Refused(UserError),
    /// The answer is not what it should be.
    Garbled(String),
    /// The connection is of no use any more.
    Broken(String),
}

impl From<AskError> for DialError {
    fn from(error: AskError) -> DialError {
        DialError::Unreachable(match error {
            AskError::Refused(error) => error.to_string(),
            AskError::Garbled(why) | AskError::Broken(why) => why,
        })
    }
}

/// What was asked and answered, over all connections.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) requests: AtomicU64,
    pub(super) bytes: AtomicU64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub(super) spec_version: u32,
    pub(super) transaction_version: u32,
}

/// A connection whose chain and runtime have been checked.
pub(super) struct Session {
    pub(super) url: Endpoint,
    rpc: RpcClient,
    runtime: Mutex<Arc<Runtime>>,
    broken: AtomicBool,
    fault: Mutex<String>,
    finalised: AtomicU32,
    /// Rings when the connection is found to be of no use.
    pub(super) ended: Notify,
    traffic: Arc<Traffic>,
    bounds: Bounds,
}

/// What is subscribed to.
pub(super) struct Subscriptions {
    pub(super) best: RpcSubscription<Header>,
    pub(super) finalised: RpcSubscription<Header>,
    pub(super) version: RpcSubscription<Version>,
}

impl Session {
    /// Connects, checks genesis and runtime. `runtimes` are those that are known already.
    pub(super) async fn open(
        url: &Endpoint,
        genesis: Option<Digest>,
        runtimes: &Runtimes,
        traffic: &Arc<Traffic>,
        bounds: Bounds,
    ) -> Result<(Session, Digest), DialError> {
        let connecting = RpcClient::from_insecure_url(url.whole());
        let rpc = match tokio::time::timeout(bounds.connect_timeout, connecting).await {
            Ok(rpc) => {
                rpc.map_err(|error| DialError::Unreachable(root_cause(&error).replace(url.whole(), &url.to_string())))?
            }
            Err(_) => return Err(DialError::Unreachable(format!("no connection in {:?}", bounds.connect_timeout))),
        };
        let asker = Asker { rpc: &rpc, traffic, bounds };
        let theirs: Option<String> = asker.ask("chain_getBlockHash", rpc_params![0_u32]).await?;
        let theirs = theirs.and_then(|text| digest(&text));
        let theirs = theirs.ok_or_else(|| DialError::Unreachable("it knows no genesis".into()))?;
        if let Some(needed) = genesis.filter(|needed| *needed != theirs) {
            return Err(DialError::OtherChain { theirs, needed });
        }
        let runtime = runtimes.newest(&asker, theirs).await?;
        let session = Session {
            url: url.clone(),
            rpc,
            runtime: Mutex::new(runtime),
            broken: AtomicBool::new(false),
            fault: Mutex::default(),
            finalised: AtomicU32::new(0),
            ended: Notify::new(),
            traffic: traffic.clone(),
            bounds,
        };
        Ok((session, theirs))
    }

    /// Subscribes to heads and versions.
    pub(super) async fn subscribe(&self) -> Result<Subscriptions, DialError> {
        let best = self.follow("chain_subscribeNewHeads", "chain_unsubscribeNewHeads");
        let finalised = self.follow("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads");
        let version = self.follow("state_subscribeRuntimeVersion", "state_unsubscribeRuntimeVersion");
        let (best, finalised, version) = futures::try_join!(best, finalised, version)?;
        Ok(Subscriptions { best, finalised, version })
    }

    async fn follow<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
        end: &'static str,
    ) -> Result<RpcSubscription<T>, AskError> {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        within(self.bounds, self.rpc.subscribe(name, rpc_params![], end)).await
    }

    /// Asks, once.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        params: RpcParams,
    ) -> Result<T, AskError> {
        let asker = Asker { rpc: &self.rpc, traffic: &self.traffic, bounds: self.bounds };
        let answer = asker.ask(method, params).await;
        if let Err(AskError::Broken(why)) = &answer {
            self.end(why);
        }
        answer
    }

    /// The newest runtime.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_runtime(&self, runtime: Arc<Runtime>) {
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }

    /// The runtime of a version, whose metadata are read at a block unless they are known.
    pub(super) async fn runtime_of(
        &self,
        runtimes: &Runtimes,
        version: &Version,
        at: Digest,
        genesis: Digest,
    ) -> Result<Arc<Runtime>, DialError> {
        let asker = Asker { rpc: &self.rpc, traffic: &self.traffic, bounds: self.bounds };
        runtimes.get(&asker, version, at, genesis).await
    }

    /// The runtime of the newest block.
    pub(super) async fn newest_runtime(&self, runtimes: &Runtimes, genesis: Digest) -> Result<Arc<Runtime>, DialError> {
        let asker = Asker { rpc: &self.rpc, traffic: &self.traffic, bounds: self.bounds };
        runtimes.newest(&asker, genesis).await
    }

    /// The newest block that this endpoint has called final.
    pub(super) fn finalised(&self) -> BlockNumber {
        BlockNumber(self.finalised.load(Ordering::Relaxed))
    }

    pub(super) fn note_final(&self, block: BlockNumber) {
        self.finalised.fetch_max(block.0, Ordering::Relaxed);
    }

    /// Says that the connection is of no use.
    pub(super) fn end(&self, why: &str) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            why.clone_into(&mut self.fault.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.ended.notify_one();
    }

    /// Why it is of no use; none while it is.
    pub(super) fn fault(&self) -> Option<String> {
        let broken = self.broken.load(Ordering::Acquire);
        broken.then(|| self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A connection on which can be asked.
struct Asker<'a> {
    rpc: &'a RpcClient,
    traffic: &'a Traffic,
    bounds: Bounds,
}

impl Asker<'_> {
    async fn ask<T: serde::de::DeserializeOwned>(&self, method: &str, params: RpcParams) -> Result<T, AskError> {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        let answer = within(self.bounds, self.rpc.request_raw(method, params.build())).await?;
        self.traffic.bytes.fetch_add(answer.get().len() as u64, Ordering::Relaxed);
        serde_json::from_str(answer.get()).map_err(|error| AskError::Garbled(format!("{method}: {error}")))
    }
}

async fn within<T>(bounds: Bounds, answer: impl Future<Output = Result<T, RpcError>>) -> Result<T, AskError> {
    match tokio::time::timeout(bounds.request_timeout, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(RpcError::User(error))) => Err(AskError::Refused(error)),
        Ok(Err(RpcError::Deserialization(error))) => Err(AskError::Garbled(error.to_string())),
        Ok(Err(error)) => Err(AskError::Broken(root_cause(&error))),
        Err(_) => Err(AskError::Broken(format!("no answer in {:?}", bounds.request_timeout))),
    }
}

/// The innermost of an error's causes: the outer ones say only that there was one.
fn root_cause(error: &RpcError) -> String {
    match error {
        RpcError::Client(inner) => {
            let mut at: &(dyn std::error::Error + 'static) = &**inner;
            while let Some(next) = at.source() {
                at = next;
            }
            at.to_string()
        }
        error => error.to_string(),
    }
}

/// Runtimes that were read: an upgrade is rare, a view of a block before one is ordinary.
#[derive(Default)]
pub(super) struct Runtimes(Mutex<Vec<Arc<Runtime>>>);

/// Runtimes kept: today's and those of the last hours' blocks.
const RUNTIMES_MAX: usize = 3;

impl Runtimes {
    fn known(&self, version: &Version) -> Option<Arc<Runtime>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |runtime: &&Arc<Runtime>| {
            (runtime.spec_version, runtime.transaction_version) == (version.spec_version, version.transaction_version)
        };
        all.iter().find(is_it).cloned()
    }

    /// The runtime of the newest block: version and metadata of the same one, or an upgrade in between would marry the
    /// one's number to the other's metadata.
    async fn newest(&self, asker: &Asker<'_>, genesis: Digest) -> Result<Arc<Runtime>, DialError> {
        let best: Option<String> = asker.ask("chain_getBlockHash", rpc_params![]).await?;
        let best = best.and_then(|text| digest(&text));
        let best = best.ok_or_else(|| DialError::Unreachable("it has no newest block".into()))?;
        let version: Version = asker.ask("state_getRuntimeVersion", rpc_params![hexed(best.as_bytes())]).await?;
        self.get(asker, &version, best, genesis).await
    }

    async fn get(
        &self,
        asker: &Asker<'_>,
        version: &Version,
        at: Digest,
        genesis: Digest,
    ) -> Result<Arc<Runtime>, DialError> {
        if let Some(known) = self.known(version) {
            return Ok(known);
        }
        let metadata = metadata(asker, at).await?;
        let runtime = Runtime::new(metadata.arc(), version.spec_version, version.transaction_version, genesis);
        needs::check(&runtime)?;
        let runtime = Arc::new(runtime);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(0, runtime.clone());
        all.truncate(RUNTIMES_MAX);
        Ok(runtime)
    }
}

async fn metadata(asker: &Asker<'_>, at: Digest) -> Result<Metadata, DialError> {
    let at = hexed(at.as_bytes());
    for version in METADATA_VERSIONS {
        let params = rpc_params!["Metadata_metadata_at_version", hexed(version.encode()), &at];
        let answer: String = asker.ask("state_call", params).await?;
        let bytes = unhex(&answer).and_then(|bytes| Option::<Vec<u8>>::decode(&mut &bytes[..]).ok());
        let garbled = |why: &dyn std::fmt::Display| DialError::Unreachable(format!("its metadata V{version}: {why}"));
        match bytes {
            Some(Some(bytes)) => return Metadata::decode_from(&bytes).map_err(|error| garbled(&error)),
            Some(None) => {}
            None => return Err(garbled(&"no bytes")),
        }
    }
    Err(DialError::Unreachable("it has no metadata V15 or V16, without which its runtime APIs are unknown".into()))
}
