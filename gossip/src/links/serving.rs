//! Carries out what the governor decides: reads answers beside the runtime, hands grants to the streams' tasks.
//!
//! Whoever tells the governor something asks it at once what is next, under one lock that is never held for longer than it
//! takes to say so: the task that has just written 64 KiB mostly grants itself the next, without waking another.

use crate::peers::PeerKey;
use crate::shared::Shared;
use covey_exchange::Class;
use covey_exchange::frames::{self, Answer, Frame, Reject};
use covey_exchange::governor::{Asked, Cancelled, Governor, GovernorLimits, Next, Rank, Refused, Ticket};
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use covey_proto::pieces::Pieces;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, Semaphore};

/// Answers being read: more than the governor ever allows at once.
const READS_MAX: u32 = 4096;
/// Pieces of which it is remembered who was promised them first: 16 GiB of them, in some 2 MiB. All are then forgotten,
/// which makes some repeats look new.
const FIRST_MAX: usize = 16 * 1024;
/// Buffers that a stream keeps for its next answers.
const SPARE_MAX: usize = 2;

/// An answer in memory: its frame's head, then its bytes.
pub(super) type Buffer = Vec<u8>;
/// Bytes of a PIECE before those that were asked for.
pub(super) const HEAD_BYTES: usize = 9;

/// What the two halves of a stream's task, and the governor, leave for its writer.
pub(super) struct Outbox {
    peer: PeerKey,
    class: Class,
    state: Mutex<OutboxState>,
    pub(super) bell: Notify,
}

#[derive(Default)]
struct OutboxState {
    /// Requests that are open, by their number.
    tickets: HashMap<u32, Ticket>,
    rejects: VecDeque<(u32, Reject)>,
    ready: HashMap<Ticket, (u32, Buffer)>,
    grants: VecDeque<(Ticket, usize)>,
    spare: Vec<Buffer>,
}

/// What the writer does next.
pub(super) enum Turn {
    Reject(u32, Reject),
    /// So many bytes of this answer.
    Grant(Ticket, usize),
}

impl Outbox {
    pub(super) fn new(peer: PeerKey, class: Class) -> Arc<Outbox> {
        Arc::new(Outbox { peer, class, state: Mutex::default(), bell: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reject(&self, id: u32, why: Reject) {
        self.state().rejects.push_back((id, why));
        self.bell.notify_one();
    }

    /// Refusals that the peer has not read.
    pub(super) fn rejects(&self) -> usize {
        self.state().rejects.len()
    }

    /// The next thing to write. `within`: an answer is begun, and nothing may come between.
    pub(super) fn turn(&self, within: bool) -> Option<Turn> {
        let mut state = self.state();
        if !within && let Some((id, why)) = state.rejects.pop_front() {
            return Some(Turn::Reject(id, why));
        }
        state.grants.pop_front().map(|(ticket, bytes)| Turn::Grant(ticket, bytes))
    }

    /// An answer that was granted for the first time.
    pub(super) fn take(&self, ticket: Ticket) -> Option<Buffer> {
        self.state().ready.remove(&ticket).map(|(_, buffer)| buffer)
    }

    /// An answer is written: its request is over, its buffer serves the next.
    pub(super) fn written(&self, ticket: Ticket, buffer: Buffer) {
        let mut state = self.state();
        state.tickets.retain(|_, other| *other != ticket);
        if state.spare.len() < SPARE_MAX {
            state.spare.push(buffer);
        }
    }

    pub(super) fn is_open(&self, id: u32) -> bool {
        self.state().tickets.contains_key(&id)
    }
}

struct Answering {
    outbox: Arc<Outbox>,
    asked: frames::Asked,
}

struct ServingState {
    governor: Governor<PeerKey>,
    jobs: HashMap<Ticket, Answering>,
    /// To whom a piece was promised first.
    first: HashMap<(Digest, u32), PeerKey>,
    /// When the governor wants to be asked again.
    wake: Option<Instant>,
}

impl ServingState {
    /// Whether another peer was promised the same piece before: then others of this one's requests go first, so that a
    /// node which alone has a blob gives all of it away once before it gives anything twice.
    fn is_repeat(&mut self, peer: PeerKey, asked: &frames::Asked) -> bool {
        let Some(pieces) = Pieces::of_blob(&asked.blob) else { return false };
        if self.first.len() >= FIRST_MAX {
            self.first.clear();
        }
        *self.first.entry((asked.blob.root, pieces.piece_of(asked.groups.start))).or_insert(peer) != peer
    }
}

/// All answers that wait or are under way.
pub(crate) struct Serving {
    shared: Arc<Shared>,
    state: Mutex<ServingState>,
    timer: Notify,
    reads: Arc<Semaphore>,
}

impl Serving {
    pub(crate) fn new(shared: Arc<Shared>, limits: GovernorLimits) -> Arc<Serving> {
        let governor = Governor::new(limits, Instant::now());
        let state = Mutex::new(ServingState { governor, jobs: HashMap::new(), first: HashMap::new(), wake: None });
        Arc::new(Serving { shared, state, timer: Notify::new(), reads: Arc::new(Semaphore::new(READS_MAX as usize)) })
    }

    /// Counts bytes that are sent elsewhere against the node's rate of sending.
    pub(crate) fn charge(&self, bytes: u64) {
        self.state().governor.charge(bytes, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, ServingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the governor when it wants to be. To be run as a task, for ever.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let wake = self.state().wake;
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.pump(),
                () = self.timer.notified() => {}
            }
        }
    }

    /// Returns once nothing is being read any more; what wants to be read then is not.
    pub(crate) async fn quiesce(&self) {
        if let Ok(all) = self.reads.acquire_many(READS_MAX).await {
            all.forget();
        }
    }

    fn rank(&self, peer: &PeerKey) -> Rank {
        if self.shared.is_stranger(peer) { Rank::Stranger } else { Rank::Member }
    }

    /// Takes a request in.
    pub(super) fn enqueue(self: &Arc<Self>, outbox: &Arc<Outbox>, asked: frames::Asked) -> Result<(), Refused> {
        let rank = self.rank(&outbox.peer);
        let bytes = asked.answer_bytes() as u64;
        {
            let mut state = self.state();
            let repeat = state.is_repeat(outbox.peer, &asked);
            let request = Asked { rank, class: outbox.class, bytes, repeat };
            let ticket = state.governor.enqueue(outbox.peer, request)?;
            outbox.state().tickets.insert(asked.id, ticket);
            state.jobs.insert(ticket, Answering { outbox: outbox.clone(), asked });
        }
        self.shared.traffic.piece_answers_open.add(1);
        self.pump();
        Ok(())
    }

    /// Takes a request back, if it is not being answered yet.
    pub(super) fn cancel(self: &Arc<Self>, outbox: &Outbox, id: u32) {
        let Some(ticket) = outbox.state().tickets.get(&id).copied() else { return };
        let cancelled = self.state().governor.cancel(ticket);
        if cancelled == Cancelled::Dropped {
            self.forget(ticket);
            outbox.state().tickets.remove(&id);
            outbox.state().ready.remove(&ticket);
            outbox.reject(id, Reject::Cancelled);
            self.pump();
        }
    }

    /// Bytes of a grant are written; whether they were the answer's last.
    pub(super) fn written(self: &Arc<Self>, ticket: Ticket, bytes: usize) -> bool {
        let last = self.state().governor.written(ticket, bytes as u64);
        if last {
            self.forget(ticket);
        }
        self.pump();
        last
    }

    /// A stream has ended, with all its requests.
    pub(super) fn gone(self: &Arc<Self>, outbox: &Outbox) {
        let tickets: Vec<Ticket> = outbox.state().tickets.drain().map(|(_, ticket)| ticket).collect();
        for ticket in tickets {
            self.state().governor.drop_ticket(ticket);
            self.forget(ticket);
        }
        self.pump();
    }

    fn forget(&self, ticket: Ticket) {
        if self.state().jobs.remove(&ticket).is_some() {
            self.shared.traffic.piece_answers_open.sub(1);
        }
    }

    /// Does what the governor wants done.
    fn pump(self: &Arc<Self>) {
        let mut state = self.state();
        loop {
            match state.governor.next(Instant::now()) {
                Next::Read { ticket } => {
                    let job = state.jobs.get(&ticket).map(|job| (job.outbox.clone(), job.asked.clone()));
                    let (Some((outbox, asked)), Ok(place)) = (job, self.reads.clone().try_acquire_owned()) else {
                        // Only when the node is about to stop: nobody is told.
                        state.governor.failed(ticket);
                        continue;
                    };
                    let serving = self.clone();
                    tokio::task::spawn_blocking(move || {
                        serving.read(ticket, &outbox, &asked);
                        // The store goes before the place that says so.
                        drop((serving, outbox));
                        drop(place);
                    });
                }
                Next::Grant { ticket, bytes } => {
                    if let Some(job) = state.jobs.get(&ticket) {
                        job.outbox.state().grants.push_back((ticket, bytes as usize));
                        job.outbox.bell.notify_one();
                    }
                }
                Next::WaitUntil(at) => {
                    if state.wake.replace(at) != Some(at) {
                        self.timer.notify_one();
                    }
                    return;
                }
                Next::Idle => {
                    state.wake = None;
                    return;
                }
            }
        }
    }

    /// Reads an answer into memory, checked against its blob's name.
    fn read(self: &Arc<Self>, ticket: Ticket, outbox: &Arc<Outbox>, asked: &frames::Asked) {
        let mut buffer = outbox.state().spare.pop().unwrap_or_default();
        buffer.clear();
        if self.fill(&mut buffer, asked.id, &asked.blob, asked.groups.clone()) {
            outbox.state().ready.insert(ticket, (asked.id, buffer));
            if !self.state().governor.ready(ticket) {
                outbox.state().ready.remove(&ticket);
            }
        } else if self.state().governor.failed(ticket) {
            self.forget(ticket);
            outbox.state().tickets.remove(&asked.id);
            outbox.reject(asked.id, Reject::NotHeld);
        }
        self.pump();
    }

    fn fill(&self, buffer: &mut Buffer, id: u32, blob: &BlobRef, groups: Range<u64>) -> bool {
        let bytes = frames::Asked { id, blob: *blob, groups: groups.clone() }.answer_bytes();
        buffer.reserve(HEAD_BYTES + bytes);
        Answer::Piece { id, bytes }.encode(buffer);
        if let Err(error) = self.shared.store.public().encode(blob, groups, buffer) {
            // Whoever asks decides how often: the store says it louder where a person should look.
            tracing::debug!(blob = %blob.root, %error, "a piece cannot be served");
            return false;
        }
        if self.shared.lies.load(Ordering::Relaxed)
            && let Some(last) = buffer.last_mut()
        {
            *last ^= 1;
        }
        buffer.len() == HEAD_BYTES + bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;
    use covey_proto::pieces::PIECE_BYTES;

    /// A request for the first group of a piece of a blob that has four.
    fn asked(id: u32, piece: u64) -> frames::Asked {
        let blob = BlobRef { root: Digest::of(b"blob"), size: 4 * PIECE_BYTES };
        frames::Asked { id, blob, groups: piece * 16..piece * 16 + 1 }
    }

    fn outbox(peer: u8) -> Arc<Outbox> {
        Outbox::new(test_peer(peer), Class::Round)
    }

    #[test]
    fn nothing_comes_between_the_grants_of_an_answer_and_refusals_come_before_the_next() {
        let mut governor = Governor::new(GovernorLimits::default(), Instant::now());
        let request = Asked { rank: Rank::Member, class: Class::Round, bytes: 30, repeat: false };
        let ticket = governor.enqueue(test_peer(1), request).unwrap();
        let outbox = outbox(1);
        outbox.state().grants.extend([(ticket, 10), (ticket, 20)]);
        outbox.reject(8, Reject::NotHeld);
        assert!(matches!(outbox.turn(true), Some(Turn::Grant(_, 10))));
        assert!(matches!(outbox.turn(false), Some(Turn::Reject(8, Reject::NotHeld))));
        assert!(matches!(outbox.turn(false), Some(Turn::Grant(_, 20))));
        assert!(outbox.turn(false).is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_and_a_stream_that_ends_leaves_nothing_open() {
        let dir = tempfile::tempdir().unwrap();
        let shared = test_shared(dir.path());
        let serving = Serving::new(shared.clone(), GovernorLimits::default());
        let (one, other) = (outbox(1), outbox(2));
        serving.enqueue(&one, asked(1, 0)).unwrap();
        // The store does not have the blob.
        one.bell.notified().await;
        assert!(matches!(one.turn(false), Some(Turn::Reject(1, Reject::NotHeld))) && !one.is_open(1));
        serving.quiesce().await;
        assert!(serving.state().jobs.is_empty());
        serving.enqueue(&other, asked(2, 0)).unwrap();
        serving.gone(&other);
        assert!(!other.is_open(2) && serving.state().jobs.is_empty());
    }

    #[test]
    fn a_piece_that_another_peer_was_promised_is_a_repeat_and_the_own_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let serving = Serving::new(test_shared(dir.path()), GovernorLimits::default());
        let mut state = serving.state();
        let [one, other] = [1, 2].map(test_peer);
        assert!(!state.is_repeat(one, &asked(1, 0)) && !state.is_repeat(one, &asked(2, 0)));
        assert!(state.is_repeat(other, &asked(1, 0)) && !state.is_repeat(other, &asked(2, 1)));
        assert!(state.is_repeat(one, &asked(3, 1)));
    }
}
