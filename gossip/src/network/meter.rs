//! How many bytes go to and come from each peer: counted around its streams, over TCP and QUIC alike.

use crate::peers::PeerKey;
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

/// Bytes of one peer's connections.
#[derive(Debug, Default)]
struct Bytes {
    up: AtomicU64,
    down: AtomicU64,
}

/// Bytes by peer, of those that have a connection or had one a moment ago.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<HashMap<PeerKey, Weak<Bytes>>>>);

impl Meter {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerKey, Weak<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection whose bytes are counted for its peer.
    pub(super) fn count<M>(&self, peer: PeerId, muxer: M) -> StreamMuxerBox
    where
        M: StreamMuxer<Error: Send + Sync, Substream: Send + Unpin> + Send + Unpin + 'static,
    {
        let mut all = self.lock();
        // The table has no more than the connections there are and those that ended since the last look.
        let entry = all.entry(PeerKey::of(peer)).or_default();
        let bytes = entry.upgrade().unwrap_or_default();
        *entry = Arc::downgrade(&bytes);
        StreamMuxerBox::new(Metered { inner: muxer, bytes })
    }

    /// Bytes sent to and received from each peer so far; forgets those without a connection.
    pub(super) fn read(&self) -> HashMap<PeerKey, (u64, u64)> {
        let mut all = self.lock();
        all.retain(|_, bytes| bytes.strong_count() > 0);
        let read = |bytes: Arc<Bytes>| (bytes.up.load(Ordering::Relaxed), bytes.down.load(Ordering::Relaxed));
        all.iter().filter_map(|(peer, bytes)| Some((*peer, read(bytes.upgrade()?)))).collect()
    }
}

/// A connection, or a stream of one, whose bytes are counted.
struct Metered<T> {
    inner: T,
    bytes: Arc<Bytes>,
}

impl<T: Unpin> Metered<T> {
    fn inner(&mut self) -> Pin<&mut T> {
        Pin::new(&mut self.inner)
    }
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for Metered<M> {
    type Substream = Metered<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(self.inner().poll_inbound(cx))?;
        Poll::Ready(Ok(Metered { inner, bytes: self.bytes.clone() }))
    }
    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(self.inner().poll_outbound(cx))?;
        Poll::Ready(Ok(Metered { inner, bytes: self.bytes.clone() }))
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.inner().poll_close(cx)
    }
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        self.inner().poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.inner().poll_read(cx, buffer))?;
        self.bytes.down.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner().poll_write(cx, buffer))?;
        self.bytes.up.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner().poll_write_vectored(cx, buffers))?;
        self.bytes.up.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_close(cx)
    }
}
