//! Small requests, both ways: which of the own ones are open and what for, and what others ask, answered in turn.
//!
//! Who may ask how much is decided in `small/answers.rs`; what an answer means, by whoever asked.

use super::jobs::{Job, Jobs, Reading};
use crate::announcements::pull::PullId;
use crate::config::Limits;
use crate::peers::PeerKey;
use crate::peers::bucket::Buckets;
use crate::shared::Shared;
use crate::small::answers::{Answers, Rank};
use crate::small::codec::{Answer, Ask, Frames, RequestFrame, is_breach};
use crate::small::fetch::AskId;
use covey_proto::Digest;
use covey_proto::message::{BLOB_BYTES_MAX, Request, SignedPeerRecord};
use covey_proto::record::UidSet;
use libp2p::request_response::{
    Behaviour, Event, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Peers that have a bucket of requests: more than there are connections.
const BUCKETS_MAX: usize = 1024;

pub(super) type RequestBehaviour = Behaviour<Frames>;

/// What a request was sent for.
#[derive(Debug)]
pub(super) enum Purpose {
    Blob(AskId),
    /// A pull, and how many announcements a peer can have for it.
    Pull(PullId, usize),
    /// The peer's own record, by showing this node's.
    Record,
    /// The records that a peer knows.
    Records,
}

/// What a request is answered with, once its turn comes.
enum Serve {
    Blob(Digest, ResponseChannel<Answer>),
    Announcements(Vec<Arc<[u8]>>, ResponseChannel<Answer>),
}

/// What happened that is for others to judge.
pub(super) enum RequestOutcome {
    /// An own request was answered.
    Answered { peer: PeerKey, purpose: Purpose, answer: Answer },
    /// One was not. `breach`: by the peer's breaking the protocol; `mute`: it does not speak it.
    Unanswered { peer: PeerKey, purpose: Option<Purpose>, breach: bool, mute: bool },
    /// A peer shows its record, and asks for this node's.
    Shown { peer: PeerKey, record: SignedPeerRecord, channel: ResponseChannel<Answer> },
    /// A peer asks for the records that this node knows, but for those of `have`.
    Listed { have: UidSet, channel: ResponseChannel<Answer> },
    /// A peer broke the protocol.
    Breach { peer: PeerKey, why: String },
}

/// The requests of one life of the network.
pub(super) struct Requests {
    shared: Arc<Shared>,
    life: u64,
    pending: HashMap<OutboundRequestId, Purpose>,
    serving: Answers<InboundRequestId, Serve>,
    /// Requests without a blob, by peer.
    rate: Buckets<PeerKey>,
}

impl Requests {
    pub(super) fn new(shared: Arc<Shared>, limits: &Limits, life: u64) -> Requests {
        Requests {
            shared,
            life,
            pending: HashMap::new(),
            serving: Answers::new(limits.serve.clone()),
            rate: Buckets::new(limits.asks_per_peer, BUCKETS_MAX),
        }
    }

    /// Own requests that are not answered yet.
    pub(super) fn open(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn send(&mut self, behaviour: &mut RequestBehaviour, peer: PeerKey, ask: Ask, purpose: Purpose) {
        self.shared.traffic.requests_out.add(1);
        let id = behaviour.send_request(&peer.id(), RequestFrame::Ask(ask));
        self.pending.insert(id, purpose);
    }

    pub(super) fn on_event(
        &mut self,
        behaviour: &mut RequestBehaviour,
        event: Event<RequestFrame, Answer>,
        jobs: &mut Jobs,
    ) -> Option<RequestOutcome> {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.asked(behaviour, PeerKey::of(peer), request_id, request, channel, jobs)
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                let purpose = self.pending.remove(&request_id)?;
                Some(RequestOutcome::Answered { peer: PeerKey::of(peer), purpose, answer: response })
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let breach = matches!(&error, OutboundFailure::Io(error) if is_breach(error));
                let mute = matches!(&error, OutboundFailure::UnsupportedProtocols);
                let purpose = self.pending.remove(&request_id);
                Some(RequestOutcome::Unanswered { peer: PeerKey::of(peer), purpose, breach, mute })
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.serving.done(&request_id);
                self.serve_more(behaviour, jobs);
                None
            }
        }
    }

    // ---- what others ask

    fn asked(
        &mut self,
        behaviour: &mut RequestBehaviour,
        peer: PeerKey,
        id: InboundRequestId,
        asked: RequestFrame,
        channel: ResponseChannel<Answer>,
        jobs: &mut Jobs,
    ) -> Option<RequestOutcome> {
        self.shared.traffic.requests_in.add(1);
        match asked {
            RequestFrame::Request(Request::Blob(root)) => {
                match self.shared.store.public().size(&root) {
                    Some(size) if size <= BLOB_BYTES_MAX as u64 => {
                        self.serve(behaviour, peer, id, size, Serve::Blob(root, channel), jobs);
                    }
                    _ => respond(behaviour, channel, Answer::Nothing),
                }
                return None;
            }
            RequestFrame::Breach(why) => return Some(RequestOutcome::Breach { peer, why }),
            _ => {}
        }
        if !self.rate.take(peer, Instant::now()) {
            // Dropping the channel closes the stream without an answer.
            self.shared.traffic.requests_refused.add(1);
            return None;
        }
        match asked {
            RequestFrame::Request(Request::Announcements(round, have)) => {
                let list = self.shared.announcements().of(round, &have);
                let bytes = list.iter().map(|announcement| announcement.len() as u64).sum();
                self.serve(behaviour, peer, id, bytes, Serve::Announcements(list, channel), jobs);
                None
            }
            RequestFrame::Request(Request::Record(record)) => Some(RequestOutcome::Shown { peer, record, channel }),
            RequestFrame::Request(Request::Records(have)) => Some(RequestOutcome::Listed { have, channel }),
            _ => {
                respond(behaviour, channel, Answer::Nothing);
                None
            }
        }
    }

    fn serve(
        &mut self,
        behaviour: &mut RequestBehaviour,
        peer: PeerKey,
        id: InboundRequestId,
        bytes: u64,
        what: Serve,
        jobs: &mut Jobs,
    ) {
        let rank = if self.shared.is_stranger(&peer) { Rank::Stranger } else { Rank::Any };
        if !self.serving.take(id, peer, rank, bytes, what) {
            self.shared.traffic.requests_refused.add(1);
        }
        self.serve_more(behaviour, jobs);
    }

    fn serve_more(&mut self, behaviour: &mut RequestBehaviour, jobs: &mut Jobs) {
        while let Some((request, what)) = self.serving.next() {
            match what {
                Serve::Announcements(list, channel) => {
                    let list: Vec<Vec<u8>> = list.iter().map(|announcement| announcement.to_vec()).collect();
                    list.iter().for_each(|one| self.shared.traffic.announcements_served.add(one.len()));
                    respond(behaviour, channel, Answer::Announcements(list));
                }
                Serve::Blob(root, channel) => {
                    let (store, life) = (self.shared.store.clone(), self.life);
                    let read = move || match store.public().get(&root) {
                        Ok(bytes) => bytes.map(Arc::from),
                        Err(error) => {
                            // Whoever asks decides how often: the node's own reads say it louder.
                            tracing::debug!(%error, "a blob cannot be served");
                            None
                        }
                    };
                    jobs.spawn_blocking(move || Job::Read(Reading { life, request, channel, blob: read() }));
                }
            }
        }
    }

    /// A blob was read for a request, in this life of the network or another. Bytes that are sent now: at once, because
    /// small blobs are what a round waits for, so pieces have to pay for them.
    pub(super) fn give(&mut self, behaviour: &mut RequestBehaviour, reading: Reading, jobs: &mut Jobs) -> Option<u64> {
        let Reading { life, request, channel, blob } = reading;
        if life != self.life {
            return None;
        }
        let Some(mut blob) = blob else {
            respond(behaviour, channel, Answer::Nothing);
            self.serving.done(&request);
            self.serve_more(behaviour, jobs);
            return None;
        };
        if self.shared.lies.load(Ordering::Relaxed) {
            blob = blob.iter().enumerate().map(|(at, byte)| if at == 0 { byte ^ 1 } else { *byte }).collect();
        }
        let bytes = blob.len();
        self.shared.traffic.blobs_out.add(bytes);
        respond(behaviour, channel, Answer::Give(blob));
        Some(bytes as u64)
    }
}

/// Answers. Who asked may be gone; an event tells then.
pub(super) fn respond(behaviour: &mut RequestBehaviour, channel: ResponseChannel<Answer>, answer: Answer) {
    let _ = behaviour.send_response(channel, answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use crate::shared::test_shared;
    use crate::small::codec::PROTOCOL;
    use libp2p::request_response::{Config, ProtocolSupport};
    use libp2p::swarm::ConnectionId;

    #[test]
    fn a_request_is_open_until_it_fails_and_who_does_not_speak_the_protocol_breaks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut requests = Requests::new(test_shared(dir.path()), &Limits::default(), 0);
        let mut behaviour = RequestBehaviour::new([(PROTOCOL, ProtocolSupport::Full)], Config::default());
        let (peer, mut jobs) = (test_peer(1), Jobs::new());
        let fail = |requests: &mut Requests, behaviour: &mut RequestBehaviour, error, jobs: &mut Jobs| {
            let request_id = *requests.pending.keys().next().unwrap();
            let connection_id = ConnectionId::new_unchecked(1);
            let event = Event::OutboundFailure { peer: peer.id(), connection_id, request_id, error };
            match requests.on_event(behaviour, event, jobs) {
                Some(RequestOutcome::Unanswered { purpose: Some(Purpose::Record), breach, mute, .. }) => (breach, mute),
                _ => panic!("what it was for is told"),
            }
        };
        for (error, told) in [
            (OutboundFailure::UnsupportedProtocols, (false, true)),
            (OutboundFailure::ConnectionClosed, (false, false)),
            (OutboundFailure::Io(std::io::Error::other("a broken stream")), (false, false)),
        ] {
            let ask = Ask { request: Request::Records(UidSet::default()), answer_bytes_max: 9 };
            requests.send(&mut behaviour, peer, ask, Purpose::Record);
            assert_eq!(requests.open(), 1);
            assert_eq!(fail(&mut requests, &mut behaviour, error, &mut jobs), told);
            assert_eq!(requests.open(), 0);
        }
    }
}
