//! Finds the doc comments of a Rust source file, line by line and without parsing it.
//!
//! Decides what is documentation: `///`, `//!`, `/** */`, `/*! */`, and `doc = "…"` attributes with any string.
//! A line of code ends a comment. Generated and broken sources are no trouble: whatever does not look like
//! documentation is passed over.

/// The doc comments of `source`, each as Markdown.
pub fn doc_comments(source: &str) -> Vec<String> {
    let mut reader = Reader { lines: source.lines(), found: Vec::new(), comment: String::new() };
    while let Some(line) = reader.lines.next() {
        reader.read(line.trim_start());
    }
    reader.end();
    reader.found
}

struct Reader<'s> {
    lines: std::str::Lines<'s>,
    found: Vec<String>,
    comment: String,
}

impl Reader<'_> {
    fn read(&mut self, line: &str) {
        if let Some(text) = line_comment(line) {
            self.push(text);
        } else if let Some(text) = block_start(line) {
            self.block(text);
        } else if let Some(text) = attribute_start(line) {
            self.attribute(text);
        } else {
            self.end();
        }
    }

    fn push(&mut self, line: &str) {
        self.comment.push_str(line.strip_prefix(' ').unwrap_or(line));
        self.comment.push('\n');
    }

    fn end(&mut self) {
        if !self.comment.trim().is_empty() {
            self.found.push(std::mem::take(&mut self.comment));
        }
        self.comment.clear();
    }

    /// Reads on to the end of a `/** */`.
    fn block(&mut self, first: &str) {
        let mut line = first;
        loop {
            if let Some((text, _)) = line.split_once("*/") {
                self.push(text.trim_end());
                return;
            }
            self.push(line);
            let Some(next) = self.lines.next() else { return };
            let next = next.trim_start();
            line = if next.starts_with("*/") { next } else { next.strip_prefix('*').unwrap_or(next) };
        }
    }

    /// Reads on to the end of the string of a `doc = "…"`; `first` is what follows the equals sign.
    fn attribute(&mut self, first: &str) {
        let raw = first.strip_prefix('r').map(|rest| rest.trim_start_matches('#'));
        let hashes = raw.map_or(0, |rest| first.len() - 1 - rest.len());
        let Some(text) = raw.unwrap_or(first).strip_prefix('"') else {
            return self.end();
        };
        let closing = format!("\"{}", "#".repeat(hashes));
        let mut text = text.to_owned();
        loop {
            let end = if raw.is_some() { text.find(&closing) } else { unescaped_quote(&text) };
            if let Some(end) = end {
                text.truncate(end);
                break;
            }
            let Some(next) = self.lines.next() else { break };
            text.push('\n');
            text.push_str(next);
        }
        let text = if raw.is_some() { text } else { unescape(&text) };
        for line in text.split('\n') {
            self.push(line);
        }
    }
}

fn line_comment(line: &str) -> Option<&str> {
    let text = line.strip_prefix("//")?;
    text.strip_prefix('!').or_else(|| text.strip_prefix('/').filter(|rest| !rest.starts_with('/')))
}

fn block_start(line: &str) -> Option<&str> {
    let text = line.strip_prefix("/*")?;
    text.strip_prefix('!').or_else(|| text.strip_prefix('*').filter(|rest| !rest.starts_with(['*', '/'])))
}

/// What follows `doc =` in an attribute.
fn attribute_start(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("#[").or_else(|| line.strip_prefix("#!["))?;
    inner.match_indices("doc").find_map(|(at, name)| {
        let before = inner[..at].trim_end();
        let after = inner[at + name.len()..].trim_start();
        if before.is_empty() || before.ends_with(',') { after.strip_prefix('=').map(str::trim_start) } else { None }
    })
}

/// Where a string ends whose quotes may be escaped.
fn unescaped_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some(c @ ('"' | '\'' | '\\')) => out.push(c),
            // A line continued, a character by number: neither matters to prose.
            Some(_) | None => out.push(' '),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_doc_comment_is_found_and_nothing_else() {
        let source = "//! Crate.\n//!  More.\n\n// not this\n//// nor this\n/// Item.\n///\n/// Second paragraph.\nfn f() {} /// no\n\
                      /** Block\n * with stars\n */\nfn g() {}\n/*! Inner. */\n/* plain */\n/**/\n/***** banner *****/\n";
        assert_eq!(
            doc_comments(source),
            ["Crate.\n More.\n", "Item.\n\nSecond paragraph.\n", "Block\nwith stars\n\n", "Inner.\n"]
        );
    }

    #[test]
    fn attributes_hold_documentation_too() {
        let source = r##"#[doc = " First \"quoted\" line."]
#[doc = " and\n a second."]
#[cfg_attr(docsrs, doc = "Only there.")]
#[doc(hidden)]
#[documented = "no"]
#![doc = r#"Raw "text"
over lines."#]
struct S;
#[doc = include_str!("x.md")]
"##;
        assert_eq!(
            doc_comments(source),
            ["First \"quoted\" line.\nand\na second.\nOnly there.\n", "Raw \"text\"\nover lines.\n"]
        );
    }

    #[test]
    fn what_never_ends_ends_with_the_file() {
        assert_eq!(doc_comments("/** Open"), ["Open\n"]);
        assert_eq!(doc_comments("#[doc = \"Open"), ["Open\n"]);
        assert_eq!(doc_comments("#[doc = r###"), Vec::<String>::new());
    }
}
