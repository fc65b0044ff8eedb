//! Pulls of a round's announcements: whom to ask, what of the answers counts, when one has ended. `T` is whom to tell.
//!
//! Gossip is best effort, so a node that lacks announcements asks a few connected peers for them: others each time, so that
//! no few peers decide what it hears of. Each different announcement is given once, with a peer that brought it, unchecked.

use crate::peers::PeerKey;
use covey_proto::Digest;
use covey_proto::message::{ANNOUNCEMENT_BYTES_MAX, ROUND_ANNOUNCEMENTS_MAX};
use covey_proto::record::UidSet;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// Announcements, each with the peer that brought it.
pub(crate) type Pulled = Vec<(PeerKey, Vec<u8>)>;

/// A pull of this network's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PullId(u64);

/// Whom to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PullRequests {
    pub(crate) pull: PullId,
    pub(crate) peers: Vec<PeerKey>,
    /// Announcements that each of them can have for it.
    pub(crate) entries_max: usize,
}

/// A pull that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PullResult<T> {
    pub(crate) asker: T,
    pub(crate) found: Pulled,
}

#[derive(Debug)]
struct Pull<T> {
    left: usize,
    seen: HashSet<Digest>,
    found: Pulled,
    deadline: Instant,
    asker: T,
}

/// All pulls under way.
#[derive(Debug)]
pub(crate) struct Pulls<T> {
    peers_max: usize,
    timeout: Duration,
    made: u64,
    open: BTreeMap<PullId, Pull<T>>,
}

impl<T> Pulls<T> {
    pub(crate) fn new(peers_max: usize, timeout: Duration) -> Pulls<T> {
        Pulls { peers_max, timeout, made: 0, open: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begins one for whoever has `have`. Without a peer to ask it has ended already: see [`Pulls::expire`].
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        connected: &BTreeSet<PeerKey>,
        have: &UidSet,
        asker: T,
    ) -> PullRequests {
        self.made += 1;
        let (pull, count) = (PullId(self.made), self.peers_max.min(connected.len()));
        let start = (self.made as usize).wrapping_mul(self.peers_max) % connected.len().max(1);
        let peers: Vec<PeerKey> = connected.iter().cycle().skip(start).take(count).copied().collect();
        let deadline = if peers.is_empty() { now } else { now + self.timeout };
        self.open.insert(pull, Pull { left: peers.len(), seen: HashSet::new(), found: vec![], deadline, asker });
        // One announcement a uid, and none of those that are here.
        PullRequests { pull, peers, entries_max: ROUND_ANNOUNCEMENTS_MAX - have.len().min(ROUND_ANNOUNCEMENTS_MAX) }
    }

    /// A peer's announcements came. True if the pull still waits for them.
    ///
    /// # Errors
    /// Why only a peer that breaks the protocol sends them.
    pub(crate) fn came(
        &mut self,
        pull: PullId,
        peer: PeerKey,
        entries_max: usize,
        list: &[Vec<u8>],
    ) -> Result<bool, &'static str> {
        if list.len() > entries_max {
            return Err("more announcements than there are uids left");
        }
        if list.iter().any(|announcement| announcement.len() > ANNOUNCEMENT_BYTES_MAX) {
            return Err("an announcement above the limit");
        }
        let Some(open) = self.open.get_mut(&pull) else { return Ok(false) };
        for announcement in list {
            if open.seen.insert(Digest::of(announcement)) {
                open.found.push((peer, announcement.clone()));
            }
        }
        Ok(true)
    }

    /// One of the peers has answered, whatever it said, or will not. The pull, if that was the last.
    pub(crate) fn answered(&mut self, pull: PullId) -> Option<PullResult<T>> {
        let open = self.open.get_mut(&pull)?;
        open.left = open.left.saturating_sub(1);
        if open.left > 0 {
            return None;
        }
        self.end(pull)
    }

    /// The pulls whose time is up, with what came.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PullResult<T>> {
        let late: Vec<PullId> = self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|pull| self.end(pull)).collect()
    }

    fn end(&mut self, pull: PullId) -> Option<PullResult<T>> {
        self.open.remove(&pull).map(|open| PullResult { asker: open.asker, found: open.found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use covey_proto::Uid;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn connected(count: u8) -> BTreeSet<PeerKey> {
        (0..count).map(test_peer).collect()
    }

    #[test]
    fn others_are_asked_each_time_and_all_in_turn() {
        let (mut pulls, now) = (Pulls::new(4, PATIENCE), Instant::now());
        let all = connected(10);
        let mut asked = BTreeSet::new();
        for n in 0..5 {
            let asks = pulls.begin(now, &all, &UidSet::default(), n);
            assert_eq!(asks.peers.iter().collect::<BTreeSet<_>>().len(), 4, "nobody twice");
            asked.extend(asks.peers);
        }
        assert_eq!(asked, all);
        assert_eq!(pulls.begin(now, &connected(2), &UidSet::default(), 9).peers.len(), 2);
    }

    #[test]
    fn each_announcement_is_given_once_and_the_last_answer_ends_the_pull() {
        let (mut pulls, now) = (Pulls::new(3, PATIENCE), Instant::now());
        let have: UidSet = [Uid::from(1)].into_iter().collect();
        let PullRequests { pull, peers, entries_max } = pulls.begin(now, &connected(3), &have, 'a');
        assert_eq!(entries_max, ROUND_ANNOUNCEMENTS_MAX - 1);
        assert_eq!(pulls.came(pull, peers[0], entries_max, &[vec![1], vec![2]]), Ok(true));
        assert_eq!(pulls.answered(pull), None);
        assert_eq!(pulls.came(pull, peers[1], entries_max, &[vec![2], vec![3]]), Ok(true));
        assert_eq!(pulls.answered(pull), None);
        let found = vec![(peers[0], vec![1]), (peers[0], vec![2]), (peers[1], vec![3])];
        assert_eq!(pulls.answered(pull), Some(PullResult { asker: 'a', found }), "the third said nothing");
        assert_eq!(pulls.came(pull, peers[2], entries_max, &[vec![4]]), Ok(false), "too late");
        assert_eq!(pulls.answered(pull), None);
    }

    #[test]
    fn more_than_was_asked_for_breaks_the_protocol_even_too_late() {
        let (mut pulls, now) = (Pulls::new(3, PATIENCE), Instant::now());
        let PullRequests { pull, peers, .. } = pulls.begin(now, &connected(1), &UidSet::default(), 'a');
        assert!(pulls.came(pull, peers[0], 1, &[vec![1], vec![2]]).is_err());
        assert!(pulls.came(pull, peers[0], 1, &[vec![0; ANNOUNCEMENT_BYTES_MAX + 1]]).is_err());
        assert_eq!(pulls.answered(pull), Some(PullResult { asker: 'a', found: vec![] }));
        assert!(pulls.came(pull, peers[0], 1, &[vec![1], vec![2]]).is_err());
    }

    #[test]
    fn a_pull_ends_with_its_time_and_at_once_if_nobody_can_be_asked() {
        let (mut pulls, now) = (Pulls::new(3, PATIENCE), Instant::now());
        let asks = pulls.begin(now, &connected(2), &UidSet::default(), 'a');
        assert!(pulls.begin(now, &BTreeSet::new(), &UidSet::default(), 'b').peers.is_empty());
        let ended = |pulls: &mut Pulls<char>, at: Instant| -> Vec<char> {
            pulls.expire(at).into_iter().map(|ended| ended.asker).collect()
        };
        assert_eq!(ended(&mut pulls, now), ['b']);
        assert_eq!(pulls.came(asks.pull, asks.peers[0], 9, &[vec![7]]), Ok(true));
        assert!(pulls.expire(now + PATIENCE / 2).is_empty() && !pulls.is_empty());
        let late = pulls.expire(now + PATIENCE);
        assert_eq!(late, [PullResult { asker: 'a', found: vec![(asks.peers[0], vec![7])] }], "what came is given");
        assert!(pulls.is_empty());
    }
}
