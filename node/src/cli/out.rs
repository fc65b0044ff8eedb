//! Standard output of commands. Whoever reads it may have had enough (`covey status --json | head -1`): what comes after
//! that is dropped, and the command goes on to its end. Where it cannot be written for another reason, the command ends.

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

/// Writes to standard output.
pub(super) fn write(text: Arguments<'_>) {
    match std::io::stdout().lock().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}
