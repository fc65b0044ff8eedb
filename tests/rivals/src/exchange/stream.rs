//! A raw libp2p stream: TCP, Noise, yamux, one long-lived stream. Encrypted, not verified: what an exchange over libp2p
//! could do if it cost nothing itself.

use super::Failure;
use super::content::{BLOCK, Sink, Source};
use super::role::Task;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use std::time::Duration;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/covey-rivals/1/raw");

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>, Failure> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build())
}

/// Serves the source on each stream that says how many bytes it wants. The offer is the multiaddr.
pub async fn provide(task: &Task) -> Result<(String, Server), Failure> {
    let mut swarm = swarm()?;
    swarm.listen_on(format!("/ip4/{}/tcp/{}", task.listen.ip(), task.listen.port()).parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let offer = address.with(Protocol::P2p(*swarm.local_peer_id())).to_string();
    let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL)?;
    let source = Source::open(task.storage, &task.source)?;
    let accept = tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let source = source.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, &source).await {
                    eprintln!("raw stream: {error}");
                }
            });
        }
    });
    Ok((offer, Server([accept, drive(swarm)])))
}

fn drive(mut swarm: Swarm<libp2p_stream::Behaviour>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

/// Serves while it lives.
pub struct Server([tokio::task::JoinHandle<()>; 2]);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn serve(mut stream: Stream, source: &Source) -> Result<(), Failure> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted).await?;
    let bytes = u64::from_le_bytes(wanted);
    let mut block = vec![0x5a; BLOCK];
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(BLOCK as u64) as usize;
        source.read(at, &mut block[..part])?;
        stream.write_all(&block[..part]).await?;
        at += part as u64;
    }
    stream.close().await?;
    Ok(())
}

pub struct Fetcher {
    stream: Stream,
    driver: tokio::task::JoinHandle<()>,
}

impl Fetcher {
    pub async fn connect(task: &Task) -> Result<Fetcher, Failure> {
        let address: Multiaddr = task.offer()?.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            return Err("the offer names no peer".into());
        };
        let mut swarm = swarm()?;
        swarm.dial(address)?;
        until_connected(&mut swarm, peer).await?;
        let mut control = swarm.behaviour().new_control();
        let driver = drive(swarm);
        let stream = control.open_stream(peer, PROTOCOL).await?;
        Ok(Fetcher { stream, driver })
    }

    pub async fn fetch(&mut self, task: &Task) -> Result<u64, Failure> {
        let mut sink = Sink::create(task.storage, &task.folder.join("fetched"))?;
        self.stream.write_all(&task.bytes.to_le_bytes()).await?;
        self.stream.flush().await?;
        let mut block = vec![0; BLOCK];
        let mut got = 0;
        while got < task.bytes {
            let read = self.stream.read(&mut block).await?;
            if read == 0 {
                break;
            }
            sink.write(&block[..read])?;
            got += read as u64;
        }
        Ok(got)
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn until_connected(swarm: &mut Swarm<libp2p_stream::Behaviour>, peer: PeerId) -> Result<(), Failure> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}
