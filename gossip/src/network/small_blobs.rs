//! Fetches of small blobs: between those who wait, the machine that decides (`small/fetch.rs`), and the store. It outlives
//! a fault.

use super::effects::{Effect, Effects};
use super::jobs::{Job, Jobs};
use super::requests::Purpose;
use crate::peers::PeerKey;
use crate::shared::Shared;
use crate::small::codec::{Ask, blob_answer_bytes};
use crate::small::fetch::{AskId, FetchAction, FetchEvent, Fetches, Reach, WaiterId};
use crate::small::terms::{FetchLimits, Fetched, Hint, Size};
use crate::store::Durability;
use covey_proto::Digest;
use covey_proto::message::Request;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Who is connected, and where what is wanted goes.
pub(super) struct FetchMeans<'a> {
    pub(super) connected: &'a BTreeSet<PeerKey>,
    pub(super) jobs: &'a mut Jobs,
    pub(super) effects: &'a mut Effects,
}

/// What somebody here wants.
pub(super) struct SmallWant {
    pub(super) root: Digest,
    pub(super) size: Size,
    pub(super) hints: Vec<Hint>,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Fetched>,
}

pub(super) struct SmallBlobs {
    shared: Arc<Shared>,
    fetches: Fetches,
    waiters: HashMap<WaiterId, oneshot::Sender<Fetched>>,
    waiters_made: u64,
}

impl SmallBlobs {
    pub(super) fn new(shared: Arc<Shared>, limits: FetchLimits) -> SmallBlobs {
        SmallBlobs { shared, fetches: Fetches::new(limits), waiters: HashMap::new(), waiters_made: 0 }
    }

    /// Whether nothing is being fetched.
    pub(super) fn is_idle(&self) -> bool {
        self.fetches.is_idle()
    }

    pub(super) fn want(&mut self, want: SmallWant, means: FetchMeans<'_>) {
        let SmallWant { root, size, hints, deadline, reply } = want;
        self.waiters_made += 1;
        let waiter = WaiterId(self.waiters_made);
        self.waiters.insert(waiter, reply);
        self.tell(FetchEvent::Want { waiter, root, size, hints, deadline }, means);
    }

    /// Time passes: forgets those that wait no longer.
    pub(super) fn tick(&mut self, means: &mut FetchMeans<'_>) {
        let abandoned: Vec<WaiterId> =
            self.waiters.iter().filter(|(_, reply)| reply.is_closed()).map(|(waiter, _)| *waiter).collect();
        for waiter in abandoned {
            self.waiters.remove(&waiter);
            self.tell(FetchEvent::Cancel { waiter }, means.again());
        }
        if !self.fetches.is_idle() {
            self.tell(FetchEvent::Tick, means.again());
        }
    }

    /// A peer gave a blob, with the hash of what came.
    pub(super) fn came(&mut self, ask: AskId, bytes: Vec<u8>, digest: Digest, means: FetchMeans<'_>) {
        let size = bytes.len();
        let actions = self.decide(FetchEvent::Blob { ask, bytes, digest }, means.connected);
        let traffic = &self.shared.traffic;
        let tally = if actions.iter().any(|action| matches!(action, FetchAction::Store { .. })) {
            &traffic.blobs_in
        } else if actions.iter().any(|action| matches!(action, FetchAction::Punish { .. })) {
            &traffic.blobs_wrong
        } else {
            &traffic.blobs_surplus
        };
        tally.add(size);
        self.perform(actions, means);
    }

    /// Tells the fetches something, and does what they then want done.
    pub(super) fn tell(&mut self, event: FetchEvent, means: FetchMeans<'_>) {
        let actions = self.decide(event, means.connected);
        self.perform(actions, means);
    }

    fn decide(&mut self, event: FetchEvent, connected: &BTreeSet<PeerKey>) -> Vec<FetchAction> {
        let mut actions = Vec::new();
        let book = self.shared.book();
        let peer_of = |uid| book.likely_peer_of(uid);
        self.fetches.handle(Instant::now(), event, &Reach { connected, peer_of: &peer_of }, &mut actions);
        actions
    }

    fn perform(&mut self, actions: Vec<FetchAction>, means: FetchMeans<'_>) {
        for action in actions {
            match action {
                FetchAction::Ask { ask, peer, root, bytes_max } => {
                    let request = Ask { request: Request::Blob(root), answer_bytes_max: blob_answer_bytes(bytes_max) };
                    means.effects.push_back(Effect::ask(peer, request, Purpose::Blob(ask)));
                }
                FetchAction::Dial { peer } => means.effects.push_back(Effect::Dial { peer }),
                FetchAction::Punish { peer, root } => {
                    means.effects.push_back(Effect::Ban { peer, why: format!("wrong bytes for blob {root}") });
                }
                FetchAction::Finish { waiter, result } => {
                    self.shared.traffic.fetched(&result);
                    if let Some(reply) = self.waiters.remove(&waiter) {
                        // Whoever waited may have given up.
                        let _ = reply.send(result);
                    }
                }
                FetchAction::Store { root, bytes } => {
                    let store = self.shared.store.clone();
                    means.jobs.spawn_blocking(move || {
                        let put = store.put(&bytes, Durability::Buffered);
                        Job::Stored { root, result: put.map(|_| bytes.into()).map_err(Arc::new) }
                    });
                }
            }
        }
    }
}

impl FetchMeans<'_> {
    pub(super) fn again(&mut self) -> FetchMeans<'_> {
        FetchMeans { connected: self.connected, jobs: self.jobs, effects: self.effects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;
    use std::time::Duration;

    struct Rig {
        small: SmallBlobs,
        shared: Arc<Shared>,
        connected: BTreeSet<PeerKey>,
        jobs: Jobs,
        effects: Effects,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn new(connected: &[u8]) -> Rig {
            let dir = tempfile::tempdir().unwrap();
            let shared = test_shared(dir.path());
            Rig {
                small: SmallBlobs::new(shared.clone(), FetchLimits::default()),
                shared,
                connected: connected.iter().map(|n| test_peer(*n)).collect(),
                jobs: Jobs::new(),
                effects: Effects::new(),
                _dir: dir,
            }
        }

        fn want(&mut self, blob: &[u8]) -> oneshot::Receiver<Fetched> {
            let (reply, answer) = oneshot::channel();
            let (root, size) = (Digest::of(blob), Size::Exactly(blob.len() as u64));
            let deadline = Instant::now() + Duration::from_secs(60);
            let Rig { small, connected, jobs, effects, .. } = self;
            small.want(
                SmallWant { root, size, hints: vec![], deadline, reply },
                FetchMeans { connected, jobs, effects },
            );
            answer
        }

        /// Who is asked for a blob next.
        fn asked(&mut self) -> Option<(PeerKey, AskId)> {
            match self.effects.pop_front() {
                Some(Effect::Ask { peer, purpose: Purpose::Blob(ask), .. }) => Some((peer, ask)),
                _ => None,
            }
        }

        fn came(&mut self, ask: AskId, blob: &[u8]) {
            let Rig { small, connected, jobs, effects, .. } = self;
            small.came(ask, blob.to_vec(), Digest::of(blob), FetchMeans { connected, jobs, effects });
        }
    }

    #[tokio::test]
    async fn a_blob_is_asked_for_stored_and_given_and_wrong_bytes_ban_their_sender() {
        let mut rig = Rig::new(&[1, 2]);
        let mut answer = rig.want(b"a blob");
        let (liar, ask) = rig.asked().unwrap();
        rig.came(ask, b"another");
        let (honest, ask) = match rig.effects.pop_front() {
            Some(Effect::Ban { peer, .. }) if peer == liar => rig.asked().unwrap(),
            _ => panic!("the liar goes first"),
        };
        assert_ne!(honest, liar);
        rig.came(ask, b"a blob");
        let Some(Ok(Job::Stored { root, result })) = rig.jobs.join_next().await else { panic!("it is stored") };
        let Rig { small, connected, jobs, effects, .. } = &mut rig;
        small.tell(FetchEvent::Stored { root, result }, FetchMeans { connected, jobs, effects });
        assert_eq!(&*answer.try_recv().unwrap().unwrap(), b"a blob");
        let traffic = rig.shared.traffic.read();
        assert_eq!((traffic.blobs_wrong.count, traffic.blobs_in.count, traffic.fetches_done), (1, 1, 1));
        assert!(rig.small.is_idle() && rig.shared.store.has(&root));
    }

    #[test]
    fn who_gives_up_is_forgotten_at_the_next_tick() {
        let mut rig = Rig::new(&[]);
        drop(rig.want(b"a blob"));
        assert!(!rig.small.is_idle());
        let Rig { small, connected, jobs, effects, .. } = &mut rig;
        small.tick(&mut FetchMeans { connected, jobs, effects });
        assert!(rig.small.is_idle() && rig.small.waiters.is_empty());
    }
}
