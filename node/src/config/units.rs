//! Sizes and rates as people write them.

use covey_gossip::ByteRate;
use std::fmt;
use std::str::FromStr;

/// Bytes: `500MB`, `20GiB`, `17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Not a size.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no size: a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
pub struct NotASize(String);

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl FromStr for Size {
    type Err = NotASize;
    fn from_str(text: &str) -> Result<Size, NotASize> {
        let wrong = || NotASize(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?.1;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Size).ok_or_else(wrong);
        }
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * unit as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Size(bytes as u64)) } else { Err(wrong()) }
    }
}

/// In the largest unit of which it is a whole number: reads back as itself.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, unit): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().filter(whole).max_by_key(|(_, unit)| *unit).unwrap_or(&UNITS[1]);
        write!(f, "{}{}", self.0 / unit, if name.is_empty() { "B" } else { name })
    }
}

/// Megabits a second: above 0 and below a million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mbit(f64);

/// Not a rate.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq)]
#[error("{0}: it must be a number of Mbit/s above 0 and below 1000000")]
pub struct NotARate(f64);

impl Mbit {
    /// So many megabits a second.
    ///
    /// # Errors
    /// Not above 0, or beyond any line.
    pub fn new(mbit: f64) -> Result<Mbit, NotARate> {
        if mbit > 0.0 && mbit < 1e6 { Ok(Mbit(mbit)) } else { Err(NotARate(mbit)) }
    }

    /// The number.
    pub fn number(self) -> f64 {
        self.0
    }

    /// In bytes; a tenth of a second's may go at once.
    pub fn rate(self) -> ByteRate {
        let per_second = (self.0 * 125_000.0) as u64;
        ByteRate { per_second, burst: per_second / 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        let cases = [("0", 0), ("17", 17), ("5kB", 5000), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("1tib", 1 << 40)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in ["", "GB", "-1", "1 parsec", "1.2.3MB", "99999999999TB", "1e400"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_is_read() {
        for (bytes, text) in [(0, "0B"), (17, "17B"), (100_000_000_000, "100GB"), (16 << 30, "16GiB"), (1536, "1536B")]
        {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        assert_eq!(Mbit::new(110.0).unwrap().rate().per_second, 13_750_000);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Mbit::new(wrong).is_err(), "{wrong}");
        }
    }
}
