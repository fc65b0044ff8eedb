//! Where this node can be reached from outside, as others saw it.
//!
//! Whoever dialled this node knows an address that worked, and says so. One may lie, so two of different networks must
//! name the same address; then it counts. Two liars gain a false address in this node's records, which costs whoever
//! dials it one dial.

use super::PeerKey;
use super::place::{Place, address_of, dialable, is_here, is_local};
use libp2p::Multiaddr;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Addresses that wait for a second witness; the oldest makes room.
const CANDIDATES_MAX: usize = 16;
/// Addresses that count.
pub(crate) const EXTERNAL_MAX: usize = 8;

/// Whether an address on which this node listens is one of its external ones: only the operator can know, and says so
/// (`reachable`). `known` of them count already; `here`: the swarm lives on this machine.
pub(crate) fn counts_at_once(address: &Multiaddr, reachable: bool, known: usize, here: bool) -> bool {
    reachable && known < EXTERNAL_MAX && (here || !address_of(address).is_some_and(is_here))
}

#[derive(Debug, Default)]
pub(crate) struct Candidates {
    waiting: VecDeque<(Multiaddr, PeerKey, Place)>,
    confirmed: Vec<Multiaddr>,
}

impl Candidates {
    /// `witness`, which dialled this node from `from`, says that it did so at `address`. The address, if it counts from
    /// now on.
    pub(crate) fn seen(&mut self, address: &Multiaddr, witness: PeerKey, from: IpAddr) -> Option<Multiaddr> {
        let address = dialable(address)?;
        let ip = address_of(&address).filter(|ip| !is_here(*ip))?;
        let from = Place::of(from)?;
        if self.confirmed.contains(&address) || self.confirmed.len() >= EXTERNAL_MAX {
            return None;
        }
        // Behind one router all are of one network: two machines are enough there.
        let differs = |other: &Place| if is_local(ip) { *other != from } else { other.net() != from.net() };
        let second = |(named, by, at): &(Multiaddr, PeerKey, Place)| *named == address && *by != witness && differs(at);
        if self.waiting.iter().any(second) {
            self.waiting.retain(|(named, _, _)| *named != address);
            self.confirmed.push(address.clone());
            return Some(address);
        }
        self.waiting.retain(|(named, by, _)| *named != address || *by != witness);
        self.waiting.push_back((address, witness, from));
        if self.waiting.len() > CANDIDATES_MAX {
            self.waiting.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_peer;
    use super::*;

    #[test]
    fn an_address_counts_once_two_peers_of_different_networks_reached_it() {
        let mut candidates = Candidates::default();
        let mut seen = |address: &str, by: u8, from: &str| {
            candidates.seen(&address.parse().unwrap(), test_peer(by), from.parse().unwrap()).is_some()
        };
        let here = "/ip4/5.5.5.5/tcp/4001";
        assert!(!seen(here, 1, "1.1.1.1"));
        assert!(!seen(here, 1, "2.2.2.2"), "one peer has one voice");
        assert!(!seen(here, 2, "2.2.9.9"), "one network has one voice");
        assert!(!seen("/ip4/5.5.5.5/tcp/4002", 3, "3.3.3.3"));
        assert!(seen(here, 3, "3.3.3.3"));
        assert!(!seen(here, 4, "4.4.4.4"), "told once");
        for (by, from) in [(1, "127.0.0.1"), (2, "1.1.1.1"), (3, "2.2.2.2")] {
            assert!(!seen("/ip4/127.0.0.1/tcp/1", by, from), "loopback is no outside");
        }
        assert!(!seen("/ip4/192.168.0.3/tcp/1", 1, "192.168.0.1"));
        assert!(seen("/ip4/192.168.0.3/tcp/1", 2, "192.168.0.2"));
    }

    #[test]
    fn where_a_node_listens_counts_at_once_only_if_its_operator_says_so() {
        let (far, near): (Multiaddr, Multiaddr) =
            ("/ip4/5.5.5.5/tcp/1".parse().unwrap(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        assert!(counts_at_once(&far, true, 0, false) && !counts_at_once(&far, false, 0, false));
        assert!(!counts_at_once(&far, true, EXTERNAL_MAX, false));
        assert!(counts_at_once(&near, true, 0, true) && !counts_at_once(&near, true, 0, false));
    }

    #[test]
    fn a_relays_address_is_not_where_this_node_is_reached() {
        let mut candidates = Candidates::default();
        let relayed = format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit", test_peer(9)).parse().unwrap();
        for (by, from) in [(1, [1, 1, 1, 1]), (2, [2, 2, 2, 2]), (3, [3, 3, 3, 3])] {
            assert_eq!(candidates.seen(&relayed, test_peer(by), from.into()), None);
        }
    }

    #[test]
    fn liars_fill_no_more_than_a_short_list() {
        let mut candidates = Candidates::default();
        for port in 1..5000 {
            let address = format!("/ip4/6.6.6.6/tcp/{port}").parse().unwrap();
            candidates.seen(&address, test_peer((port % 9) as u8), "6.6.6.6".parse().unwrap());
        }
        assert_eq!((candidates.waiting.len(), candidates.confirmed.len()), (CANDIDATES_MAX, 0));
    }
}
