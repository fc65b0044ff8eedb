//! What outlives a fault in the network: settings, channels, and the owners whose state a new swarm goes on with.

use super::behaviour::{self, Behaviour};
use super::dialling::Dialling;
use super::error::StartError;
use super::jobs::Jobs;
use super::listeners::Listeners;
use super::mail::Mail;
use super::pieces::Pieces;
use super::small_blobs::SmallBlobs;
use super::transport;
use crate::config::Config;
use crate::peers::cache::Cache;
use crate::peers::{Multiaddr, PeerKey};
use crate::shared::Shared;
use libp2p::Swarm;
use libp2p::identity::Keypair;
use std::sync::Arc;
use std::time::Duration;

/// A connection to a peer without anything to say is kept so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Where a node listens and whom it dials first.
pub(super) struct Roads {
    pub(super) listen: Vec<Multiaddr>,
    pub(super) bootstrap: Vec<(Option<PeerKey>, String)>,
    pub(super) cache: Cache,
}

/// What outlives a fault.
pub(super) struct Network {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) mail: Mail,
    pub(super) listeners: Listeners,
    pub(super) dialling: Dialling,
    pub(super) small: SmallBlobs,
    pub(super) pieces: Pieces,
    pub(super) jobs: Jobs,
    /// Counts the networks that were built.
    pub(super) life: u64,
    key: Keypair,
}

impl Network {
    pub(super) fn new(config: Config, key: Keypair, shared: Arc<Shared>, mail: Mail, roads: Roads) -> Network {
        let Roads { listen, bootstrap, cache } = roads;
        let limits = &config.limits;
        let listeners = Listeners::new(shared.clone(), config.reachable, listen);
        let (directory, here) = (config.directory.clone(), listeners.are_here());
        Network {
            mail,
            dialling: Dialling::new(shared.clone(), directory, here, limits.peers_target, bootstrap, cache),
            listeners,
            small: SmallBlobs::new(shared.clone(), limits.fetch.clone()),
            pieces: Pieces::new(limits, shared.clone()),
            jobs: Jobs::new(),
            life: 0,
            config,
            shared,
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
        let behaviour = behaviour::build(&self.config, &self.key, &self.shared, self.listeners.are_here())
            .map_err(|error| settings(&error))?;
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
        let mut swarm = Swarm::new(transport, behaviour, self.shared.peer.id(), config);
        self.listeners.listen(&mut swarm)?;
        Ok(swarm)
    }
}
