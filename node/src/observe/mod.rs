//! What a running node shows on a local port: its metrics for Prometheus, its peers for `covey peers`, its status for
//! `covey status`. A swarm shows its nodes' by passing requests on to them.
//!
//! ```text
//! GET /              the nodes' names, a line each
//! GET /NODE/metrics  Prometheus' text
//! GET /NODE/peers    JSON: [PeerLine]
//! GET /NODE/status   JSON: NodeStatus
//! ```
//! Reading changes nothing, and nothing here is secret; but it is meant for the machine itself, so listen on loopback.

mod status;
mod usage;

pub use status::{Board, NodeStatus, RECEIVED};
pub use usage::Usage;

use bytes::Bytes;
use covey_gossip::Handle;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time: a person and a few scrapers. More wait in the kernel.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that [`get`] takes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long [`get`] waits.
const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// A node's network, while it lives.
type Look = Arc<dyn Fn() -> Option<Handle> + Send + Sync>;

/// Where a node can be looked at.
#[derive(Clone)]
enum Place {
    /// In this process.
    Here(Look, Option<Board>),
    /// At another process's port, under the same name.
    There(SocketAddr),
}

/// The nodes that can be looked at, by name.
#[derive(Clone, Default)]
pub struct Nodes(Arc<Mutex<BTreeMap<String, Place>>>);

impl Nodes {
    /// Shows a node of this process from now on, in place of an earlier one of its name. `look` gives its network while
    /// it lives, and must not keep it alive; `board` has its status, if it has one.
    pub fn show(
        &self,
        name: impl Into<String>,
        board: Option<Board>,
        look: impl Fn() -> Option<Handle> + Send + Sync + 'static,
    ) {
        self.lock().insert(name.into(), Place::Here(Arc::new(look), board));
    }

    /// Passes requests for a node on to another process from now on.
    pub fn refer(&self, name: impl Into<String>, address: SocketAddr) {
        self.lock().insert(name.into(), Place::There(address));
    }

    /// Shows a node no more.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn get(&self, name: &str) -> Option<Place> {
        self.lock().get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        let lives = |place: &Place| match place {
            Place::Here(look, _) => look().is_some(),
            Place::There(_) => true,
        };
        self.lock().iter().filter(|(_, place)| lives(place)).map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connected peer, as `covey peers` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerLine {
    /// Its id.
    pub peer: String,
    /// The uid that it speaks for.
    pub uid: Option<u32>,
    /// Where it is connected.
    pub addresses: Vec<String>,
    /// Whether it is reached directly, or only through a relay.
    pub direct: bool,
    /// How long an echo took last, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its gossip score.
    pub score: f64,
    /// Bytes a second sent to it.
    pub up: f64,
    /// Bytes a second that came from it.
    pub down: f64,
    /// Whether announcements are passed on to it first.
    pub in_mesh: bool,
    /// Seconds since it connected.
    pub connected: f64,
}

/// The peers of a node.
pub fn peers(network: &Handle) -> Vec<PeerLine> {
    let line = |info: covey_gossip::PeerInfo| PeerLine {
        peer: info.peer.to_string(),
        uid: info.uid.map(|uid| uid.number()),
        addresses: info.addresses,
        direct: info.direct,
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        score: info.score,
        up: info.up,
        down: info.down,
        in_mesh: info.in_mesh,
        connected: info.connected.as_secs_f64(),
    };
    network.peers().into_iter().map(line).collect()
}

/// Listens on `address` and answers in the background, as long as the runtime lives. Returns where it listens.
///
/// # Errors
/// The address is taken, or none of this machine's.
pub async fn listen(address: SocketAddr, nodes: Nodes) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    tokio::spawn(accept(listener, nodes));
    Ok(local)
}

async fn accept(listener: TcpListener, nodes: Nodes) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptor left, most likely: asking at once again would only spin.
                tracing::warn!(%error, "the status port cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let nodes = nodes.clone();
                async move { Ok::<_, Infallible>(answer(&request, &nodes).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
            // A client that breaks off is its own affair.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

async fn answer(request: &Request<Incoming>, nodes: &Nodes) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain";
    const METRICS: &str = "text/plain; version=0.0.4";
    if request.method() != Method::GET {
        return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
    }
    let path = request.uri().path().trim_matches('/');
    if path.is_empty() {
        return respond(StatusCode::OK, TEXT, nodes.names().iter().map(|name| format!("{name}\n")).collect());
    }
    let nothing =
        || respond(StatusCode::NOT_FOUND, TEXT, "there is /, /NODE/metrics, /NODE/peers, /NODE/status\n".into());
    let Some((name, what)) = path.split_once('/') else { return nothing() };
    let kind = match what {
        "metrics" => METRICS,
        "peers" | "status" => JSON,
        _ => return nothing(),
    };
    let text = match nodes.get(name) {
        Some(Place::Here(look, board)) => match (look(), what, board) {
            (Some(network), "metrics", _) => Ok(network.metrics()),
            (Some(network), "peers", _) => serde_json::to_string(&peers(&network)).map_err(|error| error.to_string()),
            (_, "status", Some(board)) => serde_json::to_string(&board.read()).map_err(|error| error.to_string()),
            _ => return nothing(),
        },
        Some(Place::There(address)) => {
            get(address, &format!("/{name}/{what}")).await.map_err(|error| error.to_string())
        }
        None => return nothing(),
    };
    match text {
        Ok(text) => respond(StatusCode::OK, kind, text),
        Err(error) => respond(StatusCode::BAD_GATEWAY, TEXT, error),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Why a status port gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Nobody listens there.
    #[error("no node answers at {address}: {error}; start it with --status {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// What listens there is no node, or has another.
    #[error("{address}{path}: {what}")]
    Answer {
        /// Where.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// What came instead.
        what: String,
    },
}

/// Asks a node's status port.
///
/// # Errors
/// Nobody listens, or the answer is none.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, GetError> {
    let unfit = |what: String| GetError::Answer { address, path: path.to_owned(), what };
    let late = || unfit(format!("no answer in {} s", GET_TIMEOUT.as_secs()));
    tokio::time::timeout(GET_TIMEOUT, ask(address, path, &unfit)).await.map_err(|_| late())?
}

async fn ask(address: SocketAddr, path: &str, unfit: &impl Fn(String) -> GetError) -> Result<String, GetError> {
    let stream = TcpStream::connect(address).await.map_err(|error| GetError::Connect { address, error })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unfit(error.to_string()))?;
    let driven = tokio::spawn(connection);
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| unfit(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| unfit(error.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| unfit(error.to_string()))?.to_bytes();
    driven.abort();
    let text = String::from_utf8(body.to_vec()).map_err(|error| unfit(error.to_string()))?;
    if status == StatusCode::OK { Ok(text) } else { Err(unfit(format!("{status}: {}", text.trim()))) }
}
