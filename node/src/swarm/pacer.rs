//! When a swarm's chain makes a block: as soon as no live node has work left, or after a timeout.
//!
//! It knows the nodes by what they say of their pace: a slow machine makes a round longer, never emptier. Nodes that
//! start or catch up do not hold the others up, but while there are any, blocks come no faster than `BLOCK_MIN`: a run of
//! idle nodes would be rounds ahead before a newcomer has shaken a hand. Pure: it is told the time.

use crate::supervise::Pace;
use covey_proto::BlockNumber;
use std::time::Duration;
use tokio::time::Instant;

/// After so long without a block one is made all the same: a node hangs.
pub(super) const BLOCK_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at a swarm whose blocks are held back.
const LOOK_EACH: Duration = Duration::from_millis(200);

/// The least time between blocks while somebody catches up: a round of 24 takes more than a second then, and a catch-up
/// of some rounds less.
pub(super) const BLOCK_MIN: Duration = Duration::from_millis(50);

/// The least time between blocks after the chain's process was away: what waited in its pool is gone, and nodes send it
/// again once they are connected and see a block, which no pace shows.
pub(super) const BLOCK_AFTER_ABSENCE: Duration = Duration::from_millis(500);

/// Blocks that come so slowly then: one that nodes see, and one for what they have sent again; as many more for nodes
/// that were slow to connect.
const BLOCKS_AFTER_ABSENCE: u32 = 4;

/// Says when blocks are due.
pub(super) struct Pacer {
    finality_lag: u32,
    /// Blocks that are still to come slowly.
    slow: u32,
    best: BlockNumber,
    since: Instant,
}

/// A node, as far as blocks are concerned.
pub(super) enum Part<'a> {
    /// It runs, and says how far it is.
    Running(&'a Pace),
    /// It starts.
    Starting,
}

/// When the next block is due, as things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nobody has work left.
    At(Instant),
    /// Somebody has; this is when it is made all the same.
    Late(Instant),
}

impl Pacer {
    /// For a chain whose newest block is `best`, and whose finality is so many blocks behind.
    pub(super) fn new(best: BlockNumber, finality_lag: u32, now: Instant) -> Pacer {
        Pacer { finality_lag, slow: 0, best, since: now }
    }

    /// A block was made.
    pub(super) fn made(&mut self, best: BlockNumber, now: Instant) {
        (self.best, self.since) = (best, now);
        self.slow = self.slow.saturating_sub(1);
    }

    /// The chain was away, and answers again.
    pub(super) fn was_away(&mut self) {
        self.slow = BLOCKS_AFTER_ABSENCE;
    }

    /// No block is made for now, for a reason that is no node's: nobody is late before as much time again.
    pub(super) fn held(&mut self, now: Instant) {
        self.since = now;
    }

    /// When the swarm looks again whether blocks may go on.
    pub(super) fn look_again(&self) -> Instant {
        self.since + LOOK_EACH
    }

    /// When the next block is due.
    pub(super) fn due<'a>(&self, nodes: impl IntoIterator<Item = Part<'a>>) -> Due {
        let finalised = self.best.0.saturating_sub(self.finality_lag);
        let (mut busy, mut catches_up) = (false, false);
        for node in nodes {
            match node {
                Part::Running(pace) if pace.live => {
                    busy |= !pace.idle || pace.seen < self.best || pace.finalised.0 < finalised;
                }
                Part::Running(_) | Part::Starting => catches_up = true,
            }
        }
        match (busy, self.slow, catches_up) {
            (true, ..) => Due::Late(self.since + BLOCK_TIMEOUT),
            (false, 1.., _) => Due::At(self.since + BLOCK_AFTER_ABSENCE),
            (false, 0, true) => Due::At(self.since + BLOCK_MIN),
            (false, 0, false) => Due::At(self.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_late_for_blocks_that_were_held_back() {
        let start = Instant::now();
        let mut pacer = Pacer::new(BlockNumber(7), 2, start);
        let later = start + 2 * BLOCK_TIMEOUT;
        pacer.held(later);
        assert_eq!(pacer.look_again(), later + LOOK_EACH);
        assert_eq!(pacer.due([Part::Running(&pace(7, false))]), Due::Late(later + BLOCK_TIMEOUT));
    }

    fn pace(seen: u32, idle: bool) -> Pace {
        let (seen, finalised) = (BlockNumber(seen), BlockNumber(seen.saturating_sub(2)));
        Pace { seen, finalised, idle, live: true, ..Pace::default() }
    }

    #[test]
    fn a_block_is_due_once_every_live_node_has_seen_the_last_and_is_idle() {
        let now = Instant::now();
        let pacer = Pacer::new(BlockNumber(7), 2, now);
        let due = |paces: &[Pace]| pacer.due(paces.iter().map(Part::Running));
        assert_eq!(due(&[pace(7, true), pace(8, true)]), Due::At(now));
        let late = Due::Late(now + BLOCK_TIMEOUT);
        assert_eq!(due(&[pace(7, true), pace(7, false)]), late, "one works");
        assert_eq!(due(&[pace(7, true), pace(6, true)]), late, "one has not seen it");
        let unsure = Pace { finalised: BlockNumber(4), ..pace(7, true) };
        assert_eq!(due(&[unsure]), late, "one does not know what is final");
        assert_eq!(due(&[]), Due::At(now));
    }

    #[test]
    fn who_catches_up_holds_nobody_up_and_slows_everybody_down() {
        let now = Instant::now();
        let mut pacer = Pacer::new(BlockNumber(0), 2, now);
        let later = now + Duration::from_secs(1);
        pacer.made(BlockNumber(7), later);
        let away = Pace { live: false, ..pace(3, false) };
        let due = pacer.due([Part::Running(&pace(7, true)), Part::Running(&away)]);
        assert_eq!(due, Due::At(later + BLOCK_MIN));
        assert_eq!(pacer.due([Part::Starting]), Due::At(later + BLOCK_MIN));
        assert_eq!(pacer.due([Part::Running(&pace(6, true)), Part::Starting]), Due::Late(later + BLOCK_TIMEOUT));
    }

    #[test]
    fn after_an_absence_of_the_chain_some_blocks_come_slowly() {
        let now = Instant::now();
        let mut pacer = Pacer::new(BlockNumber(7), 2, now);
        pacer.was_away();
        for _ in 0..BLOCKS_AFTER_ABSENCE {
            assert_eq!(pacer.due([Part::Running(&pace(7, true))]), Due::At(now + BLOCK_AFTER_ABSENCE));
            assert_eq!(pacer.due([Part::Running(&pace(7, false))]), Due::Late(now + BLOCK_TIMEOUT));
            pacer.made(BlockNumber(7), now);
        }
        assert_eq!(pacer.due([Part::Running(&pace(7, true))]), Due::At(now));
    }
}
