//! Foreign text on a terminal: what a data set, a model, an endpoint or a peer wrote may hold sequences that move the cursor,
//! rename the window, answer for the user, or turn the reading order so that a line reads as another.
//!
//! All that commands write to their standard output and standard error as lines goes through [`text`] (`out.rs`); JSON
//! through [`json`], which stays JSON; what must be one line through [`line`]. What this program paints itself, bars and
//! tables, it writes by itself.

use std::borrow::Cow;

/// Whether a terminal may do something else with a character than show it: C0 and C1 controls, and those that turn the
/// reading order or break a line (Unicode's Bidi_Control, U+2028, U+2029).
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every such character for which `is_kept` is false written by `escape`.
fn escaped<'a>(text: &'a str, is_kept: fn(char) -> bool, escape: fn(char, &mut String)) -> Cow<'a, str> {
    let is_shown = |letter: char| is_kept(letter) || !acts(letter);
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_shown(letter) {
            out.push(letter);
        } else {
            escape(letter, &mut out);
        }
    }
    Cow::Owned(out)
}

fn in_words(letter: char, out: &mut String) {
    out.extend(letter.escape_unicode());
}

/// The text as it can be shown: an escape is seen as `\u{1b}`. Newlines and tabs stay.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| matches!(letter, '\n' | '\t'), in_words)
}

/// The same on one line.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, in_words)
}

/// JSON that means the same and can be shown: within its strings an escape is `\u001b`.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |letter| matches!(letter, '\n' | '\r' | '\t'),
        |letter, out| {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_seen_and_newlines_and_tabs_stay() {
        assert_eq!(text("\x1b]0;title\x07\x1b[2J"), "\\u{1b}]0;title\\u{7}\\u{1b}[2J");
        assert_eq!(text("a\tb\nc\rd\u{9b}31m\u{7f}"), "a\tb\nc\\u{d}d\\u{9b}31m\\u{7f}");
        assert_eq!(text("abc\u{202e}fed\u{2066}\u{200f}"), "abc\\u{202e}fed\\u{2066}\\u{200f}");
        assert_eq!(line("one\ntwo\u{2028}"), "one\\u{a}two\\u{2028}");
        let plain = "Grüße, 你好, 👩‍🚀, עברית";
        assert!(matches!(text(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ "name": "\x1b[2J \u{9b}\u{7f}\u{202e}x", "list": ["\n", "\t"] });
        for written in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json(&written);
            assert!(!shown.chars().any(|letter| acts(letter) && letter != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn of_all_characters_nothing_that_acts_is_left() {
        let all: String = ('\0'..=char::MAX).collect();
        assert!(!line(&all).chars().any(acts));
        assert!(!text(&all).chars().any(|letter| acts(letter) && letter != '\n' && letter != '\t'));
        let kept = line(&all).chars().filter(|letter| !letter.is_ascii()).count();
        assert!(kept > 1_000_000, "the rest is shown as it is");
    }
}
