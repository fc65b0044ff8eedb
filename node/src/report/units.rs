//! Numbers as people read them: separators, units, durations. Decides no layout.
//!
//! What is not a number, or not finite, becomes [`NONE`].

use std::time::Duration;

/// Stands where a number is missing or not finite.
pub const NONE: &str = "–";

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rounded to a whole number, with separators; for rates.
pub fn whole(number: f64) -> String {
    match number.is_finite() {
        // A cast saturates: no rate comes near the limits of u64.
        true => thousands(number.max(0.0).round() as u64),
        false => NONE.to_string(),
    }
}

/// Three digits and a letter: `950`, `12.3 k`, `1.24 M`, `72.7 G`.
pub fn short(number: u64) -> String {
    scaled(number, &["", " k", " M", " G", " T", " P", " E"])
}

/// Bytes in decimal units: `950 B`, `12.3 kB`, `1.24 MB`.
pub fn bytes(number: u64) -> String {
    scaled(number, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"])
}

/// Three significant digits in the largest of `units` (steps of 1000) that leaves a whole part.
fn scaled(number: u64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    if number < 1000 {
        return format!("{number}{unit}");
    }
    // 999.5 would round to four digits: it is the next unit's 1.00.
    while value >= 999.5
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}{unit}")
}

/// A duration: `0.42 s`, `12.3 s`, `3 min 12 s`, `2 h 05 min`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() {
        return NONE.to_string();
    }
    let seconds = seconds.max(0.0);
    if seconds < 0.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 99.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A duration as a clock shows it: `1:31`, `1:02:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

/// With `decimals` digits after the point.
pub fn decimal(number: f64, decimals: usize) -> String {
    match number.is_finite() {
        true => format!("{number:.decimals$}"),
        false => NONE.to_string(),
    }
}

/// A share of 1 in percent: `83 %`, `4.2 %`, `0.03 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() {
        return NONE.to_string();
    }
    let decimals = match percent.abs() {
        p if p == 0.0 || p >= 9.95 => 0,
        p if p >= 0.095 => 1,
        _ => 2,
    };
    format!("{percent:.decimals$} %")
}

/// `1 round`, `2 rounds`: a number and its noun, whose plural ends in s.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups_of_three() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(whole(1233.6), "1,234");
        assert_eq!(whole(f64::NAN), NONE);
    }

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(short(70_600_000_000), "70.6 G");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let cases = [
            (0.0, "0.00 s"),
            (0.994, "0.99 s"),
            (0.999, "1.0 s"),
            (99.94, "99.9 s"),
            (99.96, "1 min 40 s"),
            (3599.6, "1 h 00 min"),
            (7500.0, "2 h 05 min"),
            (-1.0, "0.00 s"),
            (f64::NAN, NONE),
        ];
        for (number, text) in cases {
            assert_eq!(seconds(number), text);
        }
        assert_eq!(clock(Duration::from_secs(91)), "1:31");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn shares_keep_what_matters() {
        let cases = [(0.0, "0 %"), (0.834, "83 %"), (0.0421, "4.2 %"), (0.0003, "0.03 %"), (1.0, "100 %")];
        for (share, text) in cases {
            assert_eq!(percent(share), text);
        }
        assert_eq!(percent(f64::INFINITY), NONE);
    }

    #[test]
    fn lists_read_as_prose() {
        assert_eq!(list::<&str>(&[]), "");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(count(1, "round"), "1 round");
        assert_eq!(count(1000, "round"), "1,000 rounds");
    }
}
