//! How many bytes go to and come from each peer, and how fast: counted by whoever owns its connections, read by anyone.

use crate::peers::PeerKey;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A rate is taken over at least so long: what one read brings is no rate.
const RATE_EACH: Duration = Duration::from_millis(250);
/// In about so many seconds a rate forgets.
const RATE_MEMORY: f64 = 2.0;

/// Bytes of one peer's connections.
#[derive(Debug, Default)]
pub(crate) struct PeerBytes {
    up: AtomicU64,
    down: AtomicU64,
}

impl PeerBytes {
    pub(crate) fn sent(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Bytes by peer, of those that have a connection or had one a moment ago.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<HashMap<PeerKey, Weak<PeerBytes>>>>);

impl Meter {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerKey, Weak<PeerBytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer's count, for one more connection to it. The table has no more entries than there are connections, and those
    /// that ended since the last look.
    pub(crate) fn of(&self, peer: PeerKey) -> Arc<PeerBytes> {
        let mut all = self.lock();
        let entry = all.entry(peer).or_default();
        let bytes = entry.upgrade().unwrap_or_default();
        *entry = Arc::downgrade(&bytes);
        bytes
    }

    /// Bytes sent to and received from each peer so far; forgets those without a connection.
    pub(crate) fn read(&self) -> HashMap<PeerKey, (u64, u64)> {
        let mut all = self.lock();
        all.retain(|_, bytes| bytes.strong_count() > 0);
        let read = |bytes: Arc<PeerBytes>| (bytes.up.load(Ordering::Relaxed), bytes.down.load(Ordering::Relaxed));
        all.iter().filter_map(|(peer, bytes)| Some((*peer, read(bytes.upgrade()?)))).collect()
    }
}

/// Bytes a second, to a peer and from it, over the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerRate {
    up: f64,
    down: f64,
    /// Bytes sent and received so far, and when that was read.
    bytes: (u64, u64),
    measured: Option<Instant>,
}

impl PeerRate {
    pub(crate) fn up(&self) -> f64 {
        self.up
    }

    pub(crate) fn down(&self) -> f64 {
        self.down
    }

    /// Brings the rates up to date with a peer's bytes so far; none if nobody counted any.
    pub(crate) fn measure(&mut self, bytes: Option<(u64, u64)>, now: Instant) {
        let bytes = bytes.unwrap_or(self.bytes);
        let passed = self.measured.map(|at| now.saturating_duration_since(at));
        if passed.is_some_and(|passed| passed < RATE_EACH) {
            return;
        }
        if let Some(passed) = passed.map(|passed| passed.as_secs_f64()) {
            let keep = (-passed / RATE_MEMORY).exp();
            let rate = |before: f64, from: u64, to: u64| {
                before * keep + (1.0 - keep) * to.saturating_sub(from) as f64 / passed
            };
            self.up = rate(self.up, self.bytes.0, bytes.0);
            self.down = rate(self.down, self.bytes.1, bytes.1);
        }
        self.bytes = bytes;
        self.measured = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;

    #[test]
    fn a_rate_is_bytes_a_second_and_fades_when_nothing_comes() {
        let start = Instant::now();
        let mut rate = PeerRate::default();
        for step in 0..40u64 {
            rate.measure(Some((step * 500, step * 1_000_000)), start + Duration::from_millis(500 * step));
        }
        assert!((rate.up - 1000.0).abs() < 1.0 && (rate.down - 2e6).abs() < 2e3, "{} {}", rate.up, rate.down);
        let (bytes, at) = (rate.bytes, start + Duration::from_millis(500 * 39));
        rate.measure(Some((bytes.0 + 1_000_000, bytes.1)), at + Duration::from_millis(1));
        assert!((rate.up - 1000.0).abs() < 1.0, "a moment is no rate");
        for step in 1..=40 {
            rate.measure(Some(bytes), at + Duration::from_millis(500 * step));
        }
        assert!(rate.up < 1.0 && rate.down < 1000.0);
    }

    #[test]
    fn connections_of_one_peer_are_counted_together_and_forgotten_with_the_last() {
        let (meter, peer) = (Meter::default(), test_peer(1));
        let (first, second) = (meter.of(peer), meter.of(peer));
        first.sent(3);
        second.sent(4);
        second.received(5);
        assert_eq!(meter.read(), HashMap::from([(peer, (7, 5))]));
        drop((first, second));
        assert!(meter.read().is_empty());
        assert_eq!(meter.of(peer).up.load(Ordering::Relaxed), 0);
    }
}
