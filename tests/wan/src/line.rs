//! One direction of one node's line: when a packet offered now comes out at the other end, or whether it never does.
//! Decides serialisation, drop-tail, delay and loss; holds no packets and reads no clock.

use crate::node::{ETHERNET_BYTES, Rate};
use covey_proto::random::SplitMix64;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// What has gone through one direction of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets that came, or will come, out at the other end.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets for which the queue had no room.
    pub drops: u64,
    /// Packets that were sent and lost.
    pub losses: u64,
}

impl Counted {
    /// Bytes on the wire of what arrived: each packet with what Ethernet adds.
    pub fn wire_bytes(&self) -> u64 {
        self.bytes + self.packets * ETHERNET_BYTES
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Counted) -> Counted {
        Counted {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            drops: self.drops.saturating_sub(earlier.drops),
            losses: self.losses.saturating_sub(earlier.losses),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at this time.
    Arrives(Duration),
    /// It takes its time on the line and does not come out.
    Lost,
    /// The queue is full: it is not sent.
    Dropped,
}

/// One direction of a line. Time is since any fixed start.
#[derive(Debug)]
pub struct Line {
    rate: u64,
    delay: Duration,
    queue_bytes: u64,
    /// A draw below this is a loss.
    loss_below: u64,
    random: SplitMix64,
    /// When the last packet offered will have been sent, in ns.
    busy_until: u64,
    /// What rounding that down to ns left, in 1/rate ns: so that the rate is exact however many packets go.
    remainder: u64,
    counted: Counted,
}

impl Line {
    /// A line of this rate, delay one way, loss (0 to 1; the draws follow from the seed) and queue in bytes on the wire.
    pub fn new(rate: Rate, delay: Duration, loss: f64, queue_bytes: u64, seed: u64) -> Line {
        let loss_below = (loss.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        let rate = rate.bits_per_second();
        Line {
            rate,
            delay,
            queue_bytes,
            loss_below,
            random: SplitMix64::seeded(seed),
            busy_until: 0,
            remainder: 0,
            counted: Counted::default(),
        }
    }

    /// Offers a packet of so many IP bytes at `now`, which is never before an earlier `now`.
    pub fn offer(&mut self, now: Duration, bytes: u64) -> Fate {
        let now = nanoseconds(now);
        let wire = bytes + ETHERNET_BYTES;
        if self.waiting(now) + wire > self.queue_bytes {
            self.counted.drops += 1;
            return Fate::Dropped;
        }
        if self.busy_until < now {
            (self.busy_until, self.remainder) = (now, 0);
        }
        let time = wire * 8 * SECOND + self.remainder;
        self.busy_until += time / self.rate;
        self.remainder = time % self.rate;
        if self.random.draw() < self.loss_below {
            self.counted.losses += 1;
            return Fate::Lost;
        }
        self.counted.packets += 1;
        self.counted.bytes += bytes;
        Fate::Arrives(Duration::from_nanos(self.busy_until) + self.delay)
    }

    /// What has gone through it.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Bytes on the wire that are yet to be sent at `now`, in ns.
    fn waiting(&self, now: u64) -> u64 {
        let time = u128::from(self.busy_until.saturating_sub(now));
        (time * u128::from(self.rate) / u128::from(8 * SECOND)) as u64
    }
}

/// 584 years fit.
fn nanoseconds(time: Duration) -> u64 {
    time.as_secs() * SECOND + u64::from(time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 1500;
    const MS: Duration = Duration::from_millis(1);

    /// 12.304 Mbit/s: a full packet takes 1 ms.
    fn line(queue_packets: u64, delay: Duration, loss: f64, seed: u64) -> Line {
        Line::new(Rate::bits(12_304_000), delay, loss, queue_packets * (FULL + ETHERNET_BYTES), seed)
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate_and_come_after_the_delay() {
        let mut line = line(100, 50 * MS, 0.0, 1);
        assert_eq!(line.offer(7 * MS, FULL), Fate::Arrives(58 * MS));
        assert_eq!(line.offer(7 * MS, FULL), Fate::Arrives(59 * MS));
        assert_eq!(line.offer(7 * MS, FULL), Fate::Arrives(60 * MS));
        // Idle in between: time that was not used is not made up for.
        assert_eq!(line.offer(500 * MS, FULL), Fate::Arrives(551 * MS));
        assert_eq!(line.counted(), Counted { packets: 4, bytes: 4 * FULL, drops: 0, losses: 0 });
        assert_eq!(line.counted().wire_bytes(), 4 * 1538);
    }

    #[test]
    fn rounding_does_not_add_up() {
        // 3 Mbit/s: a full packet takes 4,101,333 1/3 ns.
        let mut line = Line::new(Rate::mbit(3), Duration::ZERO, 0.0, u64::MAX / 2, 1);
        let last = (0..3_000).map(|_| line.offer(Duration::ZERO, FULL)).last();
        assert_eq!(last, Some(Fate::Arrives(Duration::from_millis(12_304))));
    }

    #[test]
    fn a_full_queue_drops_what_comes_last_and_takes_again_what_comes_later() {
        let mut line = line(3, Duration::ZERO, 0.0, 1);
        let fates: Vec<Fate> = (0..5).map(|_| line.offer(Duration::ZERO, FULL)).collect();
        assert_eq!(
            fates,
            [Fate::Arrives(MS), Fate::Arrives(2 * MS), Fate::Arrives(3 * MS), Fate::Dropped, Fate::Dropped]
        );
        // One packet has left: one fits, behind the two that wait. A small one would not have.
        assert_eq!(line.offer(MS, FULL), Fate::Arrives(4 * MS));
        assert_eq!(line.offer(MS, 1), Fate::Dropped);
        assert_eq!(line.counted(), Counted { packets: 4, bytes: 4 * FULL, drops: 3, losses: 0 });
    }

    #[test]
    fn losses_follow_from_the_seed_are_as_many_as_asked_for_and_take_their_time() {
        let fates = |seed| {
            let mut line = line(u64::MAX / 2 / 1538, Duration::ZERO, 0.01, seed);
            (0..100_000).map(|_| line.offer(Duration::ZERO, FULL)).collect::<Vec<_>>()
        };
        assert_eq!(fates(5), fates(5));
        assert_ne!(fates(5), fates(6));
        for seed in 0..5 {
            let fates = fates(seed);
            let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
            // 1000 expected, 31 the standard deviation.
            assert!((850..1150).contains(&lost), "seed {seed}: {lost} lost of 100,000 at 1 %");
            let last = fates.iter().rposition(|fate| *fate != Fate::Lost).expect("most arrive");
            assert_eq!(fates[last], Fate::Arrives(MS * (last as u32 + 1)), "seed {seed}");
        }
    }

    #[test]
    fn no_loss_and_every_loss_are_exact() {
        let (mut none, mut every) = (line(10_000, MS, 0.0, 3), line(10_000, MS, 1.0, 3));
        for _ in 0..5_000 {
            assert!(matches!(none.offer(Duration::ZERO, FULL), Fate::Arrives(_)));
            assert_eq!(every.offer(Duration::ZERO, FULL), Fate::Lost);
        }
    }
}
