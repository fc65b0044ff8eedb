//! The start of a node: checks addresses, loads its key, makes the channels between its handles and its network, and returns
//! once it listens.

use super::error::StartError;
use super::lasting::{Network, Roads};
use super::mail::Mail;
use super::{dialling, names, sockets};
use crate::config::Config;
use crate::event::Events;
use crate::handle::Handle;
use crate::identity;
use crate::peers::cache::Cache;
use crate::peers::place::split;
use crate::peers::{Multiaddr, PeerKey};
use crate::shared::Shared;
use crate::store::Store;
use libp2p::identity::Keypair;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the network's task; callers wait beyond.
const COMMANDS_MAX: usize = 1024;
/// How long the system may take to say where a listener listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

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

    sockets::look_at_buffers();
    let peer = PeerKey::of(key.public().to_peer_id());
    let shared = Arc::new(Shared::new(peer, &config, store));
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (events, events_in) = mpsc::channel(config.limits.events_max.max(8));
    let mail = Mail::new(commands_in, events, shared.traffic.clone());
    let roads = Roads { listen, bootstrap: bootstrap.iter().map(split).collect(), cache };
    let mut network = Network::new(config, key, shared.clone(), mail, roads);
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
    Ok((identity::load(directory)?, dialling::remembered(directory)))
}
