//! Work that keeps a core busy, off the network's threads and never more of it than there are cores.
//!
//! [`Compute`] is the queue for cores. [`Resident`] is a value with a thread of its own, for what is large and belongs to a
//! device: whoever owns the handle sends work to it, and the value is never copied, shared or locked.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A place in the queue for a core.
#[derive(Clone, Debug)]
pub struct Compute(Arc<Semaphore>);

/// Says that nobody waits for the result any more.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nobody waits any more.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether somebody still waits.
    pub fn is_wanted(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Cancels when dropped: work of a node that is gone stops at its next look.
#[derive(Debug, Default)]
pub struct CancelOnDrop(pub Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Compute {
    /// Room for `cores` pieces of work at once.
    pub fn new(cores: usize) -> Compute {
        Compute(Arc::new(Semaphore::new(cores.max(1))))
    }

    /// Runs `work` when a core is free; gives its result and the time that it was on a core.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> (T, Duration) {
        let place = self.place().await;
        run_in(vec![place], work).await
    }

    /// Runs `work` on as many threads as cores are free at once, at least one; gives its result and the time it took. For
    /// work whose result does not depend on their number.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run_wide<T: Send + 'static>(&self, work: impl FnOnce(usize) -> T + Send + 'static) -> (T, Duration) {
        self.run_on_all_but(0, work).await
    }

    /// As [`Compute::run_wide`], but leaves a core free if it can: for work beside which something else is to begin.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run_beside<T: Send + 'static>(&self, work: impl FnOnce(usize) -> T + Send + 'static) -> (T, Duration) {
        self.run_on_all_but(1, work).await
    }

    async fn run_on_all_but<T: Send + 'static>(
        &self,
        left: usize,
        work: impl FnOnce(usize) -> T + Send + 'static,
    ) -> (T, Duration) {
        let mut places = vec![self.place().await];
        while self.0.available_permits() > left
            && let Ok(place) = self.0.clone().try_acquire_owned()
        {
            places.push(place);
        }
        let threads = places.len();
        run_in(places, move || work(threads)).await
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Work for a [`Resident`]; breaks if the value is of no use any more.
type Job<T> = Box<dyn FnOnce(&mut T) -> ControlFlow<()> + Send>;

/// A value on a thread of its own, from its making to its end: a GPU's context belongs to the thread that made it, and a
/// CPU's buffers stay near the core that fills them. Dropping the handle ends the thread once it has done its work.
#[derive(Debug)]
pub struct Resident<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T: 'static> Resident<T> {
    /// Starts the thread `name` and makes the value there. Blocks until it is made.
    ///
    /// # Errors
    /// What `make` says, or the system has no thread to give.
    pub fn start<E: From<std::io::Error> + Send + 'static>(
        name: &str,
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Resident<T>, E> {
        let (jobs, mut wanted) = mpsc::channel::<Job<T>>(1);
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        let live = move || {
            let mut value = match make() {
                Ok(value) => value,
                Err(error) => return drop(made.send(Err(error))),
            };
            drop(made.send(Ok(())));
            // Work that panics may have left the value in pieces: nobody uses it again.
            while let Some(job) = wanted.blocking_recv()
                && job(&mut value).is_continue()
            {}
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(live)?;
        let panicked = |_| std::io::Error::other(format!("{name} could not be set up: the log has the panic"));
        is_made.recv().map_err(panicked)??;
        Ok(Resident { jobs })
    }

    /// Runs `work` on the value's thread when a core is free; gives its result and the time that it was on a core.
    ///
    /// # Panics
    /// If `work` does, or earlier work did.
    pub async fn run<R: Send + 'static>(
        &self,
        compute: &Compute,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> (R, Duration) {
        let place = compute.place().await;
        let timed = move |value: &mut T| {
            let watch = Stopwatch::start();
            let result = work(value);
            drop(place);
            (result, watch.elapsed())
        };
        self.call(timed).await
    }

    /// Runs on the value's thread what keeps no core busy: exchanging a buffer, writing a file.
    ///
    /// # Panics
    /// If `work` does, or earlier work did.
    pub async fn call<R: Send + 'static>(&self, work: impl FnOnce(&mut T) -> R + Send + 'static) -> R {
        let (done, result) = oneshot::channel();
        let job = move |value: &mut T| {
            let result = catch_unwind(AssertUnwindSafe(|| work(value)));
            let flow = if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            // Where nobody waits for it any more, it does not matter.
            let _ = done.send(result);
            flow
        };
        // A thread that has ended drops the job, and with it the way to answer.
        let _ = self.jobs.send(Box::new(job)).await;
        match result.await {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => resume_unwind(Box::new("the device's thread has ended: the log has the panic")),
        }
    }
}

async fn run_in<T: Send + 'static>(
    places: Vec<OwnedSemaphorePermit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> (T, Duration) {
    let timed = move || {
        // Of what other threads do, this one's clock knows nothing.
        let watch = if places.len() == 1 { Stopwatch::start() } else { Stopwatch::of_the_wall() };
        let result = work();
        drop(places);
        (result, watch.elapsed())
    };
    off_the_queue(timed).await
}

/// Runs short work that waits for a disk on a thread of its own: behind no heavy work, and no task waits for the disk.
///
/// # Panics
/// If `work` does.
pub async fn off_the_queue<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is going away, and with it whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

/// Measures work: the time that its thread is on a core. Nodes of a swarm share the machine, and waiting for a core or a
/// disk is no work. Where the system does not tell, the time that goes by.
pub struct Stopwatch {
    start: Instant,
    on_core: Option<Duration>,
}

impl Stopwatch {
    /// Measures this thread from now on.
    pub fn start() -> Stopwatch {
        Stopwatch { start: Instant::now(), on_core: on_core() }
    }

    fn of_the_wall() -> Stopwatch {
        Stopwatch { start: Instant::now(), on_core: None }
    }

    /// Since the start, if the same thread asks.
    pub fn elapsed(&self) -> Duration {
        let worked = self.on_core.zip(on_core()).map(|(before, now)| now.saturating_sub(before));
        worked.unwrap_or_else(|| self.start.elapsed())
    }
}

/// How long this thread has been on a core so far, as Linux says.
fn on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wide_work_takes_the_cores_that_are_free_and_gives_them_back() {
        let compute = Compute::new(3);
        let held = compute.place().await;
        assert_eq!(compute.run_wide(|threads| threads).await.0, 2);
        assert_eq!(compute.run_beside(|threads| threads).await.0, 1);
        drop(held);
        assert_eq!(compute.run_wide(|threads| threads).await.0, 3);
        assert_eq!(compute.run_beside(|threads| threads).await.0, 2);
        assert_eq!(Compute::new(1).run_beside(|threads| threads).await.0, 1);
        assert_eq!(compute.0.available_permits(), 3);
    }

    #[tokio::test]
    async fn a_resident_value_stays_on_its_thread_and_takes_a_core_while_it_works() {
        let compute = Compute::new(1);
        let make = || Ok::<_, std::io::Error>((std::thread::current().id(), 0));
        let resident = Resident::start("device", make).unwrap();
        for count in 1..=3 {
            let of_compute = compute.clone();
            let (found, _) = resident
                .run(&compute, move |(home, calls)| {
                    *calls += 1;
                    (*calls, *home == std::thread::current().id(), of_compute.0.available_permits())
                })
                .await;
            assert_eq!(found, (count, true, 0));
        }
        assert_eq!(compute.0.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_panic_on_a_residents_thread_comes_to_who_asked_and_a_fault_in_making_to_who_started() {
        let compute = Compute::new(1);
        let failing = Resident::<()>::start("device", || Err(std::io::Error::other("no device")));
        assert_eq!(failing.unwrap_err().to_string(), "no device");
        let resident = Resident::start("device", || Ok::<_, std::io::Error>(0)).unwrap();
        let broken = AssertUnwindSafe(resident.run(&compute, |_| panic!("on purpose")));
        assert!(futures::FutureExt::catch_unwind(broken).await.is_err());
        let after = AssertUnwindSafe(resident.run(&compute, |value| *value));
        assert!(futures::FutureExt::catch_unwind(after).await.is_err(), "the value is gone");
        assert_eq!(compute.0.available_permits(), 1);
    }
}
