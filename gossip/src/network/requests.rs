//! Requests in both directions: fetches and pulls on their way out, what others ask on its way in.

use super::behaviour::Behaviour;
use super::network::Job;
use super::running::{Pending, Pull, Running, Serve};
use crate::announcements::kept;
use crate::peers::PeerKey;
use crate::peers::book::Refusal;
use crate::small::answers::Rank;
use crate::small::codec::{Answer, Ask, Asked, Frames, blob_answer_bytes, is_breach};
use crate::small::fetch::{self, Action, AskId, Reach};
use crate::store::Durability;
use covey_proto::message::{
    ANNOUNCEMENT_BYTES_MAX, BLOB_BYTES_MAX, ROUND_ANNOUNCEMENTS_MAX, Request, SignedPeerRecord,
};
use covey_proto::record::UidSet;
use covey_proto::{Digest, Round};
use libp2p::request_response::{Event, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

type Requests = libp2p::request_response::Behaviour<Frames>;

fn requests(behaviour: &mut Behaviour) -> &mut Requests {
    &mut behaviour.requests
}

impl Running<'_> {
    pub(super) fn send(&mut self, peer: PeerKey, ask: Ask, pending: Pending) {
        self.net.shared.traffic.requests_out.add(1);
        let id = requests(self.swarm.behaviour_mut()).send_request(&peer.id(), Asked::Ask(ask));
        self.pending.insert(id, pending);
    }

    pub(super) fn on_requests(&mut self, event: Event<Asked, Answer>) {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_request(PeerKey::of(peer), request_id, request, channel);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.on_response(PeerKey::of(peer), request_id, response);
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let breach = matches!(&error, OutboundFailure::Io(error) if is_breach(error));
                let mute = matches!(&error, OutboundFailure::UnsupportedProtocols);
                if !breach && !mute && matches!(self.pending.get(&request_id), Some(Pending::Record)) {
                    // Its connection was closed as surplus, say: shown again over the other.
                    self.unshown.insert(PeerKey::of(peer));
                }
                self.on_no_response(PeerKey::of(peer), request_id, breach);
            }
            Event::InboundFailure { request_id, .. } => self.done_serving(&request_id),
            Event::ResponseSent { request_id, .. } => self.done_serving(&request_id),
        }
    }

    // ---- what others ask

    fn on_request(&mut self, peer: PeerKey, id: InboundRequestId, asked: Asked, channel: ResponseChannel<Answer>) {
        self.net.shared.traffic.requests_in.add(1);
        match asked {
            Asked::Request(Request::Blob(root)) => return self.on_blob_asked(peer, id, root, channel),
            Asked::Breach(why) => return self.ban(peer, &why),
            _ => {}
        }
        if !self.ask_rate.take(peer, Instant::now()) {
            // Dropping the channel closes the stream without an answer.
            return self.net.shared.traffic.requests_refused.add(1);
        }
        match asked {
            Asked::Request(Request::Announcements(round, have)) => {
                let list = self.net.shared.reveals().of(round, &have);
                let bytes = list.iter().map(|announcement| announcement.len() as u64).sum();
                self.serve(id, peer, bytes, Serve::Announcements(list, channel));
            }
            Asked::Request(Request::Record(record)) => {
                self.on_record(peer, record);
                let own = self.net.shared.book().own().cloned();
                self.respond(channel, own.map_or(Answer::Nothing, Answer::Record));
            }
            Asked::Request(Request::Records(have)) => {
                let sample = self.sample(&have);
                self.respond(channel, Answer::Records(sample));
            }
            _ => self.respond(channel, Answer::Nothing),
        }
    }

    fn on_blob_asked(&mut self, peer: PeerKey, id: InboundRequestId, root: Digest, channel: ResponseChannel<Answer>) {
        match self.net.shared.store.size(&root) {
            Some(size) if size <= BLOB_BYTES_MAX as u64 => self.serve(id, peer, size, Serve::Blob(root, channel)),
            _ => self.respond(channel, Answer::Nothing),
        }
    }

    fn serve(&mut self, id: InboundRequestId, peer: PeerKey, bytes: u64, what: Serve) {
        let rank = {
            let book = self.net.shared.book();
            if book.has_view() && book.uid_of(&peer).is_none() { Rank::Stranger } else { Rank::Any }
        };
        if !self.serving.take(id, peer, rank, bytes, what) {
            self.net.shared.traffic.requests_refused.add(1);
        }
        self.serve_more();
    }

    fn serve_more(&mut self) {
        while let Some((request, what)) = self.serving.next() {
            match what {
                Serve::Announcements(list, channel) => {
                    let list: Vec<Vec<u8>> = list.iter().map(|announcement| announcement.to_vec()).collect();
                    list.iter().for_each(|one| self.net.shared.traffic.announcements_served.add(one.len()));
                    self.respond(channel, Answer::Announcements(list));
                }
                Serve::Blob(root, channel) => {
                    let (store, life) = (self.net.shared.store.clone(), self.net.life);
                    let read = move || match store.get(&root) {
                        Ok(bytes) => bytes.map(Arc::from),
                        Err(error) => {
                            // Whoever asks decides how often: the node's own reads say it louder.
                            tracing::debug!(%error, "a blob cannot be served");
                            None
                        }
                    };
                    self.net.jobs.spawn_blocking(move || Job::Read { request, life, channel, blob: read() });
                }
            }
        }
    }

    /// A blob was read for a request.
    pub(super) fn give(&mut self, id: InboundRequestId, channel: ResponseChannel<Answer>, blob: Option<Arc<[u8]>>) {
        let Some(mut blob) = blob else {
            self.respond(channel, Answer::Nothing);
            return self.done_serving(&id);
        };
        if self.net.shared.lies.load(Ordering::Relaxed) {
            blob = blob.iter().enumerate().map(|(at, byte)| if at == 0 { byte ^ 1 } else { *byte }).collect();
        }
        self.net.shared.traffic.blobs_out.add(blob.len());
        // At once all the same: small blobs are what a round waits for. Pieces pay for them.
        self.net.exchange.env.serving.charge(blob.len() as u64);
        self.respond(channel, Answer::Give(blob));
    }

    fn respond(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // Who asked may be gone; an event tells then.
        let _ = requests(self.swarm.behaviour_mut()).send_response(channel, answer);
    }

    fn done_serving(&mut self, id: &InboundRequestId) {
        self.serving.done(id);
        self.serve_more();
    }

    fn on_record(&mut self, peer: PeerKey, record: SignedPeerRecord) {
        let presented = self.net.shared.book().present(peer, record);
        match presented {
            Ok(changes) => self.apply(changes),
            Err(refusal) if refusal.is_a_lie() => self.ban(peer, "a record that names another peer"),
            Err(Refusal::OtherNetwork) => {
                tracing::debug!(%peer, "a peer of another network");
                let _ = self.swarm.disconnect_peer_id(peer.id());
            }
            Err(refusal) => tracing::debug!(%peer, %refusal, "a peer record does not count"),
        }
    }

    // ---- what was asked of others

    fn on_response(&mut self, peer: PeerKey, id: OutboundRequestId, answer: Answer) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        match (pending, answer) {
            (Pending::Blob(ask), Answer::Blob(bytes, digest)) => self.on_blob(ask, bytes, digest),
            (Pending::Blob(ask), Answer::Nothing | Answer::TooLarge) => self.fetch(fetch::Event::Nothing { ask }),
            (Pending::Blob(ask), _) => self.fetch(fetch::Event::Failed { ask, breach: true }),
            (Pending::Pull(pull, most), Answer::Announcements(list)) => self.on_pulled(peer, pull, most, list),
            (Pending::Pull(pull, _), Answer::Nothing) => self.pull_answered(pull),
            (Pending::Record, Answer::Record(record)) => self.on_record(peer, record),
            (Pending::Records, Answer::Records(records)) => self.on_records(records),
            (Pending::Record | Pending::Records, Answer::Nothing) => {}
            (Pending::Pull(pull, _), _) => {
                self.pull_answered(pull);
                self.ban(peer, "another answer than was asked for");
            }
            (Pending::Record | Pending::Records, _) => self.ban(peer, "another answer than was asked for"),
        }
    }

    fn on_no_response(&mut self, peer: PeerKey, id: OutboundRequestId, breach: bool) {
        match self.pending.remove(&id) {
            Some(Pending::Blob(ask)) => return self.fetch(fetch::Event::Failed { ask, breach }),
            Some(Pending::Pull(pull, _)) => self.pull_answered(pull),
            Some(Pending::Record | Pending::Records) | None => {}
        }
        if breach {
            self.ban(peer, "an answer that breaks the protocol");
        }
    }

    // ---- blobs

    fn on_blob(&mut self, ask: AskId, bytes: Vec<u8>, digest: Digest) {
        let size = bytes.len();
        let actions = self.decide(fetch::Event::Blob { ask, bytes, digest });
        let traffic = &self.net.shared.traffic;
        let tally = if actions.iter().any(|action| matches!(action, Action::Store { .. })) {
            &traffic.blobs_in
        } else if actions.iter().any(|action| matches!(action, Action::Punish { .. })) {
            &traffic.blobs_wrong
        } else {
            &traffic.blobs_surplus
        };
        tally.add(size);
        self.perform(actions);
    }

    /// Tells the fetches something, and does what they then want done.
    pub(super) fn fetch(&mut self, event: fetch::Event) {
        let actions = self.decide(event);
        self.perform(actions);
    }

    fn decide(&mut self, event: fetch::Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let book = self.net.shared.book();
        let peer_of = |uid| book.likely_peer_of(uid);
        let reach = Reach { connected: &self.connected, peer_of: &peer_of };
        self.net.fetches.handle(Instant::now(), event, &reach, &mut actions);
        actions
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask { ask, peer, root, bytes_max } => {
                    let request = Ask { request: Request::Blob(root), answer_bytes_max: blob_answer_bytes(bytes_max) };
                    self.send(peer, request, Pending::Blob(ask));
                }
                Action::Dial { peer } => self.dial_peer(peer),
                Action::Punish { peer, root } => self.ban(peer, &format!("wrong bytes for blob {root}")),
                Action::Finish { waiter, result } => {
                    self.net.shared.traffic.fetched(&result);
                    if let Some(reply) = self.net.waiters.remove(&waiter) {
                        // Whoever waited may have given up.
                        let _ = reply.send(result);
                    }
                }
                Action::Store { root, bytes } => {
                    let store = self.net.shared.store.clone();
                    self.net.jobs.spawn_blocking(move || {
                        let put = store.put(&bytes, Durability::Buffered);
                        Job::Stored { root, result: put.map(|_| bytes.into()).map_err(Arc::new) }
                    });
                }
            }
        }
    }

    // ---- announcements of a round

    pub(super) fn pull(&mut self, round: Round, have: UidSet, reply: oneshot::Sender<Vec<(PeerKey, Vec<u8>)>>) {
        let limits = &self.net.config.limits;
        let (most, deadline) = (limits.pull_peers_max, Instant::now() + limits.pull_timeout);
        self.pulls_made += 1;
        let all: Vec<PeerKey> = self.connected.iter().copied().collect();
        // Others each time, so that no few peers decide what this one hears of.
        let start = (self.pulls_made as usize).wrapping_mul(most) % all.len().max(1);
        let asked: Vec<PeerKey> = all.iter().cycle().skip(start).take(most.min(all.len())).copied().collect();
        let pull = Pull { left: asked.len(), seen: HashSet::new(), found: vec![], deadline, reply };
        self.pulls.insert(self.pulls_made, pull);
        // One announcement a uid, and none of those that are here.
        let entries_max = ROUND_ANNOUNCEMENTS_MAX - have.len().min(ROUND_ANNOUNCEMENTS_MAX);
        for peer in &asked {
            let request = Request::Announcements(round, have);
            let ask = Ask { request, answer_bytes_max: kept::ANSWER_BYTES_MAX + 64 * 1024 };
            self.send(*peer, ask, Pending::Pull(self.pulls_made, entries_max));
        }
        if asked.is_empty() {
            self.finish_pull(self.pulls_made);
        }
    }

    fn on_pulled(&mut self, peer: PeerKey, id: u64, entries_max: usize, list: Vec<Vec<u8>>) {
        if list.len() > entries_max {
            self.pull_answered(id);
            return self.ban(peer, "more announcements than there are uids left");
        }
        if list.iter().any(|announcement| announcement.len() > ANNOUNCEMENT_BYTES_MAX) {
            self.pull_answered(id);
            return self.ban(peer, "an announcement above the limit");
        }
        if let Some(pull) = self.pulls.get_mut(&id) {
            for announcement in list {
                self.net.shared.traffic.announcements_pulled.add(announcement.len());
                if pull.seen.insert(Digest::of(&announcement)) {
                    pull.found.push((peer, announcement));
                }
            }
        }
        self.pull_answered(id);
    }

    fn pull_answered(&mut self, id: u64) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        pull.left = pull.left.saturating_sub(1);
        if pull.left == 0 {
            self.finish_pull(id);
        }
    }

    fn finish_pull(&mut self, id: u64) {
        if let Some(pull) = self.pulls.remove(&id) {
            // Whoever pulled may have given up.
            let _ = pull.reply.send(pull.found);
        }
    }

    pub(super) fn expire_pulls(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> = self.pulls.iter().filter(|(_, pull)| pull.deadline <= now).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.finish_pull(id));
    }
}
