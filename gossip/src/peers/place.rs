//! Addresses as far as someone must pay for them: one machine, one block, one network.
//!
//! Loopback has no place: it is this machine's own swarms, unless the options say otherwise.

use super::PeerKey;
use super::way::Way;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::IpAddr;

/// One IPv4 address or IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

/// One IPv4 /24 or IPv6 /48: what one customer of a data centre has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Block(u64);

/// One IPv4 /16 or IPv6 /32: what one provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Net(u64);

impl Place {
    /// None where no count is kept.
    pub(crate) fn of(address: IpAddr) -> Option<Place> {
        (!address.to_canonical().is_loopback()).then(|| Place::even_of(address))
    }

    /// The same, with loopback as one place.
    pub(crate) fn even_of(address: IpAddr) -> Place {
        match address.to_canonical() {
            IpAddr::V4(v4) => Place(u64::from(u32::from(v4))),
            // A /64 that ends below 2^32 is ::/32, where only ::1 is.
            IpAddr::V6(v6) => Place((u128::from(v6) >> 64) as u64),
        }
    }

    fn is_v4(self) -> bool {
        self.0 <= u64::from(u32::MAX)
    }

    pub(crate) fn block(self) -> Block {
        Block(if self.is_v4() { self.0 >> 8 } else { self.0 >> 16 })
    }

    pub(crate) fn net(self) -> Net {
        Net(if self.is_v4() { self.0 >> 16 } else { self.0 >> 32 })
    }
}

/// The IP address at a multiaddr's head.
pub(crate) fn address_of(multiaddr: &Multiaddr) -> Option<IpAddr> {
    match multiaddr.iter().next()? {
        Protocol::Ip4(address) => Some(address.into()),
        Protocol::Ip6(address) => Some(address.into()),
        _ => None,
    }
}

/// The peer that an address names at its end, and the text of the address without it.
pub(crate) fn split(address: &Multiaddr) -> (Option<PeerKey>, String) {
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
pub(crate) fn without_peer(address: &str) -> String {
    address.rsplit_once("/p2p/").map_or(address, |(address, _)| address).to_owned()
}

/// Whether it can only mean the machine that dials it (0.0.0.0 does, on Linux).
pub(crate) fn is_here(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// Whether it means the same machine to nobody beyond the next router.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            is_here(ip) || v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => is_here(ip) || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What an inbound connection counts for, by address; none where no count is kept. Of a relayed one the address is the
/// relay's, or nobody's: all who come through a relay would count as one.
pub(crate) fn counted_at(way: Way, remote: &Multiaddr, loopback_exempt: bool) -> Option<Place> {
    let ip = address_of(remote).filter(|_| way == Way::Direct)?;
    if loopback_exempt { Place::of(ip) } else { Some(Place::even_of(ip)) }
}

/// Whether an address that strangers named may be dialled: their records must not make this machine talk to its own ports,
/// unless its swarm lives there (`here`), nor to a peer through a relay of their choice.
pub(crate) fn may_dial(address: &Multiaddr, here: bool) -> bool {
    Way::to(address) == Way::Direct && (here || !address_of(address).is_some_and(is_here))
}

/// Whether an address begins with a name that the system's resolver must be asked for.
pub(crate) fn begins_with_name(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)))
}

/// An address that this version dials on somebody's word: an IP address, TCP or QUIC, and nothing else but the peer.
/// Without the peer.
pub(crate) fn dialable(multiaddr: &Multiaddr) -> Option<Multiaddr> {
    let ip = address_of(multiaddr)?;
    let mut rest = multiaddr.iter().skip(1);
    let known = match (rest.next()?, rest.next(), rest.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_)), None) => port != 0,
        (Protocol::Udp(port), Some(Protocol::QuicV1), None | Some(Protocol::P2p(_))) => port != 0,
        _ => false,
    };
    let known = known && rest.next().is_none() && !ip.is_multicast() && !ip.is_unspecified();
    known.then(|| multiaddr.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect())
}

/// What of a peer's own addresses is of use to others: those that can be dialled, and local ones only if the peer itself
/// is at a local address.
pub(crate) fn useful<'a>(
    addresses: impl Iterator<Item = &'a Multiaddr>,
    seen_at: IpAddr,
    max: usize,
) -> Vec<Multiaddr> {
    let mut found: Vec<Multiaddr> = Vec::new();
    for address in addresses.filter_map(dialable) {
        let local = address_of(&address).is_some_and(is_local);
        let here = address_of(&address).is_some_and(is_here);
        if (!local || is_local(seen_at)) && (!here || is_here(seen_at)) && !found.contains(&address) {
            found.push(address);
        }
        if found.len() >= max {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::even_of(text.parse().unwrap())
    }

    #[test]
    fn machines_are_in_blocks_and_blocks_in_networks() {
        assert_eq!(Place::of("127.0.0.9".parse().unwrap()), None);
        assert_eq!(place("10.1.2.3"), place("::ffff:10.1.2.3"));
        assert_eq!(place("2001:db8::1"), place("2001:db8::2"));
        assert_eq!(place("10.1.2.3").block(), place("10.1.2.250").block());
        assert_ne!(place("10.1.2.3").block(), place("10.1.3.3").block());
        assert_eq!(place("10.1.2.3").net(), place("10.1.3.3").net());
        assert_ne!(place("10.1.2.3").net(), place("10.2.2.3").net());
        assert_eq!(place("2001:db8:1:2::1").block(), place("2001:db8:1:3::1").block());
        assert_ne!(place("2001:db8:1::1").block(), place("2001:db8:2::1").block());
        assert_eq!(place("2001:db8:1::1").net(), place("2001:db8:2::1").net());
    }

    #[test]
    fn only_plain_addresses_are_dialled_on_anothers_word() {
        let dialable = |text: &str| dialable(&text.parse().unwrap()).map(|address| address.to_string());
        let id = super::super::test_peer(1);
        assert_eq!(dialable("/ip4/1.2.3.4/tcp/5").unwrap(), "/ip4/1.2.3.4/tcp/5");
        assert_eq!(dialable(&format!("/ip4/1.2.3.4/udp/5/quic-v1/p2p/{id}")).unwrap(), "/ip4/1.2.3.4/udp/5/quic-v1");
        let relayed = format!("/ip4/1.2.3.4/tcp/5/p2p/{id}/p2p-circuit");
        let refused = ["/dns4/a.b/tcp/5", "/ip4/1.2.3.4/tcp/0", "/ip4/0.0.0.0/tcp/5", "/ip4/1.2.3.4/udp/5", &relayed];
        assert!(refused.iter().all(|text| dialable(text).is_none()));
    }

    #[test]
    fn a_relayed_connection_counts_for_nobodys_address_and_loopback_only_if_it_is_not_exempt() {
        let remote: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let here: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(counted_at(Way::Direct, &remote, true), Some(place("10.0.0.1")));
        assert_eq!(counted_at(Way::Relayed, &remote, true), None);
        assert_eq!(counted_at(Way::Relayed, &here, false), None);
        assert_eq!(
            (counted_at(Way::Direct, &here, true), counted_at(Way::Direct, &here, false).is_some()),
            (None, true)
        );
    }

    #[test]
    fn a_strangers_address_leads_neither_to_this_machine_nor_through_a_relay() {
        let may = |text: &str, here: bool| may_dial(&text.parse().unwrap(), here);
        assert!(may("/ip4/1.2.3.4/tcp/5", false) && may("/ip4/127.0.0.1/tcp/5", true));
        assert!(!may("/ip4/127.0.0.1/tcp/5", false) && !may("/ip4/0.0.0.0/tcp/5", false));
        let relayed = format!("/ip4/1.2.3.4/tcp/5/p2p/{}/p2p-circuit", super::super::test_peer(1));
        assert!(!may(&relayed, true));
    }

    #[test]
    fn who_is_elsewhere_has_no_address_on_this_machine_or_behind_this_router() {
        let all: Vec<Multiaddr> = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.2/tcp/1", "/ip4/8.8.4.4/tcp/1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let kept = |seen: &str| useful(all.iter(), seen.parse().unwrap(), 8).len();
        assert_eq!((kept("127.0.0.1"), kept("192.168.0.9"), kept("9.9.9.9")), (3, 2, 1));
        assert_eq!(useful(all.iter(), "127.0.0.1".parse().unwrap(), 2).len(), 2);
    }
}
