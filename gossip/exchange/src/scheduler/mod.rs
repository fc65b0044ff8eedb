//! Which piece to ask of whom, and when to ask another: the requester's half of the exchange, as a state machine.
//!
//! Decided here: whom to ask what it holds; which groups to request of whom, how many at once, in which order; when to
//! move a request, ask for something twice, cancel, pause, or call a peer to account. Left to others: sockets, frames,
//! proofs, the disk, bans, the clock, who is connected, what is wanted.
//!
//! # The rules
//!
//! | rule | constant | reason |
//! |---|---|---|
//! | every peer at hand is a source, hinted ones first; at most 32 a blob | `wants_per_blob_max` | rarity shows with a few dozen; each more costs HAVEs |
//! | with all places taken: after 10 s a source that has or delivers little makes room for another, after 30 s the worst in any case | `sources.rs` | a crowd that drips or refuses must not keep the one good peer out |
//! | begun pieces first, then the rarest, ties by lot; 8 levels of rarity | `table.rs` | only whole pieces can be served on; near-optimal in measured swarms (Legout 2006) |
//! | a holder that has not begun to send a piece which others have got meanwhile is asked for a rarer one instead | `sources.rs` | a lone seed then sends 9 % of its bytes twice, not 14 % |
//! | the most urgent class first, the oldest blob first; 5 % to each less urgent one, which fills ¾ of any bound at most | `trickle_percent`, `asking.rs` | everybody waits for the round; nothing starves; a round always finds room |
//! | open with a peer: 2 · rate · shortest round trip + 2 requests, 2 MiB (8 s at its rate, if that is less) to 32 MiB; all: 128 MiB | `window_*`, `in_flight_max` | the pipe is full at rate × round trip; twice that lets a growing rate show |
//! | slow start: 4 requests, doubled each round trip until the rate no longer grows by a quarter in three, or half as much would fill the pipe | `first_requests`, `link.rs` | BBR's |
//! | a request is what its peer delivers in 2 s: a group at least, 1 MiB, or a whole piece of 4 MiB | `link.rs` | a slow peer then holds up groups, not pieces |
//! | where far more is open than the window: the latest requests not begun are taken back | `asking.rs` | it turned out slow |
//! | no progress for 4 s or 4 round trips: all its requests move; a single request: 60 s | `stall`, `request_stall` | TCP hides shorter holes; a less urgent class may wait for a more urgent one at its server |
//! | below 5 % of the median of the others over 10 s: its requests move | `slow_*` | a drip that is never silent |
//! | moved three times within a minute of each other: a rest of 60 s | `strikes_max`, `rest` | |
//! | refused or broken: a pause from 250 ms, doubled to 8 s | `link.rs` | |
//! | refused what it said it holds: that bit counts nothing; on three occasions a second apart, within a minute of each other, none of that blob does for 60 s; then it is asked anew | `false_claims_max`, `rest` | an eviction refuses a burst at once, and is no lie; it may be the only holder |
//! | end game: who has nothing else to do is asked for what another needs more than twice as long for; one duplicate a piece, 3 % of the blob in all, answers that cannot be stopped counted | `duplicate_percent` | the last piece must not wait for the slowest |
//! | wrong bytes: nothing more is asked of that peer before it is up again | | |
//! | what nobody holds, or of which nothing came for 15 s, is said to be stuck after 5 s and each 30 s | `stuck_*` | time to find providers |
//!
//! # What the shell must do
//!
//! - Hand over events in the order in which they happened, with a time that never goes back; perform the actions in
//!   order; call [`Scheduler::handle`] with [`Event::Tick`] at [`Scheduler::next_tick`] (early or late does no harm).
//! - `Up` once a peer can be asked, `Down` when its connection is gone; not `Up` while it is banned. After `Down` all its
//!   requests are forgotten on both sides: nothing is cancelled, no more events about them are needed.
//! - After `Ask` send what comes as `Holds` (checked by [`PieceSet::from_bytes`](covey_proto::pieces::PieceSet::from_bytes)
//!   against the blob's count) and `Have`; after `Leave` drop what still comes.
//! - For each `Request`: `First` at the first byte of its answer, `Group` once a group is verified *and* written (or kept
//!   so that it cannot be lost while the process lives), then exactly one of `Done`, `Rejected`, `Wrong`, `Failed`. That
//!   holds for cancelled requests too: they count as open until then. When a stream breaks, `Failed` for each request on
//!   it. When the disk fails, `Unwant`.
//! - `Wrong` only for bytes that do not verify; the shell bans then, and disconnects. A breach of the frames is a ban
//!   and a `Down`.
//! - `Unwant` when nobody waits any more, and `Want` again after a restart with what the store holds. After `Complete` it
//!   is the store that knows: if it lacks a piece, want the blob again.
//!
//! # Cost
//!
//! With p peers, r open requests (some 128; thousands only of tiny ones) and b blobs of n pieces: a group or an answer
//! costs O(log p + log r), a pick n/64 steps at worst and usually a few, HAVE a step a piece, BITFIELD n/64 · 20 steps, a
//! tick (each 250 ms while something is open) O(p log p + r + b), the end game r a peer with nothing to do. No decision
//! depends on the order of a hash table: equal seeds and histories give equal actions. Memory: 2.5 bytes a piece of each
//! blob, and a bit a piece for each source that holds a part of it.

mod answers;
mod asking;
mod bits;
mod fetch;
mod known;
mod link;
mod sources;
mod table;
mod types;
mod watch;

pub use types::{Action, Event, Limits, Misdeed, Progress, Refusal, Rejected, RequestId};

use covey_proto::Digest;
use covey_proto::random::SplitMix64;
use fetch::{Fetch, Peer, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// All fetches of one node. `P` names a peer. Time is what has passed since any fixed start, and never goes back.
#[derive(Debug)]
pub struct Scheduler<P> {
    limits: Limits,
    /// Breaks ties: whom to ask first, which piece of several.
    chance: SplitMix64,
    peers: BTreeMap<P, Peer>,
    fetches: BTreeMap<u64, Fetch<P>>,
    roots: BTreeMap<Digest, u64>,
    requests: BTreeMap<RequestId, Request<P>>,
    next_fetch: u64,
    next_request: u64,
    /// Pieces of all fetches.
    pieces: u64,
    /// Bytes of live requests, by class.
    in_flight: [u64; 3],
    /// Peers that may have room and work since this event.
    hungry: BTreeSet<P>,
    /// The peer whose answer ended with this event.
    finished: Option<P>,
    /// When everything was last looked over; when sources were.
    checked: Duration,
    rotated: Duration,
}

impl<P: Copy + Ord + Debug> Scheduler<P> {
    /// A scheduler that wants nothing yet. Equal seeds and histories give equal actions.
    pub fn new(limits: Limits, seed: u64) -> Scheduler<P> {
        // Rarity is counted in bytes.
        let wants_per_blob_max = limits.wants_per_blob_max.min(255);
        Scheduler {
            limits: Limits { wants_per_blob_max, ..limits },
            chance: SplitMix64::seeded(seed),
            peers: BTreeMap::new(),
            fetches: BTreeMap::new(),
            roots: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_fetch: 0,
            next_request: 0,
            pieces: 0,
            in_flight: [0; 3],
            hungry: BTreeSet::new(),
            finished: None,
            checked: Duration::ZERO,
            rotated: Duration::ZERO,
        }
    }

    /// Takes an event at `now` and appends what is to be done, in that order.
    pub fn handle(&mut self, now: Duration, event: Event<P>, actions: &mut Vec<Action<P>>) {
        match event {
            Event::Want { blob, class, held, sources } => self.want(now, blob, class, held, &sources, actions),
            Event::Sources { root, peers } => self.hint(now, root, &peers, actions),
            Event::Unwant { root } => self.unwant(root, actions),
            Event::Up { peer } => self.up(now, peer, actions),
            Event::Down { peer } => self.down(peer),
            Event::Holds { peer, root, set } => self.holds(peer, root, set),
            Event::Have { peer, root, runs } => self.have(now, peer, root, &runs, actions),
            Event::First { request } => self.first(now, request),
            Event::Group { request, group } => self.group(now, request, group, actions),
            Event::Done { request } => self.done(now, request),
            Event::Rejected { request, why } => self.rejected(now, request, why, actions),
            Event::Wrong { request } => self.wrong(request, actions),
            Event::Failed { request } => self.failed(now, request),
            Event::Tick => self.look_over(now, actions),
        }
        self.feed(now, actions);
        if let Some(peer) = self.finished.take() {
            self.rescue(now, peer, actions);
        }
    }

    /// How a wanted blob stands.
    pub fn progress(&self, root: Digest) -> Option<Progress> {
        let fetch = self.fetches.get(self.roots.get(&root)?)?;
        let table = &fetch.table;
        let holders = fetch.sources.values().filter(|source| table.wants_of(&source.known)).count();
        Some(Progress {
            blob: fetch.blob,
            class: fetch.class,
            pieces: table.held().len(),
            pieces_all: table.held().count(),
            bytes: table.got_bytes(),
            peers: fetch.sources.len(),
            holders,
            requests: fetch.requests,
            rate: fetch.rate,
            rarest: table.rarest(),
            duplicate_bytes: fetch.duplicate_bytes,
        })
    }
}
