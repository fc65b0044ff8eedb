//! What outlives a fault in the network, and the supervision that rebuilds the rest.

use super::behaviour::{self, Behaviour, Topics};
use super::pieces::Exchange;
use super::running::{End, Running};
use super::{StartError, transport};
use crate::config::Config;
use crate::event::{Event, Judgement};
use crate::handle::Command;
use crate::identity;
use crate::peers::PeerKey;
use crate::peers::cache::{self, Cache};
use crate::peers::dialer::{Dial, Dialer};
use crate::peers::place::{address_of, is_here};
use crate::shared::{Seen, Shared};
use crate::small::codec::Answer;
use crate::small::fetch::{Fetches, WaiterId};
use crate::small::terms::Fetched;
use crate::store::{Partial, StoreError};
use covey_proto::Digest;
use futures::FutureExt;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use libp2p::{Multiaddr, Swarm};
use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// A connection to a peer without anything to say is kept so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Announcements that may wait for the node's verdict.
pub(super) const TICKETS_MAX: usize = 4096;
/// How long the ports of a network that broke may take to come free.
const REBIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Work of another thread that has ended.
pub(super) enum Job {
    Begun {
        root: Digest,
        result: Result<Partial, Arc<StoreError>>,
    },
    Stored {
        root: Digest,
        result: Result<Arc<[u8]>, Arc<StoreError>>,
    },
    Read {
        request: InboundRequestId,
        life: u64,
        channel: ResponseChannel<Answer>,
        blob: Option<Arc<[u8]>>,
    },
    /// What the name in an address means, for the dial that is to be made.
    Resolved {
        dial: Dial,
        addresses: Vec<Multiaddr>,
    },
    Done,
}

pub(super) struct Network {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) topics: Topics,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) verdicts: mpsc::Receiver<Judgement>,
    pub(super) verdicts_out: mpsc::Sender<Judgement>,
    pub(super) fetches: Fetches,
    pub(super) waiters: HashMap<WaiterId, oneshot::Sender<Fetched>>,
    pub(super) exchange: Exchange,
    pub(super) dialer: Dialer,
    /// Peers of this life and former ones.
    pub(super) cache: Cache,
    pub(super) jobs: JoinSet<Job>,
    /// Counts the networks that were built.
    pub(super) life: u64,
    /// Counts repetitions of the own record.
    pub(super) beat: u32,
    /// Where to listen; ports that the system chose are kept.
    pub(super) listen: Vec<Multiaddr>,
    pub(super) listeners: HashMap<ListenerId, usize>,
    key: Keypair,
}

impl Network {
    pub(super) fn new(
        config: Config,
        key: Keypair,
        shared: Arc<Shared>,
        events: mpsc::Sender<Event>,
        commands: mpsc::Receiver<Command>,
        listen: Vec<Multiaddr>,
        fixed: Vec<(Option<PeerKey>, String)>,
    ) -> Network {
        let (verdicts_out, verdicts) = mpsc::channel(TICKETS_MAX);
        Network {
            topics: Topics::of(config.run),
            fetches: Fetches::new(config.limits.fetch.clone()),
            exchange: Exchange::new(&config.limits, &shared),
            dialer: Dialer::new(shared.peer, config.limits.peers_target, fixed),
            cache: Cache::default(),
            // Peers count repetitions only to tell them apart: any start does.
            beat: std::process::id(),
            config,
            shared,
            events,
            commands,
            verdicts,
            verdicts_out,
            waiters: HashMap::new(),
            jobs: JoinSet::new(),
            life: 0,
            listen,
            listeners: HashMap::new(),
            key,
        }
    }

    /// A new swarm that listens.
    pub(super) fn build_swarm(&mut self) -> Result<Swarm<Behaviour>, StartError> {
        let settings = |error: &dyn std::fmt::Display| StartError::Settings(error.to_string());
        let (options, shared) = (&self.config.transport, &self.shared);
        let (traffic, congestion) = (shared.traffic.clone(), shared.congestion.clone());
        let transport = transport::build(&self.key, options, traffic, congestion, shared.meter.clone());
        let transport = transport.map_err(|error| settings(&error))?;
        let behaviour = behaviour::build(&self.config, &self.key, &self.shared, self.listens_here())
            .map_err(|error| settings(&error))?;
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
        let mut swarm = Swarm::new(transport, behaviour, self.shared.peer.id(), config);
        self.listeners.clear();
        self.shared.addresses().clear();
        for (index, address) in self.listen.iter().enumerate() {
            let refused = |error: String| StartError::Listen { address: address.to_string(), error };
            probe(address).map_err(|error| refused(error.to_string()))?;
            let id = swarm.listen_on(address.clone()).map_err(|error| refused(error.to_string()))?;
            self.listeners.insert(id, index);
        }
        Ok(swarm)
    }

    /// Runs the network until it is shut down; rebuilds it after a panic.
    pub(super) async fn supervise(mut self, swarm: Swarm<Behaviour>, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut next = Some(swarm);
        let mut wait = Duration::from_millis(50);
        while let Some(swarm) = next.take() {
            let started = Instant::now();
            let running = Running::new(&mut self, swarm, ready.take());
            // Nothing that the panic may have left half done is used again, but for what [`Shared`] explains.
            let end = AssertUnwindSafe(running.run()).catch_unwind().await;
            match end {
                Ok(end) => return self.finish(end).await,
                Err(panic) => self.after_fault(panic.as_ref()),
            }
            wait = if started.elapsed() > Duration::from_secs(60) {
                Duration::from_millis(50)
            } else {
                (wait * 2).min(Duration::from_secs(30))
            };
            tokio::time::sleep(wait).await;
            next = self.rebuild().await;
        }
    }

    fn after_fault(&mut self, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("?"), "the network broke and is rebuilt; please report this");
        self.life += 1;
        self.shared.traffic.restarts.add(1);
        self.exchange.renew();
        let gone = std::mem::take(&mut *self.shared.connected());
        for peer in gone.into_keys() {
            self.tell(Event::Disconnected { peer });
        }
        self.tell(Event::NetworkRestarted);
    }

    /// A new swarm, once the old one's ports are free; without listeners rather than never.
    async fn rebuild(&mut self) -> Option<Swarm<Behaviour>> {
        let until = Instant::now() + REBIND_TIMEOUT;
        loop {
            match self.build_swarm() {
                Ok(swarm) => return Some(swarm),
                Err(error) if Instant::now() > until => {
                    tracing::error!(%error, "going on without listening");
                    self.listen.clear();
                    return self.build_swarm().ok();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn finish(mut self, end: End) {
        self.remember_peers();
        self.exchange.close().await;
        while self.jobs.join_next().await.is_some() {}
        if let End::Shutdown(reply) = end {
            // Let go of the store before saying so.
            drop(self);
            let _ = reply.send(());
        }
    }

    /// Gives an event to the node; one that finds no room is lost and counted.
    pub(super) fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.shared.traffic.events_lost.add(1);
        }
    }

    /// Records of strangers must not make this machine talk to its own ports, unless its swarm lives there.
    pub(super) fn may_dial(&self, address: &Multiaddr) -> bool {
        !address_of(address).is_some_and(is_here) || self.listens_here()
    }

    /// Whether it is told to listen on a loopback address: its swarm lives on this machine.
    pub(super) fn listens_here(&self) -> bool {
        self.listen.iter().any(|address| address_of(address).is_some_and(|ip| ip.is_loopback()))
    }

    /// Where each connected peer can be reached: where it was, or else where its record says.
    fn reachable(&self) -> Vec<(PeerKey, String)> {
        let connected = self.shared.connected();
        let dialled = |(peer, seen): (&PeerKey, &Seen)| Some((*peer, seen.dialled.clone()?));
        let mut found: Vec<_> = connected.iter().filter_map(dialled).collect();
        for (peer, addresses) in self.shared.book().addresses() {
            let may = |address: &&String| address.parse().is_ok_and(|address| self.may_dial(&address));
            if connected.contains_key(&peer) && !found.iter().any(|(other, _)| *other == peer) {
                found.extend(addresses.iter().find(may).map(|address| (peer, super::without_peer(address))));
            }
        }
        found
    }

    /// Writes the addresses of connected peers for the next start.
    pub(super) fn remember_peers(&mut self) {
        let reachable = self.reachable();
        {
            let book = self.shared.book();
            let with_kind = |(peer, address)| (peer, address, book.uid_of(&peer).is_some());
            self.cache.reached(reachable.into_iter().map(with_kind), now_seconds());
        }
        let text = self.cache.text();
        let directory = self.config.directory.clone();
        if text.is_empty() {
            return;
        }
        self.jobs.spawn_blocking(move || {
            let (beside, path) = (directory.join("peers.new"), directory.join("peers"));
            if let Err(error) = identity::write_beside(&beside, &path, text.as_bytes(), 0o644) {
                tracing::warn!(%error, path = %path.display(), "the addresses of peers could not be saved");
            }
            Job::Done
        });
    }
}

/// Seconds since 1970; a clock before that is at 0.
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The peers of former lives. A file that cannot be read has none.
pub(super) fn remembered(directory: &Path) -> Cache {
    let mut text = String::new();
    let file = std::fs::File::open(directory.join("peers"));
    let read = file.and_then(|file| file.take(cache::BYTES_MAX).read_to_string(&mut text));
    Cache::read(if read.is_ok() { &text } else { "" }, now_seconds())
}

/// Fails if a TCP port is taken: libp2p shares ports, so that it would listen beside another node of this user.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        _ => Ok(()),
    }
}
