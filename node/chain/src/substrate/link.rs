//! The connection to a chain as its users see it: one that is always there. A supervisor keeps one endpoint connected,
//! goes to the next where one fails or falls silent, and follows heads and runtime; a request waits for a connection and
//! is asked again on the next, until its patience is over.

use super::failure::{Failure, is_stateless, is_unknown, no_state};
use super::finals::Finals;
use super::header::{Head, Header, digest, hexed};
use super::runtime::Runtime;
use super::session::{AskError, DialError, Runtimes, Session, Subscriptions, Traffic, Version};
use super::settings::{Endpoint, Settings};
use crate::{Heads, LedgerError, STATE_KEPT};
use covey_proto::{BlockNumber, Digest};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subxt::config::Hasher as _;
use subxt::config::substrate::DynamicHasher256;
use subxt::rpcs::client::{RpcParams, rpc_params};
use tokio::sync::watch;
use tokio::time::Instant;

/// A connection that ended sooner counts as a failed try: the next one waits longer.
const LASTED: Duration = Duration::from_secs(1);

/// Final blocks come in batches: they may be silent for this many times as long as blocks may.
const STILL: u32 = 3;

/// Between two looks whether an endpoint has come as far as was seen final elsewhere.
const BEHIND: Duration = Duration::from_millis(50);

/// The connection to a chain.
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) genesis: Digest,
    /// The connection in use; none while there is none.
    session: watch::Sender<Option<Arc<Session>>>,
    heads: watch::Sender<Heads>,
    finals: Mutex<Finals>,
    runtimes: Runtimes,
    traffic: Arc<Traffic>,
    /// What came of the last try to connect, for whoever waits in vain.
    last_fault: Mutex<String>,
    /// Two endpoints that disagree on what is final: nothing is read until a person has looked.
    disagreement: Mutex<Option<String>>,
}

/// What became of the first tries.
pub(super) type Tries = Vec<(Endpoint, DialError)>;

impl Link {
    /// Connects to the first endpoint that will do, and follows it. The supervisor is to be spawned.
    pub(super) async fn connect(
        settings: Settings,
    ) -> Result<(Arc<Link>, impl Future<Output = ()> + Send + use<>), Tries> {
        let urls: Vec<Endpoint> = settings.endpoints.iter().map(|url| Endpoint::new(url)).collect();
        let (traffic, runtimes) = (Arc::new(Traffic::default()), Runtimes::default());
        let mut tries = Tries::new();
        let mut first = None;
        for (at, url) in urls.iter().enumerate() {
            let opened = Session::open(url, settings.genesis, &runtimes, &traffic, settings.bounds).await;
            let opened = match opened {
                Ok((session, genesis)) => session.subscribe().await.map(|all| (session, genesis, all)),
                Err(error) => Err(error),
            };
            match opened {
                Ok((session, genesis, subscriptions)) => {
                    first = Some((at, Arc::new(session), genesis, subscriptions));
                    break;
                }
                Err(error) => tries.push((url.clone(), error)),
            }
        }
        let Some((at, session, genesis, subscriptions)) = first else { return Err(tries) };
        for (url, error) in &tries {
            tracing::warn!(%url, %error, "this endpoint is left out for now");
        }
        let link = Arc::new(Link {
            settings,
            genesis,
            session: watch::Sender::new(None),
            heads: watch::Sender::default(),
            finals: Mutex::default(),
            runtimes,
            traffic,
            last_fault: Mutex::new("it was never reached".into()),
            disagreement: Mutex::default(),
        });
        let supervisor = Supervisor { link: link.clone(), urls, at };
        Ok((link.clone(), supervisor.run(session, subscriptions)))
    }

    /// How far the chain is.
    pub(super) fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    /// Requests made and bytes of their answers.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let load = |of: &std::sync::atomic::AtomicU64| of.load(std::sync::atomic::Ordering::Relaxed);
        (load(&self.traffic.requests), load(&self.traffic.bytes))
    }

    fn finals(&self) -> MutexGuard<'_, Finals> {
        self.finals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest block that was seen final.
    pub(super) fn newest_final(&self) -> Option<(BlockNumber, Digest)> {
        self.finals().newest()
    }

    /// The disagreement of two endpoints, if there is one.
    pub(super) fn agreed(&self) -> Result<(), LedgerError> {
        match &*self.disagreement.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(what) => Err(LedgerError::Disagreement(what.clone())),
            None => Ok(()),
        }
    }

    /// Two endpoints disagree: said once, kept for good.
    pub(super) fn disagree(&self, what: String) {
        let mut known = self.disagreement.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            tracing::error!(%what, "endpoints disagree on what is final; nothing more is read until a person has looked");
            *known = Some(what);
        }
    }

    /// The endpoint in use.
    pub(super) fn url(&self) -> Option<Endpoint> {
        self.session.borrow().as_ref().map(|session| session.url.clone())
    }

    /// Another connection.
    pub(super) async fn open(&self, url: &Endpoint) -> Result<Session, DialError> {
        let genesis = Some(self.genesis);
        let opened = Session::open(url, genesis, &self.runtimes, &self.traffic, self.settings.bounds).await;
        opened.map(|(session, _)| session)
    }

    /// A connection that is not known to be broken, to an endpoint that has seen a block final: the next one may be
    /// behind, and then knows nothing of it.
    async fn session_at(&self, block: BlockNumber, deadline: Instant) -> Result<Arc<Session>, Failure> {
        loop {
            let session = self.session(deadline).await?;
            let url = &session.url;
            if session.finalised() >= block {
                return Ok(session);
            }
            if Instant::now() >= deadline {
                return Err(Failure::Unreachable(format!("{url} is behind: it has not seen block {block} final")));
            }
            tokio::time::sleep(BEHIND).await;
        }
    }

    /// A connection that is not known to be broken.
    async fn session(&self, deadline: Instant) -> Result<Arc<Session>, Failure> {
        let mut sessions = self.session.subscribe();
        let usable = sessions.wait_for(|session| session.as_ref().is_some_and(|session| session.fault().is_none()));
        match tokio::time::timeout_at(deadline, usable).await {
            Ok(Ok(session)) => session.clone().ok_or_else(|| Failure::Unreachable("the client has ended".into())),
            Ok(Err(_)) => Err(Failure::Unreachable("the client has ended".into())),
            Err(_) => Err(Failure::Unreachable(format!(
                "no endpoint in {:?}: {}",
                self.settings.bounds.patience,
                self.last_fault.lock().unwrap_or_else(PoisonError::into_inner)
            ))),
        }
    }

    /// The runtime of the newest block.
    pub(super) async fn runtime(&self) -> Result<Arc<Runtime>, LedgerError> {
        let deadline = Instant::now() + self.settings.bounds.patience;
        Ok(self.session(deadline).await?.runtime())
    }

    /// Asks until there is an answer or the patience is over. What is asked must not change anything by being asked
    /// twice.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        params: RpcParams,
    ) -> Result<T, Failure> {
        self.ask_at(BlockNumber(0), method, params).await
    }

    /// The same of an endpoint that has seen a block final.
    pub(super) async fn ask_at<T: serde::de::DeserializeOwned>(
        &self,
        block: BlockNumber,
        method: &'static str,
        params: RpcParams,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.settings.bounds.patience;
        // Where all endpoints say the same, it is not theirs: each request leaves one at most.
        let mut may_leave = self.settings.endpoints.len() > 1;
        loop {
            let session = self.session_at(block, deadline).await?;
            let failure = match session.ask(method, params.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(AskError::Refused(error)) => Failure::Refused(error),
                Err(AskError::Garbled(why)) => Failure::Unreachable(why),
                Err(AskError::Broken(why)) => {
                    tracing::debug!(%why, url = %session.url, method, "asking again");
                    continue;
                }
            };
            if !may_leave || !self.is_the_endpoints(&failure, block) {
                return Err(failure);
            }
            may_leave = false;
            session.end(&format!("{method}: {}", LedgerError::from(failure)));
        }
    }

    /// Whether another endpoint may have an answer: this one talks nonsense, or lacks a block or a state that it should
    /// have.
    fn is_the_endpoints(&self, failure: &Failure, block: BlockNumber) -> bool {
        match failure {
            Failure::Unreachable(_) => true,
            Failure::Refused(_) if block == BlockNumber(0) => false,
            Failure::Refused(_) => {
                let is_kept = block.0.saturating_add(STATE_KEPT) > self.heads.borrow().finalised.0;
                is_kept && (is_stateless(failure) || is_unknown(failure))
            }
        }
    }

    /// The hash of a final block.
    pub(super) async fn final_hash(&self, block: BlockNumber) -> Result<Digest, LedgerError> {
        let heads = *self.heads.borrow();
        if block > heads.finalised {
            return Err(LedgerError::NoState { block, kept: STATE_KEPT, best: heads.best });
        }
        let known = self.finals().get(block);
        if let Some(hash) = known {
            return Ok(hash);
        }
        // The endpoint may be another by now, one that is behind: then its block of that number need not be final.
        let deadline = Instant::now() + self.settings.bounds.patience;
        let session = self.session_at(block, deadline).await?;
        let answer: Option<String> = match session.ask("chain_getBlockHash", rpc_params![block.0]).await {
            Ok(answer) => answer,
            Err(error) => return Err(LedgerError::Unreachable(DialError::from(error).to_string())),
        };
        let hash = answer.and_then(|text| digest(&text));
        let hash = hash.ok_or(LedgerError::NoState { block, kept: STATE_KEPT, best: heads.best })?;
        let noted = self.finals().insert(block, hash, &session.url.to_string());
        noted.map_err(|conflict| {
            self.disagree(conflict.to_string());
            LedgerError::Disagreement(conflict.to_string())
        })?;
        Ok(hash)
    }

    /// The runtime that a block was made with.
    pub(super) async fn runtime_at(&self, hash: Digest, block: BlockNumber) -> Result<Arc<Runtime>, LedgerError> {
        let asked = self.ask_at(block, "state_getRuntimeVersion", rpc_params![hexed(hash.as_bytes())]).await;
        let version: Version = asked.map_err(|failure| self.no_state(block, failure))?;
        let session = self.session_at(block, Instant::now() + self.settings.bounds.patience).await?;
        let runtime = session.runtime_of(&self.runtimes, &version, hash, self.genesis).await;
        runtime.map_err(|error| match error {
            DialError::Unreachable(why) => LedgerError::Unreachable(why),
            error => LedgerError::Unfit(error.to_string()),
        })
    }

    /// What it means that a block's state could not be read.
    pub(super) fn no_state(&self, block: BlockNumber, failure: Failure) -> LedgerError {
        no_state(failure, block, self.heads.borrow().best)
    }

    fn on_best(&self, number: BlockNumber) {
        self.heads.send_if_modified(|heads| {
            let best = number.max(heads.finalised);
            let changed = heads.best != best;
            heads.best = best;
            changed
        });
    }

    fn on_final(&self, session: &Session, head: Head) {
        session.note_final(head.number);
        let first = self.newest_final().is_none();
        let noted = self.finals().note(head, &session.url.to_string());
        if let Err(conflict) = noted {
            self.disagree(conflict.to_string());
            return;
        }
        self.heads.send_if_modified(|heads| {
            let changed = first || head.number > heads.finalised;
            heads.finalised = heads.finalised.max(head.number);
            heads.best = heads.best.max(heads.finalised);
            changed
        });
    }
}

/// Keeps one endpoint connected.
struct Supervisor {
    link: Arc<Link>,
    urls: Vec<Endpoint>,
    /// The endpoint in use.
    at: usize,
}

impl Supervisor {
    async fn run(mut self, session: Arc<Session>, subscriptions: Subscriptions) {
        let mut served = Some((session, subscriptions));
        let bounds = self.link.settings.bounds;
        let mut pause = bounds.backoff;
        loop {
            if let Some((session, subscriptions)) = served.take() {
                let since = Instant::now();
                self.link.session.send_replace(Some(session.clone()));
                let why = self.serve(&session, subscriptions).await;
                session.end(&why);
                self.link.session.send_replace(None);
                tracing::info!(url = %session.url, %why, "the connection to the chain ended");
                self.fault(format!("{}: {why}", session.url));
                // One that lasted is worth an immediate try; one that ends as soon as it is made is not.
                if since.elapsed() > LASTED {
                    pause = bounds.backoff;
                } else {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(bounds.backoff_max);
                }
            }
            for _ in 0..self.urls.len() {
                if let Some(found) = self.dial().await {
                    served = Some(found);
                    break;
                }
                self.leave();
            }
            if served.is_none() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(bounds.backoff_max);
            }
        }
    }

    /// The next endpoint is dialled first.
    fn leave(&mut self) {
        self.at = (self.at + 1) % self.urls.len().max(1);
    }

    fn fault(&self, what: String) {
        *self.link.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    async fn dial(&self) -> Option<(Arc<Session>, Subscriptions)> {
        let url = self.urls.get(self.at)?;
        let opened = match self.link.open(url).await {
            Ok(session) => session.subscribe().await.map(|subscriptions| (session, subscriptions)),
            Err(error) => Err(error),
        };
        match opened {
            Ok((session, subscriptions)) => {
                tracing::info!(%url, "connected to the chain");
                Some((Arc::new(session), subscriptions))
            }
            Err(error @ DialError::Unreachable(_)) => {
                tracing::debug!(%url, %error, "this endpoint does not do");
                self.fault(format!("{url}: {error}"));
                None
            }
            Err(error) => {
                tracing::error!(%url, %error, "this endpoint does not do");
                self.fault(format!("{url}: {error}"));
                None
            }
        }
    }

    /// Follows an endpoint until it fails; says why.
    async fn serve(&mut self, session: &Arc<Session>, mut all: Subscriptions) -> String {
        let hasher = DynamicHasher256::new(session.runtime().metadata());
        let silence = self.link.settings.bounds.silence;
        let mut silent_at = Instant::now() + silence;
        let mut still_at = Instant::now() + silence * STILL;
        loop {
            tokio::select! {
                header = all.best.next() => match header {
                    Some(Ok(header)) => {
                        let Some(number) = header.number() else { return "a header without a number".into() };
                        silent_at = Instant::now() + silence;
                        self.link.on_best(number);
                    }
                    ended => return ended_by("its blocks", ended.map(drop_ok)),
                },
                header = all.finalised.next() => match header {
                    Some(Ok(header)) => {
                        let Some(head) = header.head(&hasher) else { return "what is no header".into() };
                        still_at = Instant::now() + silence * STILL;
                        self.link.on_final(session, head);
                    }
                    ended => return ended_by("its final blocks", ended.map(drop_ok)),
                },
                version = all.version.next() => match version {
                    Some(Ok(version)) => {
                        if let Err(error) = self.upgrade(session, &version).await {
                            self.leave();
                            return error.to_string();
                        }
                    }
                    ended => return ended_by("its runtime's version", ended.map(drop_ok)),
                },
                () = session.ended.notified() => {
                    // It connects, and is of no use for all that.
                    self.leave();
                    return session.fault().unwrap_or_default();
                }
                () = tokio::time::sleep_until(still_at) => {
                    let stood = silence * STILL;
                    still_at = Instant::now() + stood;
                    if self.urls.len() > 1 {
                        self.leave();
                        return format!("no final block in {stood:?}: trying the next endpoint");
                    }
                    tracing::warn!(url = %session.url, ?stood, "no block becomes final");
                }
                () = tokio::time::sleep_until(silent_at) => {
                    if let Some(why) = self.on_silence(session, silence).await {
                        return why;
                    }
                    silent_at = Instant::now() + silence;
                }
            }
        }
    }

    /// A chain that stands still is asked whether it lives; where there is another endpoint, that one is tried.
    async fn on_silence(&mut self, session: &Session, silence: Duration) -> Option<String> {
        let alive = session.ask::<Option<Header>>("chain_getHeader", rpc_params![]).await;
        if let Err(error) = alive {
            self.leave();
            return Some(DialError::from(error).to_string());
        }
        if self.urls.len() < 2 {
            tracing::warn!(url = %session.url, ?silence, "the chain makes no blocks");
            return None;
        }
        self.leave();
        Some(format!("no block in {silence:?}: trying the next endpoint"))
    }

    async fn upgrade(&self, session: &Session, version: &Version) -> Result<(), DialError> {
        let now = session.runtime();
        if (now.spec_version, now.transaction_version) == (version.spec_version, version.transaction_version) {
            return Ok(());
        }
        let runtime = session.newest_runtime(&self.link.runtimes, self.link.genesis).await?;
        tracing::info!(from = now.spec_version, to = runtime.spec_version, "the chain's runtime was upgraded");
        session.set_runtime(runtime);
        Ok(())
    }
}

fn drop_ok<T, E>(result: Result<T, E>) -> Result<(), E> {
    result.map(drop)
}

fn ended_by(what: &str, ended: Option<Result<(), subxt::rpcs::Error>>) -> String {
    match ended {
        Some(Err(error)) => format!("{what}: {error}"),
        _ => format!("{what} end"),
    }
}
