//! Blobs and peers come and go: which peers are asked what they hold of which blob, and what they said.

use super::Scheduler;
use super::fetch::{Fetch, Peer, Request, Source};
use super::known::Known;
use super::table::Table;
use super::types::{Action, Refusal};
use crate::Class;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PieceSet, Pieces};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::{Bound, Range};
use std::time::Duration;

/// A source is not left sooner after it was asked: its BITFIELD may be under way, its first piece too.
const TRIAL: Duration = Duration::from_secs(10);
/// What a source delivers is little if it is so many times less than the mean.
const LITTLE: u64 = 10;
/// How often the worst source is exchanged even if it is not bad.
const EXCHANGE: Duration = Duration::from_secs(30);
/// Peers looked at in one search for more sources of a blob, so that a search costs little among thousands.
const SEARCH_MAX: usize = 64;

impl<P: Copy + Ord + Debug> Scheduler<P> {
    // ---- blobs ------------------------------------------------------------------------------------------------------

    pub(super) fn want(
        &mut self,
        now: Duration,
        blob: BlobRef,
        class: Class,
        held: PieceSet,
        sources: &[P],
        actions: &mut Vec<Action<P>>,
    ) {
        if let Some(id) = self.roots.get(&blob.root).copied() {
            let size = self.fetches.get(&id).map_or(blob.size, |fetch| fetch.blob.size);
            if size != blob.size {
                return actions.push(Action::Refused { blob, why: Refusal::OtherSize { size } });
            }
            self.promote(id, class);
            return self.hint(now, blob.root, sources, actions);
        }
        let Some(pieces) = Pieces::of_blob(&blob) else {
            return actions.push(Action::Refused { blob, why: Refusal::TooLarge { size: blob.size } });
        };
        let count = u64::from(pieces.count());
        if self.fetches.len() >= self.limits.blobs_max || self.pieces + count > self.limits.pieces_max {
            let why = Refusal::TooMuch { blobs: self.fetches.len(), pieces: self.pieces };
            return actions.push(Action::Refused { blob, why });
        }
        let table = Table::new(pieces, held);
        if table.held().is_full() {
            return actions.push(Action::Complete { root: blob.root });
        }
        if self.fetches.is_empty() {
            self.checked = now;
        }
        let id = self.next_fetch;
        self.next_fetch += 1;
        self.pieces += count;
        self.roots.insert(blob.root, id);
        // The search begins anywhere, so that not all blobs of all nodes are asked of the same peers.
        let start = self.chance.below(self.peers.len() as u64) as usize;
        let fetch = Fetch {
            blob,
            class,
            table,
            sources: BTreeMap::new(),
            hints: Vec::new(),
            cursor: self.peers.keys().nth(start).copied(),
            requests: 0,
            duplicate_bytes: 0,
            late_bytes: 0,
            rate: 0,
            fresh_bytes: 0,
            last_bytes: now,
            lacking: Some(now),
            stuck: now,
            exchanged: now,
        };
        self.fetches.insert(id, fetch);
        self.hint(now, blob.root, sources, actions);
    }

    /// A blob is wanted for something more urgent than before.
    fn promote(&mut self, id: u64, class: Class) {
        let Some(fetch) = self.fetches.get_mut(&id).filter(|fetch| class < fetch.class) else { return };
        let before = std::mem::replace(&mut fetch.class, class);
        for source in fetch.sources.keys() {
            if let Some(peer) = self.peers.get_mut(source)
                && peer.fertile.remove(&(before, id))
            {
                peer.fertile.insert((class, id));
                self.hungry.insert(*source);
            }
        }
    }

    /// Peers are said to hold a blob.
    pub(super) fn hint(&mut self, now: Duration, root: Digest, peers: &[P], actions: &mut Vec<Action<P>>) {
        let Some(id) = self.roots.get(&root).copied() else { return };
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        for peer in peers {
            if fetch.hints.len() < self.limits.hints_max && !fetch.hints.contains(peer) {
                fetch.hints.push(*peer);
                if !self.peers.contains_key(peer) {
                    actions.push(Action::Dial { peer: *peer });
                }
            }
        }
        self.find_sources(now, id, actions);
    }

    pub(super) fn unwant(&mut self, root: Digest, actions: &mut Vec<Action<P>>) {
        if let Some(id) = self.roots.get(&root).copied() {
            self.forget(id, actions);
        }
    }

    /// Takes a blob out: its requests are cancelled, its sources left.
    pub(super) fn forget(&mut self, id: u64, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get(&id) else { return };
        if fetch.requests > 0 {
            let of_it = |(_, request): &(_, &Request<P>)| request.fetch == id && request.live;
            let open: Vec<_> = self.requests.iter().filter(of_it).map(|(request, _)| *request).collect();
            open.into_iter().for_each(|request| self.cancel(request, actions));
        }
        let Some(fetch) = self.fetches.remove(&id) else { return };
        self.roots.remove(&fetch.blob.root);
        let count = fetch.table.pieces().count();
        self.pieces -= u64::from(count);
        for source in fetch.sources.keys() {
            if let Some(peer) = self.peers.get_mut(source) {
                peer.fertile.remove(&(fetch.class, id));
                peer.wants -= 1;
                peer.set_bytes -= set_bytes(count);
                actions.push(Action::Leave { peer: *source, root: fetch.blob.root });
                self.hungry.insert(*source);
            }
        }
    }

    // ---- peers ------------------------------------------------------------------------------------------------------

    pub(super) fn up(&mut self, now: Duration, peer: P, actions: &mut Vec<Action<P>>) {
        self.down(peer);
        if self.peers.len() >= self.limits.peers_max {
            return;
        }
        self.peers.insert(peer, Peer::new(self.limits.requests_per_peer_max));
        // The most urgent blobs first: what the peer can be asked about has a bound.
        let mut fetches: Vec<(Class, u64)> = self.fetches.iter().map(|(id, fetch)| (fetch.class, *id)).collect();
        fetches.sort_unstable();
        for (_, id) in fetches {
            if self.is_hinted(id, peer) {
                self.make_room(now, id, actions);
            }
            self.ask_holdings(now, id, peer, actions);
        }
    }

    pub(super) fn down(&mut self, peer: P) {
        self.abandon(peer);
        self.peers.remove(&peer);
        self.hungry.remove(&peer);
    }

    /// A peer is no source of anything any more, and its requests are forgotten.
    pub(super) fn abandon(&mut self, peer: P) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let open: Vec<_> = state.requests.iter().copied().collect();
        state.fertile.clear();
        state.wants = 0;
        state.set_bytes = 0;
        for fetch in self.fetches.values_mut() {
            if let Some(source) = fetch.sources.remove(&peer) {
                fetch.table.lose(&source.known);
            }
        }
        open.into_iter().for_each(|request| self.close(Duration::ZERO, request));
    }

    fn is_hinted(&self, id: u64, peer: P) -> bool {
        self.fetches.get(&id).is_some_and(|fetch| fetch.hints.contains(&peer))
    }

    // ---- whom to ask what it holds ----------------------------------------------------------------------------------

    /// Asks more peers what they hold of a blob, as far as there is room: those said to hold it first.
    pub(super) fn find_sources(&mut self, now: Duration, id: u64, actions: &mut Vec<Action<P>>) {
        let asked = self.fetches.get(&id).map_or(0, |fetch| fetch.sources.len());
        let room = self.limits.wants_per_blob_max.saturating_sub(asked);
        let chosen = self.candidates(id, room);
        chosen.into_iter().for_each(|peer| self.ask_holdings(now, id, peer, actions));
    }

    /// Peers that were not asked what they hold of a blob and can be: those said to hold it, then whoever comes after
    /// the last that was found so.
    fn candidates(&mut self, id: u64, most: usize) -> Vec<P> {
        let Some(fetch) = self.fetches.get(&id) else { return Vec::new() };
        let can_be = |peer: &P| !fetch.sources.contains_key(peer) && self.can_be_asked(id, *peer);
        let mut chosen: Vec<P> = fetch.hints.iter().copied().filter(can_be).take(most).collect();
        let start = fetch.cursor;
        let mut cursor = start;
        let after = self.peers.range((start.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let again = self.peers.keys().take_while(|peer| start.is_some_and(|start| **peer <= start));
        for peer in after.map(|(peer, _)| peer).chain(again).take(SEARCH_MAX) {
            if chosen.len() >= most {
                break;
            }
            cursor = Some(*peer);
            if can_be(peer) && !chosen.contains(peer) {
                chosen.push(*peer);
            }
        }
        if let Some(fetch) = self.fetches.get_mut(&id) {
            fetch.cursor = cursor;
        }
        chosen
    }

    /// Exchanges a source that is of little use, if another is at hand; else fills the places that are free.
    pub(super) fn exchange_source(&mut self, now: Duration, id: u64, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.sources.values_mut().for_each(|source| source.bytes /= 2);
        let rested = |source: &Source| source.ignored && now.saturating_sub(source.claimed) >= self.limits.rest;
        let rested: Vec<P> = fetch.sources.iter().filter(|(_, source)| rested(source)).map(|(peer, _)| *peer).collect();
        // Where nobody else holds the blob, it must not be ignored for ever.
        rested.into_iter().for_each(|peer| self.leave(id, peer, actions));
        let Some(fetch) = self.fetches.get(&id) else { return };
        if fetch.sources.len() < self.limits.wants_per_blob_max {
            return self.find_sources(now, id, actions);
        }
        if let Some(peer) = self.candidates(id, 1).first().copied() {
            self.make_room(now, id, actions);
            self.ask_holdings(now, id, peer, actions);
        }
    }

    /// Whether a peer is there and has room for another blob.
    fn can_be_asked(&self, id: u64, peer: P) -> bool {
        let (Some(state), Some(fetch)) = (self.peers.get(&peer), self.fetches.get(&id)) else { return false };
        let bytes = state.set_bytes + set_bytes(fetch.table.pieces().count());
        !state.punished && state.wants < self.limits.wants_per_peer_max && bytes <= self.limits.set_bytes_per_peer_max
    }

    fn ask_holdings(&mut self, now: Duration, id: u64, peer: P, actions: &mut Vec<Action<P>>) {
        if !self.can_be_asked(id, peer) {
            return;
        }
        let (Some(state), Some(fetch)) = (self.peers.get_mut(&peer), self.fetches.get_mut(&id)) else { return };
        if fetch.sources.len() < self.limits.wants_per_blob_max && !fetch.sources.contains_key(&peer) {
            state.wants += 1;
            state.set_bytes += set_bytes(fetch.table.pieces().count());
            fetch.sources.insert(peer, Source::new(now));
            actions.push(Action::Ask { peer, blob: fetch.blob });
        }
    }

    /// Frees a place for another source of a blob, if all are taken and one of them is of little use. Of the sources that
    /// have had [`TRIAL`], the worst is the one that holds nothing that is missing, else the one that delivered least. It
    /// goes if it holds nothing, or delivered a [`LITTLE`]th of the mean; each [`EXCHANGE`] it goes in any case, or a crowd
    /// that delivers a trickle would keep its places for ever.
    fn make_room(&mut self, now: Duration, id: u64, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if fetch.sources.len() < self.limits.wants_per_blob_max {
            return;
        }
        let table = &fetch.table;
        let tried = fetch.sources.iter().filter(|(_, source)| now.saturating_sub(source.asked) >= TRIAL);
        let worst = tried.map(|(peer, source)| (table.wants_of(&source.known), source.bytes, *peer)).min();
        let Some((useful, bytes, peer)) = worst else { return };
        let sum: u64 = fetch.sources.values().map(|source| source.bytes).sum();
        let poor = bytes * LITTLE * fetch.sources.len() as u64 <= sum;
        if useful && !poor && now.saturating_sub(fetch.exchanged) < EXCHANGE {
            return;
        }
        fetch.exchanged = now;
        self.leave(id, peer, actions);
    }

    /// A peer is no source of a blob any more.
    fn leave(&mut self, id: u64, peer: P, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let Some(source) = fetch.sources.remove(&peer) else { return };
        fetch.table.lose(&source.known);
        actions.push(Action::Leave { peer, root: fetch.blob.root });
        if let Some(state) = self.peers.get_mut(&peer) {
            state.wants -= 1;
            state.set_bytes -= set_bytes(fetch.table.pieces().count());
            state.fertile.remove(&(fetch.class, id));
        }
    }

    // ---- what they say ----------------------------------------------------------------------------------------------

    pub(super) fn holds(&mut self, peer: P, root: Digest, set: PieceSet) {
        let Some(id) = self.roots.get(&root).copied() else { return };
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let Some(source) = fetch.sources.get_mut(&peer) else { return };
        if source.ignored || set.count() != fetch.table.held().count() {
            return;
        }
        let known = Known::of(set);
        fetch.table.lose(&source.known);
        fetch.table.gain(&known);
        source.known = known;
        self.is_fertile(id, peer);
    }

    pub(super) fn have(
        &mut self,
        now: Duration,
        peer: P,
        root: Digest,
        runs: &[Range<u32>],
        actions: &mut Vec<Action<P>>,
    ) {
        let Some(id) = self.roots.get(&root).copied() else { return };
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let Some(source) = fetch.sources.get_mut(&peer).filter(|source| !source.ignored) else { return };
        let count = fetch.table.held().count();
        if matches!(source.known, Known::Nothing) {
            source.known = Known::Some(PieceSet::none(count));
        }
        let Known::Some(set) = &mut source.known else { return };
        // Honest runs are apart, so together no more than the blob: more is work for nothing.
        let pieces = runs.iter().flat_map(|run| run.start..run.end.min(count)).take(count as usize);
        let mut useful = false;
        let mut asked = BTreeSet::new();
        for piece in pieces {
            if set.insert(piece) {
                fetch.table.gain_piece(piece);
                useful |= fetch.table.is_free(piece);
                if fetch.table.is_unbegun(piece) {
                    asked.insert(piece);
                }
            }
        }
        if set.is_full() {
            fetch.table.lose(&source.known);
            source.known = Known::All;
            fetch.table.gain(&source.known);
        }
        if useful {
            self.is_fertile(id, peer);
        }
        if !asked.is_empty() {
            self.give_way(now, id, &asked, actions);
        }
    }

    /// Others have got what is asked of a holder that has not begun to send it: while that holder has something rarer,
    /// its line is for that. In a young swarm this is what keeps fetchers from making the seed send a piece twice.
    fn give_way(&mut self, now: Duration, id: u64, pieces: &BTreeSet<u32>, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get(&id) else { return };
        let gives_way = |request: &Request<P>| {
            let unbegun = request.fetch == id && request.live && !request.began && request.twin.is_none();
            let (Some(source), Some(state)) = (fetch.sources.get(&request.peer), self.peers.get(&request.peer)) else {
                return false;
            };
            // A cancel that comes too late makes both send it.
            let before = request.mark.saturating_sub(state.settled + request.pending_bytes());
            unbegun
                && pieces.contains(&request.piece)
                && fetch.table.has_rarer(&source.known, request.piece)
                && state.link.takes(now, before) > 2 * state.link.round_trip()
        };
        let all = self.requests.iter().filter(|(_, request)| gives_way(request));
        let chosen: Vec<_> = all.map(|(name, _)| *name).collect();
        chosen.into_iter().for_each(|name| self.cancel(name, actions));
    }

    /// A peer may have something to ask for.
    pub(super) fn is_fertile(&mut self, id: u64, peer: P) {
        let Some(fetch) = self.fetches.get(&id) else { return };
        if let Some(state) = self.peers.get_mut(&peer) {
            state.fertile.insert((fetch.class, id));
            self.hungry.insert(peer);
        }
    }
}

/// Bytes that a peer's set of a blob takes.
fn set_bytes(count: u32) -> usize {
    (count as usize).div_ceil(8)
}
