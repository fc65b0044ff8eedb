//! What a node says of itself while it runs: its board always, and each change to its supervisor if it has one.

use crate::observe::{Board, Usage};
use crate::peer::{Applied, Status};
use crate::supervise::{Line, Pace, lifeline};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between two whole statuses: a display needs no more, and they are long.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// Speaks until the node's status ends, on a thread that may wait for whoever reads.
pub(super) fn start(
    status: watch::Receiver<Status>,
    applied: mpsc::Receiver<Applied>,
    board: Board,
    supervised: bool,
) -> JoinHandle<()> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut speaker = Speaker { status, board, supervised, pace: Pace::default(), said: None };
        runtime.block_on(speaker.run(applied));
    })
}

struct Speaker {
    status: watch::Receiver<Status>,
    board: Board,
    supervised: bool,
    /// As said last.
    pace: Pace,
    /// When the whole status was said last.
    said: Option<Instant>,
}

impl Speaker {
    async fn run(&mut self, mut applied: mpsc::Receiver<Applied>) {
        loop {
            let due = self.said.map_or_else(Instant::now, |said| said + STATUS_EVERY);
            tokio::select! {
                biased;
                Some(applied) = applied.recv() => self.say(&Line::Applied(applied)),
                changed = self.status.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.say_pace();
                }
                () = tokio::time::sleep_until(due) => self.say_status(),
            }
        }
        // Nothing comes any more: what has been applied, and the last word.
        while let Ok(applied) = applied.try_recv() {
            self.say(&Line::Applied(applied));
        }
        self.say_pace();
        self.say_status();
    }

    fn say_pace(&mut self) {
        let status = self.status.borrow_and_update().clone();
        self.board.change(|board| board.update(&status));
        let Status { seen, finalised, idle, live, round, due, phase, .. } = status;
        let pace = Pace { seen, finalised, idle, live, round, due, phase: phase.to_owned() };
        if pace != self.pace {
            self.say(&Line::Pace(pace.clone()));
            self.pace = pace;
        }
    }

    fn say_status(&mut self) {
        self.said = Some(Instant::now());
        self.board.change(|board| board.usage = Usage::of_this_process());
        if self.supervised {
            self.say(&Line::Status(Box::new(self.board.read())));
        }
    }

    fn say(&self, line: &Line) {
        if self.supervised {
            lifeline::say(line);
        }
    }
}
