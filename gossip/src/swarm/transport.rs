//! TCP with Noise and yamux, and QUIC: one transport that takes whichever address it is given.

use crate::traffic::Counters;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::core::upgrade;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, quic, tcp, yamux};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Streams of one connection, both ways.
const STREAMS_MAX: usize = 128;
/// For a connection's handshakes.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without a packet a QUIC connection is dead.
const QUIC_IDLE_MILLIS: u32 = 60_000;

pub(super) fn build(key: &Keypair, traffic: Arc<Counters>) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut mux = yamux::Config::default();
    mux.set_max_num_streams(STREAMS_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(move |stream, _| Counted { stream, traffic })
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(key)?)
        .multiplex(mux)
        .timeout(SETUP_TIMEOUT);
    let mut config = quic::Config::new(key);
    config.max_idle_timeout = QUIC_IDLE_MILLIS;
    config.handshake_timeout = SETUP_TIMEOUT;
    config.max_concurrent_stream_limit = STREAMS_MAX as u32;
    let quic = quic::tokio::Transport::new(config);
    let both = OrTransport::new(quic, tcp).map(|either, _| match either {
        Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
    });
    Ok(both.boxed())
}

/// A stream whose bytes are counted.
struct Counted<T> {
    stream: T,
    traffic: Arc<Counters>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.traffic.tcp_bytes_in.add(read);
        Poll::Ready(Ok(read))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buffer))?;
        self.traffic.tcp_bytes_out.add(written);
        Poll::Ready(Ok(written))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers))?;
        self.traffic.tcp_bytes_out.add(written);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
