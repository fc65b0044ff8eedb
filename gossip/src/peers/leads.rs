//! Peers that others named: where to dial, and nothing else is believed of them.
//!
//! One network must not fill the list, and what is dialled first comes from as many networks as there are.

use super::PeerKey;
use super::place::{Net, Place, address_of};
use libp2p::Multiaddr;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Leads at a time: a whole subnet.
const LEADS_MAX: usize = 256;
/// Leads of one IPv4 /16 or IPv6 /32; loopback is exempt.
const PER_NET_MAX: usize = 32;
/// How long one counts: as long as a provider's record.
const TTL: Duration = super::providers::TTL;
/// Dials in vain after which one is forgotten.
const FAILS_MAX: u8 = 3;

#[derive(Debug)]
struct Lead {
    addresses: Vec<String>,
    net: Option<Net>,
    until: Instant,
    fails: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Leads {
    leads: BTreeMap<PeerKey, Lead>,
}

impl Leads {
    /// Somebody says that a peer is there. The first word for a peer stays until it fails: later ones are no better.
    pub(crate) fn add(&mut self, peer: PeerKey, addresses: &[Multiaddr], now: Instant) {
        self.leads.retain(|_, lead| lead.until > now);
        let net = addresses.iter().find_map(address_of).and_then(Place::of).map(Place::net);
        let near = self.leads.values().filter(|lead| net.is_some() && lead.net == net).count();
        if addresses.is_empty() || self.leads.contains_key(&peer) || near >= PER_NET_MAX {
            return;
        }
        if self.leads.len() >= LEADS_MAX && !self.make_room(near) {
            return;
        }
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.leads.insert(peer, Lead { addresses, net, until: now + TTL, fails: 0 });
    }

    /// Takes one from the network that has the most, if that is more than `near` by two.
    fn make_room(&mut self, near: usize) -> bool {
        let mut counts: HashMap<Option<Net>, usize> = HashMap::new();
        self.leads.values().for_each(|lead| *counts.entry(lead.net).or_default() += 1);
        let Some((net, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        let found = self.leads.iter().filter(|(_, lead)| lead.net == net).min_by_key(|(_, lead)| lead.until);
        let victim = found.map(|(peer, _)| *peer).filter(|_| count > near + 1);
        victim.is_some_and(|victim| self.leads.remove(&victim).is_some())
    }

    /// A dial of the peer led nowhere.
    pub(crate) fn failed(&mut self, peer: &PeerKey) {
        if let Some(lead) = self.leads.get_mut(peer) {
            lead.fails += 1;
            if lead.fails >= FAILS_MAX {
                self.leads.remove(peer);
            }
        }
    }

    pub(crate) fn forget(&mut self, peer: &PeerKey) {
        self.leads.remove(peer);
    }

    pub(crate) fn of(&self, peer: &PeerKey) -> &[String] {
        self.leads.get(peer).map_or(&[], |lead| lead.addresses.as_slice())
    }

    /// All of them, one of each network before a second one of any.
    pub(crate) fn all(&self, now: Instant) -> Vec<(PeerKey, Vec<String>)> {
        let mut taken: HashMap<Option<Net>, usize> = HashMap::new();
        let live = self.leads.iter().filter(|(_, lead)| lead.until > now);
        let mut found: Vec<(usize, u8, PeerKey, &Lead)> = live
            .map(|(peer, lead)| {
                let before = taken.entry(lead.net).or_default();
                *before += 1;
                (*before, lead.fails, *peer, lead)
            })
            .collect();
        found.sort_by_key(|(before, fails, peer, _)| (*before, *fails, *peer));
        found.into_iter().map(|(_, _, peer, lead)| (peer, lead.addresses.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::many_peers;
    use super::*;

    fn at(text: &str) -> Vec<Multiaddr> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn one_network_neither_fills_the_list_nor_comes_first() {
        let (mut leads, now) = (Leads::default(), Instant::now());
        let peers = many_peers(3000);
        for (n, peer) in peers.iter().enumerate().take(2000) {
            leads.add(*peer, &at(&format!("/ip4/6.6.{}.{}/tcp/1", n / 256, n % 256)), now);
        }
        assert_eq!(leads.leads.len(), PER_NET_MAX);
        for (n, peer) in peers.iter().enumerate().skip(2000) {
            leads.add(*peer, &at(&format!("/ip4/7.{}.1.1/tcp/1", n % 10)), now);
        }
        assert_eq!(leads.leads.len(), LEADS_MAX);
        // The list is full of eleven networks: a twelfth still gets in, and is among the first.
        let honest = many_peers(3001)[3000];
        leads.add(honest, &at("/ip4/9.9.9.9/tcp/1"), now);
        assert_eq!(leads.leads.len(), LEADS_MAX);
        let place = leads.all(now).iter().position(|(peer, _)| *peer == honest).unwrap();
        assert!(place < 12, "{place}");
    }

    #[test]
    fn a_lead_ends_with_three_failures_or_its_time() {
        let (mut leads, now) = (Leads::default(), Instant::now());
        let peers = many_peers(2);
        for peer in &peers {
            leads.add(*peer, &at("/ip4/127.0.0.1/tcp/1"), now);
        }
        (0..3).for_each(|_| leads.failed(&peers[0]));
        assert!(leads.of(&peers[0]).is_empty() && leads.of(&peers[1]).len() == 1);
        assert!(leads.all(now + TTL).is_empty());
    }
}
