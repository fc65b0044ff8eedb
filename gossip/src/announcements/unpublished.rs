//! Own announcements that could be told to nobody yet: which of them are tried again, and for how long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Announcements that are kept so: a node makes one a round.
const KEPT_MAX: usize = 4;
/// How long they are: half a round of the slowest clock, after which nobody would want them.
const KEPT_TIME: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    until: Instant,
}

/// How one more try went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt<E> {
    /// Somebody was told, or had been.
    Told {
        /// It had been: nothing was sent now.
        before: bool,
    },
    /// Nobody could be.
    Nobody(E),
}

#[derive(Debug, Default)]
pub(crate) struct Unpublished {
    waiting: VecDeque<Waiting>,
}

impl Unpublished {
    /// Keeps one for later. True if another had to make room: that one is lost.
    pub(crate) fn keep(&mut self, bytes: Vec<u8>, now: Instant) -> bool {
        if self.waiting.iter().any(|other| other.bytes == bytes) {
            return false;
        }
        let lost = self.waiting.len() >= KEPT_MAX && self.waiting.pop_front().is_some();
        self.waiting.push_back(Waiting { bytes, until: now + KEPT_TIME });
        lost
    }

    /// Tries all of them again. How many were told now, and why each that is given up could not be.
    pub(crate) fn retry<E>(&mut self, now: Instant, mut publish: impl FnMut(&[u8]) -> Attempt<E>) -> (usize, Vec<E>) {
        let (mut told, mut given_up) = (0, Vec::new());
        for waiting in std::mem::take(&mut self.waiting) {
            match publish(&waiting.bytes) {
                Attempt::Told { before } => told += usize::from(!before),
                Attempt::Nobody(why) if waiting.until <= now => given_up.push(why),
                Attempt::Nobody(_) => self.waiting.push_back(waiting),
            }
        }
        (told, given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_tried_until_somebody_listens_and_told_once() {
        let (mut unpublished, now) = (Unpublished::default(), Instant::now());
        assert!(!unpublished.keep(vec![1], now));
        assert!(!unpublished.keep(vec![1], now), "it is kept once");
        assert_eq!(unpublished.retry(now, |_| Attempt::Nobody("alone")), (0, vec![]));
        assert_eq!(unpublished.retry::<()>(now, |_| Attempt::Told { before: false }), (1, vec![]));
        let mut tries = 0;
        unpublished.retry::<()>(now, |_| {
            tries += 1;
            Attempt::Told { before: false }
        });
        assert_eq!(tries, 0);
        unpublished.keep(vec![2], now);
        assert_eq!(unpublished.retry::<()>(now, |_| Attempt::Told { before: true }), (0, vec![]), "others did it");
    }

    #[test]
    fn half_a_round_later_it_is_given_up_and_the_oldest_of_five_makes_room() {
        let (mut unpublished, now) = (Unpublished::default(), Instant::now());
        for n in 0..5 {
            assert_eq!(unpublished.keep(vec![n], now), n == 4);
        }
        let mut tried = Vec::new();
        unpublished.retry(now, |bytes| {
            tried.push(bytes[0]);
            Attempt::Nobody(())
        });
        assert_eq!(tried, [1, 2, 3, 4]);
        assert_eq!(unpublished.retry(now + KEPT_TIME, |_| Attempt::Nobody("alone")), (0, vec!["alone"; 4]));
        assert!(unpublished.waiting.is_empty());
    }
}
