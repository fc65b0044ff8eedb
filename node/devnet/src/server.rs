//! The process's outside: the listener and the timer.

use crate::chain::{Chain, ChainError};
use crate::config::{Blocks, Config};
use crate::faults::Faults;
use crate::origin;
use crate::rpc::{self, BlockInfo, Context, Heads};
use jsonrpsee::server::{
    BatchRequestConfig, HttpRequest, Methods, RandomStringIdProvider, Server, ServerConfig, ServerHandle,
    serve_with_graceful_shutdown, stop_channel,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::Service;

/// Bytes of an answer: metadata is 100 KB, a subnet of 256 uids some hundreds.
const ANSWER_MAX: u32 = 16 << 20;
/// Bytes of a request: 16,384 keys are 3 MB. Read as JSON it takes up to 20 times as much.
const REQUEST_MAX: u32 = 4 << 20;
/// Messages that wait for a client that reads slowly; then its connection is closed.
const BUFFER_MAX: u32 = 4_096;
/// Pause after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a devnet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its chain cannot be opened.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It cannot listen.
    #[error("{address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Two methods have one name.
    #[error("a fault of the devnet: {0}")]
    Methods(#[from] jsonrpsee::core::RegisterMethodError),
}

/// A devnet that runs. Dropping it stops it.
pub struct Handle {
    address: SocketAddr,
    context: Context,
    methods: Methods,
    server: ServerHandle,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts devnets.
pub struct Devnet;

impl Devnet {
    /// Opens or begins a chain, and serves it until the handle is dropped. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// The folder has another chain or cannot be used; the address is taken.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        let faults = Faults::default();
        let opened = config.clone();
        let chain = tokio::task::spawn_blocking(move || Chain::open(&opened)).await;
        let chain = chain.map_err(|_| ChainError::Build(crate::chain::BuildError::Panicked("the genesis")))??;
        let context = Context::new(chain, faults.clone());
        let module = rpc::module(context.clone())?;
        let (methods, public): (Methods, Methods) = (module.clone().into(), rpc::without_operation(module).into());
        let at = |error| StartError::Listen { address: config.listen, error };
        let listener = TcpListener::bind(config.listen).await.map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let (stop, server) = stop_channel();
        let settings = ServerConfig::builder()
            .set_id_provider(RandomStringIdProvider::new(16))
            .max_request_body_size(REQUEST_MAX)
            .max_response_body_size(ANSWER_MAX)
            .max_connections(config.connections_max)
            .max_subscriptions_per_connection(1_024)
            .set_message_buffer_capacity(BUFFER_MAX)
            .set_batch_request_config(BatchRequestConfig::Limit(1_024))
            .build();
        let builder = Server::builder().set_config(settings).to_service_builder();
        let (most, all) = (config.connections_max as usize, methods.clone());
        let cutting = tokio::spawn(context.faults.clone().cut_again_and_again());
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                // Requests are small and wait for their answers.
                let _ = stream.set_nodelay(true);
                let Some(stream) = stream.into_std().ok().filter(|stream| faults.admit(stream, most)) else { continue };
                let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                let operators = builder.clone().build(methods.clone(), stop.clone());
                let everyones = builder.clone().build(public.clone(), stop.clone());
                let service = tower::service_fn(move |request: HttpRequest<hyper::body::Incoming>| {
                    let mut service = match origin::may_operate(request.uri(), request.headers()) {
                        true => operators.clone(),
                        false => everyones.clone(),
                    };
                    service.call(request)
                });
                tokio::spawn(serve_with_graceful_shutdown(stream, service, stop.clone().shutdown()));
            }
        });
        let mut tasks = vec![accepting, cutting];
        if let Blocks::Every(interval) = config.blocks {
            tasks.push(tokio::spawn(every(interval.max(Duration::from_millis(1)), context.clone())));
        }
        Ok(Handle { address, context, methods: all, server, tasks })
    }
}

async fn every(interval: Duration, context: Context) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if context.faults.stalled() {
            continue;
        }
        let context = context.clone();
        let made = tokio::task::spawn_blocking(move || context.chain().make_block().map(drop)).await;
        match made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the devnet makes no block"),
            Err(error) => tracing::error!(%error, "making a block broke"),
        }
    }
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Answers a request as a client would send it, in JSON, without a connection; none if it is no JSON.
    pub async fn answer(&self, request: &str) -> Option<String> {
        let (answer, _) = self.methods.raw_json_request(request, 1).await.ok()?;
        Some(answer.get().to_owned())
    }

    /// How far the chain is.
    pub fn heads(&self) -> Heads {
        Heads::from(&*self.context.chain())
    }

    /// The chain itself, locked: for reads that need no client.
    pub fn chain(&self) -> std::sync::MutexGuard<'_, Chain> {
        self.context.chain()
    }

    /// Makes the next block. It takes about a millisecond, and what the disk takes to sync.
    ///
    /// # Errors
    /// A fault of the devnet, or the store fails.
    pub fn make_block(&self) -> Result<BlockInfo, ChainError> {
        Ok(BlockInfo::from(&*self.context.chain().make_block()?))
    }

    /// Undoes `depth` blocks and makes one more than that instead; see [`Chain::reorganise`].
    ///
    /// # Errors
    /// It would undo final blocks; a fault of the devnet; the store fails.
    pub fn reorganise(&self, depth: u32, lost: bool) -> Result<Vec<BlockInfo>, ChainError> {
        Ok(self.context.chain().reorganise(depth, lost)?.iter().map(|sealed| BlockInfo::from(&**sealed)).collect())
    }

    /// Stops or resumes the timer; blocks on demand are still made.
    pub fn stall_blocks(&self, stalled: bool) {
        self.context.faults.stall(stalled);
    }

    /// Stops or resumes finality.
    pub fn stall_finality(&self, stalled: bool) {
        self.context.chain().finality_stalled = stalled;
    }

    /// Cuts every connection.
    pub fn drop_connections(&self) {
        self.context.faults.drop_connections();
    }

    /// Cuts every connection each time that so long has gone by, or no longer.
    pub fn drop_connections_every(&self, interval: Option<Duration>) {
        self.context.faults.drop_every(interval);
    }

    /// Refuses new connections, or takes them again.
    pub fn refuse_connections(&self, refusing: bool) {
        self.context.faults.refuse(refusing);
    }

    /// Stops it, and waits until its folder is free.
    pub async fn stop(mut self) {
        self.end();
        for task in std::mem::take(&mut self.tasks) {
            // Aborted on purpose.
            let _ = task.await;
        }
        self.server.clone().stopped().await;
    }

    fn end(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // It may have stopped already.
        let _ = self.server.stop();
        self.context.faults.drop_connections();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
