//! Covey beside others, measured in turn in one run: which part is measured is the first argument.
//!
//! ```text
//! cargo run --release --manifest-path tests/rivals/Cargo.toml -- sparseloco [--json FILE]
//! cargo run --release --manifest-path tests/rivals/Cargo.toml -- trainer [--json FILE]
//! cargo run --release --manifest-path tests/rivals/Cargo.toml -- exchange [OPTIONS] [--json FILE]
//! ```
//! Without the feature `exchange` (`--no-default-features`) there is no network in it, and it builds in a third of the time.
//!
//! What is printed is what `--json` writes. Other work on the machine spoils both sides: the load is printed first.

#[cfg(all(feature = "exchange", target_os = "linux"))]
mod exchange;
mod gradients;
mod report;
mod sparseloco;
mod torch;
mod trainer;

use report::Report;
use std::error::Error;
use std::process::ExitCode;

const USAGE: &str = "usage: covey-rivals PART [--json FILE]\n\nsparseloco\ntrainer";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    #[cfg(all(feature = "exchange", target_os = "linux"))]
    if let Some((&exchange::role::WORD, rest)) = words.split_first() {
        return exchange::role::run(rest);
    }
    let json = match take_json(&mut words) {
        Ok(json) => json,
        Err(why) => return usage(why),
    };
    let (mut report, measured): (Report, Result<(), Box<dyn Error>>) = match words[..] {
        ["sparseloco"] => {
            let mut report = Report::new();
            sparseloco::measure(&mut report);
            (report, Ok(()))
        }
        ["trainer"] => {
            let mut report = Report::new();
            trainer::measure(&mut report);
            (report, Ok(()))
        }
        #[cfg(all(feature = "exchange", target_os = "linux"))]
        ["exchange", ref options @ ..] => match exchange::Options::parse(options) {
            Ok(options) => {
                let mut report = Report::new();
                let measured = exchange::measure(&options, &mut report);
                (report, measured.map_err(Box::from))
            }
            Err(error) => return usage(&error.to_string()),
        },
        _ => return usage("name a part"),
    };
    if let Err(error) = &measured {
        eprintln!("not everything was measured: {error}");
        report.text("failed", &error.to_string());
    }
    match json.map_or(Ok(()), |file| report.write(file)) {
        Ok(()) if measured.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the report was not written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes `--json FILE` out of the words.
fn take_json<'a>(words: &mut Vec<&'a str>) -> Result<Option<&'a str>, &'static str> {
    let Some(at) = words.iter().position(|&word| word == "--json") else { return Ok(None) };
    if at + 1 >= words.len() {
        return Err("--json needs a file");
    }
    Ok(words.drain(at..at + 2).nth(1))
}

fn usage(why: &str) -> ExitCode {
    eprintln!("{why}\n{USAGE}");
    #[cfg(all(feature = "exchange", target_os = "linux"))]
    eprintln!("{}", exchange::USAGE);
    ExitCode::from(2)
}
