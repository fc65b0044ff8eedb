//! Which piece to ask of whom, and when to ask another: the requester's half of the exchange, as a state machine.

mod types;

pub use types::{Action, Event, Limits, LinkView, Misdeed, Progress, Rejected, RequestId};

use covey_proto::Digest;
use std::fmt::Debug;
use std::time::Duration;

/// All fetches of one node. `P` names a peer. Time is what has passed since any fixed start, and never goes back.
#[derive(Debug)]
pub struct Scheduler<P> {
    limits: Limits,
    seed: u64,
    actions: std::marker::PhantomData<P>,
}

impl<P: Copy + Ord + Debug> Scheduler<P> {
    /// A scheduler that wants nothing yet. Equal seeds and histories give equal actions.
    pub fn new(limits: Limits, seed: u64) -> Scheduler<P> {
        Scheduler { limits, seed, actions: std::marker::PhantomData }
    }

    /// Takes an event at `now` and appends what is to be done, in that order.
    pub fn handle(&mut self, now: Duration, event: Event<P>, actions: &mut Vec<Action<P>>) {
        let _ = (now, event, actions, &self.limits, self.seed);
    }

    /// When [`Event::Tick`] is due; none while nothing is under way. Ask again after each event.
    pub fn next_tick(&self) -> Option<Duration> {
        None
    }

    /// How a wanted blob stands.
    pub fn progress(&self, root: Digest) -> Option<Progress> {
        let _ = root;
        None
    }

    /// The blobs that are wanted, the oldest first.
    pub fn wanted(&self) -> impl Iterator<Item = Digest> + '_ {
        std::iter::empty()
    }

    /// What is believed of a connected peer's link.
    pub fn link(&self, peer: P) -> Option<LinkView> {
        let _ = peer;
        None
    }
}
