//! What only time tells: who stalls, who is far slower than the others, which fetch is stuck, who is no use as a source.

use super::Scheduler;
use super::types::Action;
use crate::Class;
use std::fmt::Debug;
use std::time::Duration;

/// How often everything is looked over while requests are open: well below the shortest patience.
const CHECK: Duration = Duration::from_millis(250);
/// And while none are: nothing then waits but pauses that end, and sources to be found.
const CHECK_IDLE: Duration = Duration::from_secs(1);
/// How often sources are exchanged and looked for.
const ROTATE: Duration = Duration::from_secs(5);
/// A fetch of which nothing came for so many times `stuck_after` is stuck, whatever others claim to hold.
const SILENCE: u32 = 3;

impl<P: Copy + Ord + Debug> Scheduler<P> {
    /// When [`Event::Tick`](super::Event::Tick) is due; none while nothing is under way. Ask again after each event.
    pub fn next_tick(&self) -> Option<Duration> {
        if self.requests.is_empty() && self.fetches.is_empty() {
            return None;
        }
        Some(self.checked + if self.requests.is_empty() { CHECK_IDLE } else { CHECK })
    }

    pub(super) fn look_over(&mut self, now: Duration, actions: &mut Vec<Action<P>>) {
        let elapsed = now.saturating_sub(self.checked);
        if elapsed < CHECK {
            return;
        }
        self.checked = now;
        for peer in self.stalling(now).into_iter().chain(self.slow(now)) {
            self.move_all(now, peer, actions);
        }
        self.shrink(actions);
        self.look_at_fetches(now, elapsed, actions);
        if now.saturating_sub(self.rotated) >= ROTATE {
            self.rotated = now;
            let fetches: Vec<u64> = self.fetches.keys().copied().collect();
            for id in fetches {
                self.exchange_source(now, id, actions);
            }
        }
        let with_work = self.peers.iter().filter(|(_, state)| !state.fertile.is_empty() && state.is_ready(now));
        self.hungry.extend(with_work.map(|(peer, _)| *peer));
        self.feed(now, actions);
        if !self.requests.is_empty() {
            let idle = self.peers.iter().filter(|(_, state)| state.fertile.is_empty() && state.wants > 0);
            let mut idle: Vec<_> = idle.map(|(peer, state)| (u64::MAX - state.link.rate(), *peer)).collect();
            idle.sort_unstable();
            idle.into_iter().for_each(|(_, peer)| self.rescue(now, peer, actions));
        }
    }

    /// Peers whose most urgent class stands still, or with one request that does. A less urgent class may have to wait
    /// for a more urgent one at its peer, so it has the patience of a single request.
    fn stalling(&self, now: Duration) -> Vec<P> {
        let stalls = |state: &super::Peer| {
            let urgent = Class::ALL.into_iter().find(|class| state.live[*class as usize] > 0);
            urgent.is_some_and(|class| state.link.stalls(now, class, &self.limits))
        };
        let mut peers: Vec<P> = self.peers.iter().filter(|(_, state)| stalls(state)).map(|(peer, _)| *peer).collect();
        for request in self.requests.values().filter(|request| request.live) {
            if now.saturating_sub(request.moved) >= self.limits.request_stall {
                peers.push(request.peer);
            }
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Peers that for a while have delivered a small part of what the others did, of those that were asked all the time.
    fn slow(&mut self, now: Duration) -> Vec<P> {
        let over = self.limits.slow_over;
        let due = |state: &super::Peer| state.link.rate_over(now, over);
        let due: Vec<(P, u64)> = self.peers.iter().filter_map(|(peer, state)| Some((*peer, due(state)?))).collect();
        if due.is_empty() {
            return Vec::new();
        }
        let mut rates: Vec<u64> = self.peers.values().filter_map(|state| state.link.rate_over(now, over / 2)).collect();
        rates.sort_unstable();
        let mut slow = Vec::new();
        for (peer, rate) in due {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.link.compared(now);
            }
            // The median of the others: the list without one that is equal to this peer's.
            let middle = rates.len().saturating_sub(2) / 2;
            let own = rates.partition_point(|other| *other < rate);
            let median = rates.get(if own <= middle { middle + 1 } else { middle }).copied();
            if median.is_some_and(|median| rates.len() > 1 && rate * 100 < median * self.limits.slow_percent) {
                slow.push(peer);
            }
        }
        slow
    }

    fn look_at_fetches(&mut self, now: Duration, elapsed: Duration, actions: &mut Vec<Action<P>>) {
        let limits = &self.limits;
        for fetch in self.fetches.values_mut() {
            let lately = u128::from(std::mem::take(&mut fetch.fresh_bytes)) * 1_000_000 / elapsed.as_micros().max(1);
            fetch.rate = (fetch.rate * 3 + lately as u64) / 4;
            fetch.lacking = fetch.table.lacks().then(|| fetch.lacking.unwrap_or(now));
            let lacks = fetch.lacking.is_some_and(|since| now.saturating_sub(since) >= limits.stuck_after);
            let silent = now.saturating_sub(fetch.last_bytes) >= SILENCE * limits.stuck_after;
            if (lacks || silent) && now >= fetch.stuck {
                fetch.stuck = now + limits.stuck_again;
                let away = fetch.hints.iter().filter(|peer| !self.peers.contains_key(peer));
                actions.extend(away.map(|peer| Action::Dial { peer: *peer }));
                actions.push(Action::Stuck { root: fetch.blob.root });
            }
        }
    }
}
