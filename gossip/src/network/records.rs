//! Peer records: the own one as it is shown, gossiped and repeated, those of others as they come. What they say is kept in
//! the book (`peers/book.rs`); how often they go round is decided in `peers/circulation.rs`.
//!
//! A message on the peers topic is a counter (u32, little-endian, of any meaning to its sender) and a `SignedPeerRecord`
//! in canonical bytes. The counter makes a repetition another message: gossip passes the same bytes on only once.

use super::behaviour::GossipBehaviour;
use super::effects::{Effect, Effects};
use super::requests::Purpose;
use crate::peers::PeerKey;
use crate::peers::book::{Change, Refusal};
use crate::peers::circulation::{Circulation, Passing};
use crate::shared::Shared;
use crate::small::codec::{Ask, RECORDS_BYTES_MAX};
use covey_proto::message::{PEER_RECORD_BYTES_MAX, Request, SignedPeerRecord};
use covey_proto::record::UidSet;
use covey_proto::{Digest, wire};
use libp2p::gossipsub::IdentTopic;
use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records of members that a newcomer is introduced to at once, the own one among them.
const INTRODUCED_MAX: usize = 16;

/// What a message on the peers topic is.
pub(super) enum RecordMessage {
    /// No record, or one whose signature does not hold.
    NotOne,
    Record(Passing),
}

/// The records of one life of the network.
pub(super) struct Records {
    shared: Arc<Shared>,
    topic: IdentTopic,
    circulation: Circulation,
    /// Connected peers that did not answer to the own record.
    unshown: BTreeSet<PeerKey>,
    /// Counts repetitions, so that each is another message.
    beat: u32,
    /// Where the next sample of records begins.
    turn: u8,
}

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

impl Records {
    pub(super) fn new(shared: Arc<Shared>, topic: IdentTopic, repeat_each: Duration, life: u64) -> Records {
        // Peers tell repetitions apart by the beat, those of other lives too: any start does that is far from theirs.
        let beat = std::process::id().wrapping_add((life as u32) << 20);
        let (circulation, turn) = (Circulation::new(repeat_each), std::process::id() as u8);
        Records { shared, topic, circulation, unshown: BTreeSet::new(), beat, turn }
    }

    // ---- those of others

    /// A message came on the peers topic.
    pub(super) fn heard(&mut self, bytes: &[u8], now: Instant) -> RecordMessage {
        let digest = Digest::of(bytes.get(4..).unwrap_or_default());
        if let Some(pass_on) = self.circulation.again(&digest, now) {
            return RecordMessage::Record(Passing { news: false, pass_on });
        }
        let Some(record) = read_record(bytes) else { return RecordMessage::NotOne };
        let uid = record.record().uid;
        let judged = self.shared.book().hear(record);
        if judged == Ok(true) {
            self.shared.traffic.records_heard.add(1);
        }
        RecordMessage::Record(self.circulation.heard(digest, uid, judged, now))
    }

    /// Records that a peer knows: their signatures hold, and they say where to dial. Whether any was news.
    pub(super) fn listed(&mut self, records: Vec<SignedPeerRecord>) -> bool {
        let heard = records.into_iter().map(|record| self.shared.book().hear(record));
        let news = heard.filter(|heard| *heard == Ok(true)).count();
        self.shared.traffic.records_heard.add(news);
        news > 0
    }

    /// A peer shows its record over its own connection. The bindings that it changes.
    pub(super) fn shown(&self, peer: PeerKey, record: SignedPeerRecord, effects: &mut Effects) -> Vec<Change> {
        let presented = self.shared.book().present(peer, record);
        match presented {
            Ok(changes) => return changes,
            Err(refusal) if refusal.is_a_lie() => {
                effects.push_back(Effect::Ban { peer, why: "a record that names another peer".into() });
            }
            Err(Refusal::OtherNetwork) => {
                tracing::debug!(%peer, "a peer of another network");
                effects.push_back(Effect::Disconnect { peer });
            }
            Err(refusal) => tracing::debug!(%peer, %refusal, "a peer record does not count"),
        }
        Vec::new()
    }

    /// Some of the records that this node knows, others each time.
    pub(super) fn sample(&mut self, have: &UidSet) -> Vec<SignedPeerRecord> {
        let sample = self.shared.book().sample(have, self.turn);
        self.turn = sample.last().map_or(0, |last| last.record().uid.index() as u8).wrapping_add(1);
        sample
    }

    /// Asks a peer for the records that it knows.
    pub(super) fn ask_for_list(&self, peer: PeerKey, effects: &mut Effects) {
        let have = self.shared.book().known_uids();
        let ask = Ask { request: Request::Records(have), answer_bytes_max: RECORDS_BYTES_MAX };
        effects.push_back(Effect::ask(peer, ask, Purpose::Records));
    }

    /// The chain view has changed.
    pub(super) fn look_again(&mut self) {
        self.circulation.look_again();
    }

    // ---- the own one

    /// The own record, if there is one.
    pub(super) fn own(&self) -> Option<SignedPeerRecord> {
        self.shared.book().own().cloned()
    }

    /// Asks a peer for its record by showing the own one.
    pub(super) fn show_to(&self, peer: PeerKey, effects: &mut Effects) {
        if let Some(record) = self.own() {
            let ask = Ask { request: Request::Record(record), answer_bytes_max: PEER_RECORD_BYTES_MAX + 256 };
            effects.push_back(Effect::ask(peer, ask, Purpose::Record));
        }
    }

    /// A peer did not answer to it: the connection was closed as surplus, say. It is shown again over the other one.
    pub(super) fn not_answered(&mut self, peer: PeerKey) {
        self.unshown.insert(peer);
    }

    /// Shows it again to those that did not answer.
    pub(super) fn show_again(&mut self, connected: &BTreeSet<PeerKey>, effects: &mut Effects) {
        for peer in std::mem::take(&mut self.unshown) {
            if connected.contains(&peer) {
                self.show_to(peer, effects);
            }
        }
    }

    /// It has changed: shows it to every peer, and gossips it.
    pub(super) fn changed(
        &mut self,
        behaviour: &mut GossipBehaviour,
        connected: &BTreeSet<PeerKey>,
        effects: &mut Effects,
    ) {
        if self.own().is_some() {
            connected.iter().for_each(|peer| self.show_to(*peer, effects));
            self.gossip(behaviour);
        }
    }

    fn gossip(&mut self, behaviour: &mut GossipBehaviour) {
        if self.own().is_some_and(|record| self.gossip_one(behaviour, &record)) {
            self.circulation.sent(Instant::now());
        }
    }

    fn gossip_one(&mut self, behaviour: &mut GossipBehaviour, record: &SignedPeerRecord) -> bool {
        self.beat = self.beat.wrapping_add(1);
        behaviour.publish(self.topic.hash(), record_message(self.beat, record)).is_ok()
    }

    /// A neighbour began to listen for records: it gets the own one and some of those of others.
    pub(super) fn introduce(&mut self, behaviour: &mut GossipBehaviour) {
        if !self.circulation.was_sent() {
            self.gossip(behaviour);
        }
        if !self.circulation.introduces(Instant::now()) {
            return;
        }
        let known: Vec<SignedPeerRecord> = {
            let book = self.shared.book();
            book.own().into_iter().chain(book.records()).take(INTRODUCED_MAX).cloned().collect()
        };
        for record in known {
            self.gossip_one(behaviour, &record);
        }
    }

    /// Gossips what is due: the own record again, and introductions that were put off.
    pub(super) fn upkeep(&mut self, behaviour: &mut GossipBehaviour, now: Instant) {
        if self.circulation.repeats(now) {
            self.gossip(behaviour);
        }
        if self.circulation.owes() {
            self.introduce(behaviour);
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
