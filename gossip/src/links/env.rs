//! What the tasks of all streams share: the way to the network's task, what they tell it, bounds and patience.

use super::end::End;
use super::handler::OpenStream;
use super::protocol::Protocol;
use super::serving::Serving;
use crate::config::LinkLimits;
use crate::peers::PeerKey;
use crate::shared::Shared;
use crate::store::StoreError;
use covey_exchange::governor::{ByteRate, TokenBucket};
use covey_exchange::scheduler::Event;
use covey_proto::blob::BlobRef;
use futures::{AsyncWrite, AsyncWriteExt};
use libp2p::swarm::Stream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// New pieces that are told before their time has come.
const NEWS_MAX: u64 = 16;

/// What happened on a stream.
pub(crate) enum Report {
    /// For the scheduler.
    Event(Event<PeerKey>),
    /// The peer broke the protocol.
    Breach { peer: PeerKey, why: String },
    /// The peer is to be disconnected.
    Nuisance { peer: PeerKey, why: &'static str },
    /// A blob cannot be stored.
    Store { blob: BlobRef, error: Arc<StoreError> },
}

/// What the tasks of all streams share.
pub(crate) struct Env {
    pub(crate) shared: Arc<Shared>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) limits: LinkLimits,
    /// To the network's task.
    pub(crate) reports: mpsc::Sender<Vec<Report>>,
    pub(crate) opens: mpsc::Sender<(PeerKey, OpenStream)>,
    pub(super) news: News,
    download: Option<Mutex<TokenBucket>>,
}

impl Env {
    pub(crate) fn new(
        shared: Arc<Shared>,
        serving: Arc<Serving>,
        limits: LinkLimits,
        reports: mpsc::Sender<Vec<Report>>,
        opens: mpsc::Sender<(PeerKey, OpenStream)>,
    ) -> Env {
        let download = limits.download.map(|rate| Mutex::new(TokenBucket::new(Some(rate), Instant::now())));
        Env { shared, serving, limits, reports, opens, news: News::default(), download }
    }

    /// Has a stream to a peer opened. None if it cannot be.
    pub(super) async fn open(&self, peer: PeerKey, protocol: Protocol) -> Option<Stream> {
        let (reply, stream) = oneshot::channel();
        self.opens.send((peer, OpenStream { protocol, reply })).await.ok()?;
        stream.await.ok()
    }

    /// Waits until so many bytes that came are within the rate of download.
    pub(super) async fn paid(&self, bytes: usize) {
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
pub(super) struct Pacer(TokenBucket);

impl Pacer {
    pub(super) fn new(rate: ByteRate) -> Pacer {
        Pacer(TokenBucket::new(Some(rate), Instant::now()))
    }

    pub(super) async fn pay(&mut self, amount: u64) {
        while let Err(at) = self.0.take(amount, Instant::now()) {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// That pieces have come, for those who tell others.
pub(super) struct News {
    pieces: AtomicU64,
    told: watch::Sender<u64>,
}

impl Default for News {
    fn default() -> News {
        News { pieces: AtomicU64::new(0), told: watch::Sender::new(0) }
    }
}

impl News {
    pub(super) fn piece(&self) {
        let pieces = self.pieces.fetch_add(1, Ordering::Relaxed) + 1;
        if pieces.is_multiple_of(NEWS_MAX) {
            self.told.send_replace(pieces);
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}

/// Writes all of `bytes`, some 64 KiB at most: who reads a byte now and then does not read.
pub(super) async fn write<T: AsyncWrite + Unpin>(stream: &mut T, bytes: &[u8], limits: &LinkLimits) -> Result<(), End> {
    match tokio::time::timeout(limits.write_timeout, stream.write_all(bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(End::Nuisance("it does not read")),
    }
}

/// Brings what was written on its way.
pub(super) async fn flush<T: AsyncWrite + Unpin>(stream: &mut T, limits: &LinkLimits) -> Result<(), End> {
    match tokio::time::timeout(limits.write_timeout, stream.flush()).await {
        Ok(flushed) => Ok(flushed?),
        Err(_) => Err(End::Nuisance("it does not read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

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
