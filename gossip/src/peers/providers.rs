//! Who is said to take part in a run or to hold a state: what this node keeps of it for others that ask.
//!
//! Peer ids are free, so whoever asks first must not own a key: peers that speak for a uid push strangers out, strangers
//! push out those of the network that has the most, and an answer names members first, others each time. Whether a record
//! is admitted at all (its peer brought it, and has shown who it is) is decided where connections are seen.

use super::PeerKey;
use super::place::{Block, Net, Place};
use covey_proto::Digest;
use libp2p::Multiaddr;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a record counts; its peer repeats it each [`REPEAT`].
pub(crate) const TTL: Duration = Duration::from_secs(30 * 60);
/// Time between two publications of a key.
pub(crate) const REPEAT: Duration = Duration::from_secs(10 * 60);
/// Providers of one key: a whole subnet.
pub(crate) const PER_KEY_MAX: usize = 256;
/// Of them, strangers: seeders without a uid.
const STRANGERS_MAX: usize = 64;
/// Strangers of one IPv4 /24 or IPv6 /48.
const PER_BLOCK_MAX: usize = 4;
/// Keys: the run's, and states; half of them may be kept by strangers alone.
const KEYS_MAX: usize = 64;
/// Keys of one peer beside the run's: the newest two states and one on its way.
const KEYS_PER_PEER_MAX: usize = 4;
/// Records of all keys: about a kilobyte each.
const RECORDS_MAX: usize = 4096;
/// Providers in one answer, and those of them that are strangers if there are members enough.
pub(crate) const ANSWER_MAX: usize = 20;
const ANSWER_STRANGERS: usize = 4;
/// Addresses of one record.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// Who a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It proved its key and signed its addresses.
    Stranger,
    /// It speaks for a uid.
    Member,
}

#[derive(Clone, Debug)]
pub(crate) struct Provider {
    rank: Rank,
    pub(crate) addresses: Vec<Multiaddr>,
    /// Where it brought the record from; none for loopback.
    place: Option<Place>,
    pub(crate) until: Instant,
    order: u64,
}

/// Why a record is not kept.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NotKept {
    #[error("it has no address that others could dial")]
    NoAddress,
    #[error("its peer provides {0} keys already")]
    PeerKeys(usize),
    #[error("there are {0} keys")]
    Keys(usize),
    #[error("there are {0} providers")]
    Full(usize),
}

#[derive(Debug)]
pub(crate) struct Providers {
    /// The run's key: never given up for another.
    run: Digest,
    keys: BTreeMap<Digest, BTreeMap<PeerKey, Provider>>,
    order: u64,
    turn: Cell<usize>,
}

impl Providers {
    pub(crate) fn new(run: Digest) -> Providers {
        Providers { run, keys: BTreeMap::new(), order: 0, turn: Cell::new(0) }
    }

    /// Keeps a record that its own peer brought from `place`.
    pub(crate) fn put(
        &mut self,
        key: Digest,
        peer: PeerKey,
        rank: Rank,
        addresses: Vec<Multiaddr>,
        place: Option<Place>,
        now: Instant,
    ) -> Result<(), NotKept> {
        if addresses.is_empty() {
            return Err(NotKept::NoAddress);
        }
        self.expire(now);
        if !self.keys.get(&key).is_some_and(|held| held.contains_key(&peer)) {
            self.make_room(key, peer, rank, place)?;
        }
        self.order += 1;
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        let provider = Provider { rank, addresses, place, until: now + TTL, order: self.order };
        self.keys.entry(key).or_default().insert(peer, provider);
        Ok(())
    }

    fn make_room(&mut self, key: Digest, peer: PeerKey, rank: Rank, place: Option<Place>) -> Result<(), NotKept> {
        let mine = self.keys.iter().filter(|(other, held)| **other != self.run && held.contains_key(&peer)).count();
        if key != self.run && mine >= KEYS_PER_PEER_MAX {
            return Err(NotKept::PeerKeys(mine));
        }
        if key != self.run && !self.keys.contains_key(&key) {
            self.make_room_for_key(rank)?;
        }
        let all: usize = self.keys.values().map(BTreeMap::len).sum();
        let Some(held) = self.keys.get_mut(&key) else {
            return if all >= RECORDS_MAX { Err(NotKept::Full(all)) } else { Ok(()) };
        };
        let strangers: Vec<&Provider> = held.values().filter(|held| held.rank == Rank::Stranger).collect();
        let block = |provider: &Provider| provider.place.map(Place::block);
        let near = strangers.iter().filter(|held| place.is_some() && block(held) == place.map(Place::block)).count();
        let victim = match rank {
            // The block keeps its share, by its newest.
            Rank::Stranger if near >= PER_BLOCK_MAX => oldest(held, |held| block(held) == place.map(Place::block)),
            Rank::Stranger if strangers.len() >= STRANGERS_MAX || held.len() >= PER_KEY_MAX => {
                let crowd = crowded(&strangers);
                oldest(held, |held| held.place.map(Place::net) == crowd)
            }
            Rank::Member if held.len() >= PER_KEY_MAX => oldest(held, |_| true),
            _ if all < RECORDS_MAX => return Ok(()),
            _ => oldest(held, |_| true),
        };
        let victim = victim.ok_or(NotKept::Full(held.len()))?;
        held.remove(&victim);
        Ok(())
    }

    fn make_room_for_key(&mut self, rank: Rank) -> Result<(), NotKept> {
        let strange = |held: &BTreeMap<PeerKey, Provider>| held.values().all(|held| held.rank == Rank::Stranger);
        let others = self.keys.iter().filter(|(key, _)| **key != self.run);
        let of_strangers: Vec<(u64, Digest)> = others
            .filter(|(_, held)| strange(held))
            .map(|(key, held)| (held.values().map(|held| held.order).max().unwrap_or(0), *key))
            .collect();
        let full = self.keys.len() >= KEYS_MAX || (rank == Rank::Stranger && of_strangers.len() >= KEYS_MAX / 2);
        if !full {
            return Ok(());
        }
        // The one that was repeated longest ago.
        let (_, victim) = of_strangers.into_iter().min().ok_or(NotKept::Keys(self.keys.len()))?;
        self.keys.remove(&victim);
        Ok(())
    }

    /// Up to [`ANSWER_MAX`] providers, members first, others each time.
    pub(crate) fn of(&self, key: &Digest, now: Instant) -> Vec<(PeerKey, &Provider)> {
        let Some(held) = self.keys.get(key) else { return Vec::new() };
        let live = || held.iter().filter(|(_, held)| held.until > now).map(|(peer, held)| (*peer, held));
        let members: Vec<_> = live().filter(|(_, held)| held.rank == Rank::Member).collect();
        let strangers: Vec<_> = live().filter(|(_, held)| held.rank == Rank::Stranger).collect();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(ANSWER_MAX));
        let few = strangers.len().min(ANSWER_STRANGERS.max(ANSWER_MAX.saturating_sub(members.len())));
        let mut answer = rotated(&members, turn, ANSWER_MAX - few);
        answer.extend(spread(rotated(&strangers, turn, strangers.len())).into_iter().take(few));
        answer
    }

    /// A peer began or ceased to speak for a uid.
    pub(crate) fn rank(&mut self, peer: &PeerKey, rank: Rank) {
        self.keys.values_mut().filter_map(|held| held.get_mut(peer)).for_each(|held| held.rank = rank);
    }

    pub(crate) fn forget(&mut self, peer: &PeerKey) {
        self.keys.values_mut().for_each(|held| drop(held.remove(peer)));
        self.keys.retain(|_, held| !held.is_empty());
    }

    fn expire(&mut self, now: Instant) {
        self.keys.values_mut().for_each(|held| held.retain(|_, held| held.until > now));
        self.keys.retain(|_, held| !held.is_empty());
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }
}

/// The stranger that repeated its record longest ago.
fn oldest(held: &BTreeMap<PeerKey, Provider>, pick: impl Fn(&Provider) -> bool) -> Option<PeerKey> {
    let strangers = held.iter().filter(|(_, held)| held.rank == Rank::Stranger && pick(held));
    strangers.min_by_key(|(_, held)| held.order).map(|(peer, _)| *peer)
}

/// The network of most of them.
fn crowded(strangers: &[&Provider]) -> Option<Net> {
    let mut counts: BTreeMap<Option<Net>, usize> = BTreeMap::new();
    strangers.iter().for_each(|held| *counts.entry(held.place.map(Place::net)).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).and_then(|(net, _)| net)
}

fn rotated<T: Copy>(list: &[T], turn: usize, count: usize) -> Vec<T> {
    let start = turn.checked_rem(list.len()).unwrap_or(0);
    list.iter().cycle().skip(start).take(count.min(list.len())).copied().collect()
}

/// One of each block before a second one of any.
fn spread(list: Vec<(PeerKey, &Provider)>) -> Vec<(PeerKey, &Provider)> {
    let mut seen: BTreeSet<Block> = BTreeSet::new();
    let fresh =
        |held: &&Provider, seen: &mut BTreeSet<Block>| held.place.is_none_or(|place| seen.insert(place.block()));
    let (first, rest): (Vec<_>, Vec<_>) = list.into_iter().partition(|(_, held)| fresh(held, &mut seen));
    first.into_iter().chain(rest).collect()
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
