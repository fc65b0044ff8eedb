//! How many different announcements of one author and round are looked at. A node's verdict costs a hash of all of it and
//! a look at the chain, and an honest author makes one: who brings more is not listened to before that.
//!
//! They are counted for each neighbour that brings them. Anybody can make up announcements of any author, and before the
//! round's commitments are final nobody can tell them from the right one: counted together, four made-up ones would shut
//! it out. A neighbour takes only its own places; an honest one passes on what was committed, which is one.

use crate::peers::PeerKey;
use covey_proto::blob::MANIFEST;
use covey_proto::{Round, Uid};
use prost::Message;
use std::collections::{HashMap, VecDeque};

/// Different announcements of one author and round that are looked at from one neighbour: room for a mistake or two.
pub(crate) const CLAIMS_MAX: u8 = 4;
/// Claims remembered: 64 neighbours that bring the announcements of 256 uids. Beyond, the oldest are forgotten: whoever
/// makes up rounds to get there is refused by the bound on neighbours and by the node's verdicts.
const KEYS_MAX: usize = 64 * 256;

/// Who brought an announcement, and what that says that it is, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    from: PeerKey,
    round: Round,
    uid: Uid,
}

/// The announcement's first fields, and nothing of its shards.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "2")]
    manifest: Vec<u8>,
}

/// The same of its manifest.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint32, tag = "2")]
    round: u32,
    #[prost(uint32, tag = "3")]
    uid: u32,
}

/// What an announcement brought by `from` claims; none if it is not even that: the node will say so.
pub(crate) fn claim_of(from: PeerKey, bytes: &[u8]) -> Option<Claim> {
    let envelope = Envelope::decode(bytes).ok()?;
    let head = Head::decode(envelope.manifest.strip_prefix(MANIFEST.as_slice())?).ok()?;
    Some(Claim { from, round: Round(head.round), uid: Uid::new(head.uid)? })
}

/// Counts those that wait for a verdict or were accepted. A rejected one already costs who brought it; one that is ignored
/// costs nobody anything, so that anyone could make up an author's next round with it. Neither takes the author's place.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    counts: HashMap<Claim, u8>,
    order: VecDeque<Claim>,
}

impl Claims {
    /// Whether one more is looked at.
    pub(crate) fn take(&mut self, claim: Claim) -> bool {
        if !self.counts.contains_key(&claim) {
            if self.order.len() >= KEYS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.counts.remove(&oldest);
            }
            self.order.push_back(claim);
        }
        let count = self.counts.entry(claim).or_default();
        let taken = *count < CLAIMS_MAX;
        *count += u8::from(taken);
        taken
    }

    /// One of them was not accepted.
    pub(crate) fn give_back(&mut self, claim: Claim) {
        if let Some(count) = self.counts.get_mut(&claim) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::peers::test_peer;
    use covey_proto::blob::{BlobRef, Manifest};
    use covey_proto::message::Announcement;
    use covey_proto::{Digest, Hotkey, RunId};
    use proptest::prelude::*;

    /// The bytes of an announcement as nodes take it.
    pub(crate) fn announcement(round: u32, uid: u8, shard: &[u8]) -> Vec<u8> {
        let inline = vec![shard.to_vec()];
        let manifest = Manifest {
            run: RunId(Digest::ZERO),
            round: Round(round),
            uid: Uid::from(uid),
            hotkey: Hotkey::from_slice(&[7; 32]).expect("32 bytes"),
            registered_at: 1,
            base: Digest::ZERO,
            samples: 1,
            codec: 1,
            shards: vec![BlobRef::of(shard)],
        };
        let bytes = Announcement { manifest, inline }.to_bytes();
        Announcement::from_bytes(&bytes, 64).expect("a node takes it");
        bytes
    }

    fn claim(n: u8, round: u32, uid: u8) -> Claim {
        Claim { from: test_peer(n), round: Round(round), uid: Uid::from(uid) }
    }

    #[test]
    fn a_claim_is_read_from_what_nodes_send() {
        assert_eq!(claim_of(test_peer(1), &announcement(9, 3, b"a shard")), Some(claim(1, 9, 3)));
        assert_eq!(claim_of(test_peer(1), &[255; 20]), None);
    }

    #[test]
    fn four_of_an_author_and_round_are_looked_at_and_a_rejected_one_makes_room() {
        let mut claims = Claims::default();
        let mine = claim(1, 1, 1);
        assert_eq!((0..9).filter(|_| claims.take(mine)).count(), 4);
        assert!(claims.take(claim(1, 2, 1)) && claims.take(claim(1, 1, 2)), "others are others");
        claims.give_back(mine);
        assert_eq!((0..9).filter(|_| claims.take(mine)).count(), 1);
    }

    #[test]
    fn forgeries_take_the_places_of_whoever_brings_them_only() {
        let mut claims = Claims::default();
        assert_eq!((0..9).filter(|_| claims.take(claim(1, 1, 1))).count(), 4);
        assert!(claims.take(claim(2, 1, 1)), "the author's own comes by another neighbour");
    }

    #[test]
    fn made_up_rounds_push_out_the_oldest_and_take_no_more_room() {
        let mut claims = Claims::default();
        (0..3 * KEYS_MAX as u32).for_each(|round| assert!(claims.take(claim(1, round, 1))));
        assert_eq!((claims.counts.len(), claims.order.len()), (KEYS_MAX, KEYS_MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Whether they claim anything does not matter.
            let _ = claim_of(test_peer(1), &bytes);
        }
    }
}
