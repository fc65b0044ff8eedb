//! How far a laboratory is, on standard error. Decides between one line that is redrawn (a terminal) and a line a finished
//! run (a file, a pipe), and guesses the time that is left.

use super::results::Record;
use super::{Experiment, Method, Point};
use crate::report::units;
use covey_proto::Round;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Letters of the bar.
const BAR: usize = 20;
/// A terminal that does not tell has so many columns.
const COLUMNS: usize = 80;
/// The line is redrawn no more often.
const PAUSE: Duration = Duration::from_millis(100);

/// What a run costs, in tokens to train on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    tokens: u64,
    done: bool,
}

impl Work {
    pub(super) fn of(experiment: &Experiment, done: bool) -> Work {
        Work { tokens: tokens(experiment, experiment.rounds), done }
    }
}

/// Tokens that an experiment trains on in its first `rounds` rounds.
pub(super) fn tokens(experiment: &Experiment, rounds: u32) -> u64 {
    let run = &experiment.run;
    let steps: u64 = (0..rounds).map(|round| run.inner.steps.count(Round(round)) as u64).sum();
    let miners = if experiment.method == Method::Alone { 1 } else { u64::from(experiment.miners) };
    steps * u64::from(run.inner.batch) * u64::from(run.model.sequence) * miners
}

/// Shows how far a laboratory is. What cannot be written is dropped.
pub struct Progress {
    out: Box<dyn Write + Send>,
    redraws: bool,
    begun: Instant,
    drawn: Option<Instant>,
    runs: usize,
    runs_done: usize,
    /// Tokens of runs that this process has still to make, or has made.
    tokens: u64,
    tokens_done: u64,
    now: Option<(String, Experiment)>,
}

impl Progress {
    /// On standard error: a line that is redrawn if it is a terminal that can, else a line a run.
    pub fn new() -> Progress {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let redraws = std::io::stderr().is_terminal() && !dumb;
        Progress::of(Box::new(std::io::stderr()), redraws)
    }

    /// Says nothing.
    pub fn silent() -> Progress {
        Progress::of(Box::new(std::io::sink()), false)
    }

    pub(super) fn of(out: Box<dyn Write + Send>, redraws: bool) -> Progress {
        let (begun, drawn, now) = (Instant::now(), None, None);
        Progress { out, redraws, begun, drawn, runs: 0, runs_done: 0, tokens: 0, tokens_done: 0, now }
    }

    pub(super) fn begin(&mut self, runs: impl Iterator<Item = Work>) {
        for work in runs {
            self.runs += 1;
            match work.done {
                true => self.runs_done += 1,
                false => self.tokens += work.tokens,
            }
        }
        self.begun = Instant::now();
        let before = if self.runs_done == 0 { String::new() } else { format!(", {} done before", self.runs_done) };
        self.say(&format!("lab: {}{before}", units::count(self.runs as u64, "run")));
    }

    pub(super) fn start(&mut self, name: &str, experiment: &Experiment) {
        self.now = Some((name.to_owned(), experiment.clone()));
        self.draw(0, None);
    }

    pub(super) fn round(&mut self, round: u32, point: Option<Point>) {
        if point.is_some() || self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.draw(round, point);
        }
    }

    pub(super) fn done(&mut self, record: &Record) {
        if let Some((_, experiment)) = self.now.take() {
            self.tokens_done += tokens(&experiment, experiment.rounds);
        }
        self.runs_done += 1;
        let came = match (&record.failed, record.curve.last()) {
            (Some(why), _) => format!("failed: {why}"),
            (None, last) => format!("loss {}", units::decimal(last.map_or(f64::NAN, |last| last.loss), 4)),
        };
        let Record { name, seed, seconds, .. } = record;
        let left = self.left(0).map_or(String::new(), |left| format!(", {left} left"));
        let (done, runs) = (self.runs_done, self.runs);
        self.say(&format!("lab: {done}/{runs}  {name}, seed {seed}: {came}  ({}{left})", units::seconds(*seconds)));
    }

    pub(super) fn finish(&mut self) {
        self.erase();
    }

    /// Time that is left, from the pace so far; unknown before there is one.
    fn left(&self, tokens_now: u64) -> Option<String> {
        let done = self.tokens_done + tokens_now;
        let rest = self.tokens.saturating_sub(done);
        if done == 0 || rest == 0 {
            return None;
        }
        Some(units::seconds(self.begun.elapsed().as_secs_f64() * rest as f64 / done as f64))
    }

    /// A line that stays.
    fn say(&mut self, line: &str) {
        self.erase();
        let _ = writeln!(self.out, "{line}");
    }

    fn erase(&mut self) {
        if self.drawn.take().is_some() {
            let _ = self.out.write_all(b"\r\x1b[K");
        }
    }

    fn draw(&mut self, round: u32, point: Option<Point>) {
        let Some((name, experiment)) = self.now.as_ref().filter(|_| self.redraws) else { return };
        let tokens_now = tokens(experiment, round);
        let share = (self.tokens_done + tokens_now) as f64 / self.tokens.max(1) as f64;
        let full = ((share * BAR as f64) as usize).min(BAR);
        let bar: String = "━".repeat(full) + &"─".repeat(BAR - full);
        let loss = point.map_or(String::new(), |point| format!("  loss {:.4}", point.loss));
        let left = self.left(tokens_now).map_or("time left unknown".to_owned(), |left| format!("{left} left"));
        let (done, runs, rounds, seed) = (self.runs_done, self.runs, experiment.rounds, experiment.seed);
        let line = format!("{bar} {done}/{runs}  {left}  round {round}/{rounds}{loss}  {name}, seed {seed}");
        let columns = console::Term::stderr().size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns));
        let line = console::truncate_str(&line, columns.saturating_sub(1), "…");
        // One write: a terminal never shows half of it for long.
        let _ = self.out.write_all(format!("\r\x1b[K{line}").as_bytes()).and_then(|()| self.out.flush());
        self.drawn = Some(Instant::now());
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}
