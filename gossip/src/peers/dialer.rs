//! Whom to dial next: bootstrap and remembered addresses, then those that members' records name, up to a target.

use super::PeerKey;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// First wait after a failed dial; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Addresses that it keeps a wait for.
const ADDRESSES_MAX: usize = 2048;

/// One dial: a peer with its addresses, or an address whose peer is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) peer: Option<PeerKey>,
    pub(crate) addresses: Vec<String>,
    /// Whether it follows a dial that led nowhere.
    pub(crate) again: bool,
    /// The operator named the address, or it worked before; not a stranger's word.
    pub(crate) trusted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    next: Duration,
}

#[derive(Debug)]
pub(crate) struct Dialer {
    own: PeerKey,
    peers_target: usize,
    /// Tried whenever there are fewer peers than the target: (the peer if known, the address).
    fixed: Vec<(Option<PeerKey>, String)>,
    waits: HashMap<String, Wait>,
    /// Which peer an address without one turned out to be.
    found: HashMap<String, PeerKey>,
    /// What names meant when they were last asked: (an address, the one with the name).
    aliases: Vec<(String, String)>,
}

impl Dialer {
    pub(crate) fn new(own: PeerKey, peers_target: usize, fixed: Vec<(Option<PeerKey>, String)>) -> Dialer {
        Dialer { own, peers_target, fixed, waits: HashMap::new(), found: HashMap::new(), aliases: Vec::new() }
    }

    /// A dial of this address ended at this peer.
    pub(crate) fn reached(&mut self, address: &str, peer: PeerKey) {
        let alias = self.aliases.iter().find(|(alias, _)| alias == address).map(|(_, name)| name.clone());
        let address = alias.as_deref().unwrap_or(address);
        self.waits.remove(address);
        self.waits.remove(&peer.to_string());
        if self.fixed.iter().any(|(_, fixed)| fixed == address) {
            self.found.insert(address.to_owned(), peer);
        }
    }

    /// The name in one of the fixed addresses means these.
    pub(crate) fn resolved(&mut self, name: &str, addresses: &[String]) {
        self.aliases.retain(|(_, other)| other != name);
        self.aliases.extend(addresses.iter().map(|address| (address.clone(), name.to_owned())));
    }

    /// The dials to make now. `records` are the peers that records name, `connected` those with a connection or a dial
    /// under way.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        connected: &BTreeSet<PeerKey>,
        records: impl Iterator<Item = (PeerKey, Vec<String>)>,
    ) -> Vec<Dial> {
        let mut wanted = self.peers_target.saturating_sub(connected.len());
        let mut chosen: BTreeSet<PeerKey> = BTreeSet::from([self.own]);
        let mut dials = Vec::new();
        for (peer, address) in self.fixed.clone() {
            let peer = peer.or_else(|| self.found.get(&address).copied());
            let known = peer.is_some_and(|peer| connected.contains(&peer) || chosen.contains(&peer));
            if wanted > 0
                && !known
                && let Some(again) = self.may(&address, now)
            {
                wanted -= 1;
                chosen.extend(peer);
                dials.push(Dial { peer, addresses: vec![address], again, trusted: true });
            }
        }
        for (peer, addresses) in records {
            if wanted == 0 {
                break;
            }
            if !connected.contains(&peer)
                && chosen.insert(peer)
                && !addresses.is_empty()
                && let Some(again) = self.may(&peer.to_string(), now)
            {
                wanted -= 1;
                dials.push(Dial { peer: Some(peer), addresses, again, trusted: false });
            }
        }
        dials
    }

    /// Whether this may be dialled now; if so, whether a dial before led nowhere. The next one is later.
    fn may(&mut self, what: &str, now: Instant) -> Option<bool> {
        if self.waits.len() >= ADDRESSES_MAX {
            self.waits.retain(|_, wait| wait.until > now);
        }
        let full = self.waits.len() >= ADDRESSES_MAX;
        let wait = match self.waits.get_mut(what) {
            Some(wait) if wait.until > now => return None,
            Some(wait) => wait,
            None if full => return None,
            None => {
                let first = Wait { until: now + WAIT_MIN, next: WAIT_MIN * 2 };
                self.waits.insert(what.to_owned(), first);
                return Some(false);
            }
        };
        *wait = Wait { until: now + wait.next, next: (wait.next * 2).min(WAIT_MAX) };
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::test_peer;
    use super::*;

    #[test]
    fn it_dials_up_to_the_target_and_waits_longer_after_each_failure() {
        let fixed = vec![(None, "/ip4/1.2.3.4/tcp/1".to_owned())];
        let mut dialer = Dialer::new(test_peer(0), 2, fixed);
        let addresses = ["/ip4/5.6.7.8/tcp/2".to_owned()];
        let records = || (0..4u8).map(|n| (test_peer(n), addresses.to_vec()));
        let now = Instant::now();
        let dials = dialer.next(now, &BTreeSet::new(), records());
        assert_eq!(dials.len(), 2);
        assert_eq!(dials[0].peer, None);
        assert_eq!(dials[1].peer, Some(test_peer(1)), "not itself");
        let again = dialer.next(now, &BTreeSet::new(), records());
        assert_eq!(again.iter().map(|dial| dial.peer).collect::<Vec<_>>(), [Some(test_peer(2)), Some(test_peer(3))]);
        assert!(dialer.next(now, &BTreeSet::new(), records()).is_empty());
        assert_eq!(dialer.next(now + WAIT_MIN, &BTreeSet::new(), records()).len(), 2);
        assert!(dialer.next(now + 2 * WAIT_MIN, &BTreeSet::new(), records()).len() == 1 + 1);
    }

    #[test]
    fn an_address_that_led_to_a_connected_peer_is_left_alone() {
        let fixed = vec![(None, "/ip4/1.2.3.4/tcp/1".to_owned())];
        let mut dialer = Dialer::new(test_peer(0), 5, fixed);
        dialer.resolved("/ip4/1.2.3.4/tcp/1", &["/ip4/9.9.9.9/tcp/1".to_owned()]);
        dialer.reached("/ip4/9.9.9.9/tcp/1", test_peer(1));
        assert!(dialer.next(Instant::now(), &BTreeSet::from([test_peer(1)]), std::iter::empty()).is_empty());
        assert_eq!(dialer.next(Instant::now(), &BTreeSet::new(), std::iter::empty()).len(), 1);
    }
}
