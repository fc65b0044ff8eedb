//! A node of the swarm that was started: its process, and how far that is as far as it has said.

use super::pacer::Part;
use crate::supervise::{Keeper, Pace};

/// A node of the swarm that was started.
pub(super) struct Host {
    /// Its process.
    pub keeper: Keeper,
    /// What it is doing.
    pub state: State,
    /// Where others can dial it, while it runs.
    pub addresses: Vec<String>,
}

/// What a node is doing, as far as it has said.
pub(super) enum State {
    /// It has said nothing yet in this life, or waits for the next.
    Starting,
    /// It runs.
    Running(Pace),
    /// It stays away, and why.
    Gone(String),
}

impl Host {
    /// That has just been started.
    pub(super) fn new(keeper: Keeper) -> Host {
        Host { keeper, state: State::Starting, addresses: Vec::new() }
    }

    /// What the pacer must know of it.
    pub(super) fn part(&self) -> Option<Part<'_>> {
        match &self.state {
            State::Running(pace) => Some(Part::Running(pace)),
            State::Starting => Some(Part::Starting),
            State::Gone(_) => None,
        }
    }

    /// Why it stays away, if it does.
    pub(super) fn why_gone(&self) -> Option<&str> {
        match &self.state {
            State::Gone(why) => Some(why),
            State::Starting | State::Running(_) => None,
        }
    }

    /// Its life is over: what comes next is `state`.
    pub(super) fn ended(&mut self, state: State) {
        self.state = state;
        self.addresses.clear();
    }
}
