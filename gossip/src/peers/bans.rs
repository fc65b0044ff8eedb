//! Who is refused, and until when. Peer ids are free, so a ban also holds for the member that the peer spoke for.

use super::PeerKey;
use covey_proto::{BlockNumber, Hotkey, Uid};
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Bans at a time. More make the one that ends first end now: whoever can make so many ids gains nothing by one ban less.
const BANS_MAX: usize = 4096;

/// Who holds a uid; another holder is another member.
pub(crate) type MemberKey = (Uid, Hotkey, BlockNumber);

#[derive(Debug, Default)]
pub(crate) struct Bans {
    peers: HashMap<PeerKey, Instant>,
    members: HashMap<MemberKey, Instant>,
}

impl Bans {
    pub(crate) fn ban(&mut self, peer: PeerKey, member: Option<MemberKey>, now: Instant, time: Duration) {
        insert(&mut self.peers, peer, now, now + time);
        if let Some(member) = member {
            insert(&mut self.members, member, now, now + time);
        }
    }

    pub(crate) fn holds(&self, peer: &PeerKey, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|until| *until > now)
    }

    pub(crate) fn holds_member(&self, member: &MemberKey, now: Instant) -> bool {
        self.members.get(member).is_some_and(|until| *until > now)
    }
}

fn insert<K: Hash + Eq + Copy>(bans: &mut HashMap<K, Instant>, key: K, now: Instant, until: Instant) {
    if bans.len() >= BANS_MAX {
        bans.retain(|_, until| *until > now);
    }
    if bans.len() >= BANS_MAX {
        let first = bans.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
        first.and_then(|first| bans.remove(&first));
    }
    let held = bans.entry(key).or_insert(until);
    *held = (*held).max(until);
}

#[cfg(test)]
mod tests {
    use super::super::key::test_peer;
    use super::*;

    #[test]
    fn a_ban_holds_for_peer_and_member_and_ends() {
        let (mut bans, now, time) = (Bans::default(), Instant::now(), Duration::from_secs(60));
        let member = (Uid::from(3), Hotkey::new([3; 32]), BlockNumber(5));
        bans.ban(test_peer(1), Some(member), now, time);
        assert!(bans.holds(&test_peer(1), now) && bans.holds_member(&member, now));
        assert!(!bans.holds(&test_peer(2), now));
        assert!(!bans.holds_member(&(member.0, member.1, BlockNumber(6)), now), "a later holder is another member");
        assert!(!bans.holds(&test_peer(1), now + time));
    }
}
