//! Peers of former lives: whom to dial when nobody is told. What the file `peers` holds.
//!
//! A line is `MULTIADDR/p2p/PEER SEEN FAILS KIND`: seconds since 1970 when it was last reached, lives in which it was
//! not while others were, `member` or `other`. What a line lacks is taken kindly, a line that cannot be read is skipped.
//! So is an address that leads through a relay: where a relay was is not where its peer will be.

use super::PeerKey;
use super::place::{Net, Place, address_of, split};
use super::way::Way;
use libp2p::Multiaddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Peers that are kept, and those of them that speak for no uid.
const PEERS_MAX: usize = 64;
const OTHERS_MAX: usize = 32;
/// Others of one IPv4 /16 or IPv6 /32; loopback is exempt.
const OTHERS_PER_NET_MAX: usize = 4;
/// Bytes of the file: a line is at most some 150.
pub(crate) const BYTES_MAX: u64 = 32 * 1024;
/// A peer that was not reached for so long is forgotten: two weeks.
const AGE_MAX_SECONDS: u64 = 14 * 24 * 3600;
/// Lives in which it was not reached while others were.
const FAILS_MAX: u8 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    address: String,
    net: Option<Net>,
    seen: u64,
    fails: u8,
    member: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    peers: BTreeMap<PeerKey, Entry>,
    /// Those whose failure was counted in this life.
    failed: BTreeSet<PeerKey>,
}

impl Cache {
    /// What a file says, `now` in seconds since 1970.
    pub(crate) fn read(text: &str, now: u64) -> Cache {
        let mut cache = Cache::default();
        for line in text.lines().take(4 * PEERS_MAX) {
            let mut words = line.split_whitespace();
            let parsed = words.next().and_then(|word| word.parse().ok());
            let Some((Some(peer), address)) = parsed.as_ref().map(split) else { continue };
            if Way::to_text(&address) == Way::Relayed {
                continue;
            }
            let seen = words.next().and_then(|word| word.parse().ok()).unwrap_or(now).min(now);
            let fails = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let member = words.next() == Some("member");
            cache.peers.insert(peer, Entry { net: net_of(&address), address, seen, fails, member });
        }
        cache.tidy(now);
        cache
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (peer, entry) in self.newest_first() {
            let kind = if entry.member { "member" } else { "other" };
            text.push_str(&format!("{}/p2p/{peer} {} {} {kind}\n", entry.address, entry.seen, entry.fails));
        }
        text
    }

    /// Whom to dial: those reached last first.
    pub(crate) fn addresses(&self) -> Vec<(PeerKey, String)> {
        self.newest_first().into_iter().map(|(peer, entry)| (*peer, entry.address.clone())).collect()
    }

    fn newest_first(&self) -> Vec<(&PeerKey, &Entry)> {
        let mut found: Vec<_> = self.peers.iter().collect();
        found.sort_by_key(|(peer, entry)| (!entry.member, entry.fails, u64::MAX - entry.seen, **peer));
        found
    }

    /// These are connected now, there (without the peer).
    pub(crate) fn reached(&mut self, peers: impl Iterator<Item = (PeerKey, String, bool)>, now: u64) {
        for (peer, address, member) in peers.filter(|(_, address, _)| Way::to_text(address) == Way::Direct) {
            self.failed.remove(&peer);
            self.peers.insert(peer, Entry { net: net_of(&address), address, seen: now, fails: 0, member });
        }
        self.tidy(now);
    }

    /// A dial led nowhere, while there were connections to others. Counts once a life.
    pub(crate) fn failed(&mut self, peer: &PeerKey) {
        if let Some(entry) = self.peers.get_mut(peer)
            && self.failed.insert(*peer)
        {
            entry.fails = entry.fails.saturating_add(1);
        }
    }

    fn tidy(&mut self, now: u64) {
        let usable = |entry: &Entry| entry.fails < FAILS_MAX && now.saturating_sub(entry.seen) <= AGE_MAX_SECONDS;
        self.peers.retain(|_, entry| usable(entry));
        let (mut all, mut others) = (0, 0);
        let mut nets: HashMap<Net, usize> = HashMap::new();
        let mut kept: BTreeSet<PeerKey> = BTreeSet::new();
        for (peer, entry) in self.newest_first() {
            let near = entry.net.filter(|_| !entry.member).map_or(0, |net| nets.get(&net).copied().unwrap_or(0));
            if all >= PEERS_MAX || (!entry.member && (others >= OTHERS_MAX || near >= OTHERS_PER_NET_MAX)) {
                continue;
            }
            all += 1;
            if !entry.member {
                others += 1;
                entry.net.into_iter().for_each(|net| *nets.entry(net).or_default() += 1);
            }
            kept.insert(*peer);
        }
        self.peers.retain(|peer, _| kept.contains(peer));
        self.failed.retain(|peer| kept.contains(peer));
    }
}

fn net_of(address: &str) -> Option<Net> {
    let address: Multiaddr = address.parse().ok()?;
    Some(Place::of(address_of(&address)?)?.net())
}

#[cfg(test)]
mod tests {
    use super::super::key::many_peers;
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn it_reads_what_it_writes_and_the_lines_of_older_versions() {
        let peers = many_peers(3);
        let mut cache = Cache::default();
        let at = |n: usize| (peers[n], format!("/ip4/1.2.3.{n}/tcp/7"), n == 0);
        cache.reached((0..3).map(at), 100 * DAY);
        cache.failed(&peers[1]);
        cache.failed(&peers[1]);
        let text = cache.text();
        assert_eq!(Cache::read(&text, 100 * DAY).text(), text);
        assert!(text.lines().any(|line| line.ends_with(" 1 other")), "a failure counts once a life: {text}");
        let old = format!("/ip4/9.9.9.9/tcp/1/p2p/{}\nrubbish\n/ip4/9.9.9.9/tcp/2\n", peers[0]);
        assert_eq!(Cache::read(&old, 5).addresses(), [(peers[0], "/ip4/9.9.9.9/tcp/1".to_owned())]);
    }

    #[test]
    fn where_a_peer_was_reached_through_a_relay_is_not_remembered() {
        let peers = many_peers(3);
        let circuit = format!("/ip4/5.5.5.5/tcp/1/p2p/{}/p2p-circuit", peers[2]);
        let mut cache = Cache::default();
        cache.reached(
            [(peers[0], circuit.clone(), true), (peers[1], "/ip4/1.2.3.4/tcp/7".into(), true)].into_iter(),
            DAY,
        );
        assert_eq!(cache.addresses(), [(peers[1], "/ip4/1.2.3.4/tcp/7".to_owned())]);
        assert!(Cache::read(&format!("{circuit}/p2p/{} 5 0 member\n", peers[0]), DAY).addresses().is_empty());
        // A direct address that is known stays when the peer is next reached through a relay.
        cache.reached([(peers[1], circuit, true)].into_iter(), 2 * DAY);
        assert_eq!(cache.addresses(), [(peers[1], "/ip4/1.2.3.4/tcp/7".to_owned())]);
    }

    #[test]
    fn a_night_alone_forgets_nobody_but_two_weeks_or_three_lives_do() {
        let peers = many_peers(2);
        let mut cache = Cache::default();
        cache.reached(peers.iter().map(|peer| (*peer, "/ip4/127.0.0.1/tcp/1".into(), false)), DAY);
        cache.reached(std::iter::empty(), 2 * DAY);
        assert_eq!(cache.addresses().len(), 2, "nobody is connected, and all are kept");
        for _ in 0..3 {
            cache = Cache::read(&cache.text(), 2 * DAY);
            cache.failed(&peers[0]);
        }
        cache = Cache::read(&cache.text(), 2 * DAY);
        assert_eq!(cache.addresses(), [(peers[1], "/ip4/127.0.0.1/tcp/1".to_owned())]);
        assert!(Cache::read(&cache.text(), 16 * DAY).addresses().is_empty());
    }

    #[test]
    fn strangers_do_not_push_members_out() {
        let peers = many_peers(2100);
        let mut cache = Cache::default();
        let member = |n: usize| (peers[n], "/ip4/1.1.1.1/tcp/1".to_owned(), true);
        cache.reached((0..40).map(member), DAY);
        let sybil = |n: usize| (peers[n], format!("/ip4/6.6.{}.{}/tcp/1", n / 250, n % 250), false);
        cache.reached((100..2000).map(sybil), 2 * DAY);
        cache.reached((2000..2100).map(|n| (peers[n], format!("/ip4/{}.6.6.6/tcp/1", n - 1990), false)), 2 * DAY);
        let left: BTreeSet<PeerKey> = cache.addresses().into_iter().map(|(peer, _)| peer).collect();
        assert!((0..40).all(|n| left.contains(&peers[n])));
        assert_eq!(left.len(), PEERS_MAX);
        assert!(cache.text().len() < BYTES_MAX as usize, "{}", cache.text().len());
    }
}
