//! What is known of one peer's link: how fast it delivers, how far away it is, how much may be open with it, and whether
//! it has earned a pause. What to ask it, and what its silence means for others, is decided elsewhere.
//!
//! The window follows BBR's reasoning (Cardwell et al. 2016): a pipe is full at rate × shortest round trip; twice that
//! lets a rate that grows be seen, two requests more keep the other side's disk and our verifier busy. A new link starts
//! with four requests and doubles each round trip until the rate no longer grows by a quarter in three of them.

use super::types::Limits;
use crate::Class;
use covey_proto::pieces::{GROUP_BYTES, PIECE_BYTES};
use std::time::Duration;

/// Shortest time over which a rate is measured: less is a burst out of some buffer.
const SAMPLE: Duration = Duration::from_millis(200);
/// A burst shorter than this says nothing.
const SAMPLE_MIN: Duration = Duration::from_millis(20);
/// A request to a slow peer is what it delivers in this time: others can then have the rest of a piece.
const REQUEST: Duration = Duration::from_secs(2);
/// And no more is open with it than it delivers in this time.
const OPEN: Duration = Duration::from_secs(8);
/// Time over which samples are smoothed.
const SMOOTH: Duration = Duration::from_millis(500);
/// Taken for the round trip before one is measured, and for the rate: a plain home line.
const RTT_GUESS: Duration = Duration::from_millis(100);
const RATE_GUESS: u64 = 1 << 20;
/// Samples without growth that end the slow start, and the growth (in quarters) that they lack: BBR's figures.
const FLAT_MAX: u32 = 3;
/// First and longest pause after a refusal or a broken stream; doubled from one to the next.
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(8);

#[derive(Debug)]
struct Ramp {
    doublings: u32,
    best: u64,
    flat: u32,
}

/// One peer's link. Times are since the scheduler's start, rates bytes a second.
#[derive(Debug)]
pub(super) struct Link {
    rate: u64,
    rtt: Option<Duration>,
    ramp: Option<Ramp>,
    /// A sample under way: since when, and the bytes after the first group.
    sample: Option<(Duration, u64)>,
    /// Whether the window, and not a lack of work, was the limit during this sample.
    filled: bool,
    /// Since when something has been open without a break, and the bytes that came since, for the comparison of peers.
    busy: Option<(Duration, u64)>,
    /// When each class last moved, or began to wait.
    moved: [Duration; 3],
    strikes: u32,
    struck: Duration,
    back_off: Duration,
    /// Nothing is asked before.
    pub(super) pause: Duration,
}

impl Link {
    pub(super) fn new() -> Link {
        Link {
            rate: 0,
            rtt: None,
            ramp: Some(Ramp { doublings: 0, best: 0, flat: 0 }),
            sample: None,
            filled: false,
            busy: None,
            moved: [Duration::ZERO; 3],
            strikes: 0,
            struck: Duration::ZERO,
            back_off: BACK_OFF_MIN,
            pause: Duration::ZERO,
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Bytes of one request, if a piece has so many: 1 MiB, all of a larger piece for who delivers it in two seconds, and
    /// down to a group for who is slow.
    pub(super) fn unit(&self, piece: u64) -> u64 {
        if self.rate == 0 {
            return PIECE_BYTES;
        }
        let bytes = over(self.rate, REQUEST);
        if bytes >= piece { piece } else { (bytes - bytes % GROUP_BYTES).clamp(GROUP_BYTES, PIECE_BYTES) }
    }

    /// Bytes that may be open, asked in requests of `unit` bytes.
    pub(super) fn window(&self, unit: u64, limits: &Limits) -> u64 {
        match &self.ramp {
            Some(ramp) => {
                ((limits.first_requests * unit) << ramp.doublings).clamp(limits.window_min, limits.window_max)
            }
            None => {
                let least = limits.window_min.min(over(self.rate, OPEN)).max(2 * unit);
                (2 * over(self.rate, self.round_trip()) + 2 * unit).max(least).min(limits.window_max)
            }
        }
    }

    /// Something is asked. `idle`: nothing was open; `first`: nothing of this class was.
    pub(super) fn asked(&mut self, now: Duration, class: Class, idle: bool, first: bool) {
        if idle {
            self.sample = None;
            self.filled = false;
            self.busy = Some((now, 0));
        }
        if first {
            self.moved[class as usize] = now;
        }
    }

    /// The window kept something from being asked.
    pub(super) fn is_full(&mut self) {
        self.filled = true;
    }

    /// Nothing is open any more.
    pub(super) fn idle(&mut self, now: Duration) {
        if let Some((since, bytes)) = self.sample.take()
            && now.saturating_sub(since) >= SAMPLE_MIN
        {
            self.learn(now.saturating_sub(since), bytes);
        }
        self.busy = None;
    }

    /// The first byte of an answer came, so long after its request.
    pub(super) fn first(&mut self, now: Duration, class: Class, after: Duration) {
        self.rtt = Some(self.rtt.map_or(after, |rtt| rtt.min(after)));
        self.moved[class as usize] = now;
        self.back_off = BACK_OFF_MIN;
        // The sample starts with the answer: the wait for it is the round trip's.
        self.sample.get_or_insert((now, 0));
    }

    /// Bytes came.
    pub(super) fn bytes(&mut self, now: Duration, class: Class, bytes: u64, limits: &Limits) {
        self.moved[class as usize] = now;
        if let Some((_, all)) = &mut self.busy {
            *all += bytes;
        }
        let Some((since, sum)) = &mut self.sample else {
            self.sample = Some((now, 0));
            return;
        };
        *sum += bytes;
        let (elapsed, sum) = (now.saturating_sub(*since), *sum);
        if elapsed >= SAMPLE.max(self.rtt.unwrap_or_default()) {
            self.sample = Some((now, 0));
            let sample = self.learn(elapsed, sum);
            self.climb(sample, limits);
        }
    }

    fn learn(&mut self, elapsed: Duration, bytes: u64) -> u64 {
        let sample = per_second(bytes, elapsed);
        let (part, whole) = (elapsed.as_micros() as u64, (elapsed + SMOOTH).as_micros() as u64);
        self.rate = match self.rate {
            0 => sample,
            rate => {
                ((u128::from(rate) * u128::from(whole - part) + u128::from(sample) * u128::from(part))
                    / u128::from(whole)) as u64
            }
        };
        sample
    }

    fn climb(&mut self, sample: u64, limits: &Limits) {
        let filled = std::mem::take(&mut self.filled);
        // Far more is open than the pipe holds: it is full, whatever the samples still do.
        let full = over(sample, 2 * self.round_trip()) + 2 * self.unit(PIECE_BYTES);
        let Some(ramp) = &mut self.ramp else { return };
        if 2 * full < (limits.first_requests * PIECE_BYTES) << ramp.doublings {
            self.ramp = None;
        } else if sample > ramp.best + ramp.best / 4 {
            ramp.best = sample;
            ramp.flat = 0;
            let top = (limits.window_max / limits.window_min.max(1)).ilog2() + 4;
            ramp.doublings = (ramp.doublings + u32::from(filled)).min(top);
        } else if filled {
            ramp.flat += 1;
            if ramp.flat >= FLAT_MAX {
                self.rate = ramp.best.max(self.rate);
                self.ramp = None;
            }
        }
    }

    // ---- how long ---------------------------------------------------------------------------------------------------

    /// How long `bytes` would take, by what is known; a sample under way that is slower than the rate is believed.
    pub(super) fn takes(&self, now: Duration, bytes: u64) -> Duration {
        let mut rate = if self.rate == 0 { RATE_GUESS } else { self.rate };
        if let Some((since, sum)) = self.sample {
            let elapsed = now.saturating_sub(since);
            if elapsed > 2 * SAMPLE.max(self.rtt.unwrap_or_default()) {
                rate = rate.min(per_second(sum, elapsed));
            }
        }
        Duration::from_micros(bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(u64::MAX / 2))
    }

    /// The round trip, or a guess.
    pub(super) fn round_trip(&self) -> Duration {
        self.rtt.unwrap_or(RTT_GUESS)
    }

    // ---- patience ---------------------------------------------------------------------------------------------------

    /// Whether a class of which something is open has stood still too long.
    pub(super) fn stalls(&self, now: Duration, class: Class, limits: &Limits) -> bool {
        now.saturating_sub(self.moved[class as usize]) >= limits.stall.max(4 * self.rtt.unwrap_or_default())
    }

    /// The rate since something has been open, if that is at least `least` ago.
    pub(super) fn rate_over(&self, now: Duration, least: Duration) -> Option<u64> {
        let (since, bytes) = self.busy?;
        let elapsed = now.saturating_sub(since);
        (elapsed >= least).then(|| per_second(bytes, elapsed))
    }

    /// Starts the comparison anew.
    pub(super) fn compared(&mut self, now: Duration) {
        if self.busy.is_some() {
            self.busy = Some((now, 0));
        }
    }

    /// Its requests are moved. It is taken for slow until it shows otherwise, and asked again after a pause in which others
    /// get what was moved.
    pub(super) fn strike(&mut self, now: Duration, limits: &Limits) {
        self.strikes = if now.saturating_sub(self.struck) > limits.rest { 1 } else { self.strikes + 1 };
        self.struck = now;
        self.rate = (self.rate / 16).max(1);
        self.ramp = None;
        self.sample = None;
        self.busy = None;
        let pause = if self.strikes >= limits.strikes_max {
            self.strikes = 0;
            limits.rest
        } else {
            Duration::from_secs(u64::from(self.strikes))
        };
        self.pause = self.pause.max(now + pause);
    }

    /// It refused, or its stream broke: a pause, each time twice as long until something comes. What was under way when
    /// the pause began does not lengthen it.
    pub(super) fn refuse(&mut self, now: Duration) {
        if now < self.pause {
            return;
        }
        self.pause = self.pause.max(now + self.back_off);
        self.back_off = (2 * self.back_off).min(BACK_OFF_MAX);
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    (u128::from(bytes) * 1_000_000 / micros).min(u128::from(u64::MAX)) as u64
}

fn over(rate: u64, time: Duration) -> u64 {
    (u128::from(rate) * time.as_micros() / 1_000_000).min(1 << 40) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What comes over a link of `rate` bytes a second in `seconds`, 100 ms away, if it is always asked for more.
    fn fed(link: &mut Link, from: Duration, seconds: u64, rate: u64, limits: &Limits) -> Duration {
        let step = Duration::from_millis(10);
        let mut now = from;
        link.asked(now, Class::Round, true, true);
        now += Duration::from_millis(100);
        link.first(now, Class::Round, Duration::from_millis(100));
        while now < from + Duration::from_secs(seconds) {
            now += step;
            link.is_full();
            link.bytes(now, Class::Round, over(rate, step), limits);
        }
        now
    }

    #[test]
    fn a_new_link_starts_with_four_requests_and_ends_with_twice_what_the_pipe_holds() {
        let (mut link, limits) = (Link::new(), Limits::default());
        assert_eq!(link.window(MIB, &limits), 4 * MIB);
        fed(&mut link, Duration::ZERO, 10, 10 * MIB, &limits);
        let rate = link.rate() as f64 / (10 * MIB) as f64;
        assert!((0.95..1.05).contains(&rate), "{rate}");
        // 2 · 10 MiB/s · 0.1 s and two requests.
        let window = link.window(MIB, &limits) as f64 / MIB as f64;
        assert!((3.9..4.1).contains(&window), "{window}");
        assert_eq!(link.round_trip(), Duration::from_millis(100));
    }

    #[test]
    fn a_slow_link_is_asked_for_what_it_delivers_in_two_seconds_and_no_more_than_eight_are_open() {
        let (mut link, limits) = (Link::new(), Limits::default());
        fed(&mut link, Duration::ZERO, 20, 100_000, &limits);
        let unit = link.unit(MIB);
        assert!(unit.is_multiple_of(GROUP_BYTES) && unit <= 200_000, "{unit}");
        assert!(link.window(unit, &limits) <= 820_000, "{}", link.window(unit, &limits));
        assert!(link.takes(Duration::from_secs(20), 1_000_000) >= Duration::from_secs(9));
    }

    #[test]
    fn moved_three_times_within_a_minute_it_rests_and_a_refusal_pauses_longer_each_time() {
        let (mut link, limits) = (Link::new(), Limits::default());
        let second = Duration::from_secs(1);
        link.strike(second, &limits);
        assert_eq!(link.pause, 2 * second);
        link.strike(3 * second, &limits);
        assert_eq!(link.pause, 5 * second);
        link.strike(6 * second, &limits);
        assert_eq!(link.pause, 6 * second + limits.rest);
        let mut link = Link::new();
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            link.refuse(now);
            pauses.push((link.pause - now).as_millis());
            link.refuse(now);
            now = link.pause;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 8000], "what comes within a pause does not lengthen it");
        link.first(now, Class::Round, second);
        link.refuse(now);
        assert_eq!(link.pause - now, BACK_OFF_MIN);
    }

    #[test]
    fn a_class_stalls_after_four_seconds_or_four_round_trips_without_progress() {
        let (mut link, limits) = (Link::new(), Limits::default());
        link.asked(Duration::ZERO, Class::State, true, true);
        assert!(!link.stalls(Duration::from_secs(3), Class::State, &limits));
        assert!(link.stalls(Duration::from_secs(4), Class::State, &limits));
        link.first(Duration::from_secs(2), Class::State, Duration::from_secs(2));
        assert!(!link.stalls(Duration::from_secs(9), Class::State, &limits), "it is far away");
        assert!(link.stalls(Duration::from_secs(10), Class::State, &limits));
    }
}
