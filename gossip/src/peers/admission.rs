//! Which connections may be. Counts them by direction, peer and address; whoever owns the sockets asks first.
//!
//! Peer ids are free, so a quarter of the inbound places is for peers that a member's record names: strangers get the
//! rest. Before the chain is seen nobody can be told from a stranger; what they then hold too much ends afterwards.

use super::PeerKey;
use super::bucket::{Buckets, Rate};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Inbound ones that have not shown who they are.
    pub pending_in_max: usize,
    /// Inbound ones. A quarter of them is kept for peers that members' records name.
    pub in_max: usize,
    /// Outbound ones.
    pub out_max: usize,
    /// To one peer: two, since both may dial at once; the surplus one goes soon.
    pub per_peer_max: usize,
    /// From one IPv4 address or IPv6 /64, inbound. Loopback is exempt: it is this machine's own swarms.
    pub per_address_max: usize,
    /// New ones from one address, inbound.
    pub per_address_new: Rate,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            pending_in_max: 32,
            in_max: 96,
            out_max: 48,
            per_peer_max: 2,
            per_address_max: 8,
            per_address_new: Rate { burst: 10, refill: std::time::Duration::from_secs(6) },
        }
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    #[error("{0} connections are being set up")]
    Pending(usize),
    #[error("{0} inbound connections")]
    Inbound(usize),
    #[error("{0} inbound connections of peers that no member's record names")]
    Strangers(usize),
    #[error("{0} outbound connections")]
    Outbound(usize),
    #[error("{0} connections with this peer")]
    Peer(usize),
    #[error("{0} connections from this address")]
    Address(usize),
    #[error("too many new connections from this address")]
    Pace,
    #[error("the peer is banned")]
    Banned,
}

/// An address, as far as someone must pay for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

impl Place {
    /// None where no count is kept.
    pub(crate) fn of(address: IpAddr) -> Option<Place> {
        match address.to_canonical() {
            address if address.is_loopback() => None,
            IpAddr::V4(v4) => Some(Place(u64::from(u32::from(v4)))),
            // A /64 that ends below 2^32 is ::/32, which nobody has.
            IpAddr::V6(v6) => Some(Place((u128::from(v6) >> 64) as u64)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In(Option<Place>),
    Out,
}

#[derive(Debug)]
pub(crate) struct Admission<C> {
    limits: ConnectionLimits,
    pending: HashMap<C, Option<Place>>,
    established: HashMap<C, (PeerKey, Direction)>,
    fresh: Buckets<Place>,
}

/// Whether a member's record names a peer; none while nobody can know.
pub(crate) type Named<'a> = Option<&'a dyn Fn(&PeerKey) -> bool>;

impl<C: std::hash::Hash + Ord + Copy> Admission<C> {
    pub(crate) fn new(limits: ConnectionLimits) -> Admission<C> {
        let fresh = Buckets::new(limits.per_address_new, 4096);
        Admission { limits, pending: HashMap::new(), established: HashMap::new(), fresh }
    }

    pub(crate) fn ask_pending(&mut self, connection: C, place: Option<Place>, now: Instant) -> Result<(), NotAdmitted> {
        if self.pending.len() >= self.limits.pending_in_max {
            return Err(NotAdmitted::Pending(self.pending.len()));
        }
        if let Some(place) = place {
            let established = self.established.values().filter(|(_, way)| *way == Direction::In(Some(place))).count();
            let here = established + self.pending.values().filter(|other| **other == Some(place)).count();
            if here >= self.limits.per_address_max {
                return Err(NotAdmitted::Address(here));
            }
            if !self.fresh.take(place, now) {
                return Err(NotAdmitted::Pace);
            }
        }
        self.pending.insert(connection, place);
        Ok(())
    }

    pub(crate) fn ask_established(
        &mut self,
        peer: PeerKey,
        direction: Direction,
        named: Named<'_>,
    ) -> Result<(), NotAdmitted> {
        let (mut inbound, mut outbound, mut same) = (0, 0, 0);
        for (other, way) in self.established.values() {
            inbound += usize::from(matches!(way, Direction::In(_)));
            outbound += usize::from(*way == Direction::Out);
            same += usize::from(*other == peer);
        }
        match direction {
            _ if same >= self.limits.per_peer_max => Err(NotAdmitted::Peer(same)),
            Direction::In(_) if inbound >= self.limits.in_max => Err(NotAdmitted::Inbound(inbound)),
            Direction::Out if outbound >= self.limits.out_max => Err(NotAdmitted::Outbound(outbound)),
            // Few enough that nobody need be told apart.
            Direction::In(_) if inbound < self.strangers_max() => Ok(()),
            Direction::In(_) => match named {
                Some(named) if !named(&peer) => match self.strangers(named).len() {
                    strangers if strangers >= self.strangers_max() => Err(NotAdmitted::Strangers(strangers)),
                    _ => Ok(()),
                },
                _ => Ok(()),
            },
            Direction::Out => Ok(()),
        }
    }

    fn strangers_max(&self) -> usize {
        self.limits.in_max - self.limits.in_max / 4
    }

    /// Inbound connections of peers that no member's record names, the oldest first.
    fn strangers(&self, named: &dyn Fn(&PeerKey) -> bool) -> Vec<C> {
        let inbound = self.established.iter().filter(|(_, (_, way))| matches!(way, Direction::In(_)));
        let mut found: Vec<C> =
            inbound.filter(|(_, (peer, _))| !named(peer)).map(|(connection, _)| *connection).collect();
        // They count upwards.
        found.sort();
        found
    }

    /// Connections to close so that strangers hold no more than their share: the oldest ones, which had the longest time
    /// to show a record. There are some after the first chain view, and when members cease to be some.
    pub(crate) fn surplus(&self, named: Named<'_>) -> Vec<C> {
        let inbound = self.established.values().filter(|(_, way)| matches!(way, Direction::In(_))).count();
        let Some(named) = named.filter(|_| inbound > self.strangers_max()) else {
            return Vec::new();
        };
        let mut strangers = self.strangers(named);
        strangers.truncate(strangers.len().saturating_sub(self.strangers_max()));
        strangers
    }

    pub(crate) fn established(&mut self, connection: C, peer: PeerKey, direction: Direction) {
        self.pending.remove(&connection);
        self.established.insert(connection, (peer, direction));
    }

    /// Closed, or never came to be.
    pub(crate) fn gone(&mut self, connection: C) {
        self.pending.remove(&connection);
        self.established.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::test_peer;
    use super::*;

    fn place(text: &str) -> Option<Place> {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn one_address_gets_its_share_and_loopback_is_exempt() {
        let limits = ConnectionLimits { per_address_max: 2, ..Default::default() };
        let mut admission = Admission::new(limits);
        let now = Instant::now();
        assert_eq!(admission.ask_pending(1, place("10.0.0.1"), now), Ok(()));
        admission.established(1, test_peer(1), Direction::In(place("10.0.0.1")));
        assert_eq!(admission.ask_pending(2, place("::ffff:10.0.0.1"), now), Ok(()));
        assert_eq!(admission.ask_pending(3, place("10.0.0.1"), now), Err(NotAdmitted::Address(2)));
        assert_eq!(admission.ask_pending(4, place("10.0.0.2"), now), Ok(()));
        admission.gone(1);
        assert_eq!(admission.ask_pending(5, place("10.0.0.1"), now), Ok(()));
        assert_eq!(place("2001:db8::1"), place("2001:db8::2"), "a /64 is one place");
        for connection in 10..20 {
            assert_eq!(admission.ask_pending(connection, place("127.0.0.1"), now), Ok(()));
        }
    }

    #[test]
    fn directions_peers_and_pending_ones_are_bounded() {
        let limits = ConnectionLimits { in_max: 2, out_max: 1, pending_in_max: 1, ..Default::default() };
        let mut admission = Admission::new(limits);
        assert_eq!(admission.ask_pending(0, None, Instant::now()), Ok(()));
        assert_eq!(admission.ask_pending(1, None, Instant::now()), Err(NotAdmitted::Pending(1)));
        for connection in [0, 1] {
            assert_eq!(admission.ask_established(test_peer(1), Direction::In(None), None), Ok(()));
            admission.established(connection, test_peer(1), Direction::In(None));
        }
        assert_eq!(admission.ask_established(test_peer(1), Direction::Out, None), Err(NotAdmitted::Peer(2)));
        assert_eq!(admission.ask_established(test_peer(2), Direction::In(None), None), Err(NotAdmitted::Inbound(2)));
        admission.established(2, test_peer(2), Direction::Out);
        assert_eq!(admission.ask_established(test_peer(3), Direction::Out, None), Err(NotAdmitted::Outbound(1)));
    }

    #[test]
    fn a_quarter_of_the_inbound_places_is_for_peers_that_members_name() {
        let mut admission = Admission::new(ConnectionLimits { in_max: 8, ..Default::default() });
        let is_named = |peer: &PeerKey| (100..200).any(|seed| *peer == test_peer(seed));
        let named: Named<'_> = Some(&is_named);
        let inbound = Direction::In(None);
        for seed in 0..6 {
            assert_eq!(admission.ask_established(test_peer(seed), inbound, named), Ok(()));
            admission.established(seed, test_peer(seed), inbound);
        }
        assert_eq!(admission.ask_established(test_peer(6), inbound, named), Err(NotAdmitted::Strangers(6)));
        assert_eq!(admission.ask_established(test_peer(6), inbound, None), Ok(()), "nobody can know yet");
        assert_eq!(admission.ask_established(test_peer(6), Direction::Out, named), Ok(()), "dialled ones are chosen");
        for seed in [100, 101] {
            assert_eq!(admission.ask_established(test_peer(seed), inbound, named), Ok(()));
            admission.established(seed, test_peer(seed), inbound);
        }
        assert_eq!(admission.ask_established(test_peer(102), inbound, named), Err(NotAdmitted::Inbound(8)));
        assert!(admission.surplus(named).is_empty());
    }

    #[test]
    fn strangers_that_came_before_the_chain_view_give_the_members_places_back_oldest_first() {
        let mut admission = Admission::new(ConnectionLimits { in_max: 8, ..Default::default() });
        for seed in 0..8 {
            assert_eq!(admission.ask_established(test_peer(seed), Direction::In(None), None), Ok(()));
            admission.established(seed, test_peer(seed), Direction::In(None));
        }
        assert!(admission.surplus(None).is_empty());
        assert_eq!(admission.surplus(Some(&|_| false)), [0, 1]);
        assert_eq!(admission.surplus(Some(&|peer| *peer == test_peer(0))), [1], "a member stays");
        assert!(admission.surplus(Some(&|_| true)).is_empty());
    }
}
