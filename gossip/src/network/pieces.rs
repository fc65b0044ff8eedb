//! Large blobs: between those who wait for them (`downloads.rs`), the scheduler, which decides, and the links and the
//! store, which do. It outlives a fault.
//!
//! A peer that is reached through a relay only is never a source: the scheduler does not hear of it.

use super::connections::WayTurn;
use super::effects::{Effect, Effects};
use super::jobs::{Job, Jobs};
use super::piece_links::PieceLinks;
use crate::config::Limits;
use crate::downloads::{Download, Downloads, NextStep, Waiter};
use crate::links::{FetchOrder, Report};
use crate::peers::PeerKey;
use crate::peers::way::Way;
use crate::shared::Shared;
use crate::small::terms::{FetchError, Hint};
use crate::store::{Partial, StoreError};
use covey_exchange::Class;
use covey_exchange::frames::Wish;
use covey_exchange::scheduler::{
    Action, Event, Limits as SchedulerLimits, Misdeed, Progress, Refusal, RequestId, Scheduler,
};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PIECED_BLOB_BYTES_MAX, PieceSet};
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batches taken at a time, before the sockets are looked after again.
const REPORTS_AT_ONCE: usize = 16;
/// Time between two words to those who wait for a blob.
const TELL_EACH: Duration = Duration::from_millis(100);

/// Events for the scheduler.
type Events = VecDeque<Event<PeerKey>>;

/// What is wanted in pieces.
pub(super) struct Pieces {
    shared: Arc<Shared>,
    downloads: Downloads,
    scheduler: Scheduler<PeerKey>,
    limits: SchedulerLimits,
    pub(super) links: PieceLinks,
    start: Instant,
    told_at: Instant,
}

/// Where what is to be done elsewhere goes: beside the runtime, or to another owner.
pub(super) struct PieceMeans<'a> {
    pub(super) jobs: &'a mut Jobs,
    pub(super) effects: &'a mut Effects,
}

fn scheduler(limits: &SchedulerLimits) -> Scheduler<PeerKey> {
    // Any seed does: what differs between nodes is whom they ask first.
    Scheduler::new(limits.clone(), RandomState::new().build_hasher().finish())
}

/// What the scheduler is told when the way to a peer turns: only of a direct one.
fn reach(peer: PeerKey, turn: WayTurn) -> Event<PeerKey> {
    match turn {
        WayTurn::Up { way: Way::Direct } => Event::Up { peer },
        WayTurn::Up { way: Way::Relayed } | WayTurn::Down => Event::Down { peer },
    }
}

impl Pieces {
    pub(super) fn new(limits: &Limits, shared: Arc<Shared>) -> Pieces {
        let now = Instant::now();
        Pieces {
            downloads: Downloads::new(limits.scheduler.blobs_max, limits.fetch.wants_max),
            scheduler: scheduler(&limits.scheduler),
            limits: limits.scheduler.clone(),
            links: PieceLinks::new(limits, &shared),
            shared,
            start: now,
            told_at: now,
        }
    }

    /// For another life of the network: nothing of the scheduler's is used again.
    pub(super) fn renew(&mut self) {
        self.links.renew();
        self.scheduler = scheduler(&self.limits);
    }

    /// Tells a new scheduler of everything that is wanted.
    pub(super) fn resume(&mut self, out: &mut PieceMeans<'_>) {
        let roots: Vec<Digest> = self.downloads.iter().map(|download| download.blob.root).collect();
        roots.iter().for_each(|root| self.want(root, out));
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.downloads.is_empty()
    }

    /// When the scheduler wants to be asked again.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.scheduler.next_tick().map(|at| self.start + at)
    }

    // ---- what callers want

    pub(super) fn download(
        &mut self,
        blob: BlobRef,
        class: Class,
        hints: Vec<Hint>,
        waiter: Waiter,
        out: &mut PieceMeans<'_>,
    ) {
        match self.downloads.add(blob, class, hints, waiter) {
            NextStep::TellScheduler => self.want(&blob.root, out),
            NextStep::None | NextStep::Refused => {}
        }
        self.begin_more(out);
    }

    /// Has the store make room for what stands in line, as far as it may.
    fn begin_more(&mut self, out: &mut PieceMeans<'_>) {
        while let Some(blob) = self.downloads.begin() {
            let store = self.shared.store.clone();
            out.jobs.spawn_blocking(move || {
                let result = match store.begin(blob) {
                    // What came under a size that had its turn before proves nothing.
                    Err(StoreError::SizeDiffers { .. }) => store.forget(&blob.root).and_then(|()| store.begin(blob)),
                    begun => begun,
                };
                Job::Begun { blob, result: result.map_err(Arc::new) }
            });
        }
    }

    /// The store has made room for a blob, or has none.
    pub(super) fn begun(&mut self, blob: BlobRef, result: Result<Partial, Arc<StoreError>>, out: &mut PieceMeans<'_>) {
        match result {
            Ok(partial) => {
                if self.downloads.begun(&blob, partial, Instant::now()).is_some() {
                    self.want(&blob.root, out);
                }
            }
            Err(error) if self.is_fetched(&blob) => {
                self.end_download(&blob.root, &Err(FetchError::Store(error)), out);
            }
            Err(error) => tracing::debug!(root = %blob.root, %error, "another size has its turn by now"),
        }
        self.begin_more(out);
    }

    /// Whether it is this size's turn, if there are several of its name.
    fn is_fetched(&self, blob: &BlobRef) -> bool {
        self.downloads.get(&blob.root).is_some_and(|download| download.blob == *blob)
    }

    /// Tells the scheduler of a blob that the store has begun.
    fn want(&mut self, root: &Digest, out: &mut PieceMeans<'_>) {
        let (Some(download), Some(partial)) = (self.downloads.get(root), self.downloads.partial(root)) else { return };
        let held = partial.held();
        if held.is_full() {
            return self.end_download(root, &Ok(()), out);
        }
        let (blob, class) = (download.blob, download.class);
        let sources = self.sources(download);
        self.schedule(Event::Want { blob, class, held, sources }, out);
    }

    /// The peers that a blob's hints name, as far as they are known.
    fn sources(&self, download: &Download) -> Vec<PeerKey> {
        let book = self.shared.book();
        let peer = |hint: &Hint| match hint {
            Hint::Peer(peer) => Some(*peer),
            Hint::Uid(uid) => book.likely_peer_of(*uid),
        };
        download.hints.iter().filter_map(peer).filter(|peer| *peer != self.shared.peer).collect()
    }

    /// Logs something of a blob where its download is logged.
    fn note(&self, root: &Digest, log: impl FnOnce()) {
        match self.downloads.get(root) {
            Some(download) => download.span.in_scope(log),
            None => log(),
        }
    }

    fn end_download(&mut self, root: &Digest, result: &Result<(), FetchError>, out: &mut PieceMeans<'_>) {
        if let Err(error) = result {
            self.note(root, || tracing::debug!(%error, "the download ends"));
        }
        self.downloads.finish(root, result);
        self.begin_more(out);
    }

    /// Time passes for those who wait; `connected`: peers that are.
    pub(super) fn tick(&mut self, connected: usize, out: &mut PieceMeans<'_>) {
        let now = Instant::now();
        let Pieces { downloads, scheduler, told_at, .. } = self;
        let timeout = |download: &Download| {
            let root = download.blob.root;
            let (asked, holders) =
                scheduler.progress(root).map_or((0, 0), |progress| (progress.peers, progress.holders));
            FetchError::Timeout { root, asked, lacking: asked.saturating_sub(holders), connected }
        };
        let unwanted = downloads.expire(now, timeout);
        if now.saturating_duration_since(*told_at) >= TELL_EACH {
            *told_at = now;
            for download in downloads.iter() {
                if let Some(progress) = scheduler.progress(download.blob.root) {
                    downloads.tell(&download.blob.root, progress);
                }
            }
        }
        let turned = downloads.take_turns(now).into_iter().map(|root| (root, true));
        let unwanted: Vec<_> = unwanted.into_iter().chain(turned).collect();
        let any = !unwanted.is_empty();
        for (root, wanted) in unwanted {
            if wanted {
                self.schedule(Event::Unwant { root }, out);
            }
        }
        if any {
            self.begin_more(out);
        }
    }

    // ---- what happens

    /// The way to a peer is another.
    pub(super) fn turned(&mut self, peer: PeerKey, turn: WayTurn, out: &mut PieceMeans<'_>) {
        let event = reach(peer, turn);
        if matches!(event, Event::Down { .. }) {
            self.links.forget(&peer);
        }
        self.schedule(event, out);
    }

    /// Links have something to report, and perhaps more than that.
    pub(super) fn reported(&mut self, batch: Vec<Report>, out: &mut PieceMeans<'_>) {
        let mut next = Some(batch);
        for _ in 0..REPORTS_AT_ONCE {
            let Some(batch) = next else { return };
            batch.into_iter().for_each(|report| self.report(report, out));
            next = self.links.reports.try_recv().ok();
        }
        next.into_iter().flatten().for_each(|report| self.report(report, out));
    }

    fn report(&mut self, report: Report, out: &mut PieceMeans<'_>) {
        match report {
            Report::Event(event) => {
                if matches!(event, Event::Rejected { .. }) {
                    self.shared.traffic.piece_requests_rejected.add(1);
                }
                self.schedule(event, out);
            }
            Report::Breach { peer, why } => out.effects.push_back(Effect::Ban { peer, why }),
            Report::Nuisance { peer, why } => {
                tracing::debug!(%peer, why, "disconnected");
                out.effects.push_back(Effect::Disconnect { peer });
            }
            Report::Store { blob, error } => {
                if self.is_fetched(&blob) {
                    self.end_download(&blob.root, &Err(FetchError::Store(error)), out);
                    self.schedule(Event::Unwant { root: blob.root }, out);
                }
            }
        }
    }

    /// The scheduler's time has come.
    pub(super) fn schedule_tick(&mut self, out: &mut PieceMeans<'_>) {
        self.schedule(Event::Tick, out);
    }

    /// Tells the scheduler something, and does what it then wants done.
    fn schedule(&mut self, event: Event<PeerKey>, out: &mut PieceMeans<'_>) {
        let mut events = Events::from([event]);
        let mut actions = Vec::new();
        // What cannot be done is an event in turn; it makes no more of its kind.
        while let Some(event) = events.pop_front() {
            self.scheduler.handle(self.start.elapsed(), event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action, &mut events, out);
            }
        }
    }

    fn perform(&mut self, action: Action<PeerKey>, events: &mut Events, out: &mut PieceMeans<'_>) {
        match action {
            Action::Ask { peer, blob } => self.links.wish(peer, Wish::Want(blob)),
            Action::Leave { peer, root } => self.links.wish(peer, Wish::Unwant(root)),
            Action::Request { request, peer, blob, class, groups } => {
                if !self.request(request, peer, class, blob.root, groups) {
                    events.push_back(Event::Failed { request });
                }
            }
            Action::Cancel { request, peer } => self.links.cancel(peer, request),
            Action::Dial { peer } => out.effects.push_back(Effect::Dial { peer }),
            Action::Punish { peer, root, why: Misdeed::WrongBytes } => {
                out.effects.push_back(Effect::Ban { peer, why: format!("wrong bytes for blob {root}") });
            }
            Action::Punish { peer, root, why: Misdeed::FalseHoldings } => {
                self.note(&root, || tracing::debug!(%peer, "it does not hold what it says"));
            }
            Action::Complete { root } => self.complete(root, events, out),
            Action::Stuck { root } => {
                self.note(&root, || tracing::debug!("nobody at hand has what is missing"));
                if let Some(download) = self.downloads.get(&root) {
                    // A uid's peer may be known by now.
                    events.push_back(Event::Sources { root, peers: self.sources(download) });
                }
            }
            Action::Refused { blob, why } => self.refused(blob, why, out),
        }
    }

    /// Asks a peer for groups of a blob. Whether that could be done.
    fn request(&mut self, request: RequestId, peer: PeerKey, class: Class, root: Digest, groups: Range<u64>) -> bool {
        match self.downloads.partial(&root).cloned() {
            Some(partial) => self.links.request(peer, class, FetchOrder::Request { request, groups, partial }),
            None => {
                self.links.drop_fetcher(peer, class);
                false
            }
        }
    }

    /// All of a blob came: the store has the last word.
    fn complete(&mut self, root: Digest, events: &mut Events, out: &mut PieceMeans<'_>) {
        let downloads = &self.downloads;
        let (Some(download), Some(partial)) = (downloads.get(&root), downloads.partial(&root)) else { return };
        let (blob, class, held) = (download.blob, download.class, partial.held());
        if held.is_full() {
            downloads.tell(&root, whole(blob, class, &held));
            return self.end_download(&root, &Ok(()), out);
        }
        download.span.in_scope(|| tracing::debug!(?held, "pieces are missing after all"));
        let sources = self.sources(download);
        events.push_back(Event::Want { blob, class, held, sources });
    }

    fn refused(&mut self, blob: BlobRef, why: Refusal, out: &mut PieceMeans<'_>) {
        let root = blob.root;
        let error = match why {
            Refusal::TooLarge { size } => FetchError::TooLarge { root, size, limit: PIECED_BLOB_BYTES_MAX },
            Refusal::TooMuch { blobs, .. } => FetchError::TooMany(blobs),
            Refusal::OtherSize { size } => FetchError::TwoSizes { root, named: blob.size, other: size },
        };
        self.end_download(&root, &Err(error), out);
    }
}

/// How a blob stands that has just become whole.
fn whole(blob: BlobRef, class: Class, held: &PieceSet) -> Progress {
    Progress {
        blob,
        class,
        pieces: held.len(),
        pieces_all: held.count(),
        bytes: blob.size,
        peers: 0,
        holders: 0,
        requests: 0,
        rate: 0,
        rarest: None,
        duplicate_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;

    #[test]
    fn the_scheduler_is_told_of_direct_peers_only() {
        let peer = test_peer(1);
        let blob = BlobRef { root: Digest::of(b"a blob"), size: 5 << 20 };
        let mut scheduler = scheduler(&SchedulerLimits::default());
        let mut asked = |event: Event<PeerKey>| {
            let mut actions = Vec::new();
            scheduler.handle(Duration::ZERO, event, &mut actions);
            actions.contains(&Action::Ask { peer, blob })
        };
        let want = Event::Want { blob, class: Class::Round, held: PieceSet::none(5), sources: vec![peer] };
        assert!(!asked(want), "nobody is connected");
        assert!(!asked(reach(peer, WayTurn::Up { way: Way::Relayed })), "a relay carries no pieces");
        assert!(asked(reach(peer, WayTurn::Up { way: Way::Direct })));
        assert!(!asked(reach(peer, WayTurn::Up { way: Way::Relayed })), "the direct one is gone again");
        let again = Event::Sources { root: blob.root, peers: vec![peer] };
        assert!(!asked(again));
        assert!(asked(reach(peer, WayTurn::Up { way: Way::Direct })));
        assert!(!asked(reach(peer, WayTurn::Down)));
    }
}
