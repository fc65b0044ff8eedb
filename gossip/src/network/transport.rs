//! TCP with Noise and yamux, and QUIC: one transport that takes whichever address it is given.

use super::metered::metered;
use super::sockets::Tuner;
use crate::config::TransportOptions;
use crate::traffic::{CongestionSeen, Counters, Meter};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::core::upgrade;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, quic, tcp, yamux};
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// For a connection's handshakes.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn build(
    key: &Keypair,
    options: &TransportOptions,
    traffic: Arc<Counters>,
    seen: CongestionSeen,
    meter: Meter,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut mux = yamux::Config::default();
    mux.set_max_num_streams(options.streams_max);
    let tcp = connections(Tuner::new(options.clone(), traffic.clone(), seen), traffic)
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(key)?)
        .multiplex(mux)
        .timeout(SETUP_TIMEOUT);
    let quic = quic::tokio::Transport::new(quic_config(key, options));
    let both = OrTransport::new(quic, tcp).map(move |either, _| match either {
        Either::Left((peer, muxer)) => (peer, metered(&meter, peer, muxer)),
        Either::Right((peer, muxer)) => (peer, metered(&meter, peer, muxer)),
    });
    Ok(both.boxed())
}

/// TCP connections, dialled and accepted, set up and counted.
fn connections(
    tuner: Tuner,
    traffic: Arc<Counters>,
) -> impl Transport<Output = CountingStream<tcp::tokio::TcpStream>, Error = io::Error, ListenerUpgrade: Send, Dial: Send>
+ Send
+ Unpin {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)).map(move |stream, _| {
        tuner.tune(SockRef::from(&stream.0));
        CountingStream { stream, traffic }
    })
}

fn quic_config(key: &Keypair, options: &TransportOptions) -> quic::Config {
    let mut config = quic::Config::new(key);
    config.max_idle_timeout = u32::try_from(options.quic_idle.as_millis()).unwrap_or(u32::MAX);
    config.handshake_timeout = SETUP_TIMEOUT;
    config.max_concurrent_stream_limit = u32::try_from(options.streams_max).unwrap_or(u32::MAX);
    config.max_stream_data = options.quic_stream_window;
    config.max_connection_data = options.quic_connection_window;
    config
}

/// A stream whose bytes are counted.
struct CountingStream<T> {
    stream: T,
    traffic: Arc<Counters>,
}

impl<T: AsyncRead + Unpin> AsyncRead for CountingStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.traffic.tcp_bytes_in.add(read);
        Poll::Ready(Ok(read))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountingStream<T> {
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

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::sockets::congestion;
    use super::*;
    use crate::config::Congestion;
    use libp2p::Multiaddr;
    use libp2p::core::Endpoint;
    use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
    use std::future::poll_fn;

    /// A dialled connection and the accepted one at its other end, through the transport that nodes use.
    async fn pair(
        congestion: Congestion,
    ) -> (CountingStream<tcp::tokio::TcpStream>, CountingStream<tcp::tokio::TcpStream>) {
        let options = TransportOptions { congestion, ..TransportOptions::default() };
        let traffic: Arc<Counters> = Arc::default();
        let tuner = Tuner::new(options, traffic.clone(), CongestionSeen::default());
        let mut transport = connections(tuner, traffic);
        let any: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        transport.listen_on(ListenerId::next(), any).unwrap();
        let address = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } =
                poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
            {
                break listen_addr;
            }
        };
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = transport.dial(address, options).unwrap();
        let accept = async {
            loop {
                if let TransportEvent::Incoming { upgrade, .. } = poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
                {
                    break upgrade.await.unwrap();
                }
            }
        };
        let (dialled, accepted) = futures::future::join(dial, accept).await;
        (dialled.unwrap(), accepted)
    }

    #[tokio::test]
    async fn dialled_and_accepted_connections_of_a_node_run_what_was_asked_for() {
        let (system, _) = pair(Congestion::System).await;
        let system = congestion(&SockRef::from(&system.stream.0)).unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap_or_default();
        let (dialled, accepted) = pair(Congestion::Bbr).await;
        for end in [dialled, accepted] {
            let runs = congestion(&SockRef::from(&end.stream.0)).unwrap();
            if allowed.split_whitespace().any(|name| name == "bbr") {
                assert_eq!(runs, "bbr");
            } else {
                assert!(runs == "bbr" || runs == system, "{runs}");
            }
        }
    }
}
