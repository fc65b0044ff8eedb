//! A line that moves on standard error while bytes do, if a terminal is there to see it: how far, how fast, how long yet.

use crate::report::units::{bytes, seconds};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is drawn: moves, and does not flicker.
const FRAME: Duration = Duration::from_millis(100);
/// Cells of the bar.
const CELLS: u64 = 24;

/// A progress bar. It wipes its line when it goes.
pub(super) struct Bar {
    what: String,
    total: u64,
    start: Instant,
    /// None where nobody looks.
    drawn: Option<Instant>,
    on_screen: bool,
}

impl Bar {
    /// A bar for `total` bytes of something.
    pub(super) fn new(what: &str, total: u64) -> Bar {
        let start = Instant::now();
        let drawn = std::io::stderr().is_terminal().then_some(start);
        Bar { what: what.to_owned(), total, start, drawn, on_screen: false }
    }

    /// From now on it is called so.
    pub(super) fn call(&mut self, what: String) {
        self.what = what;
    }

    /// So many bytes are done.
    pub(super) fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.drawn.is_some_and(|drawn| now - drawn >= FRAME) {
            (self.drawn, self.on_screen) = (Some(now), true);
            let line = line(&self.what, done, self.total, (now - self.start).as_secs_f64());
            let columns = console::Term::stderr().size().1 as usize;
            let line = console::truncate_str(&line, columns.saturating_sub(1), "");
            // A terminal that goes away takes nothing with it.
            let _ = std::io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.on_screen {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: f64) -> String {
    let share = if total == 0 { 1.0 } else { done.min(total) as f64 / total as f64 };
    let full = (share * CELLS as f64) as usize;
    let bar = format!("{}{}", "#".repeat(full), "·".repeat(CELLS as usize - full));
    let rate = if elapsed > 0.0 { done as f64 / elapsed } else { 0.0 };
    let left = if rate > 0.0 { seconds(total.saturating_sub(done) as f64 / rate) } else { seconds(f64::NAN) };
    let percent = (share * 100.0) as u32;
    let (done, total, rate) = (bytes(done), bytes(total), bytes(rate as u64));
    format!("{what} {bar} {percent:3} %  {done} of {total}, {rate}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_line_says_how_far_how_fast_how_long() {
        let half = line("add a.bin", 500_000_000, 1_000_000_000, 2.0);
        assert_eq!(half, "add a.bin ############············  50 %  500 MB of 1.00 GB, 250 MB/s, 2.0 s left");
        for (done, total, elapsed) in [(0, 0, 0.0), (0, 7, 0.0), (9, 7, 1.0), (u64::MAX, u64::MAX, 1e-9)] {
            assert!(line("x", done, total, elapsed).contains(" %  "));
        }
    }
}
