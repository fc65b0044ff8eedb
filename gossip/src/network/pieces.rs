//! Large blobs: between the scheduler, which decides, and the links and the store, which do.

use super::network::{Job, Network};
use super::running::Running;
use crate::config::Limits;
use crate::downloads::{Called, Download, Downloads, Waiter};
use crate::links::{Asker, Env, Fetcher, Inbound, Open, Order, Report, Serving};
use crate::peers::PeerKey;
use crate::shared::Shared;
use crate::small::terms::{FetchError, Hint};
use crate::store::{Partial, StoreError};
use covey_exchange::Class;
use covey_exchange::frames::Wish;
use covey_exchange::scheduler::{Action, Event, Misdeed, Progress, Refusal, Scheduler};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::{PIECED_BLOB_BYTES_MAX, PieceSet};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Batches of reports that wait for the network's task; the links wait beyond.
const REPORTS_MAX: usize = 256;
/// Batches taken at a time, before the sockets are looked after again.
const REPORTS_AT_ONCE: usize = 16;
/// Streams that wait to be opened; the links wait beyond.
const OPENS_MAX: usize = 256;
/// Time between two words to those who wait for a blob.
const TELL_EACH: Duration = Duration::from_millis(100);

/// What of the exchange outlives a fault in the network.
pub(super) struct Exchange {
    pub(super) env: Arc<Env>,
    pub(super) reports: mpsc::Receiver<Vec<Report>>,
    pub(super) opens: mpsc::Receiver<(PeerKey, Open)>,
    /// Links and their like. They end when their streams do, or their orders.
    pub(super) tasks: JoinSet<()>,
    pub(super) downloads: Downloads,
    scheduler: Scheduler<PeerKey>,
    limits: covey_exchange::scheduler::Limits,
    start: Instant,
    told_at: Instant,
}

fn scheduler(limits: &covey_exchange::scheduler::Limits) -> Scheduler<PeerKey> {
    // Any seed does: what differs between nodes is whom they ask first.
    Scheduler::new(limits.clone(), RandomState::new().build_hasher().finish())
}

impl Exchange {
    pub(super) fn new(limits: &Limits, shared: &Arc<Shared>) -> Exchange {
        let serving = Serving::new(shared.clone(), limits.governor.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(serving.clone().keep_time());
        let now = Instant::now();
        let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
        let (opens_out, opens) = mpsc::channel(OPENS_MAX);
        Exchange {
            env: Arc::new(Env::new(shared.clone(), serving, limits.links.clone(), reports_out, opens_out)),
            reports,
            opens,
            tasks,
            downloads: Downloads::new(limits.scheduler.blobs_max, limits.fetch.wants_max),
            scheduler: scheduler(&limits.scheduler),
            limits: limits.scheduler.clone(),
            start: now,
            told_at: now,
        }
    }

    /// For another life of the network. Nothing of the scheduler's is used again, and nobody hears the links of the former
    /// life, whose requests mean nothing to this one.
    pub(super) fn renew(&mut self) {
        let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
        let (opens_out, opens) = mpsc::channel(OPENS_MAX);
        let Env { shared, serving, limits, .. } = &*self.env;
        let env = Env::new(shared.clone(), serving.clone(), limits.clone(), reports_out, opens_out);
        (self.env, self.reports, self.opens) = (Arc::new(env), reports, opens);
        self.scheduler = scheduler(&self.limits);
    }

    /// Ends what runs, and returns once nothing of it uses the store.
    pub(super) async fn close(&mut self) {
        self.reports.close();
        self.opens.close();
        self.tasks.shutdown().await;
        self.env.serving.quiesce().await;
    }

    /// When the scheduler wants to be asked again.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.scheduler.next_tick().map(|at| self.start + at)
    }
}

/// The links of one life of the network, by the peer at their other end.
#[derive(Default)]
pub(super) struct Ends {
    askers: HashMap<PeerKey, Asker>,
    fetchers: HashMap<(PeerKey, Class), Fetcher>,
}

impl Ends {
    fn forget(&mut self, peer: &PeerKey) {
        self.askers.remove(peer);
        self.fetchers.retain(|(other, _), _| other != peer);
    }
}

/// Makes room in the store. Blocks.
pub(super) fn begin(network: &Network, blob: BlobRef) -> impl FnOnce() -> Job + Send + 'static {
    let store = network.shared.store.clone();
    move || Job::Begun { root: blob.root, result: store.begin(blob).map_err(Arc::new) }
}

impl Running<'_> {
    // ---- what callers want

    pub(super) fn download(&mut self, blob: BlobRef, class: Class, hints: Vec<Hint>, waiter: Waiter) {
        match self.net.exchange.downloads.add(blob, class, hints, waiter) {
            Called::Again => self.want(&blob.root),
            Called::Later | Called::Refused => {}
        }
        self.begin_more();
    }

    /// Has the store begin what stands in line, as far as it may.
    fn begin_more(&mut self) {
        while let Some(blob) = self.net.exchange.downloads.begin() {
            let begin = begin(self.net, blob);
            self.net.jobs.spawn_blocking(begin);
        }
    }

    /// The store has made room for a blob, or has none.
    pub(super) fn on_begun(&mut self, root: Digest, result: Result<Partial, Arc<StoreError>>) {
        match result {
            Ok(partial) => {
                if self.net.exchange.downloads.begun(&root, partial).is_some() {
                    self.want(&root);
                }
            }
            Err(error) => self.end_download(&root, &Err(FetchError::Store(error))),
        }
        self.begin_more();
    }

    /// Tells the scheduler of a blob that the store has begun.
    fn want(&mut self, root: &Digest) {
        let downloads = &self.net.exchange.downloads;
        let (Some(download), Some(partial)) = (downloads.get(root), downloads.partial(root)) else { return };
        let held = partial.held();
        if held.is_full() {
            return self.end_download(root, &Ok(()));
        }
        let (blob, class) = (download.blob, download.class);
        let sources = self.sources(download);
        self.schedule(Event::Want { blob, class, held, sources });
    }

    /// The peers that a blob's hints name, as far as they are known.
    fn sources(&self, download: &Download) -> Vec<PeerKey> {
        let book = self.net.shared.book();
        let peer = |hint: &Hint| match hint {
            Hint::Peer(peer) => Some(*peer),
            Hint::Uid(uid) => book.likely_peer_of(*uid),
        };
        download.hints.iter().filter_map(peer).filter(|peer| *peer != self.net.shared.peer).collect()
    }

    /// Logs something of a blob where its download is logged.
    fn note(&self, root: &Digest, log: impl FnOnce()) {
        match self.net.exchange.downloads.get(root) {
            Some(download) => download.span.in_scope(log),
            None => log(),
        }
    }

    fn end_download(&mut self, root: &Digest, result: &Result<(), FetchError>) {
        if let Err(error) = result {
            self.note(root, || tracing::debug!(%error, "the download ends"));
        }
        self.net.exchange.downloads.finish(root, result);
        self.begin_more();
    }

    /// Time passes for those who wait.
    pub(super) fn tick_downloads(&mut self) {
        let now = Instant::now();
        let connected = self.connected.len();
        let Exchange { downloads, scheduler, told_at, .. } = &mut self.net.exchange;
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
        let any = !unwanted.is_empty();
        for (root, wanted) in unwanted {
            if wanted {
                self.schedule(Event::Unwant { root });
            }
        }
        if any {
            self.begin_more();
        }
    }

    // ---- what happens

    /// Tells a new scheduler of everything that is wanted.
    pub(super) fn resume_downloads(&mut self) {
        let roots: Vec<Digest> = self.net.exchange.downloads.iter().map(|download| download.blob.root).collect();
        roots.iter().for_each(|root| self.want(root));
    }

    pub(super) fn on_link(&mut self, inbound: Inbound) {
        let env = self.net.exchange.env.clone();
        self.net.exchange.tasks.spawn(crate::links::serve(env, inbound.peer, inbound.came));
    }

    pub(super) fn on_open(&mut self, peer: PeerKey, open: Open) {
        self.swarm.behaviour_mut().links.open(peer, open);
    }

    pub(super) fn on_peer_up(&mut self, peer: PeerKey) {
        self.schedule(Event::Up { peer });
    }

    pub(super) fn on_peer_down(&mut self, peer: PeerKey) {
        self.ends.forget(&peer);
        self.schedule(Event::Down { peer });
    }

    pub(super) fn on_reports(&mut self, batch: Vec<Report>) {
        let mut next = Some(batch);
        for _ in 0..REPORTS_AT_ONCE {
            let Some(batch) = next else { return };
            batch.into_iter().for_each(|report| self.on_report(report));
            next = self.net.exchange.reports.try_recv().ok();
        }
        next.into_iter().flatten().for_each(|report| self.on_report(report));
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Event(event) => {
                if matches!(event, Event::Rejected { .. }) {
                    self.net.shared.traffic.piece_requests_rejected.add(1);
                }
                self.schedule(event);
            }
            Report::Breach { peer, why } => self.ban(peer, &why),
            Report::Nuisance { peer, why } => {
                tracing::debug!(%peer, why, "disconnected");
                // An error means that it is not connected.
                let _ = self.swarm.disconnect_peer_id(peer.id());
            }
            Report::Store { root, error } => {
                if self.net.exchange.downloads.get(&root).is_some() {
                    self.end_download(&root, &Err(FetchError::Store(error)));
                    self.schedule(Event::Unwant { root });
                }
            }
        }
    }

    /// Tells the scheduler something, and does what it then wants done.
    pub(super) fn schedule(&mut self, event: Event<PeerKey>) {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        // What cannot be done is an event in turn; it makes no more of its kind.
        while let Some(event) = events.pop_front() {
            let exchange = &mut self.net.exchange;
            exchange.scheduler.handle(exchange.start.elapsed(), event, &mut actions);
            for action in actions.drain(..) {
                self.perform_piece(action, &mut events);
            }
        }
    }

    fn perform_piece(&mut self, action: Action<PeerKey>, events: &mut VecDeque<Event<PeerKey>>) {
        match action {
            Action::Ask { peer, blob } => self.wish(peer, Wish::Want(blob)),
            Action::Leave { peer, root } => self.wish(peer, Wish::Unwant(root)),
            Action::Request { request, peer, blob, class, groups } => {
                let partial = self.net.exchange.downloads.partial(&blob.root).cloned();
                let sent = partial.is_some_and(|partial| {
                    let order = Order::Request { request, groups, partial };
                    self.fetcher(peer, class).send(order)
                });
                if !sent {
                    // Far behind, or broken: the next request finds a new one.
                    self.ends.fetchers.remove(&(peer, class));
                    events.push_back(Event::Failed { request });
                }
            }
            Action::Cancel { request, peer } => {
                for class in Class::ALL {
                    if let Some(fetcher) = self.ends.fetchers.get(&(peer, class)) {
                        // Without room its answer comes: late, and no harm.
                        fetcher.send(Order::Cancel { request });
                    }
                }
            }
            Action::Dial { peer } => self.dial_peer(peer),
            Action::Punish { peer, root, why: Misdeed::WrongBytes } => {
                self.ban(peer, &format!("wrong bytes for blob {root}"));
            }
            Action::Punish { peer, root, why: Misdeed::FalseHoldings } => {
                self.note(&root, || tracing::debug!(%peer, "it does not hold what it says"));
            }
            Action::Complete { root } => self.complete(root, events),
            Action::Stuck { root } => {
                self.note(&root, || tracing::debug!("nobody at hand has what is missing"));
                if let Some(download) = self.net.exchange.downloads.get(&root) {
                    // A uid's peer may be known by now.
                    events.push_back(Event::Sources { root, peers: self.sources(download) });
                }
            }
            Action::Refused { blob, why } => self.refused(blob, why),
        }
    }

    /// All of a blob came: the store has the last word.
    fn complete(&mut self, root: Digest, events: &mut VecDeque<Event<PeerKey>>) {
        let downloads = &self.net.exchange.downloads;
        let (Some(download), Some(partial)) = (downloads.get(&root), downloads.partial(&root)) else { return };
        let (blob, class, held) = (download.blob, download.class, partial.held());
        if held.is_full() {
            downloads.tell(&root, whole(blob, class, &held));
            return self.end_download(&root, &Ok(()));
        }
        download.span.in_scope(|| tracing::debug!(?held, "pieces are missing after all"));
        let sources = self.sources(download);
        events.push_back(Event::Want { blob, class, held, sources });
    }

    fn refused(&mut self, blob: BlobRef, why: Refusal) {
        let root = blob.root;
        let error = match why {
            Refusal::TooLarge { size } => FetchError::TooLarge { root, size, limit: PIECED_BLOB_BYTES_MAX },
            Refusal::TooMuch { blobs, .. } => FetchError::TooMany(blobs),
            Refusal::OtherSize { size } => FetchError::TwoSizes { root, named: blob.size, other: size },
        };
        self.end_download(&root, &Err(error));
    }

    fn wish(&mut self, peer: PeerKey, wish: Wish) {
        let exchange = &mut self.net.exchange;
        let asker = self.ends.askers.entry(peer).or_insert_with(|| {
            let (asker, task) = Asker::new(exchange.env.clone(), peer);
            exchange.tasks.spawn(task);
            asker
        });
        if !asker.send(wish) {
            // It is far behind: what it was told is asked anew when the peer is next connected.
            tracing::debug!(%peer, "a link for holdings is given up");
            self.ends.askers.remove(&peer);
        }
    }

    fn fetcher(&mut self, peer: PeerKey, class: Class) -> &Fetcher {
        let exchange = &mut self.net.exchange;
        self.ends.fetchers.entry((peer, class)).or_insert_with(|| {
            let (fetcher, task) = Fetcher::new(exchange.env.clone(), peer, class);
            exchange.tasks.spawn(task);
            fetcher
        })
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

/// A link's task ended. Not by a peer's doing if by a panic.
pub(super) fn log(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a link of the exchange broke; please report this");
    }
}

/// Until then; for ever without.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
