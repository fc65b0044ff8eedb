//! Standard output and standard error of commands: foreign text in it cannot act on a terminal (`shown.rs`). Whoever reads it may have had enough (`covey status --json | head -1`): what comes after
//! that is dropped, and the command goes on to its end. Where it cannot be written for another reason, the command ends.

use super::shown;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// As the standard library's, which panics where nobody reads any more.
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::out::write(format_args!($($text)*)) };
}

/// As the standard library's, which panics where nobody reads any more.
macro_rules! println {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// As the standard library's, which panics where nobody reads any more.
macro_rules! eprintln {
    () => { $crate::cli::out::complain(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::out::complain(format_args!($($text)*)) };
}

/// Writes a line to standard error.
pub(super) fn complain(text: Arguments<'_>) {
    // There is nowhere left to say that it cannot be written.
    let _ = writeln!(std::io::stderr().lock(), "{}", shown::text(&text.to_string()));
}

/// Writes to standard output.
pub(super) fn write(text: Arguments<'_>) {
    match std::io::stdout().lock().write_all(shown::text(&text.to_string()).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            std::eprintln!("error: standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}
