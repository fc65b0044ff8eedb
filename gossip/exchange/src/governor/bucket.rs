//! A token bucket of bytes: whether so many may go now, and when else. It decides no order and knows no clock.

use std::time::{Duration, Instant};

/// Nanoseconds in a second: what a bucket counts is bytes times this, so that no rounding adds up.
const NANOS: i128 = 1_000_000_000;

/// How fast bytes may go: any window of length w carries at most `per_second · w + burst` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes a second. At 0 the burst is all that ever goes.
    pub per_second: u64,
    /// Bytes that may go at once after a silence.
    pub burst: u64,
}

/// Bytes that may go now; filled by time, emptied by [`TokenBucket::take`]. Without a rate it never says no.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Option<ByteRate>,
    /// Bytes · 10⁹. Below zero after something larger than the burst.
    level: i128,
    at: Instant,
}

impl TokenBucket {
    /// A full one.
    pub fn new(rate: Option<ByteRate>, now: Instant) -> TokenBucket {
        TokenBucket { rate, level: rate.map_or(0, full), at: now }
    }

    /// Takes `bytes`; else says when to ask again. More than a whole burst goes when the bucket is full, and is paid off
    /// before anything else goes. `None`: never, because the rate is 0.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Option<Instant>> {
        self.fill(now);
        let Some(rate) = self.rate else { return Ok(()) };
        let missing = i128::from(bytes.min(rate.burst)) * NANOS - self.level;
        if missing <= 0 {
            self.level -= i128::from(bytes) * NANOS;
            return Ok(());
        }
        if rate.per_second == 0 {
            return Err(None);
        }
        let nanos = missing.unsigned_abs().div_ceil(u128::from(rate.per_second));
        Err(now.checked_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    /// Takes bytes that go whether there is room or not: what is owed is paid off before anything else goes.
    pub fn charge(&mut self, bytes: u64, now: Instant) {
        self.fill(now);
        if self.rate.is_some() {
            self.level -= i128::from(bytes) * NANOS;
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            let gained = i128::try_from(passed).unwrap_or(i128::MAX).saturating_mul(i128::from(rate.per_second));
            self.level = self.level.saturating_add(gained).min(full(rate));
        }
    }
}

fn full(rate: ByteRate) -> i128 {
    i128::from(rate.burst) * NANOS
}
