//! Whom to dial next: bootstrap and remembered addresses, then those that members' records name, up to a target.

use super::PeerKey;
use super::place::{begins_with_name, may_dial};
use super::way::Way;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
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

/// What a dial comes to, once its addresses are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialPlan {
    /// None of them may be dialled.
    Nothing,
    /// The name in this one must be looked up first.
    Resolve(Multiaddr),
    /// These are dialled, as one dial.
    To(Vec<Multiaddr>),
}

impl Dial {
    /// What to do. `here`: the swarm lives on this machine. Names are looked up for the operator only, and one address each
    /// is what the operator and the cache name. QUIC is for where TCP does not get through: bulk over it is slower by far
    /// on long lines.
    pub(crate) fn plan(&self, here: bool) -> DialPlan {
        let mut addresses: Vec<Multiaddr> = self.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        if !self.trusted {
            addresses.retain(|address| may_dial(address, here));
        }
        if let Some(named) = addresses.iter().find(|address| begins_with_name(address)) {
            return if self.trusted { DialPlan::Resolve(named.clone()) } else { DialPlan::Nothing };
        }
        let tcp = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        if !self.again && addresses.iter().any(tcp) {
            addresses.retain(tcp);
        }
        if addresses.is_empty() { DialPlan::Nothing } else { DialPlan::To(addresses) }
    }

    /// The dials to make once its name has become `addresses`: without a peer's name, each may be another peer.
    pub(crate) fn resolved(self, addresses: &[Multiaddr]) -> Vec<Dial> {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        match self.peer {
            Some(_) => vec![Dial { addresses, ..self }],
            None => addresses.into_iter().map(|one| Dial { addresses: vec![one], ..self.clone() }).collect(),
        }
    }
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

    /// A dial of this address ended at this peer. Through a relay it does not show that the peer itself can be dialled.
    pub(crate) fn reached(&mut self, address: &str, peer: PeerKey, way: Way) {
        let alias = self.aliases.iter().find(|(alias, _)| alias == address).map(|(_, name)| name.clone());
        let address = alias.as_deref().unwrap_or(address);
        self.waits.remove(address);
        if way == Way::Direct {
            self.waits.remove(&peer.to_string());
        }
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
        dialer.reached("/ip4/9.9.9.9/tcp/1", test_peer(1), Way::Direct);
        assert!(dialer.next(Instant::now(), &BTreeSet::from([test_peer(1)]), std::iter::empty()).is_empty());
        assert_eq!(dialer.next(Instant::now(), &BTreeSet::new(), std::iter::empty()).len(), 1);
    }

    #[test]
    fn who_was_reached_through_a_relay_is_no_sooner_dialled_directly() {
        let mut dialer = Dialer::new(test_peer(0), 5, vec![]);
        let records = || std::iter::once((test_peer(1), vec!["/ip4/5.6.7.8/tcp/2".to_owned()]));
        let now = Instant::now();
        assert_eq!(dialer.next(now, &BTreeSet::new(), records()).len(), 1);
        dialer.reached("/ip4/9.9.9.9/tcp/1/p2p-circuit", test_peer(1), Way::Relayed);
        assert!(dialer.next(now, &BTreeSet::new(), records()).is_empty(), "its wait goes on");
        dialer.reached("/ip4/5.6.7.8/tcp/2", test_peer(1), Way::Direct);
        assert_eq!(dialer.next(now, &BTreeSet::new(), records()).len(), 1);
    }

    #[test]
    fn a_dial_takes_tcp_first_and_strangers_have_neither_names_nor_relays_nor_this_machine_looked_up() {
        let dial = |addresses: &[&str], trusted: bool, again: bool| {
            let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
            Dial { peer: None, addresses, again, trusted }
        };
        let to = |addresses: &[&str]| DialPlan::To(addresses.iter().map(|text| text.parse().unwrap()).collect());
        let (tcp, quic) = ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1");
        assert_eq!(dial(&[quic, tcp], false, false).plan(false), to(&[tcp]));
        assert_eq!(dial(&[quic, tcp], false, true).plan(false), to(&[quic, tcp]));
        assert_eq!(dial(&[quic], false, false).plan(false), to(&[quic]));
        assert_eq!(dial(&["/ip4/127.0.0.1/tcp/1"], false, false).plan(false), DialPlan::Nothing);
        assert_eq!(dial(&["/ip4/127.0.0.1/tcp/1"], true, false).plan(false), to(&["/ip4/127.0.0.1/tcp/1"]));
        assert_eq!(dial(&["rubbish"], true, false).plan(true), DialPlan::Nothing);
        let name = "/dns4/a.b/tcp/1";
        assert_eq!(dial(&[name], false, false).plan(true), DialPlan::Nothing);
        assert_eq!(dial(&[name], true, false).plan(true), DialPlan::Resolve(name.parse().unwrap()));
        let relayed = format!("{tcp}/p2p/{}/p2p-circuit", test_peer(7));
        assert_eq!(dial(&[&relayed], false, true).plan(true), DialPlan::Nothing);
        assert_eq!(dial(&[&relayed], true, true).plan(true), to(&[&relayed]), "the operator may name one");
    }

    #[test]
    fn a_name_of_several_machines_is_several_dials_unless_the_peer_is_known() {
        let addresses: Vec<Multiaddr> = ["/ip4/1.1.1.1/tcp/1", "/ip4/2.2.2.2/tcp/1"].map(|a| a.parse().unwrap()).into();
        let named = |peer| Dial { peer, addresses: vec!["/dns4/a.b/tcp/1".into()], again: false, trusted: true };
        assert_eq!(named(None).resolved(&addresses).len(), 2);
        let known = named(Some(test_peer(1))).resolved(&addresses);
        assert_eq!((known.len(), known[0].addresses.len()), (1, 2));
    }
}
