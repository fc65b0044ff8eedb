//! What connected peers say of themselves, and what becomes of it: an entry in Kademlia's table, a provider's record.
//!
//! Both need an address at which others can dial the peer, and no stranger's word is taken for one: a member signs its
//! addresses, a stranger must be seen where it says that it is, or was dialled there.

use super::types::{DiscoveryAction, Entry, IdentifyReport, ProviderRecord, Surroundings};
use crate::peers::bucket::{Buckets, Rate};
use crate::peers::place::{Net, Place, address_of, dialable, useful};
use crate::peers::providers::{self, ADDRESSES_MAX};
use crate::peers::{Multiaddr, PeerKey};
use covey_proto::Digest;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Provider records that one peer may bring: ten a minute.
const OFFER_RATE: Rate = Rate { burst: 10, refill: Duration::from_secs(6) };
/// Peers that may bring them at a time: more than there are connections.
const OFFER_KEYS_MAX: usize = 1024;
/// Records of one peer that wait until it has shown who it is.
const OFFERS_MAX: usize = 5;
/// Strangers in one bucket of Kademlia's table, which holds 20, and of one /16 among them.
const STRANGERS_MAX: usize = 10;
const STRANGERS_PER_NET_MAX: usize = 2;
const BUCKET_MAX: usize = 20;
/// Addresses of a peer in that table: they are handed out in every answer.
const TABLE_ADDRESSES_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Neighbours {
    /// Where connected peers say that they are.
    certified: HashMap<PeerKey, Vec<Multiaddr>>,
    /// Connected peers that answer look-ups.
    serving: BTreeSet<PeerKey>,
    /// Keys that connected peers offer to provide and that are not admitted yet.
    offers: HashMap<PeerKey, BTreeSet<Digest>>,
    offer_rate: Buckets<PeerKey>,
}

impl Neighbours {
    pub(super) fn new() -> Neighbours {
        Neighbours {
            certified: HashMap::new(),
            serving: BTreeSet::new(),
            offers: HashMap::new(),
            offer_rate: Buckets::new(OFFER_RATE, OFFER_KEYS_MAX),
        }
    }

    pub(super) fn left(&mut self, peer: &PeerKey) {
        self.certified.remove(peer);
        self.serving.remove(peer);
        self.offers.remove(peer);
    }

    /// A peer that is seen at `ip` signed where it listens, or did not.
    pub(super) fn certified(&mut self, report: IdentifyReport, ip: IpAddr) {
        if let Some(listens) = report.listens {
            self.certified.insert(report.peer, useful(listens.iter(), ip, ADDRESSES_MAX));
        }
    }

    /// More is known of a peer: it may be put into the table, what it offers admitted.
    pub(super) fn changed(&mut self, peer: PeerKey, around: &mut dyn Surroundings, out: &mut Vec<DiscoveryAction>) {
        self.enter(peer, None, around, out);
        self.admit(peer, around, out);
    }

    pub(super) fn serves(
        &mut self,
        peer: PeerKey,
        dialled: Option<Multiaddr>,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        self.serving.insert(peer);
        self.enter(peer, dialled, around, out);
    }

    pub(super) fn offers(
        &mut self,
        peer: PeerKey,
        key: Digest,
        now: Instant,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        let few = self.offers.get(&peer).map_or(0, BTreeSet::len) < OFFERS_MAX;
        if !around.connected().contains(&peer) || !few || !self.offer_rate.take(peer, now) {
            return out.push(DiscoveryAction::Refuse { peer });
        }
        self.offers.entry(peer).or_default().insert(key);
        self.admit(peer, around, out);
    }

    /// The addresses that a member signed with its hotkey.
    fn shown(peer: &PeerKey, ip: IpAddr, around: &dyn Surroundings) -> Vec<Multiaddr> {
        useful(around.shown_addresses(peer).iter(), ip, ADDRESSES_MAX)
    }

    /// Admits what a peer offers to provide, once it has shown who it is: with the addresses that it signed, not those
    /// that came along.
    fn admit(&mut self, peer: PeerKey, around: &mut dyn Surroundings, out: &mut Vec<DiscoveryAction>) {
        let (true, Some(ip)) = (self.offers.contains_key(&peer), around.seen_at(&peer)) else { return };
        let mut addresses = Self::shown(&peer, ip, around);
        if addresses.is_empty() {
            addresses = self.certified.get(&peer).cloned().unwrap_or_default();
        }
        if addresses.is_empty() {
            return;
        }
        let rank = if around.is_member(&peer) { providers::Rank::Member } else { providers::Rank::Stranger };
        let place = Place::of(ip);
        for key in self.offers.remove(&peer).unwrap_or_default() {
            out.push(DiscoveryAction::Keep(ProviderRecord { key, peer, rank, addresses: addresses.clone(), place }));
        }
    }

    /// Puts a peer that answers look-ups into Kademlia's table, where it can be dialled by others: where it was dialled,
    /// where a member says it is, where a stranger says it is if it is seen there.
    fn enter(
        &mut self,
        peer: PeerKey,
        dialled: Option<Multiaddr>,
        around: &mut dyn Surroundings,
        out: &mut Vec<DiscoveryAction>,
    ) {
        let (true, Some(ip)) = (self.serving.contains(&peer), around.seen_at(&peer)) else { return };
        let mut addresses: Vec<Multiaddr> = dialled.as_ref().and_then(dialable).into_iter().collect();
        let certified = self.certified.get(&peer).into_iter().flatten();
        addresses.extend(certified.filter(|address| address_of(address) == Some(ip)).cloned());
        addresses.extend(Self::shown(&peer, ip, around));
        if addresses.is_empty() {
            return;
        }
        let bucket = around.bucket_of(&peer);
        if !may_enter(&peer, ip, &bucket, around, out) {
            return;
        }
        let old = bucket.into_iter().find(|entry| entry.peer == peer).map(|entry| entry.addresses).unwrap_or_default();
        let mut wanted: Vec<Multiaddr> = Vec::new();
        for address in addresses.into_iter().chain(old.iter().filter_map(dialable)) {
            if wanted.len() < TABLE_ADDRESSES_MAX && !wanted.contains(&address) {
                wanted.push(address);
            }
        }
        // Each change makes libp2p look around anew while the table is small.
        if old.len() != wanted.len() || !old.iter().filter_map(dialable).all(|address| wanted.contains(&address)) {
            out.push(DiscoveryAction::Enter { peer, addresses: wanted });
        }
    }
}

/// Members have a place in every bucket, a stranger's if there is no other; strangers take at most half, and few of one
/// network.
fn may_enter(
    peer: &PeerKey,
    ip: IpAddr,
    bucket: &[Entry],
    around: &dyn Surroundings,
    out: &mut Vec<DiscoveryAction>,
) -> bool {
    let net = |address: &Multiaddr| -> Option<Net> { Some(Place::of(address_of(address)?)?.net()) };
    let others: Vec<&Entry> = bucket.iter().filter(|entry| entry.peer != *peer).collect();
    let strangers: Vec<&&Entry> = others.iter().filter(|entry| !around.is_named(&entry.peer)).collect();
    if around.is_named(peer) {
        if others.len() >= BUCKET_MAX
            && let Some(stranger) = strangers.first()
        {
            out.push(DiscoveryAction::Remove { peer: stranger.peer });
        }
        return true;
    }
    let own = Place::of(ip).map(Place::net);
    let near = |entry: &&&&Entry| own.is_some() && entry.addresses.first().and_then(net) == own;
    strangers.len() < STRANGERS_MAX && strangers.iter().filter(near).count() < STRANGERS_PER_NET_MAX
}
