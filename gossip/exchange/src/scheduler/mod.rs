//! Which piece to ask of whom, and when to ask another: the requester's half of the exchange, as a state machine.

mod answers;
mod asking;
mod bits;
mod fetch;
mod link;
mod sources;
mod table;
mod types;
mod watch;

pub use types::{Action, Event, Limits, LinkView, Misdeed, Progress, Refusal, Rejected, RequestId};

use bits::Chance;
use covey_proto::Digest;
use fetch::{Fetch, Peer, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// All fetches of one node. `P` names a peer. Time is what has passed since any fixed start, and never goes back.
#[derive(Debug)]
pub struct Scheduler<P> {
    limits: Limits,
    chance: Chance,
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
            chance: Chance::new(seed),
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

    /// The blobs that are wanted, the oldest first.
    pub fn wanted(&self) -> impl Iterator<Item = Digest> + '_ {
        self.fetches.values().map(|fetch| fetch.blob.root)
    }

    /// What is believed of a connected peer's link.
    pub fn link(&self, peer: P) -> Option<LinkView> {
        let peer = self.peers.get(&peer)?;
        Some(LinkView {
            rate: peer.link.rate(),
            rtt: peer.link.rtt(),
            window: peer.link.window(covey_proto::pieces::PIECE_BYTES, &self.limits),
            open_bytes: peer.open_bytes(),
            open_requests: peer.requests.len(),
            strikes: peer.link.strikes(),
        })
    }
}
