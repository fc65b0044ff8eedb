//! The held-out loss of each round's state, and once more, on more text, of the last one.
//!
//! One thread evaluates one state after the other, each streamed from its node's file into the one model that the thread
//! has: the supervisor never holds a second one. While the swarm runs, that thread is all it takes from the nodes; after
//! their end it uses all cores.
//!
//! What waits is a file that is open. [`Losses::is_full`] says when so many wait that the swarm should make no block until
//! one less does: a swarm goes no faster than it is measured. At the end nothing is waited for without bound: the rounds
//! that still wait get `ROUNDS_TIME_MAX` together, and those that it is not enough for have no loss; the last evaluation gets
//! `LAST_TIME_MAX`, and is then over as many sequences as it came to.

use crate::disk::StateFile;
use crate::evaluation::{self, Evaluator, HeldoutLoss};
use crate::service::all_cores;
use crate::swarm::plan::Options;
use covey_proto::Round;
use covey_proto::run::Model;
use covey_trainer::Device;
use futures::FutureExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// States that may wait. Each keeps 4 bytes a parameter on the disk after its node has removed the file: eight of a model
/// of 100 million parameters are 3.2 GB.
const WAITING_MAX: usize = 8;
/// Between two looks at the clock.
const FRAME: Duration = Duration::from_millis(200);
/// Room for what nodes may still report when so many wait already: the round that was about to end.
const JOBS_MAX: usize = 2 * WAITING_MAX;
/// Results and reports of progress that may be unread. The thread waits then.
const REPORTS_MAX: usize = 16;
/// Held-out sequences of the last evaluation: some 260,000 tokens at the demo's length, seconds on one core.
const LAST_SEQUENCES: u64 = 2048;
/// How long the last evaluation may take.
const LAST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the rounds may take, all together, that still wait at the end.
const ROUNDS_TIME_MAX: Duration = Duration::from_secs(10);

/// The losses found so far, and the thread that finds more.
pub(super) struct Losses {
    jobs: mpsc::Sender<Job>,
    reports: mpsc::Receiver<Report>,
    orders: Arc<Orders>,
    /// Before round 0, then after each round; none while it is not known.
    found: Vec<Option<f64>>,
    /// The newest state, for the end.
    last: Option<StateFile>,
}

/// A state's file, opened twice.
pub(super) struct RoundState {
    /// To be evaluated now.
    pub now: StateFile,
    /// To be kept until the next state comes, or the end.
    pub at_the_end: StateFile,
}

/// Where nothing could be evaluated.
const NO_LOSS: HeldoutLoss = HeldoutLoss { loss: f64::NAN, sequences: 0 };

/// How far the evaluations are that the end waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Progress {
    /// Whether it is the last evaluation, and not yet the rounds that still wait.
    pub is_last: bool,
    /// Sequences, or rounds, that are done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
    /// Since this part began.
    pub elapsed: Duration,
    /// When it is ended, done or not.
    pub at_most: Duration,
}

/// What the thread is asked to do.
enum Job {
    /// The loss that is to stand at this place; without a state, that of the one before.
    Round(usize, Option<StateFile>),
    /// The loss on more text, of the state of this place.
    Last(usize, Option<StateFile>),
}

/// What the thread says.
enum Report {
    Round(usize, f64),
    /// How far the last evaluation is.
    Progress(evaluation::Progress),
    Last(HeldoutLoss),
}

/// What the thread looks at between two batches.
#[derive(Default)]
struct Orders {
    /// The nodes have ended: use all cores.
    all_cores: AtomicBool,
    /// No more of the rounds.
    end_rounds: AtomicBool,
    /// No more of the last evaluation than is done.
    end_last: AtomicBool,
}

impl Losses {
    /// Starts the thread. A round's loss is over as many held-out sequences as asked for, of what the round trained on.
    pub(super) fn new(options: &Options, model: &Model) -> Losses {
        let (jobs, wanted) = mpsc::channel(JOBS_MAX);
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let orders = Arc::new(Orders::default());
        let on_one_thread = Evaluator::new(Device::Cpu { threads: 1 }, options.data.clone(), model);
        let work = Work {
            evaluator: on_one_thread,
            is_wide: false,
            options: options.clone(),
            model: model.clone(),
            orders: orders.clone(),
            reports: sender,
        };
        let started = std::thread::Builder::new().name("held-out".into()).spawn(move || work.run(wanted));
        if let Err(error) = started {
            tracing::error!(%error, "no thread to evaluate with: losses will not be numbers");
        }
        Losses { jobs, reports, orders, found: Vec::new(), last: None }
    }

    /// Asks for the loss of the next state. Without a file, the state before stands for it.
    pub(super) fn ask(&mut self, state: Option<RoundState>) {
        let (now, at_the_end) = state.map(|state| (state.now, state.at_the_end)).unzip();
        if at_the_end.is_some() {
            self.last = at_the_end;
        }
        let is_asked = self.jobs.try_send(Job::Round(self.found.len(), now)).is_ok();
        self.found.push(if is_asked { None } else { Some(f64::NAN) });
    }

    /// Whether so many states wait that the swarm should not go on.
    pub(super) fn is_full(&self) -> bool {
        self.waiting() >= WAITING_MAX
    }

    fn waiting(&self) -> usize {
        self.found.iter().filter(|loss| loss.is_none()).count()
    }

    /// Waits for the next loss; for ever if there will be none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) {
        match self.reports.recv().await {
            Some(report) => self.take_in(&report),
            None if self.waiting() > 0 => self.give_up(),
            None => std::future::pending().await,
        }
    }

    /// The thread is gone: what waits for it has no loss, and the swarm does not wait.
    fn give_up(&mut self) {
        tracing::error!("the evaluation broke: its losses are missing from now on");
        self.found.iter_mut().for_each(|loss| *loss = loss.or(Some(f64::NAN)));
    }

    /// Takes in what is ready.
    pub(super) fn catch_up(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.take_in(&report);
        }
    }

    fn take_in(&mut self, report: &Report) {
        if let Report::Round(place, loss) = report
            && let Some(found) = self.found.get_mut(*place)
        {
            *found = Some(*loss);
        }
    }

    /// The losses from the first to the last one before which none is missing.
    pub(super) fn known(&self) -> Vec<f64> {
        self.found.iter().map_while(|loss| *loss).collect()
    }

    /// Evaluates what still waits, and the last state on more text: on all cores, and for no longer than the head of this
    /// file says, or until `enough`. Gives all losses, and the last one.
    pub(super) async fn finish(
        mut self,
        mut show: impl FnMut(Progress),
        enough: impl Future<Output = ()>,
    ) -> (Vec<f64>, HeldoutLoss) {
        let mut enough = std::pin::pin!(enough.fuse());
        self.orders.all_cores.store(true, Ordering::Relaxed);
        let of = self.waiting() as u64;
        let mut part = Part::begin(false, of, ROUNDS_TIME_MAX);
        while self.waiting() > 0 {
            part.progress.done = of - self.waiting() as u64;
            match self.report(&part, &mut show, enough.as_mut()).await {
                Some(report) => self.take_in(&report),
                None => break,
            }
        }
        let mut last = NO_LOSS;
        let mut part = Part::begin(true, LAST_SEQUENCES, LAST_TIME_MAX);
        // Nothing waits any more, so there is room; a thread that is gone has nothing to report either.
        let place = self.found.len().saturating_sub(1);
        let _ = self.jobs.try_send(Job::Last(place, self.last.take()));
        loop {
            match self.report(&part, &mut show, enough.as_mut()).await {
                Some(Report::Progress(now)) => (part.progress.done, part.progress.of) = (now.done, now.all),
                Some(Report::Last(loss)) => last = loss,
                Some(Report::Round(..)) => {}
                None => break,
            }
        }
        (self.found.into_iter().map(|loss| loss.unwrap_or(f64::NAN)).collect(), last)
    }

    /// Waits for the thread's next report. Meanwhile shows how far it is, and tells it to stop when the time of this part
    /// is over or somebody has `enough`.
    async fn report(
        &mut self,
        part: &Part,
        show: &mut impl FnMut(Progress),
        mut enough: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Report> {
        let until = part.begun + part.progress.at_most;
        let order = if part.progress.is_last { &self.orders.end_last } else { &self.orders.end_rounds };
        loop {
            show(Progress { elapsed: part.begun.elapsed(), ..part.progress });
            tokio::select! {
                report = self.reports.recv() => return report,
                () = enough.as_mut() => {
                    self.orders.end_rounds.store(true, Ordering::Relaxed);
                    self.orders.end_last.store(true, Ordering::Relaxed);
                }
                () = tokio::time::sleep_until(until), if Instant::now() < until => {}
                () = tokio::time::sleep(FRAME) => {}
            }
            if Instant::now() >= until {
                order.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// A part of the evaluations at the end.
struct Part {
    begun: Instant,
    progress: Progress,
}

impl Part {
    fn begin(is_last: bool, of: u64, at_most: Duration) -> Part {
        let progress = Progress { is_last, done: 0, of, elapsed: Duration::ZERO, at_most };
        Part { begun: Instant::now(), progress }
    }
}

/// The thread's side.
struct Work {
    evaluator: Evaluator,
    /// Whether that uses all cores.
    is_wide: bool,
    options: Options,
    model: Model,
    orders: Arc<Orders>,
    reports: mpsc::Sender<Report>,
}

impl Work {
    /// Until nobody asks or listens any more, or the last evaluation is done.
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut before = f64::NAN;
        while let Some(job) = jobs.blocking_recv() {
            self.widen();
            let report = match job {
                Job::Round(place, state) => {
                    self.evaluator.judge_by(self.options.data_of(trained(place)));
                    before = state.map_or(before, |state| self.round(state));
                    Report::Round(place, before)
                }
                Job::Last(place, state) => {
                    self.evaluator.judge_by(self.options.data_of(trained(place)));
                    let last = state.map_or(NO_LOSS, |state| self.last(state));
                    let _ = self.reports.blocking_send(Report::Last(last));
                    return;
                }
            };
            if self.reports.blocking_send(report).is_err() {
                return;
            }
        }
    }

    /// Uses all cores from now on, if it was told to. The former model is dropped before another one is opened.
    fn widen(&mut self) {
        if self.orders.all_cores.load(Ordering::Relaxed) && !self.is_wide {
            let device = Device::Cpu { threads: all_cores() };
            (self.evaluator, self.is_wide) = (Evaluator::new(device, self.options.data.clone(), &self.model), true);
        }
    }

    /// A round's loss is over all its sequences, or it is none: rounds are compared.
    fn round(&mut self, state: StateFile) -> f64 {
        let (orders, reports) = (&self.orders, &self.reports);
        let mut is_whole = true;
        let mut go_on = |now: evaluation::Progress| {
            is_whole = now.done == now.all || !(orders.end_rounds.load(Ordering::Relaxed) || reports.is_closed());
            is_whole
        };
        let found = judge(&mut self.evaluator, state, self.options.heldout_sequences, &mut go_on);
        if is_whole { found.loss } else { f64::NAN }
    }

    fn last(&mut self, state: StateFile) -> HeldoutLoss {
        let (orders, reports) = (&self.orders, &self.reports);
        let mut go_on = |now: evaluation::Progress| {
            // Whoever shows it may miss one.
            let _ = reports.try_send(Report::Progress(now));
            !orders.end_last.load(Ordering::Relaxed) && !reports.is_closed()
        };
        judge(&mut self.evaluator, state, LAST_SEQUENCES, &mut go_on)
    }
}

/// The round that made the state of this place: 0 is the beginning's, which is judged as the first round is.
fn trained(place: usize) -> Round {
    Round(u32::try_from(place.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// The loss of a state. Where there is none, the log says why.
fn judge(
    evaluator: &mut Evaluator,
    mut state: StateFile,
    sequences: u64,
    go_on: &mut dyn FnMut(evaluation::Progress) -> bool,
) -> HeldoutLoss {
    evaluator.loss(&mut state, sequences, go_on).unwrap_or_else(|error| {
        tracing::error!(%error, "a state has no held-out loss");
        NO_LOSS
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use covey_proto::Digest;
    use covey_round::engine::Tip;

    /// Losses whose thread is the test.
    fn losses() -> (Losses, mpsc::Receiver<Job>, mpsc::Sender<Report>) {
        let (jobs, wanted) = mpsc::channel(JOBS_MAX);
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let losses = Losses { jobs, reports, orders: Arc::default(), found: Vec::new(), last: None };
        (losses, wanted, sender)
    }

    fn state() -> RoundState {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write_state(&Tip { round: None, head: Digest::ZERO }, Digest::ZERO, &[1.0]).unwrap();
        let open = || disk.open_state(None, 1).unwrap().unwrap();
        RoundState { now: open(), at_the_end: open() }
    }

    #[tokio::test]
    async fn eight_states_wait_and_then_the_swarm_does() {
        let (mut losses, _wanted, reports) = losses();
        for waiting in 0..WAITING_MAX {
            assert!(!losses.is_full(), "{waiting} wait");
            losses.ask(Some(state()));
        }
        assert!(losses.is_full());
        // The second one first: what is told is the beginning, as far as it is known.
        reports.send(Report::Round(1, 5.0)).await.unwrap();
        losses.next().await;
        assert!(!losses.is_full() && losses.known().is_empty());
        reports.send(Report::Round(0, 6.0)).await.unwrap();
        losses.catch_up();
        assert_eq!(losses.known(), [6.0, 5.0]);
    }

    /// No block comes while so many wait, but nodes may be in the middle of a round.
    #[test]
    fn what_finds_no_room_has_no_loss_and_loses_nothing_else() {
        let (mut losses, mut wanted, _reports) = losses();
        for _ in 0..=JOBS_MAX {
            losses.ask(None);
        }
        assert!(losses.found[JOBS_MAX].is_some_and(f64::is_nan));
        assert_eq!(losses.waiting(), JOBS_MAX);
        let places: Vec<usize> = std::iter::from_fn(|| wanted.try_recv().ok())
            .map(|job| match job {
                Job::Round(place, None) => place,
                _ => panic!("no state was given"),
            })
            .collect();
        assert_eq!(places, (0..JOBS_MAX).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn at_the_end_the_rounds_come_first_and_whoever_has_enough_ends_both() {
        let (mut losses, mut wanted, reports) = losses();
        losses.ask(Some(state()));
        let orders = losses.orders.clone();
        let mut shown = Vec::new();
        let thread = async {
            assert!(matches!(wanted.recv().await, Some(Job::Round(0, Some(_)))));
            while !orders.end_rounds.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            assert!(orders.all_cores.load(Ordering::Relaxed) && orders.end_last.load(Ordering::Relaxed));
            reports.send(Report::Round(0, f64::NAN)).await.unwrap();
            assert!(matches!(wanted.recv().await, Some(Job::Last(_, Some(_)))), "its file was kept");
            reports.send(Report::Progress(evaluation::Progress { done: 8, all: 99 })).await.unwrap();
            reports.send(Report::Last(HeldoutLoss { loss: 4.5, sequences: 8 })).await.unwrap();
            drop(reports);
        };
        let finish = losses.finish(|progress| shown.push(progress), std::future::ready(()));
        let ((found, last), ()) = tokio::join!(finish, thread);
        assert!(found.len() == 1 && found[0].is_nan(), "{found:?}");
        assert_eq!((last.loss, last.sequences), (4.5, 8));
        assert!(!shown[0].is_last && shown.last().is_some_and(|last| last.is_last && (last.done, last.of) == (8, 99)));
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_keeps_nobody_waiting() {
        let (mut losses, wanted, reports) = losses();
        losses.ask(Some(state()));
        drop((wanted, reports));
        losses.ask(None);
        let (found, last) = losses.finish(|_| {}, std::future::pending()).await;
        assert!(found.len() == 2 && found.iter().all(|loss| loss.is_nan()), "{found:?}");
        assert_eq!(last.sequences, 0);
    }
}
