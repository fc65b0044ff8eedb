//! Gossip: announcements on their way to the node, peer records on their way to the book.
//!
//! A message on the peers topic is a counter (u32, little-endian, of any meaning to its sender) and a `SignedPeerRecord`
//! in canonical bytes. The counter makes a repetition another message: gossip passes the same bytes on only once.

use super::network::TICKETS_MAX;
use super::running::Running;
use crate::announcements::claims;
use crate::event::{Event, Judgement, Ticket, Verdict};
use crate::handle::{PublishError, Published};
use crate::peers::PeerKey;
use crate::peers::bucket::Rate;
use covey_proto::message::{ANNOUNCEMENT_BYTES_MAX, PEER_RECORD_BYTES_MAX, SignedPeerRecord};
use covey_proto::{Digest, wire};
use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, TopicHash};
use prost::Message as _;
use std::time::{Duration, Instant};

/// How often a member's new record is passed on.
pub(super) const NEWS_RATE: Rate = Rate { burst: 4, refill: Duration::from_secs(30) };
/// How often a known one is. Anyone may repeat a record; that crowds out only other repetitions of it.
pub(super) const REPEAT_RATE: Rate = Rate { burst: 2, refill: Duration::from_secs(30) };
/// Time between two introductions of members to newcomers, and how many are introduced.
const INTRODUCE_EACH: Duration = Duration::from_secs(5);
const INTRODUCED_MAX: usize = 16;

/// Own announcements that could not be published and are tried again: a node makes one a round.
const UNHEARD_MAX: usize = 4;
/// How long they are: half a round of the slowest clock, after which nobody would want them.
const UNHEARD_TIME: Duration = Duration::from_secs(600);

/// A peers message's bytes.
fn record_message(beat: u32, record: &SignedPeerRecord) -> Vec<u8> {
    let mut bytes = beat.to_le_bytes().to_vec();
    // Writing into a vector cannot fail.
    let _ = record.to_wire().encode(&mut bytes);
    bytes
}

/// The record in a peers message; none if the bytes are not canonical or the signature does not hold.
fn read_record(bytes: &[u8]) -> Option<SignedPeerRecord> {
    let (_beat, bytes) = bytes.split_first_chunk::<4>()?;
    if bytes.len() > PEER_RECORD_BYTES_MAX {
        return None;
    }
    let wire = wire::SignedPeerRecord::decode(bytes).ok()?;
    if wire.encode_to_vec() != bytes {
        return None;
    }
    SignedPeerRecord::from_wire(&wire).ok()
}

/// An own announcement that nobody could be told of.
pub(super) struct Unheard {
    bytes: Vec<u8>,
    until: Instant,
}

impl Running<'_> {
    /// Gossips an announcement. One that nobody can be told of now is tried again at each upkeep, and the caller told so.
    pub(super) fn publish(&mut self, bytes: Vec<u8>) -> Result<Published, PublishError> {
        let result = self.publish_now(bytes.clone());
        if matches!(result, Err(PublishError::NoPeers | PublishError::Busy(_)))
            && !self.unheard.iter().any(|other| other.bytes == bytes)
        {
            if self.unheard.len() >= UNHEARD_MAX {
                self.unheard.pop_front();
                self.net.shared.traffic.announcements_failed.add(1);
            }
            self.unheard.push_back(Unheard { bytes, until: Instant::now() + UNHEARD_TIME });
        }
        result
    }

    /// Tries again what could not be published.
    pub(super) fn publish_unheard(&mut self, now: Instant) {
        for _ in 0..self.unheard.len() {
            let Some(unheard) = self.unheard.pop_front() else { return };
            let late = unheard.until <= now;
            match self.publish_now(unheard.bytes.clone()) {
                Ok(Published { repeated: false, .. }) => self.net.shared.traffic.announcements_repeated.add(1),
                Ok(_) => {}
                Err(error) if late => {
                    self.net.shared.traffic.announcements_failed.add(1);
                    tracing::error!(%error, "an own announcement was gossiped to nobody; others can only ask for it");
                }
                Err(_) => self.unheard.push_back(unheard),
            }
        }
    }

    fn publish_now(&mut self, bytes: Vec<u8>) -> Result<Published, PublishError> {
        let topic = self.net.topics.gradients.hash();
        let size = bytes.len();
        let peers = self.listeners_of(&topic);
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            Ok(_) => {
                self.net.shared.traffic.announcements_out.add(size);
                Ok(Published { peers, repeated: false })
            }
            Err(gossipsub::PublishError::Duplicate) => Ok(Published { peers: 0, repeated: true }),
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Err(PublishError::NoPeers),
            Err(gossipsub::PublishError::AllQueuesFull(peers)) => Err(PublishError::Busy(peers)),
            Err(error) => Err(PublishError::Refused(error.to_string())),
        }
    }

    fn listeners_of(&self, topic: &TopicHash) -> usize {
        self.swarm.behaviour().gossip.all_peers().filter(|(_, topics)| topics.contains(&topic)).count()
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let traffic = self.net.shared.traffic.clone();
                traffic.gossip_first.add(1);
                if message.topic == self.net.topics.gradients.hash() {
                    traffic.announcements_in.add(message.data.len());
                    self.on_announcement(propagation_source, message_id, message.data);
                } else {
                    let acceptance = self.on_record_message(propagation_source, &message.data);
                    self.report(&message_id, &propagation_source, acceptance);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                self.net.shared.traffic.gossip_unsent.add(lost);
                tracing::debug!(%peer_id, lost, "a peer takes gossip too slowly: it was not told");
            }
            gossipsub::Event::Subscribed { topic, .. } if topic == self.net.topics.peers.hash() => self.introduce(),
            _ => {}
        }
    }

    fn report(&mut self, message: &MessageId, source: &PeerId, acceptance: MessageAcceptance) {
        self.swarm.behaviour_mut().gossip.report_message_validation_result(message, source, acceptance);
    }

    fn on_announcement(&mut self, source: PeerId, message: MessageId, bytes: Vec<u8>) {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return self.report(&message, &source, MessageAcceptance::Reject);
        }
        let from = PeerKey::of(source);
        // The last quarter of the queue is for what nobody tells twice.
        let room = self.net.events.capacity() > self.net.events.max_capacity() / 4;
        let ticket_free = self.tickets_out < TICKETS_MAX;
        if !room || !ticket_free || !self.gossip_rate.take(from, Instant::now()) {
            self.net.shared.traffic.announcements_ignored.add(1);
            return self.report(&message, &source, MessageAcceptance::Ignore);
        }
        let claim = claims::claim_of(&bytes);
        if claim.is_some_and(|claim| !self.claims.take(claim)) {
            self.net.shared.traffic.announcements_surplus.add(1);
            return self.report(&message, &source, MessageAcceptance::Ignore);
        }
        self.tickets_out += 1;
        let judgement = Judgement { message, source, life: self.net.life, claim, verdict: Verdict::Ignore };
        let ticket = Ticket::new(judgement, self.net.verdicts_out.clone());
        self.net.tell(Event::Announcement { bytes, from, ticket });
    }

    fn on_record_message(&mut self, source: PeerId, bytes: &[u8]) -> MessageAcceptance {
        let now = Instant::now();
        if !self.gossip_rate.take(PeerKey::of(source), now) {
            return MessageAcceptance::Ignore;
        }
        let digest = Digest::of(bytes.get(4..).unwrap_or_default());
        if let Some(uid) = self.verified.get(&digest).copied() {
            let pass_on = self.repeat_rate.take(uid, now);
            return if pass_on { MessageAcceptance::Accept } else { MessageAcceptance::Ignore };
        }
        let Some(record) = read_record(bytes) else {
            return MessageAcceptance::Reject;
        };
        let uid = record.record().uid;
        let heard = self.net.shared.book().hear(record);
        let pass_on = match heard {
            Ok(true) => {
                self.net.shared.traffic.records_heard.add(1);
                // The one that it replaces is no repetition any more.
                self.verified.retain(|_, other| *other != uid);
                self.verified.insert(digest, uid);
                self.upkeep_at = now;
                self.news_rate.take(uid, now)
            }
            Ok(false) => self.repeat_rate.take(uid, now),
            Err(_) => false,
        };
        if pass_on { MessageAcceptance::Accept } else { MessageAcceptance::Ignore }
    }

    /// Shows the own record to every peer, and gossips it.
    pub(super) fn show_record(&mut self) {
        if self.net.shared.book().own().is_none() {
            return;
        }
        for peer in self.connected.clone() {
            self.show_record_to(peer);
        }
        self.gossip_record();
    }

    fn gossip_record(&mut self) {
        let own = self.net.shared.book().own().cloned();
        if own.is_some_and(|record| self.gossip_one(&record)) {
            self.record_sent_at = Some(Instant::now());
        }
    }

    fn gossip_one(&mut self, record: &SignedPeerRecord) -> bool {
        self.net.beat = self.net.beat.wrapping_add(1);
        let message = record_message(self.net.beat, record);
        let topic = self.net.topics.peers.hash();
        self.swarm.behaviour_mut().gossip.publish(topic, message).is_ok()
    }

    pub(super) fn repeat_record(&mut self, now: Instant) {
        let each = self.net.config.limits.record_repeat;
        if self.record_sent_at.is_some_and(|sent| now.saturating_duration_since(sent) >= each) {
            self.gossip_record();
        }
    }

    /// A neighbour began to listen for records: it gets the own one and some of those of others.
    fn introduce(&mut self) {
        let now = Instant::now();
        if self.record_sent_at.is_none() {
            self.gossip_record();
        }
        if self.introduced_at.is_some_and(|at| now.saturating_duration_since(at) < INTRODUCE_EACH) {
            self.introduction_due = true;
            return;
        }
        self.introduced_at = Some(now);
        self.introduction_due = false;
        let known: Vec<SignedPeerRecord> = {
            let book = self.net.shared.book();
            book.own().into_iter().chain(book.records()).take(INTRODUCED_MAX).cloned().collect()
        };
        for record in known {
            self.gossip_one(&record);
        }
    }

    /// Introductions that came too soon after another.
    pub(super) fn introduce_late(&mut self) {
        if self.introduction_due {
            self.introduce();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::message::PeerRecord;
    use covey_proto::{BlockNumber, HotkeyPair, Uid};
    use proptest::prelude::*;

    #[test]
    fn a_record_message_is_read_in_one_form_only() {
        let pair = HotkeyPair::from_seed([1; 32]);
        let record = PeerRecord {
            genesis: Digest::ZERO,
            netuid: 1,
            uid: Uid::from(1),
            hotkey: pair.hotkey(),
            registered_at: BlockNumber(1),
            peer: vec![1],
            addresses: vec!["/ip4/1.2.3.4/tcp/1".into(); 8],
            sequence: 1,
            expiry: BlockNumber(9),
        };
        let signed = record.sign(&pair);
        let bytes = record_message(7, &signed);
        assert_eq!(read_record(&bytes), Some(signed));
        for at in 4..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(read_record(&other), None, "byte {at}");
        }
        assert_eq!(read_record(&[bytes.clone(), vec![0]].concat()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(read_record(&bytes), None);
        }
    }
}
