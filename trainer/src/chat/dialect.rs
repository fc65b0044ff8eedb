//! Jinja as `transformers` sets it up: blocks leave no white space behind, Python's methods of strings, lists and
//! dictionaries, loop controls, `tojson` as Python writes JSON, `raise_exception`, `strftime_now`.
//!
//! The date is UTC's. `{% generation %}`, which marks what the assistant says and adds nothing to the text, is left out.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Spaces that `tojson(indent=…)` may ask for.
const INDENT_MAX: usize = 16;
/// Calls of macros and nested blocks within one another.
const DEPTH_MAX: usize = 64;

/// An environment with the dialect, and no templates.
///
/// # Errors
/// None is known.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(DEPTH_MAX);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        strftime(&format, now)
    });
    Ok(environment)
}

/// Comments in the place of `{% generation %}` and `{% endgeneration %}`, with the same dashes for white space.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at..].find("%}").map(|end| end + 2) else { break };
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let (tag, after) = tag.split_at(end);
        let inside = tag[2..end - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        if ["generation", "endgeneration"].contains(&inside) {
            out.push_str(&format!("{{#{}#}}", &tag[2..end - 2]));
        } else {
            out.push_str(tag);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, with `indent` over several lines.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Whatever the others ask for (ensure_ascii, separators), text stays readable.
    for other in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(other)?;
    }
    options.assert_all_used()?;
    let fault = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(INDENT_MAX));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).map_err(fault)?;
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, OneLine)).map_err(fault)?,
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Python's spaces: after commas and colons.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// C's strftime at `seconds` after 1970 in UTC, with the letters that templates use; others stay as they are.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[((days + 3) % 7) as usize]);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month from 1, and day from 1 of a day after 1970-01-01 (Howard Hinnant, chrono-compatible date algorithms).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Python: datetime(…, tzinfo=utc).strftime.
        assert_eq!(strftime("%d %b %Y", 1_722_000_000), "26 Jul 2024");
        assert_eq!(
            strftime("%A, %B %e %Y, %I:%M %p (%H:%M:%S)", 1_709_164_799),
            "Wednesday, February 28 2024, 11:59 PM (23:59:59)"
        );
        assert_eq!(strftime("%F %T %y%% %q %", 951_782_400), "2000-02-29 00:00:00 00% %q %");
        assert_eq!(strftime("%a %F", 0), "Thu 1970-01-01");
    }

    #[test]
    fn generation_tags_leave_what_they_mark() {
        let source = "a {% generation %}b{%- endgeneration -%} c {% if x %}d{% endif %} {% open";
        let expected = "a {# generation #}b{#- endgeneration -#} c {% if x %}d{% endif %} {% open";
        assert_eq!(without_generation_tags(source), expected);
    }
}
