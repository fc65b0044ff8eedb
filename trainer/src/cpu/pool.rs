//! Threads that share one piece of work at a time: made once a backend, parked between pieces, joined when dropped.
//!
//! A training step is some hundred pieces of 20 µs to a few milliseconds, each cut into tasks. Who is free takes the next
//! task, so a thread that the machine has given to another process delays nobody but the task it holds: whoever called
//! waits for those that took part, not for all threads. Between two pieces a thread looks for the next one for
//! [`SPIN`], which is longer than what lies between the pieces of a step, and then sleeps.
//!
//! Why not rayon: its caller hands the work over and sleeps until it is done, so that each piece costs two wake-ups. Here the
//! caller works, too, and what a call costs is measured by `cargo bench -p covey-trainer --bench step -- --pool`.
//!
//! What the tasks are, and that no bit depends on who does them, is decided by the callers: `product`, `network`,
//! `attention`, `trainer`.

#![allow(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for the next piece before it sleeps. Waking one takes 30 to 60 µs; looking for longer takes
/// the processor from other processes.
const SPIN: Duration = Duration::from_micros(50);
/// Threads of one pool at most: beyond the cores of any machine, and a typing error in a configuration stays one.
const THREADS_MAX: usize = 512;

/// What a task is called with: the number of the thread, below [`Pool::threads`], and the number of the task. No two
/// tasks run on the same thread at the same time.
type Work<'a> = &'a (dyn Fn(usize, usize) + Sync + 'a);

/// A caller and its helpers.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by whoever's piece is worked on.
    turn: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Pieces there have been, so that who looks for the next needs no lock.
    pieces: AtomicUsize,
    /// The next task of the piece at hand.
    next: AtomicUsize,
    /// Wakes helpers: there is a piece, or the pool ends.
    begun: Condvar,
    /// Wakes the caller: the last helper has left its piece.
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// None once the caller has run out of tasks: nobody may join any more.
    piece: Option<Piece>,
    /// Helpers at work on the piece.
    inside: usize,
    asleep: usize,
    ends: bool,
    /// What the first task that panicked has left.
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Clone, Copy)]
struct Piece {
    work: Work<'static>,
    tasks: usize,
}

impl Pool {
    /// A pool in which `threads` work, the caller among them; 0 counts as 1. Where the system gives fewer threads there are
    /// fewer, which costs time and changes no result.
    pub(crate) fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            pieces: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            begun: Condvar::new(),
            left: Condvar::new(),
        });
        let start = |thread: usize| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name(format!("covey-cpu-{thread}"));
            named.spawn(move || shared.help(thread))
        };
        let mut helpers = Vec::new();
        for thread in 1..threads.min(THREADS_MAX) {
            match start(thread) {
                Ok(helper) => helpers.push(helper),
                Err(error) => {
                    tracing::warn!(%error, wanted = threads, got = thread, "the system gives no more threads");
                    break;
                }
            }
        }
        Pool { shared, helpers, turn: Mutex::new(()) }
    }

    /// Threads that may work at once, the caller among them.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` once for each of `items`, on all threads.
    ///
    /// # Panics
    /// With what the first call that panicked has left, once no call runs any more.
    pub(crate) fn each<T: Send>(&self, items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
        self.each_with(&mut vec![(); self.threads()], items, |(), item| work(item));
    }

    /// [`Pool::each`] with a scratch that is nobody else's while a call runs. Which calls get the same one is chance.
    ///
    /// # Panics
    /// Likewise; and if there are fewer scratches than threads.
    pub(crate) fn each_with<S: Send, T: Send>(
        &self,
        scratch: &mut [S],
        items: impl IntoIterator<Item = T>,
        work: impl Fn(&mut S, T) + Sync,
    ) {
        assert!(scratch.len() >= self.threads(), "{} scratches for {} threads", scratch.len(), self.threads());
        if self.helpers.is_empty() {
            items.into_iter().for_each(|item| work(&mut scratch[0], item));
            return;
        }
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        let scratch: Vec<Mutex<&mut S>> = scratch.iter_mut().map(Mutex::new).collect();
        self.run(items.len(), &|thread, task| {
            // Each task is given out once.
            if let Some(item) = lock(&items[task]).take() {
                work(&mut lock(&scratch[thread]), item);
            }
        });
    }

    /// What `work` gives for each of `items`, in their order.
    ///
    /// # Panics
    /// As [`Pool::each`].
    pub(crate) fn map<T: Send, R: Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        let items: Vec<T> = items.into_iter().collect();
        let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
        self.each(items.into_iter().zip(&mut results), |(item, result)| *result = Some(work(item)));
        // Every item has been worked on.
        results.into_iter().flatten().collect()
    }

    /// Calls `work` with each number below `tasks`. From within a task of this pool, or beside another thread's call, the
    /// caller does all of them by itself.
    fn run(&self, tasks: usize, work: Work<'_>) {
        let alone = || (0..tasks).for_each(|task| work(0, task));
        if tasks < 2 || self.helpers.is_empty() {
            return alone();
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return alone(),
        };
        // SAFETY: `work` outlives this call, and nobody has it afterwards: `Shared::finish` takes the piece away under the
        // lock under which helpers join, and returns once all that had joined have left. Nothing in between can unwind:
        // `attempt` catches what the tasks do.
        let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        self.shared.begin(Piece { work, tasks });
        self.shared.attempt(Piece { work, tasks }, 0);
        let panic = self.shared.finish();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.ends = true;
            self.shared.pieces.fetch_add(1, Ordering::Release);
        }
        self.shared.begun.notify_all();
        for helper in self.helpers.drain(..) {
            // It catches what tasks do, so it has not panicked; if it had, there would be nobody to tell.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// Gives the piece to whoever looks for one, and wakes as many as have a task.
    fn begin(&self, piece: Piece) {
        self.next.store(0, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.piece = Some(piece);
        let wake = state.asleep.min(piece.tasks - 1);
        self.pieces.fetch_add(1, Ordering::Release);
        drop(state);
        for _ in 0..wake {
            self.begun.notify_one();
        }
    }

    /// Does tasks until there are none. A panic is kept for the caller, and what nobody has begun is left undone.
    fn attempt(&self, piece: Piece, thread: usize) {
        let tasks = || {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= piece.tasks {
                    return;
                }
                (piece.work)(thread, task);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(tasks)) {
            self.next.store(piece.tasks, Ordering::Relaxed);
            lock(&self.state).panic.get_or_insert(panic);
        }
    }

    /// Takes the piece back and waits until no helper is at it.
    fn finish(&self) -> Option<Box<dyn Any + Send>> {
        let mut state = lock(&self.state);
        state.piece = None;
        let waits = Instant::now();
        while state.inside > 0 {
            if waits.elapsed() < SPIN {
                drop(state);
                (0..32).for_each(|_| std::hint::spin_loop());
                state = lock(&self.state);
            } else {
                state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.panic.take()
    }

    /// A helper's life.
    fn help(&self, thread: usize) {
        let mut seen = 0;
        while let Some(piece) = self.join(&mut seen) {
            if let Some(piece) = piece {
                self.attempt(piece, thread);
                let mut state = lock(&self.state);
                state.inside -= 1;
                if state.inside == 0 {
                    self.left.notify_one();
                }
            }
        }
    }

    /// The next piece after those `seen`: `Some(None)` if it was over before this helper came, none if the pool ends.
    fn join(&self, seen: &mut usize) -> Option<Option<Piece>> {
        self.look(*seen);
        let mut state = lock(&self.state);
        while self.pieces.load(Ordering::Acquire) == *seen {
            state.asleep += 1;
            state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
        }
        *seen = self.pieces.load(Ordering::Acquire);
        if state.ends {
            return None;
        }
        state.inside += usize::from(state.piece.is_some());
        Some(state.piece)
    }

    /// Spins until there is another piece than those `seen`, or for too long.
    fn look(&self, seen: usize) {
        let begun = Instant::now();
        while begun.elapsed() < SPIN {
            for _ in 0..32 {
                if self.pieces.load(Ordering::Acquire) != seen {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Nothing behind these locks is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_order() {
        for threads in [0, 1, 2, 3, 7, 16] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for items in [0, 1, 2, 5, 1000] {
                assert_eq!(pool.map(0..items, |item| item * item), (0..items).map(|i| i * i).collect::<Vec<usize>>());
            }
        }
    }

    #[test]
    fn a_scratch_is_one_threads_at_a_time() {
        let pool = Pool::new(4);
        let mut scratch: Vec<(AtomicBool, usize)> = (0..4).map(|_| (AtomicBool::new(false), 0)).collect();
        for _ in 0..200 {
            pool.each_with(&mut scratch, 0..20, |(taken, count), _| {
                assert!(!taken.swap(true, Ordering::SeqCst));
                *count += 1;
                taken.store(false, Ordering::SeqCst);
            });
        }
        assert_eq!(scratch.iter().map(|(_, count)| count).sum::<usize>(), 4000);
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_have_stopped_and_the_pool_works_on() {
        let pool = Pool::new(3);
        for round in 0..50 {
            let running = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.each(0..40, |item| {
                    running.fetch_add(1, Ordering::SeqCst);
                    let fails = item == round % 40;
                    running.fetch_sub(1, Ordering::SeqCst);
                    assert!(!fails, "item {item}");
                });
            }));
            let panic = outcome.expect_err("one item panics");
            assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(&*format!("item {}", round % 40)));
            assert_eq!(running.load(Ordering::SeqCst), 0);
            assert_eq!(pool.map(0..9, |item| item + 1).iter().sum::<usize>(), 45);
        }
    }

    #[test]
    fn a_task_may_use_its_own_pool_and_two_threads_may_share_one() {
        let pool = Pool::new(3);
        let squares = |to: usize| pool.map(0..to, |item| pool.map(0..item, |_| item).iter().sum::<usize>());
        let expected: Vec<usize> = (0..30).map(|item| item * item).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(squares(30), expected)));
            }
        });
    }

    #[test]
    fn no_thread_outlives_its_pool() {
        let pool = Pool::new(4);
        let shared = Arc::downgrade(&pool.shared);
        pool.each(0..100, |_| ());
        drop(pool);
        assert!(shared.upgrade().is_none(), "each helper holds what they share until it ends");
    }
}
