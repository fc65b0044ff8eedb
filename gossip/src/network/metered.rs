//! Counts a connection's bytes for its peer: around its streams, over TCP and QUIC alike.

use crate::peers::PeerKey;
use crate::traffic::{Meter, PeerBytes};
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A connection whose bytes are counted for its peer.
pub(super) fn metered<M>(meter: &Meter, peer: PeerId, muxer: M) -> StreamMuxerBox
where
    M: StreamMuxer<Error: Send + Sync, Substream: Send + Unpin> + Send + Unpin + 'static,
{
    StreamMuxerBox::new(Metered { inner: muxer, bytes: meter.of(PeerKey::of(peer)) })
}

/// A connection, or a stream of one, whose bytes are counted.
struct Metered<T> {
    inner: T,
    bytes: Arc<PeerBytes>,
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
        self.bytes.received(read);
        Poll::Ready(Ok(read))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner().poll_write(cx, buffer))?;
        self.bytes.sent(written);
        Poll::Ready(Ok(written))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner().poll_write_vectored(cx, buffers))?;
        self.bytes.sent(written);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_close(cx)
    }
}
