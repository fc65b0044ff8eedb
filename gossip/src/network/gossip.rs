//! Gossip's messages: announcements on their way to the node and back with its verdict, peer records on theirs to
//! [`Records`].
//!
//! Which announcements are looked at is decided in `announcements/claims.rs`, what becomes of own ones that nobody heard in
//! `announcements/unpublished.rs`.

use super::behaviour::{GossipBehaviour, Topics, UID_SCORE};
use super::mail::{Mail, TICKETS_MAX};
use super::records::{RecordMessage, Records};
use crate::announcements::claims::{self, Claims};
use crate::announcements::unpublished::{Attempt, Unpublished};
use crate::command::{PublishError, Published};
use crate::event::{Event, Judgement, Ticket, Verdict};
use crate::peers::PeerKey;
use crate::peers::bucket::{Buckets, Rate};
use crate::shared::Shared;
use covey_proto::message::ANNOUNCEMENT_BYTES_MAX;
use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, TopicHash};
use std::sync::Arc;
use std::time::Instant;

/// Neighbours that have a bucket of messages: more than there are connections.
const BUCKETS_MAX: usize = 1024;

/// What a message means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GossipNews {
    /// Nothing.
    None,
    /// A member's record that is news.
    Record,
    /// A neighbour began to listen for records.
    Listener,
}

/// The messages of one life of the network.
pub(super) struct Gossip {
    shared: Arc<Shared>,
    topics: Topics,
    life: u64,
    /// Messages, by the neighbour that brought them.
    rate: Buckets<PeerKey>,
    claims: Claims,
    unpublished: Unpublished,
    tickets_out: usize,
}

impl Gossip {
    pub(super) fn new(shared: Arc<Shared>, topics: Topics, rate: Rate, life: u64) -> Gossip {
        Gossip {
            shared,
            topics,
            life,
            rate: Buckets::new(rate, BUCKETS_MAX),
            claims: Claims::default(),
            unpublished: Unpublished::default(),
            tickets_out: 0,
        }
    }

    /// Announcements that wait for the node's verdict.
    pub(super) fn unjudged(&self) -> usize {
        self.tickets_out
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    // ---- own announcements

    /// Gossips an announcement. One that nobody can be told of now is tried again at each upkeep, and the caller told so.
    pub(super) fn publish(
        &mut self,
        behaviour: &mut GossipBehaviour,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<Published, PublishError> {
        let result = publish(&self.shared, &self.topics.gradients.hash(), behaviour, bytes.clone());
        if matches!(result, Err(PublishError::NoPeers | PublishError::Busy(_))) && self.unpublished.keep(bytes, now) {
            self.shared.traffic.announcements_failed.add(1);
        }
        result
    }

    /// Tries again what could not be published.
    pub(super) fn publish_again(&mut self, behaviour: &mut GossipBehaviour, now: Instant) {
        let (shared, topic) = (&self.shared, self.topics.gradients.hash());
        let (told, given_up) =
            self.unpublished.retry(now, |bytes| match publish(shared, &topic, behaviour, bytes.to_vec()) {
                Ok(Published { repeated, .. }) => Attempt::Told { before: repeated },
                Err(error) => Attempt::Nobody(error),
            });
        self.shared.traffic.announcements_repeated.add(told);
        self.shared.traffic.announcements_failed.add(given_up.len());
        for error in given_up {
            tracing::error!(%error, "an own announcement was gossiped to nobody; others can only ask for it");
        }
    }

    // ---- what comes

    pub(super) fn on_event(
        &mut self,
        behaviour: &mut GossipBehaviour,
        event: gossipsub::Event,
        records: &mut Records,
        mail: &Mail,
    ) -> GossipNews {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let traffic = self.shared.traffic.clone();
                traffic.gossip_first.add(1);
                if message.topic == self.topics.gradients.hash() {
                    traffic.announcements_in.add(message.data.len());
                    if let Err(acceptance) = self.look_at(propagation_source, &message_id, message.data, mail) {
                        behaviour.report_message_validation_result(&message_id, &propagation_source, acceptance);
                    }
                    return GossipNews::None;
                }
                let (acceptance, news) = self.record(propagation_source, &message.data, records);
                behaviour.report_message_validation_result(&message_id, &propagation_source, acceptance);
                if news { GossipNews::Record } else { GossipNews::None }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                self.shared.traffic.gossip_unsent.add(lost);
                tracing::debug!(%peer_id, lost, "a peer takes gossip too slowly: it was not told");
                GossipNews::None
            }
            gossipsub::Event::Subscribed { topic, .. } if topic == self.topics.peers.hash() => GossipNews::Listener,
            _ => GossipNews::None,
        }
    }

    /// Hands an announcement to the node.
    ///
    /// # Errors
    /// What becomes of it without the node.
    fn look_at(
        &mut self,
        source: PeerId,
        message: &MessageId,
        bytes: Vec<u8>,
        mail: &Mail,
    ) -> Result<(), MessageAcceptance> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(MessageAcceptance::Reject);
        }
        let from = PeerKey::of(source);
        let free = mail.events.have_room() && self.tickets_out < TICKETS_MAX;
        if !free || !self.rate.take(from, Instant::now()) {
            self.shared.traffic.announcements_ignored.add(1);
            return Err(MessageAcceptance::Ignore);
        }
        let claim = claims::claim_of(from, &bytes);
        if claim.is_some_and(|claim| !self.claims.take(claim)) {
            self.shared.traffic.announcements_surplus.add(1);
            return Err(MessageAcceptance::Ignore);
        }
        self.tickets_out += 1;
        let message = message.clone();
        let judgement = Judgement { message, source, life: self.life, claim, verdict: Verdict::Ignore };
        let ticket = Ticket::new(judgement, mail.verdicts_out());
        mail.events.tell(Event::Announcement { bytes, from, ticket });
        Ok(())
    }

    /// A message of the peers topic: what becomes of it, and whether it is news.
    fn record(&mut self, source: PeerId, bytes: &[u8], records: &mut Records) -> (MessageAcceptance, bool) {
        let now = Instant::now();
        if !self.rate.take(PeerKey::of(source), now) {
            return (MessageAcceptance::Ignore, false);
        }
        match records.heard(bytes, now) {
            RecordMessage::NotOne => (MessageAcceptance::Reject, false),
            RecordMessage::Record(passing) if passing.pass_on => (MessageAcceptance::Accept, passing.news),
            RecordMessage::Record(passing) => (MessageAcceptance::Ignore, passing.news),
        }
    }

    /// The node has judged an announcement.
    pub(super) fn judged(&mut self, behaviour: &mut GossipBehaviour, judgement: Judgement) {
        if judgement.life != self.life {
            return;
        }
        self.tickets_out = self.tickets_out.saturating_sub(1);
        let acceptance = match judgement.verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if let (Verdict::Reject | Verdict::Ignore, Some(claim)) = (judgement.verdict, judgement.claim) {
            self.claims.give_back(claim);
        }
        let known = behaviour.report_message_validation_result(&judgement.message, &judgement.source, acceptance);
        let traffic = &self.shared.traffic;
        let count = match judgement.verdict {
            _ if !known => &traffic.announcements_late,
            Verdict::Accept => &traffic.announcements_accepted,
            Verdict::Ignore => &traffic.announcements_unheeded,
            Verdict::Reject => &traffic.announcements_rejected,
        };
        count.add(1);
    }
}

/// What a peer is worth beyond its gossip: a uid.
pub(super) fn value(behaviour: &mut GossipBehaviour, peer: PeerKey, member: bool) {
    behaviour.set_application_score(&peer.id(), if member { UID_SCORE } else { 0.0 });
}

/// Neighbours that listen to a topic.
pub(super) fn listeners_of(behaviour: &GossipBehaviour, topic: &TopicHash) -> usize {
    behaviour.all_peers().filter(|(_, topics)| topics.contains(&topic)).count()
}

fn publish(
    shared: &Shared,
    topic: &TopicHash,
    behaviour: &mut GossipBehaviour,
    bytes: Vec<u8>,
) -> Result<Published, PublishError> {
    let size = bytes.len();
    let peers = listeners_of(behaviour, topic);
    match behaviour.publish(topic.clone(), bytes) {
        Ok(_) => {
            shared.traffic.announcements_out.add(size);
            Ok(Published { peers, repeated: false })
        }
        Err(gossipsub::PublishError::Duplicate) => Ok(Published { peers: 0, repeated: true }),
        Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Err(PublishError::NoPeers),
        Err(gossipsub::PublishError::AllQueuesFull(peers)) => Err(PublishError::Busy(peers)),
        Err(error) => Err(PublishError::Refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcements::claims::tests::announcement;
    use crate::config::Config;
    use crate::peers::test_peer;
    use crate::shared::test_shared;
    use covey_proto::{Digest, RunId};
    use libp2p::gossipsub::Message;
    use libp2p::identity::Keypair;
    use std::time::Duration;
    use tokio::sync::mpsc;

    struct Rig {
        gossip: Gossip,
        behaviour: GossipBehaviour,
        records: Records,
        mail: Mail,
        events: mpsc::Receiver<Event>,
        brought: u8,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Rig {
            let dir = tempfile::tempdir().unwrap();
            let shared = test_shared(dir.path());
            let config = Config::new(dir.path(), Digest::ZERO, 1, RunId(Digest::ZERO));
            let topics = Topics::of(config.run);
            let key = Keypair::generate_ed25519();
            let behaviour = super::super::behaviour::build(&config, &key, &shared, true).unwrap().gossip;
            let (events_out, events) = mpsc::channel(64);
            let mail = Mail::new(mpsc::channel(1).1, events_out, shared.traffic.clone());
            let records = Records::new(shared.clone(), topics.peers.clone(), Duration::from_secs(60), 0);
            let gossip = Gossip::new(shared, topics, config.limits.gossip_per_peer, 0);
            Rig { gossip, behaviour, records, mail, events, brought: 0, _dir: dir }
        }

        /// A neighbour brings a message; the announcement that the node is given, if it is.
        fn bring(&mut self, topic: TopicHash, data: Vec<u8>) -> Option<Ticket> {
            self.bring_from(1, topic, data)
        }

        fn bring_from(&mut self, neighbour: u8, topic: TopicHash, data: Vec<u8>) -> Option<Ticket> {
            self.brought += 1;
            let event = gossipsub::Event::Message {
                propagation_source: test_peer(neighbour).id(),
                message_id: MessageId::new(&[self.brought]),
                message: Message { source: None, data, sequence_number: None, topic },
            };
            self.gossip.on_event(&mut self.behaviour, event, &mut self.records, &self.mail);
            match self.events.try_recv() {
                Ok(Event::Announcement { ticket, .. }) => Some(ticket),
                _ => None,
            }
        }

        /// Another announcement of one author and round.
        fn announce(&mut self) -> Option<Ticket> {
            self.announce_from(1)
        }

        fn announce_from(&mut self, neighbour: u8) -> Option<Ticket> {
            let bytes = announcement(9, 3, &[self.brought]);
            self.bring_from(neighbour, self.gossip.topics.gradients.hash(), bytes)
        }
    }

    #[test]
    fn four_announcements_of_an_author_wait_for_a_verdict_and_a_rejected_one_makes_room() {
        let mut rig = Rig::new();
        let mut tickets: Vec<Ticket> = (0..6).filter_map(|_| rig.announce()).collect();
        assert_eq!((tickets.len(), rig.gossip.unjudged()), (4, 4));
        assert_eq!(rig.gossip.shared.traffic.read().announcements_surplus, 2);
        tickets.pop().unwrap().judge(Verdict::Reject);
        let judgement = rig.mail.verdicts.try_recv().unwrap();
        rig.gossip.judged(&mut rig.behaviour, Judgement { life: 7, ..judgement.clone() });
        assert_eq!(rig.gossip.unjudged(), 4, "a ticket of another life");
        rig.gossip.judged(&mut rig.behaviour, judgement);
        assert_eq!(rig.gossip.unjudged(), 3);
        assert!(rig.announce().is_some() && rig.announce().is_none());
    }

    #[test]
    fn forgeries_do_not_shut_out_the_announcement_that_another_neighbour_brings() {
        let mut rig = Rig::new();
        let forged: Vec<Ticket> = (0..9).filter_map(|_| rig.announce_from(1)).collect();
        assert_eq!(forged.len(), 4, "none of them is judged before the commitments are final");
        assert!(rig.announce_from(2).is_some(), "the author's own");
    }

    #[test]
    fn what_is_too_large_or_no_record_does_not_reach_anybody() {
        let mut rig = Rig::new();
        assert!(rig.bring(rig.gossip.topics.gradients.hash(), vec![0; ANNOUNCEMENT_BYTES_MAX + 1]).is_none());
        assert!(rig.bring(rig.gossip.topics.peers.hash(), vec![0; 99]).is_none());
        let traffic = rig.gossip.shared.traffic.read();
        assert_eq!((traffic.gossip_first, traffic.records_heard, rig.gossip.unjudged()), (2, 0, 0));
    }

    #[test]
    fn an_announcement_that_nobody_hears_is_said_so_and_kept_for_later() {
        let mut rig = Rig::new();
        let now = Instant::now();
        assert_eq!(rig.gossip.publish(&mut rig.behaviour, vec![1], now), Err(PublishError::NoPeers));
        rig.gossip.publish_again(&mut rig.behaviour, now);
        assert_eq!(rig.gossip.shared.traffic.read().announcements_failed, 0);
        rig.gossip.publish_again(&mut rig.behaviour, now + Duration::from_secs(3600));
        assert_eq!(rig.gossip.shared.traffic.read().announcements_failed, 1, "others have to ask for it");
    }
}
