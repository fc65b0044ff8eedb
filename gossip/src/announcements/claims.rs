//! How many different announcements of one author and round are looked at. A node's verdict costs a hash of all of it and
//! a look at the chain, and an honest author makes one: who makes more is not listened to before that.

use covey_proto::{Round, Uid};
use prost::Message;
use std::collections::{HashMap, VecDeque};

/// Different announcements of one author and round that are looked at: a mistake or two, as p2p design has it.
pub(crate) const CLAIMS_MAX: u8 = 4;
/// Authors and rounds remembered: sixteen rounds of 256 uids. Beyond, the oldest are forgotten: whoever makes up rounds
/// to get there is refused by the bound on neighbours and by the node's verdicts.
const KEYS_MAX: usize = 4096;

/// What an announcement says that it is, unchecked.
pub(crate) type Claim = (Round, Uid);

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

/// What an announcement claims; none if it is not even that: the node will say so.
pub(crate) fn claim_of(bytes: &[u8]) -> Option<Claim> {
    let envelope = Envelope::decode(bytes).ok()?;
    let head = Head::decode(envelope.manifest.as_slice()).ok()?;
    Some((Round(head.round), Uid::new(head.uid)?))
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
mod tests {
    use super::*;
    use covey_proto::wire;
    use proptest::prelude::*;

    fn uid(n: u8) -> Uid {
        Uid::from(n)
    }

    #[test]
    fn a_claim_is_read_from_what_nodes_send() {
        let manifest = wire::Manifest { run: vec![7; 32], round: 9, uid: 3, ..Default::default() };
        let shards = vec![vec![0; 1000]];
        let announcement = wire::Announcement { uid: 3, manifest: manifest.encode_to_vec(), shards };
        assert_eq!(claim_of(&announcement.encode_to_vec()), Some((Round(9), uid(3))));
        assert_eq!(claim_of(&[255; 20]), None);
    }

    #[test]
    fn four_of_an_author_and_round_are_looked_at_and_a_rejected_one_makes_room() {
        let mut claims = Claims::default();
        let mine = (Round(1), uid(1));
        assert_eq!((0..9).filter(|_| claims.take(mine)).count(), 4);
        assert!(claims.take((Round(2), uid(1))) && claims.take((Round(1), uid(2))), "others are others");
        claims.give_back(mine);
        assert_eq!((0..9).filter(|_| claims.take(mine)).count(), 1);
    }

    #[test]
    fn made_up_rounds_push_out_the_oldest_and_take_no_more_room() {
        let mut claims = Claims::default();
        (0..3 * KEYS_MAX as u32).for_each(|round| assert!(claims.take((Round(round), uid(1)))));
        assert_eq!((claims.counts.len(), claims.order.len()), (KEYS_MAX, KEYS_MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Whether they claim anything does not matter.
            let _ = claim_of(&bytes);
        }
    }
}
