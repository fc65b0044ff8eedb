//! What to ask a peer next: room in its window and in all, the most urgent blob, the oldest of these, its next piece;
//! and in the end game what another peer is too slow with.

use super::Scheduler;
use super::fetch::{Peer, Request};
use super::link::Link;
use super::table::last_run;
use super::types::{Action, RequestId};
use crate::Class;
use covey_proto::pieces::{GROUP_BYTES, PIECE_BYTES};
use std::fmt::Debug;
use std::time::Duration;

/// Of the bounds, the part (in quarters) that less urgent classes may fill, so that a round always finds room.
const LESS_URGENT: u64 = 3;
/// Bytes of credit that a less urgent class can gather.
const CREDIT_MAX: u64 = 4 << 20;
/// A request is not asked again elsewhere for a gain of less: the cancel would come too late.
const GAIN_MIN: Duration = Duration::from_millis(200);

/// What to ask of whom.
struct Choice<P> {
    peer: P,
    id: u64,
    piece: u32,
    mask: u64,
    twin: Option<RequestId>,
}

impl<P: Copy + Ord + Debug> Scheduler<P> {
    /// Asks every peer that may have room, those that would answer soonest first.
    pub(super) fn feed(&mut self, now: Duration, actions: &mut Vec<Action<P>>) {
        while !self.hungry.is_empty() {
            let hungry = std::mem::take(&mut self.hungry);
            if hungry.len() == 1 {
                hungry.into_iter().for_each(|peer| self.fill(now, peer, actions));
                continue;
            }
            let wait =
                |peer: &P| self.peers.get(peer).map(|peer| peer.link.takes(now, peer.open_bytes() + PIECE_BYTES));
            let mut order: Vec<_> = hungry.iter().map(|peer| (wait(peer), *peer)).collect();
            order.sort_unstable();
            order.into_iter().for_each(|(_, peer)| self.fill(now, peer, actions));
        }
    }

    /// Asks a peer for as much as its window takes.
    pub(super) fn fill(&mut self, now: Duration, peer: P, actions: &mut Vec<Action<P>>) {
        while let Some((class, id, unit)) = self.next_fetch(now, peer) {
            let Some(fetch) = self.fetches.get(&id) else { return };
            let groups = (unit / GROUP_BYTES) as u32;
            let picked =
                fetch.sources.get(&peer).and_then(|source| fetch.table.pick(&source.known, groups, self.chance.draw()));
            match picked {
                Some((piece, mask)) => self.ask(now, Choice { peer, id, piece, mask, twin: None }, actions),
                None => {
                    if let Some(state) = self.peers.get_mut(&peer) {
                        state.fertile.remove(&(class, id));
                    }
                }
            }
        }
    }

    /// The blob to ask a peer for next, if there is one and room for a request, with the request's bytes.
    fn next_fetch(&mut self, now: Duration, peer: P) -> Option<(Class, u64, u64)> {
        let state = self.peers.get(&peer).filter(|state| state.is_ready(now))?;
        let first = *state.fertile.first()?;
        // A less urgent class that has waited for its share goes first.
        let due = |class: &Class| *class > first.0 && state.credit[*class as usize] >= PIECE_BYTES;
        let of = |class: Class| state.fertile.range((class, 0)..).next().filter(|next| next.0 == class);
        let patient = Class::ALL.into_iter().rev().filter(due).find_map(of).copied();
        for (class, id) in patient.into_iter().chain([first]) {
            let unit = self.unit(id, &state.link)?;
            if self.has_room(peer, class, unit) {
                return Some((class, id, unit));
            }
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.link.is_full();
        }
        None
    }

    /// Bytes of one request of a blob to a peer with this link.
    fn unit(&self, id: u64, link: &Link) -> Option<u64> {
        let piece = self.fetches.get(&id)?.table.pieces().piece_bytes();
        let fits = piece <= self.limits.window_max.min(self.limits.in_flight_max) / 2;
        Some(link.unit(if fits { piece } else { PIECE_BYTES }))
    }

    /// Where a window has shrunk, or its peer turned out slow: takes back what it has not begun, the latest first.
    pub(super) fn shrink(&mut self, actions: &mut Vec<Action<P>>) {
        let wide =
            |state: &Peer| state.open_bytes() > 2 * state.link.window(state.link.unit(PIECE_BYTES), &self.limits);
        let wide: Vec<P> = self.peers.iter().filter(|(_, state)| wide(state)).map(|(peer, _)| *peer).collect();
        for peer in wide {
            let Some(state) = self.peers.get(&peer) else { continue };
            let live =
                |name: &&RequestId| self.requests.get(*name).is_some_and(|request| request.live && !request.began);
            let back: Vec<RequestId> = state.requests.iter().rev().filter(live).copied().collect();
            let mut over =
                state.open_bytes().saturating_sub(state.link.window(state.link.unit(PIECE_BYTES), &self.limits));
            for name in back {
                let bytes = self.requests.get(&name).map_or(0, Request::pending_bytes);
                if bytes <= over {
                    over -= bytes;
                    self.cancel(name, actions);
                }
            }
        }
    }

    /// Whether a request fits every bound. More urgent classes do not see what less urgent ones have open.
    fn has_room(&self, peer: P, class: Class, bytes: u64) -> bool {
        let Some(state) = self.peers.get(&peer) else { return false };
        let limits = &self.limits;
        let share = |most: u64| if class == Class::Round { most } else { most * LESS_URGENT / 4 };
        let up_to = |bytes: &[u64; 3]| bytes[..=class as usize].iter().sum::<u64>();
        let requests_max = share(state.requests_max as u64).max(1);
        (state.requests.len() as u64) < requests_max
            && up_to(&state.open) + bytes <= state.link.window(bytes, limits)
            && state.open_bytes() + bytes <= share(limits.window_max).max(limits.window_min)
            && self.in_flight.iter().sum::<u64>() + bytes <= share(limits.in_flight_max)
    }

    fn ask(&mut self, now: Duration, choice: Choice<P>, actions: &mut Vec<Action<P>>) {
        let Choice { peer, id, piece, mask, twin } = choice;
        let (Some(state), Some(fetch)) = (self.peers.get_mut(&peer), self.fetches.get_mut(&id)) else { return };
        let class = fetch.class;
        let bytes = fetch.table.bytes(piece, mask);
        match twin {
            Some(_) => fetch.table.ask_again(piece, mask),
            None => fetch.table.ask(piece, mask),
        }
        fetch.requests += 1;
        state.link.asked(now, class, state.requests.is_empty(), state.live[class as usize] == 0);
        let open = state.open_bytes() + bytes;
        let request = Request {
            peer,
            fetch: id,
            root: fetch.blob.root,
            class,
            pieces: fetch.table.pieces(),
            piece,
            pending: mask,
            live: true,
            twin,
            second: twin.is_some(),
            issued: now,
            moved: now,
            began: false,
            mark: state.settled + open,
            due: now + state.link.round_trip() + state.link.takes(now, open),
        };
        state.open[class as usize] += bytes;
        state.live[class as usize] += 1;
        self.in_flight[class as usize] += bytes;
        state.credit[class as usize] = state.credit[class as usize].saturating_sub(bytes);
        for other in Class::ALL.into_iter().filter(|other| *other > class) {
            let credit = &mut state.credit[other as usize];
            *credit = (*credit + bytes * self.limits.trickle_percent / 100).min(CREDIT_MAX);
        }
        let name = RequestId(self.next_request);
        self.next_request += 1;
        state.requests.insert(name);
        let (blob, groups) = (fetch.blob, fetch.table.groups(piece, mask));
        self.requests.insert(name, request);
        if let Some(other) = twin.and_then(|twin| self.requests.get_mut(&twin)) {
            other.twin = Some(name);
        }
        actions.push(Action::Request { request: name, peer, blob, class, groups });
    }

    // ---- the end game -----------------------------------------------------------------------------------------------

    /// Asks a peer with room and nothing free to ask for what others are too slow with: of each piece once, within what
    /// may come twice.
    pub(super) fn rescue(&mut self, now: Duration, peer: P, actions: &mut Vec<Action<P>>) {
        while let Some(choice) = self.rescuable(now, peer) {
            self.ask(now, choice, actions);
        }
    }

    fn rescuable(&self, now: Duration, peer: P) -> Option<Choice<P>> {
        let state = self.peers.get(&peer).filter(|state| state.is_ready(now) && state.fertile.is_empty())?;
        let mut best: Option<(Duration, Choice<P>)> = None;
        for (name, request) in self.requests.iter().filter(|(_, request)| request.live && request.twin.is_none()) {
            let Some(fetch) = self.fetches.get(&request.fetch) else { continue };
            let Some(source) = fetch.sources.get(&peer).filter(|source| source.known.has(request.piece)) else {
                continue;
            };
            let table = &fetch.table;
            let missing = table.missing(request.piece, request.pending);
            if request.peer == peer || source.ignored || missing == 0 || table.is_asked_twice(request.piece) {
                continue;
            }
            // What its holder is likeliest to reach last, as much as may come twice.
            let allowed = (fetch.blob.size * self.limits.duplicate_percent / 100)
                .saturating_sub(fetch.duplicate_bytes + fetch.late_bytes + table.twice_bytes());
            let mask = last_run(missing, (allowed / GROUP_BYTES).min(64) as u32);
            let bytes = table.bytes(request.piece, mask);
            let theirs = self.remaining(now, request);
            let ours = state.link.round_trip() + state.link.takes(now, state.open_bytes() + bytes);
            let worth = theirs > 2 * ours && theirs > ours + GAIN_MIN;
            let room = allowed >= GROUP_BYTES && self.has_room(peer, request.class, bytes);
            if worth && room && best.as_ref().is_none_or(|(longest, _)| theirs > *longest) {
                let choice = Choice { peer, id: request.fetch, piece: request.piece, mask, twin: Some(*name) };
                best = Some((theirs, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// How long a request will still take: what is before it at its peer's rate, and no less than it is late.
    fn remaining(&self, now: Duration, request: &Request<P>) -> Duration {
        let Some(state) = self.peers.get(&request.peer) else { return Duration::MAX };
        let before = request.mark.saturating_sub(state.settled).max(request.pending_bytes());
        state.link.takes(now, before).max(now.saturating_sub(request.due))
    }
}
