//! Which connections may be. Counts them by direction, peer and address; whoever owns the sockets asks first.
//!
//! Peer ids are free, so a quarter of the inbound places is for peers that a member's record names: strangers get the
//! rest. Before the chain is seen nobody can be told from a stranger; what they then hold too much ends afterwards.
//! Addresses are not free: one has its share for strangers, and so has its block. Many honest peers may share one (a
//! carrier's NAT): those that members' records name do not count, and one connection at a time is let in beyond the share
//! until it has shown whose it is.

use super::PeerKey;
use super::bucket::{Buckets, Rate};
use super::place::Place;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Inbound ones that have not shown who they are.
    pub pending_in_max: usize,
    /// Outbound ones that are being set up.
    pub pending_out_max: usize,
    /// Inbound ones. A quarter of them is kept for peers that members' records name.
    pub in_max: usize,
    /// Outbound ones.
    pub out_max: usize,
    /// Both ways together, so that dialling leaves room to be dialled and the other way round.
    pub all_max: usize,
    /// To one peer: two, since both may dial at once; the surplus one goes soon.
    pub per_peer_max: usize,
    /// From one IPv4 address or IPv6 /64, inbound, of peers that no member's record names.
    pub per_address_max: usize,
    /// From one IPv4 /24 or IPv6 /48, inbound, of peers that no member's record names: sybils rent blocks.
    pub per_block_max: usize,
    /// New ones from one address, inbound.
    pub per_address_new: Rate,
    /// Whether loopback is exempt from the bounds per address: for swarms on one machine. It always is for a node that
    /// is told to listen on a loopback address.
    pub loopback_exempt: bool,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            pending_in_max: 32,
            pending_out_max: 16,
            in_max: 96,
            out_max: 48,
            all_max: 128,
            per_peer_max: 2,
            per_address_max: 8,
            per_block_max: 16,
            per_address_new: Rate { burst: 10, refill: std::time::Duration::from_secs(6) },
            loopback_exempt: false,
        }
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    #[error("{0} connections are being set up")]
    Pending(usize),
    #[error("{0} connections are being dialled")]
    PendingOut(usize),
    #[error("{0} connections")]
    All(usize),
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
    #[error("{0} connections from this block of addresses, of peers that no member's record names")]
    Block(usize),
    #[error("too many new connections from this address")]
    Pace,
    #[error("the peer is banned")]
    Banned,
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
    pending_out: HashSet<C>,
    established: HashMap<C, (PeerKey, Direction)>,
    fresh: Buckets<Place>,
}

/// Whether a member's record names a peer; none while nobody can know.
pub(crate) type Named<'a> = Option<&'a dyn Fn(&PeerKey) -> bool>;

impl<C: std::hash::Hash + Ord + Copy> Admission<C> {
    pub(crate) fn new(limits: ConnectionLimits) -> Admission<C> {
        let fresh = Buckets::new(limits.per_address_new, 4096);
        Admission { limits, pending: HashMap::new(), pending_out: HashSet::new(), established: HashMap::new(), fresh }
    }

    pub(crate) fn ask_pending(
        &mut self,
        connection: C,
        place: Option<Place>,
        now: Instant,
        named: Named<'_>,
    ) -> Result<(), NotAdmitted> {
        if self.pending.len() >= self.limits.pending_in_max {
            return Err(NotAdmitted::Pending(self.pending.len()));
        }
        if let Some(place) = place {
            let pending = self.pending.values().filter(|other| **other == Some(place)).count();
            let here = self.strangers_at(place, named) + pending;
            // A member's peer must get as far as to show that it is one.
            if here >= self.limits.per_address_max && pending > 0 {
                return Err(NotAdmitted::Address(here));
            }
            if !self.fresh.take(place, now) {
                return Err(NotAdmitted::Pace);
            }
        }
        self.pending.insert(connection, place);
        Ok(())
    }

    pub(crate) fn ask_pending_out(&mut self, connection: C) -> Result<(), NotAdmitted> {
        if self.pending_out.len() >= self.limits.pending_out_max {
            return Err(NotAdmitted::PendingOut(self.pending_out.len()));
        }
        self.pending_out.insert(connection);
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
            _ if inbound + outbound >= self.limits.all_max => Err(NotAdmitted::All(inbound + outbound)),
            Direction::In(_) if inbound >= self.limits.in_max => Err(NotAdmitted::Inbound(inbound)),
            Direction::Out if outbound >= self.limits.out_max => Err(NotAdmitted::Outbound(outbound)),
            Direction::In(_) if named.is_some_and(|named| named(&peer)) => Ok(()),
            Direction::In(place) => {
                let here = place.map_or(0, |place| self.strangers_at(place, named));
                match named {
                    _ if place.is_some() && here >= self.limits.per_address_max => Err(NotAdmitted::Address(here)),
                    Some(named) => self.ask_stranger(inbound, place, named),
                    None => Ok(()),
                }
            }
            Direction::Out => Ok(()),
        }
    }

    /// Inbound connections from an address of peers that no member's record names: all, while nobody can know.
    fn strangers_at(&self, place: Place, named: Named<'_>) -> usize {
        let is_stranger = |peer: &PeerKey| !named.is_some_and(|named| named(peer));
        let here = |(peer, way): &&(PeerKey, Direction)| *way == Direction::In(Some(place)) && is_stranger(peer);
        self.established.values().filter(here).count()
    }

    fn ask_stranger(
        &self,
        inbound: usize,
        place: Option<Place>,
        named: &dyn Fn(&PeerKey) -> bool,
    ) -> Result<(), NotAdmitted> {
        let of_block = |way: &Direction| matches!((way, place), (Direction::In(Some(other)), Some(place)) if other.block() == place.block());
        let near = self.established.values().filter(|(_, way)| of_block(way)).count();
        // Few enough that nobody need be told apart.
        if inbound < self.strangers_max() && near < self.limits.per_block_max {
            return Ok(());
        }
        let near = self.established.values().filter(|(peer, way)| of_block(way) && !named(peer)).count();
        if near >= self.limits.per_block_max {
            return Err(NotAdmitted::Block(near));
        }
        match self.strangers(named).len() {
            strangers if strangers >= self.strangers_max() => Err(NotAdmitted::Strangers(strangers)),
            _ => Ok(()),
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
        self.pending_out.remove(&connection);
        self.established.insert(connection, (peer, direction));
    }

    /// Closed, or never came to be.
    pub(crate) fn gone(&mut self, connection: C) {
        self.pending.remove(&connection);
        self.pending_out.remove(&connection);
        self.established.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{many_peers, test_peer};
    use super::*;

    fn place(text: &str) -> Option<Place> {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn one_address_gets_its_share_and_loopback_is_exempt() {
        let limits = ConnectionLimits { per_address_max: 2, ..Default::default() };
        let mut admission = Admission::new(limits);
        let now = Instant::now();
        assert_eq!(admission.ask_pending(1, place("10.0.0.1"), now, None), Ok(()));
        admission.established(1, test_peer(1), Direction::In(place("10.0.0.1")));
        assert_eq!(admission.ask_pending(2, place("::ffff:10.0.0.1"), now, None), Ok(()));
        assert_eq!(admission.ask_pending(3, place("10.0.0.1"), now, None), Err(NotAdmitted::Address(2)));
        assert_eq!(admission.ask_pending(4, place("10.0.0.2"), now, None), Ok(()));
        admission.gone(1);
        assert_eq!(admission.ask_pending(5, place("10.0.0.1"), now, None), Ok(()));
        for connection in 10..20 {
            assert_eq!(admission.ask_pending(connection, place("127.0.0.1"), now, None), Ok(()));
        }
    }

    #[test]
    fn strangers_behind_an_address_do_not_shut_out_the_members_behind_it() {
        let mut admission = Admission::new(ConnectionLimits::default());
        let (peers, here) = (many_peers(60), place("10.0.0.1"));
        let is_member = |peer: &PeerKey| peers[..20].contains(peer);
        let named: Named<'_> = Some(&is_member);
        let mut now = Instant::now();
        let mut ask = |n: usize| {
            now += std::time::Duration::from_secs(6);
            let asked = admission.ask_pending(n, here, now, named);
            let asked = asked.and_then(|()| admission.ask_established(peers[n], Direction::In(here), named));
            match asked {
                Ok(()) => admission.established(n, peers[n], Direction::In(here)),
                Err(_) => admission.gone(n),
            }
            asked
        };
        let strangers: Vec<_> = (20..60).map(&mut ask).collect();
        assert_eq!(strangers.iter().filter(|asked| asked.is_ok()).count(), 8);
        assert_eq!(strangers.last(), Some(&Err(NotAdmitted::Address(8))));
        assert!((0..20).all(|n| ask(n).is_ok()), "members are welcome");
        assert_eq!(ask(59), Err(NotAdmitted::Address(8)), "and make no room for strangers");
    }

    #[test]
    fn beyond_its_share_an_address_has_one_connection_at_a_time_that_may_show_whose_it_is() {
        let mut admission = Admission::new(ConnectionLimits { per_address_max: 1, ..Default::default() });
        let (here, now) = (place("10.0.0.1"), Instant::now());
        assert_eq!(admission.ask_pending(1, here, now, None), Ok(()));
        admission.established(1, test_peer(1), Direction::In(here));
        assert_eq!(admission.ask_pending(2, here, now, None), Ok(()));
        assert_eq!(admission.ask_pending(3, here, now, None), Err(NotAdmitted::Address(2)));
        assert_eq!(admission.ask_established(test_peer(2), Direction::In(here), None), Err(NotAdmitted::Address(1)));
    }

    /// Whoever comes through a relay has no place of its own: see [`super::super::place::counted_at`].
    #[test]
    fn relayed_peers_do_not_count_for_their_relays_address_nor_for_one_another() {
        use super::super::place::counted_at;
        use super::super::way::Way;
        let mut admission = Admission::new(ConnectionLimits { per_address_max: 1, ..Default::default() });
        let (peers, now) = (many_peers(20), Instant::now());
        let relay: libp2p::Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        for (n, peer) in peers.iter().enumerate() {
            let place = counted_at(Way::Relayed, &relay, true);
            assert_eq!(admission.ask_pending(n, place, now, None), Ok(()), "neither its number nor its pace");
            assert_eq!(admission.ask_established(*peer, Direction::In(place), Some(&|_| false)), Ok(()));
            admission.established(n, *peer, Direction::In(place));
        }
        let direct = counted_at(Way::Direct, &relay, true);
        assert_eq!(admission.ask_pending(90, direct, now, None), Ok(()), "the relay itself may still come");
        assert_eq!(admission.ask_pending(91, direct, now, None), Err(NotAdmitted::Address(1)));
    }

    #[test]
    fn directions_peers_and_pending_ones_are_bounded() {
        let limits = ConnectionLimits { in_max: 2, out_max: 1, pending_in_max: 1, ..Default::default() };
        let mut admission = Admission::new(limits);
        assert_eq!(admission.ask_pending(0, None, Instant::now(), None), Ok(()));
        assert_eq!(admission.ask_pending(1, None, Instant::now(), None), Err(NotAdmitted::Pending(1)));
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
    fn dials_under_way_and_connections_of_both_directions_are_bounded_together() {
        let limits = ConnectionLimits { pending_out_max: 2, all_max: 3, ..Default::default() };
        let mut admission = Admission::new(limits);
        assert_eq!([1, 2, 3].map(|n| admission.ask_pending_out(n)), [Ok(()), Ok(()), Err(NotAdmitted::PendingOut(2))]);
        admission.established(1, test_peer(1), Direction::Out);
        admission.gone(2);
        assert_eq!(admission.ask_pending_out(3), Ok(()));
        admission.established(3, test_peer(2), Direction::Out);
        admission.established(4, test_peer(3), Direction::In(None));
        for direction in [Direction::In(None), Direction::Out] {
            assert_eq!(admission.ask_established(test_peer(4), direction, None), Err(NotAdmitted::All(3)));
        }
    }

    #[test]
    fn sybils_of_one_block_take_no_more_than_its_share_and_members_of_it_are_welcome() {
        let mut admission = Admission::new(ConnectionLimits::default());
        let peers = many_peers(256);
        let is_member = |peer: &PeerKey| *peer == peers[0];
        let named: Named<'_> = Some(&is_member);
        let inbound = |n: usize| Direction::In(place(&format!("6.6.6.{n}")));
        let mut admitted = 0;
        for (n, peer) in peers.iter().enumerate().skip(1) {
            if admission.ask_established(*peer, inbound(n), named).is_ok() {
                admission.established(n, *peer, inbound(n));
                admitted += 1;
            }
        }
        assert_eq!(admitted, 16);
        assert_eq!(admission.ask_established(peers[0], inbound(0), named), Ok(()));
        let elsewhere = Direction::In(place("6.6.7.1"));
        assert_eq!(admission.ask_established(test_peer(1), elsewhere, named), Ok(()));
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
