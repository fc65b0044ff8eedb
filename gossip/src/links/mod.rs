//! The streams of the blob exchange: their opening, and a task for each that reads, writes, checks and reports.
//!
//! What to ask of whom is the scheduler's decision, who may send next the governor's (`covey_exchange`); what is kept the
//! store's. Here bytes move: [`fetcher`] asks for pieces and gives them to the store as they come, [`server`] answers as
//! [`serving`] allows, [`asker`] and [`teller`] exchange who holds what. All of it reports to the network's task, in
//! batches; nothing here waits for it but when it is far behind.

mod asker;
mod behaviour;
mod block;
mod fetcher;
mod handler;
mod report;
mod server;
mod serving;
mod teller;

pub(crate) use asker::Asker;
pub(crate) use behaviour::{Inbound, Links};
pub(crate) use fetcher::{Fetcher, Order};
pub(crate) use handler::{Came, Open};
pub(crate) use report::Report;
pub(crate) use serving::Serving;

use crate::peers::PeerKey;
use crate::shared::Shared;
use covey_exchange::frames;
use covey_exchange::governor::{ByteRate, TokenBucket};
use futures::{AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::swarm::Stream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// How long the opening of a stream may take, with what the two sides must agree on.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// New pieces that are told before their time has come.
const NEWS_MAX: u64 = 16;

/// Bounds on the streams of the exchange.
#[derive(Clone, Debug)]
pub struct LinkLimits {
    /// A peer that does not take 64 KiB off its stream for so long is disconnected.
    pub write_timeout: Duration,
    /// New pieces are told after so long, or once there are sixteen.
    pub news_each: Duration,
    /// Bytes of pieces that may come, a second and at once; none: as the line brings them.
    pub download: Option<ByteRate>,
}

impl Default for LinkLimits {
    fn default() -> LinkLimits {
        LinkLimits { write_timeout: Duration::from_secs(30), news_each: Duration::from_millis(250), download: None }
    }
}

/// What a stream of the exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Holdings,
    Pieces,
}

impl Protocol {
    fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Protocol::Holdings => frames::HOLDINGS,
            Protocol::Pieces => frames::PIECES,
        })
    }
}

/// A stream's place among those that its peer may open; free again when this goes.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// What the tasks of all streams share.
pub(crate) struct Env {
    pub(crate) shared: Arc<Shared>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) limits: LinkLimits,
    /// To the network's task.
    pub(crate) reports: mpsc::Sender<Vec<Report>>,
    pub(crate) opens: mpsc::Sender<(PeerKey, Open)>,
    news: News,
    download: Option<Mutex<TokenBucket>>,
}

impl Env {
    pub(crate) fn new(
        shared: Arc<Shared>,
        serving: Arc<Serving>,
        limits: LinkLimits,
        reports: mpsc::Sender<Vec<Report>>,
        opens: mpsc::Sender<(PeerKey, Open)>,
    ) -> Env {
        let download = limits.download.map(|rate| Mutex::new(TokenBucket::new(Some(rate), Instant::now())));
        Env { shared, serving, limits, reports, opens, news: News::default(), download }
    }

    /// Has a stream to a peer opened. None if it cannot be.
    async fn open(&self, peer: PeerKey, protocol: Protocol) -> Option<Stream> {
        let (reply, stream) = oneshot::channel();
        self.opens.send((peer, Open { protocol, reply })).await.ok()?;
        stream.await.ok()
    }

    /// Waits until so many bytes that came are within the rate of download.
    async fn paid(&self, bytes: usize) {
        let Some(bucket) = &self.download else { return };
        loop {
            let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, Instant::now());
            match taken {
                Ok(()) => return,
                Err(Some(at)) => tokio::time::sleep_until(at.into()).await,
                // A rate of nothing: the stream is dropped some time.
                Err(None) => std::future::pending().await,
            }
        }
    }
}

/// A rate that one stream is held to, by waiting.
struct Paced(TokenBucket);

impl Paced {
    fn new(rate: ByteRate) -> Paced {
        Paced(TokenBucket::new(Some(rate), Instant::now()))
    }

    async fn pay(&mut self, amount: u64) {
        while let Err(at) = self.0.take(amount, Instant::now()) {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// That pieces have come, for those who tell others.
struct News {
    pieces: AtomicU64,
    told: watch::Sender<u64>,
}

impl Default for News {
    fn default() -> News {
        News { pieces: AtomicU64::new(0), told: watch::Sender::new(0) }
    }
}

impl News {
    fn piece(&self) {
        let pieces = self.pieces.fetch_add(1, Ordering::Relaxed) + 1;
        if pieces.is_multiple_of(NEWS_MAX) {
            self.told.send_replace(pieces);
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// Its owner let go of it.
    #[error("it is not needed any more")]
    Released,
    /// The other side closed it, or the connection is gone.
    #[error("it is closed")]
    Closed,
    /// The other side broke the protocol.
    #[error("{0}")]
    Breach(String),
    /// The other side takes nothing, or asks for far too much.
    #[error("{0}")]
    Nuisance(&'static str),
    /// The other side sent bytes that do not verify: reported already.
    #[error("wrong bytes came")]
    Wrong,
}

impl From<frames::FrameError> for End {
    fn from(error: frames::FrameError) -> End {
        End::Breach(error.to_string())
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> End {
        End::Closed
    }
}

/// Writes all of `bytes`, some 64 KiB at most: who reads a byte now and then does not read.
async fn write<T: AsyncWrite + Unpin>(stream: &mut T, bytes: &[u8], limits: &LinkLimits) -> Result<(), End> {
    match tokio::time::timeout(limits.write_timeout, stream.write_all(bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(End::Nuisance("it does not read")),
    }
}

/// Brings what was written on its way.
async fn flush<T: AsyncWrite + Unpin>(stream: &mut T, limits: &LinkLimits) -> Result<(), End> {
    match tokio::time::timeout(limits.write_timeout, stream.flush()).await {
        Ok(flushed) => Ok(flushed?),
        Err(_) => Err(End::Nuisance("it does not read")),
    }
}

/// Serves a stream that a peer opened, until it ends.
pub(crate) async fn serve(env: Arc<Env>, peer: PeerKey, came: Came) {
    let Came { protocol, stream, place } = came;
    match protocol {
        Protocol::Holdings => teller::run(env, peer, stream, place).await,
        Protocol::Pieces => server::run(env, peer, stream, place).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// Takes a byte a millisecond.
    struct Drip(Pin<Box<tokio::time::Sleep>>);

    impl AsyncWrite for Drip {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
            std::task::ready!(self.0.as_mut().poll(cx));
            self.0 = Box::pin(tokio::time::sleep(Duration::from_millis(1)));
            Poll::Ready(Ok(1))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn who_reads_a_byte_now_and_then_does_not_read() {
        let limits = LinkLimits { write_timeout: Duration::from_millis(50), ..LinkLimits::default() };
        let mut drip = Drip(Box::pin(tokio::time::sleep(Duration::ZERO)));
        let end = write(&mut drip, &[0; 1000], &limits).await;
        assert!(matches!(end, Err(End::Nuisance(_))), "{end:?}");
    }
}
