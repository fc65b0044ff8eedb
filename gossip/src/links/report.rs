//! What the tasks of streams tell the network's task, a batch at a time: a fast transfer brings thousands of groups a
//! second, and the task that hears of them has every socket to look after.

use super::end::End;
use super::env::{Env, Report};
use crate::peers::PeerKey;
use covey_exchange::scheduler::Event;
use std::time::{Duration, Instant};

/// Groups told at once, at the latest: 256 KiB of them.
const GROUPS_MAX: usize = 4;
/// How long a group may be kept untold: far below a round trip between homes.
const TELL_EACH: Duration = Duration::from_millis(4);
/// Events kept untold when nothing is urgent, at the latest.
const EVENTS_MAX: usize = 64;

/// A task's reports that were not sent yet.
pub(super) struct Reports {
    pending: Vec<Report>,
    groups: usize,
    urgent: bool,
    since: Option<Instant>,
}

impl Reports {
    pub(super) fn new() -> Reports {
        Reports { pending: Vec::new(), groups: 0, urgent: false, since: None }
    }

    /// Keeps an event for the next batch. One that ends a request, or starts the clock of one, makes the batch due.
    pub(super) fn event(&mut self, event: Event<PeerKey>) {
        match event {
            Event::Group { .. } => self.groups += 1,
            _ => self.urgent = true,
        }
        self.push(Report::Event(event));
    }

    pub(super) fn push(&mut self, report: Report) {
        self.urgent |= !matches!(report, Report::Event(_));
        self.pending.push(report);
        self.since.get_or_insert_with(Instant::now);
    }

    /// When the batch is due; none if there is nothing in it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + TELL_EACH)
    }

    /// Whether the batch must not wait.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent || self.groups >= GROUPS_MAX || self.pending.len() >= EVENTS_MAX
    }

    pub(super) async fn send(&mut self, env: &Env) {
        if self.pending.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.pending);
        (self.groups, self.urgent, self.since) = (0, false, None);
        // Nobody listens once the network is shut down.
        let _ = env.reports.send(batch).await;
    }

    /// Why a stream has ended, as far as its peer is to blame.
    pub(super) fn end(&mut self, peer: PeerKey, end: End) {
        match end {
            End::Breach(why) => self.push(Report::Breach { peer, why }),
            End::Nuisance(why) => self.push(Report::Nuisance { peer, why }),
            End::Released | End::Closed | End::Wrong => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::test_peer;
    use covey_exchange::scheduler::RequestId;

    fn group(n: u64) -> Event<PeerKey> {
        Event::Group { request: RequestId(1), group: n }
    }

    #[test]
    fn groups_are_told_four_at_a_time_and_what_ends_a_request_at_once() {
        let mut reports = Reports::new();
        assert!(reports.due().is_none(), "there is nothing to tell");
        (0..3).for_each(|n| reports.event(group(n)));
        assert!(!reports.is_urgent() && reports.due().is_some());
        reports.event(group(3));
        assert!(reports.is_urgent());
        let mut reports = Reports::new();
        reports.event(Event::Done { request: RequestId(1) });
        assert!(reports.is_urgent());
    }

    #[test]
    fn a_stream_that_ends_is_told_of_only_if_its_peer_is_to_blame() {
        let blamed = |end: End| {
            let mut reports = Reports::new();
            reports.end(test_peer(1), end);
            reports.is_urgent()
        };
        assert!(blamed(End::Breach("a frame".into())) && blamed(End::Nuisance("it does not read")));
        // Of wrong bytes the scheduler knows already.
        assert!(!blamed(End::Released) && !blamed(End::Closed) && !blamed(End::Wrong));
    }
}
