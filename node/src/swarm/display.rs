//! What a person sees while a swarm runs, on standard error. Decides between a block that is redrawn (a terminal) and
//! plain lines (a file, a pipe), and how the block moves; `lines` has the words.
//!
//! Nothing in the terminal is switched that would have to be switched back: the cursor is never hidden, it rests below the
//! block, and a frame is one write. However the process ends (Ctrl-C, a panic, `kill -9`), the terminal is as it was.

mod lines;
mod shown;

pub use shown::{Frame, NodeLine, RoundLine, WorkLine};

use lines::{Paint, block, event_lines, round_text, work_line, work_text};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;
/// Rows of a terminal that does not tell.
const ROWS: usize = 24;

/// Between two lines that say how far a piece of work is.
const WORK_EVERY: Duration = Duration::from_secs(10);

/// Shows a swarm. Clones show the same.
///
/// What cannot be written is dropped: a closed standard error stops no swarm.
#[derive(Clone)]
pub struct Display {
    screen: Arc<Mutex<Screen>>,
}

impl Default for Display {
    fn default() -> Display {
        Display::new()
    }
}

impl Display {
    /// On standard error: a redrawn block if it is a terminal that can, else plain lines. `NO_COLOR` is respected.
    ///
    /// A panic hook is added that puts the panic's message above the block.
    pub fn new() -> Display {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stderr().is_terminal() || dumb {
            return Display::of(Box::new(std::io::stderr()), Mode::Plain);
        }
        let paint = if set("NO_COLOR").is_some() { Paint::None } else { Paint::Colours };
        let display = Display::of(Box::new(std::io::stderr()), Mode::Block { paint, size: terminal_size });
        step_aside_for_panics(Arc::downgrade(&display.screen));
        display
    }

    /// Says nothing: for swarms that nobody watches.
    pub fn silent() -> Display {
        Display::of(Box::new(std::io::sink()), Mode::Plain)
    }

    fn of(out: Box<dyn Write + Send>, mode: Mode) -> Display {
        Display { screen: Arc::new(Mutex::new(Screen { out, mode, shown: Vec::new(), work: None })) }
    }

    /// Draws the block again. Plain output has none.
    pub fn frame(&self, frame: &Frame) {
        let mut screen = self.screen();
        if let Mode::Block { paint, size } = screen.mode {
            let (columns, rows) = usable(size());
            screen.draw(block(frame, columns, rows, paint));
        }
    }

    /// Shows how far the work is, in place of the block. Where nothing can be redrawn, a line says so at its beginning, and
    /// again every ten seconds.
    pub fn work(&self, work: &WorkLine) {
        let mut screen = self.screen();
        match screen.mode {
            Mode::Block { paint, size } => {
                let line = work_line(work, usable(size()).0, paint);
                screen.draw(vec![line]);
            }
            Mode::Plain => {
                let told = (work.what.clone(), work.elapsed.as_secs() / WORK_EVERY.as_secs());
                if screen.work.as_ref() != Some(&told) {
                    screen.work = Some(told);
                    screen.print(&event_lines(&work_text(work), usize::MAX, Paint::None));
                }
            }
        }
    }

    /// Tells of a round that is over: a line that stays.
    pub fn round(&self, round: &RoundLine) {
        let mut screen = self.screen();
        let lines = match screen.mode {
            Mode::Plain => vec![round_text(round, usize::MAX, Paint::None)],
            Mode::Block { paint, size } => vec![round_text(round, usable(size()).0, paint)],
        };
        screen.print(&lines);
    }

    /// Tells of something that happened: lines that stay. It is loud if its first word is in capitals.
    pub fn event(&self, text: &str) {
        let mut screen = self.screen();
        let lines = match screen.mode {
            Mode::Plain => event_lines(text, usize::MAX, Paint::None),
            Mode::Block { paint, size } => event_lines(text, usable(size()).0, paint),
        };
        screen.print(&lines);
    }

    /// Takes the block away. What was told of rounds and events stays.
    pub fn finish(&self) {
        self.screen().draw(Vec::new());
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        lock(&self.screen)
    }
}

/// A panic while drawing leaves at worst a torn block.
fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows and columns of the terminal behind standard error.
fn terminal_size() -> (usize, usize) {
    let (rows, columns) = console::Term::stderr().size_checked().unwrap_or((0, 0));
    (usize::from(columns), usize::from(rows))
}

/// Columns and rows to draw on: the last column stays free, since terminals differ in when they wrap, and so does the row
/// on which the cursor rests.
fn usable((columns, rows): (usize, usize)) -> (usize, usize) {
    let or = |given: usize, otherwise: usize| if given == 0 { otherwise } else { given };
    (or(columns, COLUMNS).saturating_sub(1).max(1), or(rows, ROWS).saturating_sub(1).max(1))
}

fn step_aside_for_panics(screen: Weak<Mutex<Screen>>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(screen) = screen.upgrade() {
            // The panicking thread may hold the lock itself: then its message comes below the block.
            match screen.try_lock() {
                Ok(mut screen) => screen.draw(Vec::new()),
                Err(TryLockError::Poisoned(screen)) => screen.into_inner().draw(Vec::new()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        before(panic);
    }));
}

#[derive(Clone, Copy)]
enum Mode {
    Plain,
    Block { paint: Paint, size: fn() -> (usize, usize) },
}

/// Where lines go, and what of them can still be taken back.
struct Screen {
    out: Box<dyn Write + Send>,
    mode: Mode,
    /// The block's lines, with their colours; the cursor is at the start of the row below.
    shown: Vec<String>,
    /// The work of which a line was told last, and how many times [`WORK_EVERY`] it had taken then.
    work: Option<(String, u64)>,
}

impl Screen {
    /// Replaces the block.
    fn draw(&mut self, lines: Vec<String>) {
        if lines == self.shown {
            return;
        }
        let mut bytes = self.erase();
        push_lines(&mut bytes, &lines);
        self.shown = lines;
        self.write(&bytes);
    }

    /// Writes lines that stay, above the block.
    fn print(&mut self, lines: &[String]) {
        let mut bytes = self.erase();
        push_lines(&mut bytes, lines);
        push_lines(&mut bytes, &self.shown);
        self.write(&bytes);
    }

    /// Moves to the block's first row and clears from there. A terminal that became narrower may have wrapped its rows.
    fn erase(&self) -> String {
        let Mode::Block { size, .. } = self.mode else { return String::new() };
        let columns = usable(size()).0 + 1;
        let rows: usize =
            self.shown.iter().map(|line| console::measure_text_width(line).max(1).div_ceil(columns)).sum();
        if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A\x1b[J") }
    }

    /// One write a frame: a terminal never shows half of it for long, and an end in between loses nothing.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.draw(Vec::new());
    }
}

fn push_lines(bytes: &mut String, lines: &[String]) {
    for line in lines {
        bytes.push_str(line);
        bytes.push('\n');
    }
}

#[cfg(test)]
mod tests;
