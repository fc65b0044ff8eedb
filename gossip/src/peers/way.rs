//! By which way a connection reaches its peer. Decided here, from the addresses of its two ends; whoever decides by it is
//! told: which of several connections stays ([`super::lines`]), what counts for an address ([`super::place::counted_at`]),
//! where a peer can be dialled ([`super::cache`], [`super::dialer`], [`super::book`]), what goes over it (`links`).
//!
//! A relay passes a connection on between two peers that cannot reach one another, and it carries little: libp2p's allow
//! 128 KiB and two minutes a circuit. So a relayed connection is for gossip and small requests until a direct one stands.

use libp2p::Multiaddr;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;

/// By which way a peer is reached. Direct is the better one, and sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    /// From machine to machine.
    Direct,
    /// Through a relay, whose address is then all that is seen of the peer's.
    Relayed,
}

impl Way {
    /// The way of an established connection.
    pub(crate) fn of(endpoint: &ConnectedPoint) -> Way {
        match endpoint {
            ConnectedPoint::Dialer { address, .. } => Way::to(address),
            ConnectedPoint::Listener { local_addr, send_back_addr } => Way::between(local_addr, send_back_addr),
        }
    }

    /// The way between two addresses. Of an inbound relayed connection only the local one names the relay: the remote one
    /// is `/p2p/PEER`.
    pub(crate) fn between(local: &Multiaddr, remote: &Multiaddr) -> Way {
        Way::to(local).max(Way::to(remote))
    }

    /// The way on which an address is dialled.
    pub(crate) fn to(address: &Multiaddr) -> Way {
        let relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
        if relayed { Way::Relayed } else { Way::Direct }
    }

    /// The same of a text, such as a record's. One that is no address names no relay either.
    pub(crate) fn to_text(address: &str) -> Way {
        address.parse().map_or(Way::Direct, |address| Way::to(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_peer;
    use super::*;
    use libp2p::core::Endpoint;
    use libp2p::core::transport::PortUse;

    #[test]
    fn a_circuit_at_either_end_makes_a_connection_a_relayed_one() {
        let (relay, peer) = (test_peer(1), test_peer(2));
        let circuit: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap();
        let to_peer: Multiaddr = format!("{circuit}/p2p/{peer}").parse().unwrap();
        let plain: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}").parse().unwrap();
        let bare: Multiaddr = format!("/p2p/{peer}").parse().unwrap();
        let dialled = |address: &Multiaddr| {
            let role = Endpoint::Dialer;
            Way::of(&ConnectedPoint::Dialer { address: address.clone(), role_override: role, port_use: PortUse::New })
        };
        let accepted = |local: &Multiaddr, remote: &Multiaddr| {
            Way::of(&ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() })
        };
        assert_eq!((dialled(&to_peer), dialled(&plain)), (Way::Relayed, Way::Direct));
        // What libp2p's relay client says of a connection that came through it: its other end has no address.
        assert_eq!(accepted(&circuit, &bare), Way::Relayed);
        assert_eq!(accepted(&"/ip4/9.9.9.9/tcp/7".parse().unwrap(), &plain), Way::Direct);
        assert_eq!(Way::to_text(&to_peer.to_string()), Way::Relayed);
        assert_eq!((Way::to_text("no address"), Way::to_text("/ip4/1.2.3.4/tcp/1")), (Way::Direct, Way::Direct));
        assert!(Way::Direct < Way::Relayed, "the better one first");
    }
}
