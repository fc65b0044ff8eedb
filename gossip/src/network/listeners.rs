//! Where this node listens: ports that the system chose are kept, so that a rebuilt network listens where it did.

use super::behaviour::Behaviour;
use super::error::StartError;
use crate::peers::Multiaddr;
use crate::peers::external::counts_at_once;
use crate::peers::place::address_of;
use crate::shared::Shared;
use libp2p::Swarm;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The listeners of this life of the network, and the addresses of all lives.
pub(super) struct Listeners {
    shared: Arc<Shared>,
    /// Whether the operator says that others reach these addresses.
    reachable: bool,
    addresses: Vec<Multiaddr>,
    /// Those of which the system has not said yet where they listen.
    waiting: HashMap<ListenerId, usize>,
}

impl Listeners {
    pub(super) fn new(shared: Arc<Shared>, reachable: bool, addresses: Vec<Multiaddr>) -> Listeners {
        Listeners { shared, reachable, addresses, waiting: HashMap::new() }
    }

    /// Whether it is told to listen on a loopback address: its swarm lives on this machine.
    pub(super) fn are_here(&self) -> bool {
        self.addresses.iter().any(|address| address_of(address).is_some_and(|ip| ip.is_loopback()))
    }

    /// Whether each of them has an address.
    pub(super) fn are_ready(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes on without any, rather than never.
    pub(super) fn give_up(&mut self) {
        self.addresses.clear();
    }

    /// Has a new swarm listen.
    ///
    /// # Errors
    /// [`StartError::Listen`] at the first address where it cannot.
    pub(super) fn listen(&mut self, swarm: &mut Swarm<Behaviour>) -> Result<(), StartError> {
        self.waiting.clear();
        self.shared.addresses().clear();
        for (index, address) in self.addresses.iter().enumerate() {
            let refused = |error: String| StartError::Listen { address: address.to_string(), error };
            probe(address).map_err(|error| refused(error.to_string()))?;
            let id = swarm.listen_on(address.clone()).map_err(|error| refused(error.to_string()))?;
            self.waiting.insert(id, index);
        }
        Ok(())
    }

    /// A listener has an address.
    pub(super) fn listening(&mut self, listener: ListenerId, address: Multiaddr, swarm: &mut Swarm<Behaviour>) {
        if let Some(listen) = self.waiting.remove(&listener).and_then(|index| self.addresses.get_mut(index)) {
            *listen = with_port_of(listen, &address);
        }
        let known = swarm.external_addresses().count();
        if counts_at_once(&address, self.reachable, known, self.are_here()) {
            swarm.add_external_address(address.clone());
        }
        let text = self.text(&address);
        let mut addresses = self.shared.addresses();
        if !addresses.contains(&text) {
            addresses.push(text);
        }
    }

    /// An address of a listener's is none any more.
    pub(super) fn expired(&self, address: &Multiaddr) {
        let text = self.text(address);
        self.shared.addresses().retain(|other| *other != text);
    }

    /// Others reached this node there. First of its addresses, since a peer record takes eight.
    pub(super) fn reached_at(&self, address: Multiaddr, swarm: &mut Swarm<Behaviour>) {
        tracing::info!(%address, "this node can be reached here: two peers of different networks did");
        self.shared.addresses().insert(0, self.text(&address));
        swarm.add_external_address(address);
    }

    fn text(&self, address: &Multiaddr) -> String {
        format!("{address}/p2p/{}", self.shared.peer)
    }
}

/// `listen` with the port that the system chose.
fn with_port_of(listen: &Multiaddr, actual: &Multiaddr) -> Multiaddr {
    let port = actual.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    });
    let Some(port) = port else { return listen.clone() };
    let parts = listen.iter().map(|part| match part {
        Protocol::Tcp(0) => Protocol::Tcp(port),
        Protocol::Udp(0) => Protocol::Udp(port),
        part => part,
    });
    parts.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_system_chose_is_kept_and_one_that_was_asked_for_stays() {
        let kept =
            |listen: &str, actual: &str| with_port_of(&listen.parse().unwrap(), &actual.parse().unwrap()).to_string();
        assert_eq!(kept("/ip4/0.0.0.0/tcp/0", "/ip4/10.0.0.1/tcp/4321"), "/ip4/0.0.0.0/tcp/4321");
        assert_eq!(kept("/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/1.1.1.1/udp/7/quic-v1"), "/ip4/0.0.0.0/udp/7/quic-v1");
        assert_eq!(kept("/ip4/0.0.0.0/tcp/4001", "/ip4/10.0.0.1/tcp/4001"), "/ip4/0.0.0.0/tcp/4001");
    }

    #[test]
    fn a_port_that_is_taken_is_noticed() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(probe(&format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).is_err());
        assert!(probe(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).is_ok());
        assert!(probe(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()).is_ok());
    }
}
