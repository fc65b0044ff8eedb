//! The connections there are: which of several to one peer stays, by which way a peer is reached, which are of a peer that
//! has been restarted since. No socket, no clock; `C` names a connection.

use super::PeerKey;
use super::way::Way;
use covey_proto::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Two connections to one peer are let be for so long: each side may have just dialled.
const SURPLUS_TIME: Duration = Duration::from_secs(5);

/// One connection, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) peer: PeerKey,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    pub(crate) way: Way,
    /// The address at its other end; a relayed one shows none.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) since: Instant,
}

#[derive(Debug)]
struct Held {
    line: Line,
    /// Which life of the peer is at its other end, once identify has said.
    life: Option<Digest>,
}

/// All connections of one node.
#[derive(Debug)]
pub(crate) struct Lines<C> {
    own: PeerKey,
    lines: BTreeMap<C, Held>,
}

impl<C: Copy + Ord> Lines<C> {
    pub(crate) fn new(own: PeerKey) -> Lines<C> {
        Lines { own, lines: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, id: C, line: Line) {
        self.lines.insert(id, Held { line, life: None });
    }

    pub(crate) fn remove(&mut self, id: &C) -> Option<Line> {
        self.lines.remove(id).map(|known| known.line)
    }

    pub(crate) fn get(&self, id: &C) -> Option<&Line> {
        self.lines.get(id).map(|known| &known.line)
    }

    fn of(&self, peer: &PeerKey) -> impl Iterator<Item = (C, &Line)> {
        self.lines.iter().filter(move |(_, known)| known.line.peer == *peer).map(|(id, known)| (*id, &known.line))
    }

    /// Which of several connections to one peer stays: that with the least of this. A direct one outlasts a relayed one;
    /// of two alike, both sides close the one that the larger id dialled; of what is left, the oldest stays.
    fn precedence(&self, id: C, line: &Line) -> (Way, bool, C) {
        let smaller = self.own < line.peer;
        (line.way, line.dialled != smaller, id)
    }

    /// The connection to a peer that both sides will keep, and its way.
    pub(crate) fn best(&self, peer: &PeerKey) -> Option<(C, Way)> {
        let best = self.of(peer).min_by_key(|(id, line)| self.precedence(*id, line));
        best.map(|(id, line)| (id, line.way))
    }

    /// By which way a peer is reached; none if it is not connected.
    pub(crate) fn way(&self, peer: &PeerKey) -> Option<Way> {
        self.best(peer).map(|(_, way)| way)
    }

    /// The address at which a peer is seen: that of its first direct connection.
    pub(crate) fn seen_at(&self, peer: &PeerKey) -> Option<IpAddr> {
        self.of(peer).find_map(|(_, line)| line.ip.filter(|_| line.way == Way::Direct))
    }

    /// Connections to close, because another to the same peer has stood for long enough and takes precedence.
    pub(crate) fn surplus(&self, now: Instant) -> Vec<C> {
        let stands = |known: &&Held| now.saturating_duration_since(known.line.since) >= SURPLUS_TIME;
        let mut standing: Vec<(PeerKey, (Way, bool, C))> = Vec::new();
        for (id, known) in self.lines.iter().filter(|(_, known)| stands(known)) {
            standing.push((known.line.peer, self.precedence(*id, &known.line)));
        }
        standing.sort();
        let mut kept = BTreeSet::new();
        standing.retain(|(peer, _)| !kept.insert(*peer));
        standing.into_iter().map(|(_, (_, _, id))| id).collect()
    }

    /// Identify says which life of its peer is at the other end of a connection. The peer, if another connection leads to
    /// an older life of it: it has crashed and come back, and the older one is dead.
    pub(crate) fn identified(&mut self, id: &C, life: Digest) -> Option<PeerKey> {
        let known = self.lines.get_mut(id)?;
        known.life = Some(life);
        let peer = known.line.peer;
        let another = |other: &Held| other.line.peer == peer && other.life.is_some_and(|other| other != life);
        self.lines.values().any(another).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::test_peer;
    use super::*;

    /// The lines of a node whose id is smaller than the other one's, or larger.
    fn pair(smaller: bool) -> (Lines<u32>, PeerKey) {
        let (a, b) = (test_peer(1), test_peer(2));
        let (low, high) = (a.min(b), a.max(b));
        if smaller { (Lines::new(low), high) } else { (Lines::new(high), low) }
    }

    fn line(peer: PeerKey, dialled: bool, way: Way, since: Instant) -> Line {
        Line { peer, dialled, way, ip: Some([1, 2, 3, 4].into()), since }
    }

    #[test]
    fn of_two_direct_ones_both_sides_close_the_one_that_the_larger_id_dialled_and_not_at_once() {
        let now = Instant::now();
        for smaller in [true, false] {
            let (mut lines, peer) = pair(smaller);
            lines.add(1, line(peer, true, Way::Direct, now));
            lines.add(2, line(peer, false, Way::Direct, now));
            let (stays, goes) = if smaller { (1, 2) } else { (2, 1) };
            assert_eq!(lines.best(&peer), Some((stays, Way::Direct)));
            assert!(lines.surplus(now + SURPLUS_TIME / 2).is_empty());
            assert_eq!(lines.surplus(now + SURPLUS_TIME), [goes]);
            lines.remove(&goes);
            assert!(lines.surplus(now + SURPLUS_TIME).is_empty());
        }
    }

    #[test]
    fn a_direct_connection_outlasts_a_relayed_one_whoever_dialled_it() {
        let now = Instant::now();
        for (smaller, dialled) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut lines, peer) = pair(smaller);
            // The relayed one is older, and what would stay by who dialled.
            lines.add(1, line(peer, smaller, Way::Relayed, now));
            assert_eq!((lines.way(&peer), lines.seen_at(&peer)), (Some(Way::Relayed), None), "the relay's is not its");
            lines.add(2, line(peer, dialled, Way::Direct, now + SURPLUS_TIME));
            assert_eq!(lines.best(&peer), Some((2, Way::Direct)));
            assert_eq!(lines.seen_at(&peer), Some([1, 2, 3, 4].into()));
            assert!(lines.surplus(now + SURPLUS_TIME).is_empty(), "the direct one has just begun");
            assert_eq!(lines.surplus(now + 2 * SURPLUS_TIME), [1]);
            lines.remove(&2);
            assert_eq!(lines.best(&peer), Some((1, Way::Relayed)));
        }
    }

    #[test]
    fn two_relayed_ones_are_decided_like_two_direct_ones_and_peers_do_not_mix() {
        let now = Instant::now();
        let (mut lines, peer) = pair(true);
        lines.add(1, line(peer, false, Way::Relayed, now));
        lines.add(2, line(peer, true, Way::Relayed, now));
        lines.add(3, line(test_peer(9), true, Way::Direct, now));
        assert_eq!(lines.surplus(now + SURPLUS_TIME), [1]);
        assert_eq!((lines.way(&test_peer(9)), lines.way(&test_peer(8))), (Some(Way::Direct), None));
    }

    #[test]
    fn another_life_of_a_peer_makes_its_older_connection_a_dead_one() {
        let now = Instant::now();
        let (mut lines, peer) = pair(true);
        lines.add(1, line(peer, true, Way::Direct, now));
        lines.add(2, line(peer, false, Way::Direct, now));
        let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
        assert_eq!(lines.identified(&1, first), None);
        assert_eq!(lines.identified(&2, first), None, "the same life");
        assert_eq!(lines.identified(&2, second), Some(peer));
        assert_eq!(lines.identified(&7, second), None, "closed meanwhile");
    }
}
