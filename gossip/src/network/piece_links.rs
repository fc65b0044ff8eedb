//! The streams of pieces, seen from the network's task: a task each, by the peer at its other end, and the channels on which
//! they report.

use crate::config::Limits;
use crate::links::{Asker, Env, FetchOrder, Fetcher, OpenStream, Report, Serving, StreamOpened};
use crate::peers::PeerKey;
use crate::shared::Shared;
use covey_exchange::Class;
use covey_exchange::frames::Wish;
use covey_exchange::scheduler::RequestId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Batches of reports that wait for the network's task; the links wait beyond.
const REPORTS_MAX: usize = 256;
/// Streams that wait to be opened; the links wait beyond.
const OPENS_MAX: usize = 256;

/// What all links use, and those of this life of the network.
pub(super) struct PieceLinks {
    env: Arc<Env>,
    pub(super) reports: mpsc::Receiver<Vec<Report>>,
    pub(super) opens: mpsc::Receiver<(PeerKey, OpenStream)>,
    /// Links and their like. They end when their streams do, or their orders.
    pub(super) tasks: JoinSet<()>,
    askers: HashMap<PeerKey, Asker>,
    fetchers: HashMap<(PeerKey, Class), Fetcher>,
}

impl PieceLinks {
    pub(super) fn new(limits: &Limits, shared: &Arc<Shared>) -> PieceLinks {
        let serving = Serving::new(shared.clone(), limits.governor.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(serving.clone().keep_time());
        let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
        let (opens_out, opens) = mpsc::channel(OPENS_MAX);
        let env = Arc::new(Env::new(shared.clone(), serving, limits.links.clone(), reports_out, opens_out));
        PieceLinks { env, reports, opens, tasks, askers: HashMap::new(), fetchers: HashMap::new() }
    }

    /// For another life of the network: nobody hears the links of the former one, whose requests mean nothing to this one.
    pub(super) fn renew(&mut self) {
        let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
        let (opens_out, opens) = mpsc::channel(OPENS_MAX);
        let Env { shared, serving, limits, .. } = &*self.env;
        let env = Env::new(shared.clone(), serving.clone(), limits.clone(), reports_out, opens_out);
        (self.env, self.reports, self.opens) = (Arc::new(env), reports, opens);
        self.askers.clear();
        self.fetchers.clear();
    }

    /// Ends what runs, and returns once nothing of it uses the store.
    pub(super) async fn close(&mut self) {
        self.reports.close();
        self.opens.close();
        self.tasks.shutdown().await;
        self.env.serving.quiesce().await;
    }

    /// Counts bytes that are sent otherwise against the node's rate of sending.
    pub(super) fn charge(&self, bytes: u64) {
        self.env.serving.charge(bytes);
    }

    /// A peer opened a stream: it is served.
    pub(super) fn serve(&mut self, opened: StreamOpened) {
        self.tasks.spawn(crate::links::serve(self.env.clone(), opened.peer, opened.stream));
    }

    /// A peer is gone.
    pub(super) fn forget(&mut self, peer: &PeerKey) {
        self.askers.remove(peer);
        self.fetchers.retain(|(other, _), _| other != peer);
    }

    /// Tells a peer what is wanted of it. A link that is far behind is given up: what it was told is asked anew when the
    /// peer is next connected.
    pub(super) fn wish(&mut self, peer: PeerKey, wish: Wish) {
        let PieceLinks { env, tasks, askers, .. } = self;
        let asker = askers.entry(peer).or_insert_with(|| {
            let (asker, task) = Asker::new(env.clone(), peer);
            tasks.spawn(task);
            asker
        });
        if !asker.send(wish) {
            tracing::debug!(%peer, "a link for holdings is given up");
            self.askers.remove(&peer);
        }
    }

    /// Asks a peer for pieces. False if its link is far behind, or broken: the next request finds a new one.
    pub(super) fn request(&mut self, peer: PeerKey, class: Class, order: FetchOrder) -> bool {
        let PieceLinks { env, tasks, fetchers, .. } = self;
        let fetcher = fetchers.entry((peer, class)).or_insert_with(|| {
            let (fetcher, task) = Fetcher::new(env.clone(), peer, class);
            tasks.spawn(task);
            fetcher
        });
        let sent = fetcher.send(order);
        if !sent {
            self.drop_fetcher(peer, class);
        }
        sent
    }

    /// The next request of this class to this peer finds a new link.
    pub(super) fn drop_fetcher(&mut self, peer: PeerKey, class: Class) {
        self.fetchers.remove(&(peer, class));
    }

    /// Takes a request back. Without room in its link its answer comes: late, and no harm.
    pub(super) fn cancel(&self, peer: PeerKey, request: RequestId) {
        for class in Class::ALL {
            if let Some(fetcher) = self.fetchers.get(&(peer, class)) {
                fetcher.send(FetchOrder::Cancel { request });
            }
        }
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
