//! What a node's line to the rest of the world is: two rates, a delay, a loss, two queues. Says what numbers mean; what
//! they do to packets is [`line`](mod@crate::line)'s.

use std::fmt;
use std::time::Duration;

/// Bytes that Ethernet adds to an IP packet: header and checksum 18, preamble 8, gap between frames 12.
pub const ETHERNET_BYTES: u64 = 38;
/// Bytes of the largest IP packet.
pub const MTU: u16 = 1500;
/// Bytes of TCP payload in the largest packet: less IPv4's and TCP's headers with timestamps, which Linux always sends.
const SEGMENT_BYTES: u64 = MTU as u64 - 20 - 32;

/// How fast a line is in one direction: bits a second on the wire, Ethernet's own included. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// So many bits a second; 0 counts as 1.
    pub const fn bits(bits_per_second: u64) -> Rate {
        Rate(if bits_per_second == 0 { 1 } else { bits_per_second })
    }

    /// So many million bits a second, as lines are sold.
    pub const fn mbit(mbit_per_second: u64) -> Rate {
        Rate::bits(mbit_per_second * 1_000_000)
    }

    /// Bits a second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// What TCP can carry over it: bits of payload a second in full packets, 94.1 % of the line. The ceiling that a
    /// transfer is measured against.
    pub const fn payload(self) -> Rate {
        Rate::bits(self.0 / (MTU as u64 + ETHERNET_BYTES) * SEGMENT_BYTES)
    }

    /// Bytes that it carries in this time.
    pub fn bytes_in(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.0 as f64 / 8.0) as u64
    }

    /// How long it takes to carry so many bytes.
    pub fn time_of(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.0 as f64)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1} Mbit/s", self.0 as f64 / 1e6)
    }
}

/// A node and its line up to the middle of the network, which is infinitely fast and loses nothing.
///
/// A packet crosses two lines: its sender's upwards, its receiver's downwards. So delays and losses of the two add up:
/// [`Node::of_path`] takes what a whole path shall have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// What it can send.
    pub up: Rate,
    /// What it can receive.
    pub down: Rate,
    /// From the node to the middle, and as much from the middle to the node. Two nodes' pings take twice the sum.
    pub delay: Duration,
    /// Probability that a packet is lost on this line, in either direction, whatever the load; 0 to 1.
    pub loss: f64,
    /// Bytes on the wire that wait before the sending end at most, the packet being sent included; a packet that does
    /// not fit is dropped.
    pub up_queue: u64,
    /// The same before the middle's end of the line, for what comes down.
    pub down_queue: u64,
}

impl Node {
    /// A line such that a path between two such nodes has this delay one way and this loss, half of it on each line,
    /// and queues of 100 ms of each direction's rate: an access router of the ordinary kind.
    pub fn of_path(up: Rate, down: Rate, one_way: Duration, loss: f64) -> Node {
        let queue = |rate: Rate| rate.bytes_in(Duration::from_millis(100)).max(QUEUE_MIN);
        let loss = 1.0 - (1.0 - loss.clamp(0.0, 1.0)).sqrt();
        Node { up, down, delay: one_way / 2, loss, up_queue: queue(up), down_queue: queue(down) }
    }
}

/// Ten full packets: less starves TCP whatever the rate.
const QUEUE_MIN: u64 = 10 * (MTU as u64 + ETHERNET_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_line_is_what_full_packets_leave() {
        assert_eq!(Rate::mbit(110).to_string(), "110.0 Mbit/s");
        assert_eq!(Rate::mbit(110).payload().to_string(), "103.6 Mbit/s");
        assert_eq!(Rate::mbit(500).payload().to_string(), "470.7 Mbit/s");
    }

    #[test]
    fn two_lines_make_the_path_that_was_asked_for() {
        let node = Node::of_path(Rate::mbit(110), Rate::mbit(500), Duration::from_millis(50), 0.001);
        assert_eq!(node.delay * 2, Duration::from_millis(50));
        assert!((1.0 - (1.0 - node.loss).powi(2) - 0.001).abs() < 1e-12);
        assert_eq!((node.up_queue, node.down_queue), (1_375_000, 6_250_000));
    }
}
