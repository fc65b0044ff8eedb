//! What runs beside the node's loop: each job does one thing that the loop asked for, and its result comes back as one
//! [`Done`]. All of it ends with the node.

use super::applying::{Progress, Settled};
use super::catching_up::CaughtUp;
use super::gathering::{Fetched, Pulled};
use super::mining::Trained;
use super::states::State;
use super::validating::{ScoreJob, Scored};
use crate::compute::{Cancel, CancelOnDrop};
use covey_proto::chain::ChainView;
use covey_proto::{BlockNumber, Round};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Results that wait for the node's loop. Each job in flight sends one or two; a round has some 256 of them.
const DONE_MAX: usize = 1024;

/// What came of a job.
pub(super) enum Done {
    /// A state of the chain, or the block of which none is to be had.
    View(Result<ChainView, BlockNumber>),
    /// A round's training is over.
    Trained(Box<Trained>),
    /// A call or a reveal is through, or failed for good.
    Sent(Round),
    /// A contribution is held, not valid, or not to be had; with the time that decoding took.
    Fetched(Fetched, Duration),
    /// What peers have of a round's announcements.
    Pulled(Pulled),
    /// How far the application of a round is.
    Applying(Progress),
    /// A round is applied.
    Applied(Box<Settled>),
    /// The state before round 0 has come from peers.
    Given(Box<State>),
    /// The node has caught up.
    CaughtUp(Box<CaughtUp>),
    /// A round that can be scored now, or one that cannot.
    ToScore(Result<Box<ScoreJob>, Round>),
    /// A round is scored.
    Scored(Box<Scored>),
    /// A person must look at it.
    Fatal(String),
}

impl From<Progress> for Done {
    fn from(progress: Progress) -> Done {
        Done::Applying(progress)
    }
}

/// The jobs under way.
pub(super) struct Jobs {
    sender: mpsc::Sender<Done>,
    running: JoinSet<()>,
    /// Ends with the node: work that nobody waits for any more stops.
    life: CancelOnDrop,
}

impl Jobs {
    /// None yet; results come out of the receiver.
    pub(super) fn new() -> (Jobs, mpsc::Receiver<Done>) {
        let (sender, done) = mpsc::channel(DONE_MAX);
        (Jobs { sender, running: JoinSet::new(), life: CancelOnDrop::default() }, done)
    }

    /// Runs a job beside the loop. One that breaks stops the node: a person must look at it.
    pub(super) fn spawn(&mut self, job: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let sender = self.sender.clone();
        self.reap();
        self.running.spawn(async move {
            let broken = |_| Done::Fatal("a task of the node broke: its log has the panic".into());
            let done = AssertUnwindSafe(job).catch_unwind().await.unwrap_or_else(broken);
            // The loop is gone only when the node is.
            let _ = sender.send(done).await;
        })
    }

    /// Runs a job that has nothing to tell.
    pub(super) fn spawn_silent(&mut self, job: impl Future<Output = ()> + Send + 'static) {
        self.reap();
        self.running.spawn(job);
    }

    /// A result without a job.
    pub(super) fn say(&mut self, done: Done) {
        self.spawn(std::future::ready(done));
    }

    /// Where a job tells more than its result.
    pub(super) fn sender(&self) -> mpsc::Sender<Done> {
        self.sender.clone()
    }

    /// Says that the node still lives.
    pub(super) fn life(&self) -> Cancel {
        self.life.0.clone()
    }

    fn reap(&mut self) {
        while self.running.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_breaks_is_a_result_too_and_all_of_them_end_with_their_owner() {
        let (mut jobs, mut done) = Jobs::new();
        let life = jobs.life();
        jobs.spawn(async { Done::Sent(Round(3)) });
        assert!(matches!(done.recv().await, Some(Done::Sent(Round(3)))));
        jobs.spawn(async { panic!("on purpose") });
        assert!(matches!(done.recv().await, Some(Done::Fatal(why)) if why.contains("broke")));
        jobs.spawn(std::future::pending());
        assert!(life.is_wanted());
        drop(jobs);
        assert!(!life.is_wanted());
        assert!(done.recv().await.is_none(), "nobody can send any more");
    }
}
