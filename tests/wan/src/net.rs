//! All lines joined in the middle, in virtual time: a packet goes up its sender's line, then down its receiver's, and
//! waits in between. Decides order and time of arrival; what a packet is, and what carries it, is its caller's.

use crate::line::{Counted, Fate, Line};
use crate::node::Node;
use std::collections::VecDeque;
use std::time::Duration;

/// What has gone through a node's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent by the node.
    pub up: Counted,
    /// Sent to the node.
    pub down: Counted,
}

impl Traffic {
    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Traffic) -> Traffic {
        Traffic { up: self.up.since(&earlier.up), down: self.down.since(&earlier.down) }
    }
}

/// A packet under way, on one line.
struct Flying<P> {
    at: Duration,
    to: usize,
    bytes: u64,
    packet: P,
}

/// A line with the packets on it, in the order in which they arrive: all have the same delay, so nothing overtakes.
struct Carrying<P> {
    line: Line,
    flying: VecDeque<Flying<P>>,
}

/// Nodes and what is under way between them. `P` is a packet, or whatever stands for it.
///
/// What it holds is bounded by its caller (the emulator has so many buffers and no more), and by rate, delay and queue
/// of the lines.
pub struct Net<P> {
    ups: Vec<Carrying<P>>,
    downs: Vec<Carrying<P>>,
}

impl<P> Net<P> {
    /// A net of these nodes. Each line draws its losses from the seed by itself: what one carries changes no other's.
    pub fn new(nodes: &[Node], seed: u64) -> Net<P> {
        let line = |(index, node): (usize, &Node), up: bool| {
            let (rate, queue) = if up { (node.up, node.up_queue) } else { (node.down, node.down_queue) };
            let own = (2 * index as u64 + u64::from(up)).wrapping_mul(0x6a09_e667_f3bc_c909);
            let line = Line::new(rate, node.delay, node.loss, queue, seed ^ own);
            Carrying { line, flying: VecDeque::new() }
        };
        Net {
            ups: nodes.iter().enumerate().map(|node| line(node, true)).collect(),
            downs: nodes.iter().enumerate().map(|node| line(node, false)).collect(),
        }
    }

    /// Sends a packet of so many IP bytes at `now`, which is never before an earlier `now`. Gives the packet back if it
    /// is lost or dropped, or if there is no such node.
    pub fn send(&mut self, now: Duration, from: usize, to: usize, bytes: u64, packet: P) -> Result<(), P> {
        match self.ups.get_mut(from) {
            Some(up) if to < self.downs.len() => up.offer(now, Flying { at: now, to, bytes, packet }),
            _ => Err(packet),
        }
    }

    /// What happens next and no later than `now`: a packet arrives at a node, or is lost on the way down, or nothing.
    /// To be called until it says nothing.
    pub fn next(&mut self, now: Duration) -> Option<Step<P>> {
        loop {
            let (up, up_at) = earliest(&self.ups);
            let (down, down_at) = earliest(&self.downs);
            if up_at.min(down_at) > now {
                return None;
            }
            if down_at <= up_at {
                let arrived = self.downs[down].flying.pop_front()?;
                return Some(Step::Arrived { at: arrived.at, to: arrived.to, packet: arrived.packet });
            }
            let middle = self.ups[up].flying.pop_front()?;
            if let Err(packet) = self.downs[middle.to].offer(middle.at, middle) {
                return Some(Step::Gone(packet));
            }
        }
    }

    /// When the next packet comes to a node or to the middle; none if nothing is under way.
    pub fn next_at(&self) -> Option<Duration> {
        let at = earliest(&self.ups).1.min(earliest(&self.downs).1);
        (at < Duration::MAX).then_some(at)
    }

    /// What has gone through each node's line.
    pub fn traffic(&self) -> Vec<Traffic> {
        let both = self.ups.iter().zip(&self.downs);
        both.map(|(up, down)| Traffic { up: up.line.counted(), down: down.line.counted() }).collect()
    }
}

/// What [`Net::next`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// A packet comes to a node.
    Arrived {
        /// When.
        at: Duration,
        /// Which node.
        to: usize,
        /// The packet.
        packet: P,
    },
    /// A packet was lost or dropped on its receiver's line.
    Gone(P),
}

impl<P> Carrying<P> {
    fn offer(&mut self, now: Duration, mut flying: Flying<P>) -> Result<(), P> {
        match self.line.offer(now, flying.bytes) {
            Fate::Arrives(at) => {
                flying.at = at;
                self.flying.push_back(flying);
                Ok(())
            }
            Fate::Lost | Fate::Dropped => Err(flying.packet),
        }
    }
}

/// The line whose first packet arrives first, and when; the end of time if nothing is under way. A few nodes: a scan of
/// their heads is as fast as a heap.
fn earliest<P>(lines: &[Carrying<P>]) -> (usize, Duration) {
    let heads = lines.iter().map(|line| line.flying.front().map_or(Duration::MAX, |flying| flying.at));
    heads.enumerate().min_by_key(|(_, at)| *at).unwrap_or((0, Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Rate;

    const MS: Duration = Duration::from_millis(1);
    /// A full packet takes 1 ms.
    const SLOW: Rate = Rate::bits(12_304_000);

    fn node(up: Rate, down: Rate, delay_ms: u32) -> Node {
        Node { up, down, delay: MS * delay_ms, loss: 0.0, up_queue: 1 << 30, down_queue: 1 << 30 }
    }

    fn arrivals(net: &mut Net<u32>, now: Duration) -> Vec<(Duration, usize, u32)> {
        let steps = std::iter::from_fn(|| net.next(now));
        steps
            .filter_map(|step| if let Step::Arrived { at, to, packet } = step { Some((at, to, packet)) } else { None })
            .collect()
    }

    #[test]
    fn a_path_has_both_lines_delays_and_the_slower_ones_rate() {
        let fast = Rate::bits(SLOW.bits_per_second() * 4);
        let mut net = Net::new(&[node(fast, fast, 10), node(SLOW, SLOW, 20)], 1);
        for packet in 0..3 {
            net.send(Duration::ZERO, 0, 1, 1500, packet).expect("an empty queue");
        }
        assert_eq!(net.next_at(), Some(Duration::from_micros(10_250)));
        assert_eq!(arrivals(&mut net, 31 * MS), []);
        let at = |packet: u32| Duration::from_micros(31_250) + MS * packet;
        assert_eq!(arrivals(&mut net, 100 * MS), [(at(0), 1, 0), (at(1), 1, 1), (at(2), 1, 2)]);
        assert_eq!(net.next_at(), None);
    }

    /// Looking rarely must not change what happens: arrivals in the middle are taken in the order of their own time.
    #[test]
    fn how_often_one_looks_changes_nothing() {
        let run = |step: Duration| {
            let nodes = [node(SLOW, SLOW, 7), node(SLOW, SLOW, 3), node(SLOW, SLOW, 11)];
            let nodes = nodes.map(|node| Node { loss: 0.05, down_queue: 5 * 1538, ..node });
            let mut net = Net::new(&nodes, 9);
            for round in 0..20 {
                for from in 0..3 {
                    // Two send to node 0, which can receive as fast as one of them sends.
                    net.send(Duration::ZERO, from, usize::from(from == 0), 1500, round).ok();
                }
            }
            let mut all: Vec<_> = (0..=(Duration::from_secs(1).as_nanos() / step.as_nanos()) as u32)
                .flat_map(|tick| arrivals(&mut net, step * tick))
                .collect();
            all.sort();
            (all, net.traffic())
        };
        let often = run(Duration::from_micros(50));
        assert!(often.1.iter().any(|node| node.down.drops > 0) && often.1.iter().any(|node| node.up.losses > 0));
        assert_eq!(often, run(Duration::from_secs(1)));
    }

    #[test]
    fn what_was_sent_arrived_or_was_lost_or_dropped() {
        let nodes = [node(SLOW, SLOW, 1); 4].map(|node| Node {
            loss: 0.02,
            up_queue: 60 * 1538,
            down_queue: 20 * 1538,
            ..node
        });
        let mut net = Net::new(&nodes, 3);
        let (mut refused, mut arrived, mut gone) = (0, 0, 0);
        for packet in 0..2_000 {
            let now = Duration::from_micros(300) * packet;
            refused += u64::from(net.send(now, packet as usize % 3, 3, 1500, packet).is_err());
            while let Some(step) = net.next(now) {
                if matches!(step, Step::Gone(_)) { gone += 1 } else { arrived += 1 }
            }
        }
        while let Some(step) = net.next(Duration::from_secs(60)) {
            if matches!(step, Step::Gone(_)) { gone += 1 } else { arrived += 1 }
        }
        let traffic = net.traffic();
        let up = |count: fn(&Counted) -> u64| traffic.iter().map(|node| count(&node.up)).sum::<u64>();
        let down = traffic[3].down;
        assert_eq!(up(|up| up.losses + up.drops), refused);
        assert_eq!(up(|up| up.packets), 2_000 - refused);
        assert_eq!((down.packets, down.bytes, down.losses + down.drops), (arrived, 1500 * arrived, gone));
        assert_eq!(refused + arrived + gone, 2_000);
        assert!(refused > 0 && down.drops > 0 && down.losses > 0, "{traffic:?}");
    }

    #[test]
    fn nobody_hears_what_is_sent_to_no_node() {
        let mut net = Net::new(&[node(SLOW, SLOW, 1)], 1);
        assert_eq!(net.send(Duration::ZERO, 0, 1, 100, 7), Err(7));
        assert_eq!(net.send(Duration::ZERO, 1, 0, 100, 8), Err(8));
        assert_eq!((net.next_at(), net.traffic()), (None, vec![Traffic::default()]));
    }
}
