//! A model behind OpenAI's interface over HTTP: completions, chat completions, streams of both.
//!
//! ```text
//! POST /v1/completions        POST /v1/chat/completions      GET /v1/models       GET /health
//! ```
//!
//! What a request may say is decided in `request`, what it hears in `answer` and `error`. [`Engine`] is the model with its
//! tokenizer; one thread owns it (`worker`), and requests wait for it in a bounded queue. Here: the paths, the sockets, and
//! the end. There is neither encryption nor a password: listen on loopback, or behind something that has them.

mod answer;
mod engine;
mod error;
mod http;
mod request;
mod worker;

pub use engine::{Engine, EngineError, Source, TalkError};

use http::Face;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at a time; more wait in the kernel. As many as wait for the model, and those that only look.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers may go on once the server is to end; whoever ends it waits.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    face: Arc<Face>,
    thread: std::thread::JoinHandle<()>,
}

impl Server {
    /// Listens on `address`, and answers with `engine` once [`run`](Server::run).
    ///
    /// # Errors
    /// The address is taken or none of this machine's, or no thread is left.
    pub async fn bind(address: SocketAddr, engine: Engine) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let (name, context) = (engine.name(), engine.context());
        let (queue, thread) = worker::start(engine)?;
        Ok(Server { listener, face: Arc::new(Face::new(queue, name, context)), thread })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`. Then nobody new is heard; answers that are under way get three seconds and break off.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, face, thread } = self;
        let (ending, ends) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&listener, &face, &ends, &mut connections) => {}
            () = stop => {}
        }
        drop(listener);
        // Whoever listens is in `connections`, which is awaited or aborted below.
        let _ = ending.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
            tracing::info!("answers under way are broken off");
        }
        connections.shutdown().await;
        drop(face);
        // The queue is closed, and nobody listens: the thread ends at its next token.
        if tokio::task::spawn_blocking(|| thread.join()).await.is_ok_and(|joined| joined.is_err()) {
            tracing::error!("the model's thread had panicked");
        }
    }
}

async fn accept(listener: &TcpListener, face: &Arc<Face>, ends: &watch::Receiver<bool>, connections: &mut JoinSet<()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        // Finished ones are forgotten, so that the set is as small as the places.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = converse(stream, face.clone(), ends.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                // No descriptor left, most likely: asking at once again would only spin.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Serves one connection until it closes, or, once the server ends, to the end of its answer.
async fn converse(stream: TcpStream, face: Arc<Face>, mut ends: watch::Receiver<bool>) {
    // Pieces of a stream are small and must not wait for one another.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection cannot be told not to wait");
    }
    let service = TowerToHyperService::new(http::router(face));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that breaks off is its own affair.
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Waits until the server ends.
async fn ending(ends: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is an end, too.
    let _ = ends.wait_for(|ending| *ending).await;
}

#[cfg(test)]
mod tests;
