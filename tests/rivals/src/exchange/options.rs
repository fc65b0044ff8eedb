//! What is measured, how often, and with how many bytes: the arguments of `exchange`.

use super::Failure;
use std::path::PathBuf;

/// As it is printed.
pub const USAGE: &str = "\
exchange [--rss | --wan] [--quick] [--bytes SIZE] [--runs N] [--only NAMES] [--folder DIR]
  (nothing)      one provider, one fetcher over loopback: throughput, CPU, memory
  --rss          memory while 4 GiB pass, and of nodes at rest
  --wan          over an emulated wide-area network (needs root)
  --quick        everything small: does it run?
  --bytes SIZE   of a blob: 1GiB, 520MB, 1000000 (1 GiB; over --wan 520 MB)
  --runs N       of which the median counts (5; over --wan 1)
  --only NAMES   rows whose name has one of these, separated by commas
  --folder DIR   for files, on a disk (the system's temporary folder)";

/// Which measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Loopback,
    Rss,
    Wan,
}

/// The arguments, with what is usual where nothing was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub mode: Mode,
    pub quick: bool,
    pub bytes: u64,
    pub runs: usize,
    pub only: Vec<String>,
    pub folder: PathBuf,
}

impl Options {
    /// # Errors
    /// An argument that is none.
    pub fn parse(words: &[&str]) -> Result<Options, Failure> {
        let (mut mode, mut quick, mut bytes, mut runs) = (Mode::Loopback, false, None, None);
        let (mut only, mut folder) = (vec![], std::env::temp_dir());
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "--rss" => mode = Mode::Rss,
                "--wan" => mode = Mode::Wan,
                "--quick" => quick = true,
                "--bytes" => bytes = Some(size(value()?)?),
                "--runs" => runs = Some(value()?.parse::<usize>()?.max(1)),
                "--only" => only = value()?.split(',').map(str::to_owned).collect(),
                "--folder" => folder = value()?.into(),
                _ => return Err(format!("no such option: {word}").into()),
            }
        }
        let usual = match mode {
            _ if quick => (8 << 20, 1),
            Mode::Loopback => (1 << 30, 5),
            Mode::Rss => (4 << 30, 1),
            Mode::Wan => (520_000_000, 1),
        };
        Ok(Options { mode, quick, bytes: bytes.unwrap_or(usual.0), runs: runs.unwrap_or(usual.1), only, folder })
    }

    /// Whether a row of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Bytes, with a unit or without.
fn size(text: &str) -> Result<u64, Failure> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("{other:?} is no unit: kB, MB, GB, KiB, MiB, GiB").into()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{text:?} is no size: {error}"))?;
    number.checked_mul(unit).filter(|&bytes| bytes > 0).ok_or_else(|| format!("{text:?} is no size").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_modes_have_their_own_usual_values() {
        assert_eq!(Options::parse(&[]).expect("nothing is needed").bytes, 1 << 30);
        let options = Options::parse(&["--wan", "--only", "bbr,iroh"]).expect("known");
        assert_eq!((options.mode, options.bytes, options.runs), (Mode::Wan, 520_000_000, 1));
        assert!(options.wants("covey bbr") && !options.wants("covey cubic"));
        assert_eq!(
            Options::parse(&["--bytes", "3MiB", "--runs", "0"]).map(|o| (o.bytes, o.runs)).ok(),
            Some((3 << 20, 1))
        );
        for wrong in [&["--bytes", "3 MiB"][..], &["--bytes"], &["--bytes", "0"], &["--fast"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
