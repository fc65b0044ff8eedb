//! What came of requests: groups, refusals, wrong bytes, broken streams; and taking requests back.

use super::Scheduler;
use super::known::Known;
use super::table::Got;
use super::types::{Action, Misdeed, Rejected, RequestId};
use covey_proto::pieces::PieceSet;
use std::fmt::Debug;
use std::time::Duration;

/// Refusals of what was said to be held count as one occasion within this time: where a blob was evicted, all that was
/// asked of it is refused at once, and the word of it travels on another stream.
const OCCASION: Duration = Duration::from_secs(1);

impl<P: Copy + Ord + Debug> Scheduler<P> {
    pub(super) fn first(&mut self, now: Duration, name: RequestId) {
        let Some(request) = self.requests.get_mut(&name) else { return };
        request.moved = now;
        if std::mem::replace(&mut request.began, true) {
            return;
        }
        if let Some(state) = self.peers.get_mut(&request.peer) {
            state.link.first(now, request.class, now.saturating_sub(request.issued));
        }
        if let Some(fetch) = self.fetches.get_mut(&request.fetch).filter(|_| !request.live) {
            fetch.late_bytes += request.pending_bytes();
        }
    }

    pub(super) fn group(&mut self, now: Duration, name: RequestId, group: u64, actions: &mut Vec<Action<P>>) {
        self.first(now, name);
        let Some(request) = self.requests.get_mut(&name) else { return };
        let groups = request.pieces.groups_of(request.piece);
        let bit = group.checked_sub(groups.start).filter(|at| *at < 64).map_or(0, |at| 1 << at);
        if request.pending & bit == 0 {
            return;
        }
        let before = request.pending_bytes();
        request.pending &= !bit;
        request.moved = now;
        let bytes = before - request.pending_bytes();
        let (peer, id, class, piece, live) = (request.peer, request.fetch, request.class, request.piece, request.live);
        if live {
            self.in_flight[class as usize] -= bytes;
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.open[class as usize] -= bytes;
            state.settled += bytes;
            state.link.bytes(now, class, bytes, &self.limits);
        }
        self.hungry.insert(peer);
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if let Some(source) = fetch.sources.get_mut(&peer) {
            source.bytes += bytes;
        }
        if !live {
            fetch.late_bytes = fetch.late_bytes.saturating_sub(bytes);
        }
        match fetch.table.got(piece, bit) {
            Got::Again => fetch.duplicate_bytes += bytes,
            Got::New | Got::Piece => {
                fetch.fresh_bytes += bytes;
                fetch.last_bytes = now;
            }
        }
        if fetch.table.held().is_full() {
            let root = fetch.blob.root;
            self.forget(id, actions);
            return actions.push(Action::Complete { root });
        }
        self.spare(name, actions);
    }

    /// Cancels what a group that came through this request has made needless.
    fn spare(&mut self, name: RequestId, actions: &mut Vec<Action<P>>) {
        let Some(request) = self.requests.get(&name) else { return };
        let Some(fetch) = self.fetches.get(&request.fetch) else { return };
        let needless = |other: &super::Request<P>| {
            other.live && other.pending != 0 && fetch.table.missing(other.piece, other.pending) == 0
        };
        let losers: Vec<RequestId> = match request.twin {
            // The second delivers before the first began: that one has lost. One that began cannot be stopped, so it
            // goes on and counts, until there is nothing left for it.
            Some(twin) => {
                let lost = |other: &&super::Request<P>| needless(other) || (request.second && !other.began);
                self.requests.get(&twin).filter(lost).map(|_| twin).into_iter().collect()
            }
            // Moved, and come all the same: whoever was asked instead may have nothing left to send.
            None if !request.live => {
                let same = |other: &super::Request<P>| other.fetch == request.fetch && other.piece == request.piece;
                let all = self.requests.iter().filter(|(_, other)| same(other) && needless(other));
                all.map(|(name, _)| *name).collect()
            }
            None => return,
        };
        losers.into_iter().for_each(|loser| self.cancel(loser, actions));
    }

    pub(super) fn done(&mut self, now: Duration, name: RequestId) {
        let Some(request) = self.requests.get(&name) else { return };
        let peer = request.peer;
        if let Some(state) = self.peers.get_mut(&peer) {
            state.requests_max = (state.requests_max + 1).min(self.limits.requests_per_peer_max);
        }
        self.close(now, name);
        self.finished = Some(peer);
    }

    pub(super) fn rejected(&mut self, now: Duration, name: RequestId, why: Rejected, actions: &mut Vec<Action<P>>) {
        let Some(request) = self.requests.get(&name) else { return };
        let (peer, id, piece, live) = (request.peer, request.fetch, request.piece, request.live);
        if live {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.link.refuse(now);
                if why == Rejected::TooMuch {
                    state.requests_max = (state.requests_max / 2).max(1);
                }
            }
            if why == Rejected::NotHeld {
                self.not_held(now, peer, id, piece, actions);
            }
        }
        self.close(now, name);
    }

    /// A peer does not hold a piece that it said it holds: that bit counts nothing, and at the third occasion none does.
    fn not_held(&mut self, now: Duration, peer: P, id: u64, piece: u32, actions: &mut Vec<Action<P>>) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        let Some(source) = fetch.sources.get_mut(&peer).filter(|source| source.known.has(piece)) else { return };
        let since = now.saturating_sub(source.claimed);
        if source.claims == 0 || since >= OCCASION {
            source.claims = if since > self.limits.rest { 1 } else { source.claims + 1 };
            source.claimed = now;
        }
        if source.claims >= self.limits.false_claims_max {
            source.ignored = true;
            fetch.table.lose(&source.known);
            source.known = Known::Nothing;
            actions.push(Action::Punish { peer, root: fetch.blob.root, why: Misdeed::FalseHoldings });
            return;
        }
        if matches!(source.known, Known::All) {
            fetch.table.lose(&source.known);
            source.known = Known::Some(PieceSet::all(fetch.table.held().count()));
            fetch.table.gain(&source.known);
        }
        if let Known::Some(set) = &mut source.known
            && set.remove(piece)
        {
            fetch.table.lose_piece(piece);
        }
    }

    pub(super) fn wrong(&mut self, name: RequestId, actions: &mut Vec<Action<P>>) {
        let Some(request) = self.requests.get(&name) else { return };
        // The blob may be gone by now; the deed is done all the same.
        let (peer, root) = (request.peer, request.root);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.punished = true;
        }
        self.abandon(peer);
        actions.push(Action::Punish { peer, root, why: Misdeed::WrongBytes });
    }

    pub(super) fn failed(&mut self, now: Duration, name: RequestId) {
        let Some(request) = self.requests.get(&name) else { return };
        if let Some(state) = self.peers.get_mut(&request.peer) {
            state.link.refuse(now);
        }
        self.close(now, name);
    }

    // ---- taking back ------------------------------------------------------------------------------------------------

    /// Moves a peer's live requests: whoever has room is asked instead.
    pub(super) fn move_all(&mut self, now: Duration, peer: P, actions: &mut Vec<Action<P>>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.link.strike(now, &self.limits);
        let open: Vec<_> = state.requests.iter().copied().collect();
        open.into_iter().for_each(|request| self.cancel(request, actions));
    }

    /// Cancels a live request: its groups are free, but it stays open until its peer's last word.
    pub(super) fn cancel(&mut self, name: RequestId, actions: &mut Vec<Action<P>>) {
        let Some(request) = self.requests.get_mut(&name).filter(|request| request.live) else { return };
        actions.push(Action::Cancel { request: name, peer: request.peer });
        self.retire(name);
    }

    /// A request is over.
    pub(super) fn close(&mut self, now: Duration, name: RequestId) {
        self.retire(name);
        let Some(request) = self.requests.remove(&name) else { return };
        if let Some(fetch) = self.fetches.get_mut(&request.fetch).filter(|_| request.began) {
            fetch.late_bytes = fetch.late_bytes.saturating_sub(request.pending_bytes());
        }
        if let Some(state) = self.peers.get_mut(&request.peer) {
            let bytes = request.pending_bytes();
            state.open[request.class as usize] -= bytes;
            state.settled += bytes;
            state.requests.remove(&name);
            if state.requests.is_empty() {
                state.link.idle(now);
            }
            self.hungry.insert(request.peer);
        }
    }

    /// A live request counts no more: what it still owes is free for others.
    fn retire(&mut self, name: RequestId) {
        let Some(request) = self.requests.get_mut(&name).filter(|request| request.live) else { return };
        request.live = false;
        self.in_flight[request.class as usize] -= request.pending_bytes();
        let (peer, id, class, piece, pending) =
            (request.peer, request.fetch, request.class, request.piece, request.pending);
        request.second = false;
        let late = if request.began { request.pending_bytes() } else { 0 };
        if let Some(twin) = request.twin.take().and_then(|twin| self.requests.get_mut(&twin)) {
            twin.twin = None;
            twin.second = false;
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.live[class as usize] -= 1;
        }
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        fetch.requests -= 1;
        fetch.late_bytes += late;
        if fetch.table.release(piece, pending) {
            let holders = fetch.sources.iter().filter(|(_, source)| source.known.has(piece));
            let holders: Vec<P> = holders.map(|(peer, _)| *peer).collect();
            holders.into_iter().for_each(|peer| self.is_fertile(id, peer));
        }
    }
}
