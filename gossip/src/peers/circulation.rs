//! Which peer records go round: how often one is passed on, when the own one is repeated, when newcomers are introduced.
//!
//! Whether a record is anybody's is the [book](super::book)'s to say; here its answer, and the time, become a yes or no.

use super::book::Refusal;
use super::bucket::{Buckets, Rate};
use covey_proto::{Digest, Uid};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a member's new record is passed on.
const NEWS_RATE: Rate = Rate { burst: 4, refill: Duration::from_secs(30) };
/// How often a known one is. Anyone may repeat a record; that crowds out only other repetitions of it.
const REPEAT_RATE: Rate = Rate { burst: 2, refill: Duration::from_secs(30) };
/// Uids that have a bucket: more than a subnet has.
const UIDS_MAX: usize = 1024;
/// Time between two introductions of members to newcomers.
const INTRODUCE_EACH: Duration = Duration::from_secs(5);

/// What becomes of a record that gossip brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    /// It was news: there may be somebody to dial.
    pub(crate) news: bool,
    /// It goes on to the neighbours.
    pub(crate) pass_on: bool,
}

#[derive(Debug)]
pub(crate) struct Circulation {
    news_rate: Buckets<Uid>,
    repeat_rate: Buckets<Uid>,
    /// Records whose signature held, by the digest of their message: repetitions need no second look.
    verified: HashMap<Digest, Uid>,
    /// When the own record was last gossiped.
    sent_at: Option<Instant>,
    repeat_each: Duration,
    introduced_at: Option<Instant>,
    /// Somebody came too soon after the last introduction.
    introduction_due: bool,
}

impl Circulation {
    pub(crate) fn new(repeat_each: Duration) -> Circulation {
        Circulation {
            news_rate: Buckets::new(NEWS_RATE, UIDS_MAX),
            repeat_rate: Buckets::new(REPEAT_RATE, UIDS_MAX),
            verified: HashMap::new(),
            sent_at: None,
            repeat_each,
            introduced_at: None,
            introduction_due: false,
        }
    }

    /// A record came whose digest is this. Whether it goes on, if it was looked at before; none if it must be looked at.
    pub(crate) fn again(&mut self, digest: &Digest, now: Instant) -> Option<bool> {
        let uid = *self.verified.get(digest)?;
        Some(self.repeat_rate.take(uid, now))
    }

    /// It was looked at: its signature holds, and the book says what it is.
    pub(crate) fn heard(&mut self, digest: Digest, uid: Uid, judged: Result<bool, Refusal>, now: Instant) -> Passing {
        match judged {
            Ok(true) => {
                // The one that it replaces is no repetition any more.
                self.verified.retain(|_, other| *other != uid);
                self.verified.insert(digest, uid);
                Passing { news: true, pass_on: self.news_rate.take(uid, now) }
            }
            Ok(false) => Passing { news: false, pass_on: self.repeat_rate.take(uid, now) },
            Err(_) => Passing { news: false, pass_on: false },
        }
    }

    /// The chain view has changed: records may have ceased to count with it.
    pub(crate) fn look_again(&mut self) {
        self.verified.clear();
    }

    /// The own record was gossiped.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent_at = Some(now);
    }

    /// Whether it ever was.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent_at.is_some()
    }

    /// Whether it is time to repeat it.
    pub(crate) fn repeats(&self, now: Instant) -> bool {
        self.sent_at.is_some_and(|sent| now.saturating_duration_since(sent) >= self.repeat_each)
    }

    /// Somebody began to listen. Whether members are introduced now; if not, they are as soon as [`Self::owes`] says so.
    pub(crate) fn introduces(&mut self, now: Instant) -> bool {
        if self.introduced_at.is_some_and(|at| now.saturating_duration_since(at) < INTRODUCE_EACH) {
            self.introduction_due = true;
            return false;
        }
        self.introduced_at = Some(now);
        self.introduction_due = false;
        true
    }

    /// Whether an introduction was put off.
    pub(crate) fn owes(&self) -> bool {
        self.introduction_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_secs(60);

    #[test]
    fn news_passes_at_once_repetitions_seldom_and_what_does_not_count_never() {
        let (mut circulation, now) = (Circulation::new(EACH), Instant::now());
        let (uid, first, second) = (Uid::from(3), Digest::of(b"first"), Digest::of(b"second"));
        assert_eq!(circulation.again(&first, now), None, "nobody has looked at it");
        assert_eq!(circulation.heard(first, uid, Ok(true), now), Passing { news: true, pass_on: true });
        let passed = (0..9).filter(|_| circulation.again(&first, now) == Some(true)).count();
        assert_eq!(passed, 2, "repetitions crowd out repetitions");
        assert_eq!(circulation.heard(second, uid, Ok(true), now), Passing { news: true, pass_on: true });
        assert_eq!(circulation.again(&first, now), None, "the one that was replaced is looked at anew");
        assert_eq!(circulation.heard(first, uid, Ok(false), now), Passing { news: false, pass_on: false });
        for refusal in [Refusal::NoMember, Refusal::Stale, Refusal::Twins] {
            assert!(!circulation.heard(first, uid, Err(refusal), now).pass_on);
        }
        circulation.look_again();
        assert_eq!(circulation.again(&second, now), None);
    }

    #[test]
    fn a_member_that_makes_records_is_heard_four_times_and_others_all_the_same() {
        let (mut circulation, now) = (Circulation::new(EACH), Instant::now());
        let news = |circulation: &mut Circulation, uid: u8, n: u8| {
            circulation.heard(Digest::of(&[uid, n]), Uid::from(uid), Ok(true), now).pass_on
        };
        assert_eq!((0..9).filter(|n| news(&mut circulation, 1, *n)).count(), 4);
        assert!(news(&mut circulation, 2, 0));
    }

    #[test]
    fn the_own_record_is_repeated_once_it_was_sent_and_its_time_has_come() {
        let (mut circulation, now) = (Circulation::new(EACH), Instant::now());
        assert!(!circulation.was_sent() && !circulation.repeats(now + 9 * EACH), "there may be none");
        circulation.sent(now);
        assert!(circulation.was_sent() && !circulation.repeats(now + EACH / 2) && circulation.repeats(now + EACH));
        circulation.sent(now + EACH);
        assert!(!circulation.repeats(now + EACH));
    }

    #[test]
    fn newcomers_that_come_at_once_are_introduced_together() {
        let (mut circulation, now) = (Circulation::new(EACH), Instant::now());
        assert!(circulation.introduces(now) && !circulation.owes());
        assert!(!circulation.introduces(now) && !circulation.introduces(now + INTRODUCE_EACH / 2));
        assert!(circulation.owes());
        assert!(circulation.introduces(now + INTRODUCE_EACH) && !circulation.owes());
    }
}
