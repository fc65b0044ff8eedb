//! The face of a node: what others ask of it. Cheap to clone; the network's task does the work.

use crate::command::{Command, PublishError, Published};
use crate::downloads::Waiter;
use crate::event::{Ticket, Verdict};
use crate::metrics::{self, Gauges, PeerInfo, StoreGauges};
use crate::peers::PeerKey;
use crate::peers::way::Way;
use crate::shared::Shared;
use crate::small::terms::{FetchError, Fetched, Hint, Size};
use crate::store::{Store, StoreError};
use crate::traffic::Traffic;
use covey_exchange::Class;
use covey_exchange::scheduler::Progress;
use covey_proto::blob::BlobRef;
use covey_proto::chain::ChainView;
use covey_proto::message::{ANNOUNCEMENT_BYTES_MAX, BLOB_BYTES_MAX, SignedPeerRecord};
use covey_proto::pieces::{PIECE_BYTES, PIECED_BLOB_BYTES_MAX};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round, Uid};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

/// States that a node says it holds: the newest two, and two on their way. Others keep no more keys of one peer.
const PROVIDED_MAX: usize = 4;

/// A running node. Clones share it; it stops when the last one goes, or at [`Handle::shutdown`].
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Who this node is to its peers.
    pub fn peer_id(&self) -> PeerKey {
        self.shared.peer
    }

    /// Where it listens: multiaddrs with `/p2p/ID`.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.addresses().clone()
    }

    /// The blob store that it serves from. Its operations block.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Gossips an announcement on the run's gradient topic. Delivery is best effort: [`Handle::remember`] it as well.
    ///
    /// # Errors
    /// [`PublishError::NoPeers`] is usual in a node's first moments.
    pub async fn publish(&self, announcement: Vec<u8>) -> Result<Published, PublishError> {
        let got = announcement.len();
        if got > ANNOUNCEMENT_BYTES_MAX {
            return Err(PublishError::TooLarge { got, limit: ANNOUNCEMENT_BYTES_MAX });
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { bytes: announcement, reply };
        self.commands.send(command).await.map_err(|_| PublishError::Closed)?;
        answer.await.map_err(|_| PublishError::Closed)?
    }

    /// Keeps an announcement that was checked, for peers that missed it. The oldest rounds make room.
    pub fn remember(&self, round: Round, uid: Uid, announcement: Vec<u8>) {
        self.shared.announcements().remember(round, uid, announcement);
    }

    /// Asks several connected peers for a round's announcements, but for those of `have`. Each different one is
    /// returned once, with a peer that gave it; none of them is checked. Empty if nobody had any in time.
    pub async fn announcements(&self, round: Round, have: UidSet) -> Vec<(PeerKey, Vec<u8>)> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Pull { round, have, reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// A blob of known size: from the store, or from peers. What comes is checked and stored (as
    /// [`Durability::Buffered`](crate::store::Durability::Buffered): pinning brings it to the disk) before it is returned.
    /// One above 1 MiB is [downloaded](Handle::download) as [`Class::Round`], and read when it is whole: what is too large
    /// for memory is for [`Handle::download`] itself.
    ///
    /// Cancel safe: other fetches of the blob go on, and what came is stored or lost.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, blob: BlobRef, hints: &[Hint], timeout: Duration) -> Result<Arc<[u8]>, FetchError> {
        self.fetch_as(blob, Class::Round, hints, timeout).await
    }

    /// [`Handle::fetch`] of a blob that is not of the current round: others are served first where a line is full.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_as(
        &self,
        blob: BlobRef,
        class: Class,
        hints: &[Hint],
        timeout: Duration,
    ) -> Result<Arc<[u8]>, FetchError> {
        if blob.size <= PIECE_BYTES {
            return self.fetch_size(blob.root, Size::Exactly(blob.size), hints, timeout).await;
        }
        self.download(blob, class, hints, timeout, |_| ()).await?;
        match self.stored(blob.root).await? {
            Some(bytes) => Ok(bytes),
            // Evicted, or damaged, in the moment since.
            None => Err(FetchError::Store(Arc::new(StoreError::Missing(blob.root)))),
        }
    }

    /// Brings a blob of known size into the store, from as many peers at once as have it, and serves on what it has
    /// meanwhile. What was there before is not fetched again. `progress` is told some ten times a second how it stands.
    ///
    /// Cancel safe: what came stays in the store, as long as there is room, and the next download goes on from there.
    ///
    /// # Errors
    /// See [`FetchError`]; a store that is full or broken ends this download and no other.
    pub async fn download(
        &self,
        blob: BlobRef,
        class: Class,
        hints: &[Hint],
        timeout: Duration,
        progress: impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        let (root, size) = (blob.root, blob.size);
        if size > PIECED_BLOB_BYTES_MAX {
            return Err(FetchError::TooLarge { root, size, limit: PIECED_BLOB_BYTES_MAX });
        }
        match self.shared.store.size(&root) {
            Some(got) if got != size => return Err(FetchError::Size { root, named: size, got }),
            Some(_) => return Ok(()),
            None if size <= PIECE_BYTES => {
                return self.fetch_size(root, Size::Exactly(size), hints, timeout).await.map(drop);
            }
            None => {}
        }
        let span = tracing::debug_span!("download", blob = %root, size, ?class);
        self.download_pieces(blob, class, hints, timeout, progress).instrument(span).await
    }

    async fn download_pieces(
        &self,
        blob: BlobRef,
        class: Class,
        hints: &[Hint],
        timeout: Duration,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        let start = Instant::now();
        let (reply, mut answer) = oneshot::channel();
        let (told, mut news) = watch::channel(None);
        let waiter = Waiter { deadline: start + timeout, reply, progress: told, span: tracing::Span::current() };
        let command = Command::Download { blob, class, hints: hints.to_vec(), waiter };
        self.commands.send(command).await.map_err(|_| FetchError::Closed)?;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut answer => break result.map_err(|_| FetchError::Closed)?,
                Ok(()) = news.changed() => {
                    if let Some(now) = *news.borrow_and_update() {
                        progress(now);
                    }
                }
            }
        };
        // The last word, if nobody heard it.
        if result.is_ok()
            && let Some(now) = *news.borrow_and_update()
        {
            progress(now);
        }
        self.shared.traffic.fetched(&result);
        let took_ms = start.elapsed().as_millis();
        tracing::debug!(took_ms, error = result.as_ref().err().map(tracing::field::display), "downloaded");
        result
    }

    /// A blob of which only the name is known, and that it is at most `size_max` bytes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_unsized(
        &self,
        root: Digest,
        size_max: u64,
        hints: &[Hint],
        timeout: Duration,
    ) -> Result<Arc<[u8]>, FetchError> {
        self.fetch_size(root, Size::AtMost(size_max.min(BLOB_BYTES_MAX as u64)), hints, timeout).await
    }

    async fn fetch_size(&self, root: Digest, size: Size, hints: &[Hint], timeout: Duration) -> Fetched {
        let deadline = Instant::now() + timeout;
        if size.most() > BLOB_BYTES_MAX as u64 {
            return Err(FetchError::TooLarge { root, size: size.most(), limit: BLOB_BYTES_MAX as u64 });
        }
        if let Some(bytes) = self.stored(root).await? {
            let got = bytes.len() as u64;
            return if size.admits(got) { Ok(bytes) } else { Err(FetchError::Size { root, named: size.most(), got }) };
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Fetch { root, size, hints: hints.to_vec(), deadline, reply };
        let fetch = async {
            self.commands.send(command).await.map_err(|_| FetchError::Closed)?;
            answer.await.map_err(|_| FetchError::Closed)?
        };
        fetch.instrument(tracing::debug_span!("fetch", blob = %root, size = size.most())).await
    }

    async fn stored(&self, root: Digest) -> Result<Option<Arc<[u8]>>, FetchError> {
        if !self.shared.store.has(&root) {
            return Ok(None);
        }
        let store = self.shared.store.clone();
        let read = tokio::task::spawn_blocking(move || store.get(&root)).await.map_err(|_| FetchError::Closed)?;
        read.map(|bytes| bytes.map(Arc::from)).map_err(|error| FetchError::Store(Arc::new(error)))
    }

    /// Sets the own peer record: shown to every peer, and gossiped. Sign one anew before it expires.
    pub fn set_record(&self, record: SignedPeerRecord) {
        self.shared.book().set_own(record);
        self.shared.bell.record_changed();
    }

    /// Tells who is a member, from the chain. Bindings that do not hold any more end; waiting ones begin.
    pub fn set_members(&self, view: Arc<ChainView>) {
        let changes = self.shared.book().set_view(view);
        self.shared.bell.view_changed(changes);
    }

    /// The peers that are connected.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let connected = self.shared.connected().clone();
        let book = self.shared.book();
        let info = connected.into_iter().map(|(peer, seen)| PeerInfo {
            peer,
            uid: book.uid_of(&peer),
            direct: seen.way == Way::Direct,
            addresses: seen.addresses,
            rtt: seen.rtt,
            score: seen.score,
            up: seen.rate.up(),
            down: seen.rate.down(),
            in_mesh: seen.in_mesh,
            connected: seen.since.elapsed(),
        });
        info.collect()
    }

    /// How the network stands: as of its last look, half a second ago at most.
    pub fn gauges(&self) -> Gauges {
        *self.shared.gauges()
    }

    /// All counters and gauges in Prometheus' text format (`text/plain; version=0.0.4`). A few kilobytes; no peer's name.
    pub fn metrics(&self) -> String {
        let store = &self.shared.store;
        let store = StoreGauges { bytes: store.bytes(), quota: store.quota(), partial: store.partial_blobs() };
        metrics::render(&self.traffic(), &self.gauges(), &store, self.congestion().as_deref())
    }

    /// The peer that speaks for a uid, connected or not.
    pub fn peer_of(&self, uid: Uid) -> Option<PeerKey> {
        self.shared.book().peer_of(uid)
    }

    /// The uid that a peer speaks for.
    pub fn uid_of(&self, peer: &PeerKey) -> Option<Uid> {
        self.shared.book().uid_of(peer)
    }

    /// What was sent and received so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.read()
    }

    /// The congestion control that the newest TCP connection runs, as the kernel says; none before the first connection.
    pub fn congestion(&self) -> Option<String> {
        self.shared.congestion.name()
    }

    /// Says by Kademlia that this node holds the state of this root, from now on each ten minutes, until
    /// [`Handle::stop_providing`]. At most four: the one that was named first makes room. Others forget it half an hour
    /// after it was last said. Members say by themselves that they take part in the run.
    pub fn provide(&self, state: Digest) {
        let mut provided = self.shared.provided();
        provided.retain(|other| *other != state);
        provided.push_back(state);
        if provided.len() > PROVIDED_MAX {
            provided.pop_front();
        }
    }

    /// Ceases to say that this node holds a state.
    pub fn stop_providing(&self, state: Digest) {
        self.shared.provided().retain(|other| *other != state);
    }

    /// Peers that are said to hold the state of this root: hints for a fetch, which dials them. Members first, then from
    /// as many networks as there are; at most 64. Nothing is believed of them but where they may be dialled, and nobody
    /// need answer: empty if nobody did within 20 seconds.
    ///
    /// Cancel safe: the look-up goes on, and what it finds is dialled if a fetch names it.
    pub async fn providers(&self, state: Digest) -> Vec<PeerKey> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Providers { state, reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Judges an announcement that gossip brought.
    pub fn judge(&self, ticket: Ticket, verdict: Verdict) {
        ticket.judge(verdict);
    }

    /// Refuses a peer for a while: for what only the node can see, such as a pulled announcement that is false.
    pub async fn ban(&self, peer: PeerKey) {
        // A network that is shut down has no peers to refuse.
        let _ = self.commands.send(Command::Ban { peer }).await;
    }

    /// Ends the network; its events end, and everything else of it returns errors. Returns once sockets are closed and
    /// files written.
    pub async fn shutdown(self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown { reply }).await.is_ok() {
            // An error means that it has ended otherwise.
            let _ = done.await;
        }
    }

    /// A fault on purpose, for tests and swarms: from now on blobs are served with a bit flipped, or not any more.
    #[doc(hidden)]
    pub fn lie(&self, lies: bool) {
        self.shared.lies.store(lies, Ordering::Relaxed);
    }

    /// A fault on purpose, for the test of what rebuilds the network: its task panics. Not in a release.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub async fn panic_network(&self) {
        let _ = self.commands.send(Command::Panic).await;
    }
}
