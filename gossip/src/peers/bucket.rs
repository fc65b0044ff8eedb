//! Token buckets: how often a thing may happen.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often: `burst` at once, then one each `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Time after which one more is allowed.
    pub refill: Duration,
}

/// A bucket for each key. Full buckets are forgotten, so that keys that come and go cost nothing for long.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    /// When each bucket will be full again.
    full_at: HashMap<K, Instant>,
    keys_max: usize,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(rate: Rate, keys_max: usize) -> Buckets<K> {
        Buckets { rate, full_at: HashMap::new(), keys_max }
    }

    /// Takes one token. Refuses if there is none, or if there are too many keys at once.
    pub(crate) fn take(&mut self, key: K, now: Instant) -> bool {
        if self.full_at.len() >= self.keys_max {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= self.keys_max && !self.full_at.contains_key(&key) {
                return false;
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        let after = (*full_at).max(now) + self.rate.refill;
        if after > now + self.rate.refill * self.rate.burst {
            return false;
        }
        *full_at = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_refill() {
        let rate = Rate { burst: 3, refill: Duration::from_secs(1) };
        let mut buckets = Buckets::new(rate, 2);
        let start = Instant::now();
        let taken = (0..5).filter(|_| buckets.take("a", start)).count();
        assert_eq!(taken, 3);
        assert!(buckets.take("a", start + Duration::from_secs(1)));
        assert!(!buckets.take("a", start + Duration::from_secs(1)));
        assert!(buckets.take("b", start));
        assert!(!buckets.take("c", start), "no room for a third key");
        assert!(buckets.take("c", start + Duration::from_secs(9)), "full buckets were forgotten");
    }
}
