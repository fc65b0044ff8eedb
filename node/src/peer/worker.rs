//! One who does one job at a time: it moves into the job's task and comes back with the result, so that it needs no lock.
//! Jobs that come while it is away wait; if too many do, the oldest is not done.

use std::collections::VecDeque;

/// A worker `W` and the jobs `J` that wait for it.
pub(super) struct Worker<W, J> {
    at_home: Option<W>,
    /// In order of arrival.
    waiting: VecDeque<J>,
    waiting_max: usize,
}

impl<W, J> Worker<W, J> {
    /// A worker for whom at most `waiting_max` jobs, at least one, wait.
    pub(super) fn new(worker: W, waiting_max: usize) -> Worker<W, J> {
        Worker { at_home: Some(worker), waiting: VecDeque::new(), waiting_max: waiting_max.max(1) }
    }

    /// Takes a job; gives back the one that will not be done for it.
    pub(super) fn ask(&mut self, job: J) -> Option<J> {
        self.waiting.push_back(job);
        if self.waiting.len() > self.waiting_max { self.waiting.pop_front() } else { None }
    }

    /// The worker with its next job, if both are there: they go together.
    pub(super) fn start(&mut self) -> Option<(W, J)> {
        let job = self.waiting.pop_front()?;
        match self.at_home.take() {
            Some(worker) => Some((worker, job)),
            None => {
                self.waiting.push_front(job);
                None
            }
        }
    }

    /// The worker is back.
    pub(super) fn come_home(&mut self, worker: W) {
        self.at_home = Some(worker);
    }

    /// Whether a task has the worker.
    pub(super) fn is_away(&self) -> bool {
        self.at_home.is_none()
    }

    /// The worker for good, if it is at home; nothing that waits is done.
    pub(super) fn retire(&mut self) -> Option<W> {
        self.waiting.clear();
        self.at_home.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_done_in_order_one_at_a_time() {
        let mut worker = Worker::new("worker", 2);
        assert!(worker.start().is_none(), "nothing is to be done");
        assert!(worker.ask(1).is_none() && worker.ask(2).is_none());
        assert_eq!(worker.start(), Some(("worker", 1)));
        assert!(worker.is_away() && worker.start().is_none(), "it is away");
        worker.come_home("worker");
        assert_eq!(worker.start(), Some(("worker", 2)));
    }

    #[test]
    fn of_too_many_that_wait_the_oldest_is_not_done() {
        let mut worker = Worker::new("worker", 1);
        worker.ask(1);
        worker.start();
        assert_eq!((worker.ask(2), worker.ask(3)), (None, Some(2)));
        worker.come_home("worker");
        assert_eq!(worker.start(), Some(("worker", 3)));
    }

    #[test]
    fn who_retires_does_nothing_more() {
        let mut worker = Worker::new("worker", 1);
        worker.ask(1);
        assert_eq!(worker.retire(), Some("worker"));
        assert!(worker.is_away() && worker.start().is_none());
    }
}
