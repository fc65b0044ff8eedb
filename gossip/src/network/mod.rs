//! Where libp2p lives, and where it ends: one task owns every socket. The parts that decide are elsewhere.
//!
//! The task is watched: a panic in it drops the swarm, and a new one is built around what outlives it (the store, the
//! book of peers, bans, fetches under way, the channels).

mod behaviour;
mod connections;
mod discovery;
mod gate;
pub(crate) mod gauges;
mod gossip;
mod kademlia;
pub(crate) mod meter;
mod names;
mod network;
mod pieces;
mod requests;
mod running;
pub(crate) mod sockets;
mod transport;

use crate::config::Config;
use crate::event::Events;
use crate::handle::Handle;
use crate::identity::{self, IdentityError};
use crate::peers::PeerKey;
use crate::peers::cache::Cache;
use crate::shared::Shared;
use crate::store::Store;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use network::Network;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the network's task; callers wait beyond.
const COMMANDS_MAX: usize = 1024;
/// How long the system may take to say where a listener listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not an address.
    #[error("{0:?} is no address; an address looks like /ip4/1.2.3.4/tcp/4001 or /ip4/1.2.3.4/udp/4001/quic-v1")]
    Address(String),
    /// It cannot listen there.
    #[error("cannot listen on {address}: {error}; choose another port or stop what uses it")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        error: String,
    },
    /// No key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No folder.
    #[error("cannot create {}: {error}", .directory.display())]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Settings that contradict each other.
    #[error("the network cannot be set up: {0}")]
    Settings(String),
}

/// Starts a node that serves from `store`. Returns once it listens. Must be called within a tokio runtime.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(config: Config, store: Store) -> Result<(Handle, Events), StartError> {
    let listen = config.listen.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let bootstrap = config.bootstrap.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(address) = bootstrap.iter().find(|address| names::is_dnsaddr(address)) {
        return Err(no_dnsaddr(address));
    }
    let directory = config.directory.clone();
    let prepare = tokio::task::spawn_blocking(move || prepare(&directory));
    let (key, cache) = prepare.await.map_err(|error| StartError::Settings(error.to_string()))??;
    let remembered_first = cache.addresses().into_iter().map(|(peer, address)| (Some(peer), address));
    let fixed = bootstrap.iter().map(split).chain(remembered_first).collect();

    sockets::look_at_buffers();
    let peer = PeerKey::of(key.public().to_peer_id());
    let shared = Arc::new(Shared::new(peer, &config, store));
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (events, events_in) = mpsc::channel(config.limits.events_max.max(8));
    let mut network = Network::new(config, key, shared.clone(), events, commands_in, listen, fixed);
    network.cache = cache;
    let swarm = network.build_swarm()?;
    let (ready, listening) = oneshot::channel();
    tokio::spawn(network.supervise(swarm, ready));
    let late = || StartError::Settings("no listener came up in time".into());
    match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
        Ok(Ok(())) => Ok((Handle { shared, commands }, Events(events_in))),
        // Dropping the handle's end of the commands ends the network.
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

/// Whether a node can be told to listen on or dial this address.
///
/// # Errors
/// No multiaddr, or a `/dnsaddr`, which needs look-ups that this node does not make.
pub fn check_address(text: &str) -> Result<(), StartError> {
    let address = parse(text)?;
    if names::is_dnsaddr(&address) { Err(no_dnsaddr(&address)) } else { Ok(()) }
}

fn no_dnsaddr(address: &Multiaddr) -> StartError {
    let remedy = "needs TXT look-ups, which this node does not make; name a machine: /dns4/NAME/tcp/PORT";
    StartError::Settings(format!("{address} {remedy}"))
}

fn parse(text: &str) -> Result<Multiaddr, StartError> {
    text.parse().map_err(|_| StartError::Address(text.chars().take(200).collect()))
}

fn prepare(directory: &Path) -> Result<(Keypair, Cache), StartError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| StartError::Directory { directory: directory.to_owned(), error })?;
    Ok((identity::load(directory)?, network::remembered(directory)))
}

/// The peer that an address names, and the address without it.
fn split(address: &Multiaddr) -> (Option<PeerKey>, String) {
    let mut address = address.clone();
    let peer = match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            Some(PeerKey::of(peer))
        }
        _ => None,
    };
    (peer, address.to_string())
}

/// An address's text without the peer at its end.
fn without_peer(address: &str) -> String {
    address.rsplit_once("/p2p/").map_or(address, |(address, _)| address).to_owned()
}
