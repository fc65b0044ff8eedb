//! What goes between the network's task and the node: orders and verdicts in, events out.

use crate::command::Command;
use crate::event::{Event, Judgement};
use crate::traffic::Counters;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Announcements that may wait for the node's verdict.
pub(super) const TICKETS_MAX: usize = 4096;

/// The network's ends of the channels to the node. They outlive a fault.
pub(super) struct Mail {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) verdicts: mpsc::Receiver<Judgement>,
    pub(super) events: EventsOut,
    verdicts_out: mpsc::Sender<Judgement>,
}

impl Mail {
    pub(super) fn new(commands: mpsc::Receiver<Command>, events: mpsc::Sender<Event>, traffic: Arc<Counters>) -> Mail {
        let (verdicts_out, verdicts) = mpsc::channel(TICKETS_MAX);
        Mail { commands, verdicts, events: EventsOut { events, traffic }, verdicts_out }
    }

    /// Where a ticket's verdict goes.
    pub(super) fn verdicts_out(&self) -> mpsc::Sender<Judgement> {
        self.verdicts_out.clone()
    }
}

/// The events that the node has yet to take.
#[derive(Clone)]
pub(super) struct EventsOut {
    events: mpsc::Sender<Event>,
    traffic: Arc<Counters>,
}

impl EventsOut {
    /// Gives an event to the node; one that finds no room is lost and counted.
    pub(super) fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.traffic.events_lost.add(1);
        }
    }

    /// Whether there is room for an announcement: the last quarter of the queue is for what nobody tells twice.
    pub(super) fn have_room(&self) -> bool {
        self.events.capacity() > self.events.max_capacity() / 4
    }

    /// Events that wait.
    pub(super) fn waiting(&self) -> usize {
        self.events.max_capacity() - self.events.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_kept_for_what_nobody_tells_twice_and_what_is_lost_is_counted() {
        let (events, _waiting) = mpsc::channel(8);
        let (_commands, commands) = mpsc::channel(1);
        let traffic: Arc<Counters> = Arc::default();
        let mail = Mail::new(commands, events, traffic.clone());
        (0..6).for_each(|n| {
            assert!(mail.events.have_room(), "event {n}");
            mail.events.tell(Event::NetworkRestarted);
        });
        assert!(!mail.events.have_room() && mail.events.waiting() == 6);
        (0..3).for_each(|_| mail.events.tell(Event::NetworkRestarted));
        assert_eq!((mail.events.waiting(), traffic.read().events_lost), (8, 1));
    }
}
