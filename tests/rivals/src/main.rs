//! Covey beside others, measured in turn in one run: which part is measured is the first argument.
//!
//! ```text
//! cargo run --release --manifest-path tests/rivals/Cargo.toml -- sparseloco [--json FILE]
//! ```
//! What is printed is what `--json` writes. Other work on the machine spoils both sides: the load is printed first.

mod gradients;
mod report;
mod sparseloco;
mod torch;

use std::process::ExitCode;

const USAGE: &str = "usage: covey-rivals sparseloco [--json FILE]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (part, json) = match words[..] {
        [part] => (part, None),
        [part, "--json", file] => (part, Some(file)),
        _ => return usage(),
    };
    let mut report = report::Report::new();
    match part {
        "sparseloco" => sparseloco::measure(&mut report),
        _ => return usage(),
    }
    match json.map_or(Ok(()), |file| report.write(file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the report was not written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
