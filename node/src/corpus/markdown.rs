//! Markdown and the HTML inside it to paragraphs of plain text.
//!
//! Decides what is left out: code, tables, headings, link targets, images, addresses, tags. Works line by line and
//! never fails: odd Markdown gives odd paragraphs, which [`super::prose`] judges.

/// The paragraphs of `markdown`, each on one line.
pub fn paragraphs(markdown: &str) -> Vec<String> {
    let mut blocks = Blocks::default();
    for line in without_comments(markdown).lines() {
        blocks.line(line);
    }
    blocks.end();
    blocks
        .found
        .iter()
        .flat_map(|block| split_html(block))
        .map(|block| inline(&block))
        .filter(|p| !p.is_empty())
        .collect()
}

/// HTML comments can span paragraphs, so they go first.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        out.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[derive(Default)]
struct Blocks {
    found: Vec<String>,
    block: String,
    /// The character and length of the fence that is open.
    fence: Option<(char, usize)>,
    in_list: bool,
    after_blank: bool,
}

impl Blocks {
    fn line(&mut self, line: &str) {
        let text = line.trim().trim_start_matches(['>', ' ']);
        if self.in_fence(text) {
            return;
        }
        let indented = line.starts_with("    ") || line.starts_with('\t');
        if text.is_empty() {
            self.end();
            self.after_blank = true;
            return;
        }
        let starts_block = std::mem::replace(&mut self.after_blank, false) || self.block.is_empty();
        let item = list_item(text);
        if indented && starts_block && !self.in_list {
            self.after_blank = true;
        } else if is_rule(text) {
            // Under a paragraph, '=' makes it a heading.
            if text.starts_with('=') {
                self.block.clear();
            }
            self.end();
        } else if text.starts_with(['#', '|']) || is_link_definition(text) {
            self.end();
        } else if let Some(item) = item {
            self.end();
            self.in_list = true;
            self.push(item);
        } else {
            self.in_list &= !starts_block || line.starts_with(' ');
            self.push(text);
        }
    }

    /// Whether the line opens, closes or is inside fenced code.
    fn in_fence(&mut self, text: &str) -> bool {
        let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'));
        let length = mark.map_or(0, |mark| text.chars().take_while(|c| *c == mark).count());
        match (self.fence, mark) {
            (Some((open, least)), Some(mark)) if mark == open && length >= least && text.len() == length => {
                self.fence = None;
                true
            }
            (Some(_), _) => true,
            // A line such as ```x``` is inline code.
            (None, Some(mark)) if length >= 3 && !text[length..].contains(mark) => {
                self.end();
                self.fence = Some((mark, length));
                true
            }
            _ => false,
        }
    }

    fn push(&mut self, text: &str) {
        if !self.block.is_empty() {
            self.block.push(' ');
        }
        self.block.push_str(text);
    }

    fn end(&mut self) {
        if !self.block.is_empty() {
            self.found.push(std::mem::take(&mut self.block));
        }
    }
}

/// The text of a list item: after `- `, `* `, `+ `, `1. ` or `1) `.
fn list_item(text: &str) -> Option<&str> {
    let after = text.strip_prefix(['-', '*', '+']).or_else(|| {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if (1..=3).contains(&digits) { text[digits..].strip_prefix(['.', ')']) } else { None }
    })?;
    after.strip_prefix(' ').map(str::trim_start)
}

fn is_rule(text: &str) -> bool {
    text.len() >= 3 && text.chars().all(|c| matches!(c, '=' | '-' | '*' | '_' | ' ' | '|' | ':' | '+'))
}

fn is_link_definition(text: &str) -> bool {
    text.starts_with('[') && text.find("]:").is_some_and(|at| !text[..at].contains(' ') || text[at..].contains("://"))
}

/// Tags at which a paragraph ends.
const BLOCK_TAGS: [&str; 24] = [
    "p",
    "li",
    "ul",
    "ol",
    "div",
    "note",
    "important",
    "br",
    "dl",
    "dt",
    "dd",
    "h1",
    "h2",
    "h3",
    "h4",
    "table",
    "tr",
    "td",
    "th",
    "details",
    "summary",
    "caution",
    "fullname",
    "section",
];

/// Cuts a block at its HTML tags of paragraphs and lists, drops the others, and drops what `<pre>` holds.
fn split_html(block: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = block;
    while let Some(at) = rest.find('<') {
        let (before, tagged) = rest.split_at(at);
        push(&mut parts, before);
        let Some((tag, length)) = tag(tagged) else {
            push(&mut parts, "<");
            rest = &tagged[1..];
            continue;
        };
        rest = &tagged[length..];
        if tag == "pre" && !tagged.starts_with("</") {
            rest = rest.split_once("</pre>").map_or("", |(_, after)| after);
            parts.push(String::new());
        } else if BLOCK_TAGS.contains(&tag.as_str()) {
            parts.push(String::new());
        }
    }
    push(&mut parts, rest);
    parts
}

fn push(parts: &mut [String], text: &str) {
    if let Some(part) = parts.last_mut() {
        part.push_str(text);
    }
}

/// The name of the tag that `text` starts with, in lower case, and the tag's length; also `<https://…>`.
fn tag(text: &str) -> Option<(String, usize)> {
    let end = text.char_indices().take(400).find(|(_, c)| *c == '>')?.0;
    let inner = text.get(1..end)?;
    let name: String = inner.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
    let after = inner.trim_start_matches('/').get(name.len()..)?;
    let closed = after.is_empty() || after.starts_with([' ', '/', ':', '\n']);
    // `Vec<T>` and `a < b` are no tags: tags are in lower case and known characters follow.
    let is_tag = !name.is_empty() && closed && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    is_tag.then(|| (name, end + 1))
}

/// Strips Markdown inside a paragraph and normalises white space and quotes.
fn inline(text: &str) -> String {
    let text = links(&text.replace("\\[", "[").replace("\\]", "]"));
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace().filter(|word| !is_address(word)) {
        let word = word.trim_matches('_');
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !matches!(c, '`' | '*' | '\\') && !c.is_control()).map(plain));
    }
    entities(&out.replace('\u{2026}', "...")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One form for quotes, dashes and spaces.
fn plain(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2015}' => '-',
        '\u{a0}' | '\u{200b}' | '\u{feff}' => ' ',
        other => other,
    }
}

fn is_address(word: &str) -> bool {
    let word = word.trim_start_matches(['(', '<', '"', '\'', '[']);
    word.starts_with("http://")
        || word.starts_with("https://")
        || word.starts_with("www.")
        || word.starts_with("mailto:")
}

fn entities(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

/// `[text](target)`, `[text][label]`, `[text]` to text; images and footnote marks to nothing.
fn links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, linked) = rest.split_at(at);
        let is_image = before.ends_with('!');
        out.push_str(before.strip_suffix('!').unwrap_or(before));
        let Some(end) = closing(linked, '[', ']') else {
            out.push_str(linked);
            return out;
        };
        let inner = &linked[1..end];
        if !is_image && !inner.starts_with('^') {
            out.push_str(&links(inner));
        }
        rest = &linked[end + 1..];
        let target = [('(', ')'), ('[', ']')].iter().find(|(open, _)| rest.starts_with(*open));
        if let Some(end) = target.and_then(|(open, close)| closing(rest, *open, *close)) {
            rest = &rest[end + 1..];
        }
    }
    out.push_str(rest);
    out
}

/// Where the bracket that `text` starts with is closed, if within 1,000 bytes and 8 levels.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, c) in text.char_indices().take_while(|(at, _)| *at < 1000) {
        if c == open {
            depth += 1;
            if depth > 8 {
                return None;
            }
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_paragraphs_and_code_tables_and_headings_go() {
        let text = "# Title\n\nOne line\nand another.\n\n```rust\nlet x = 1;\n\nlet y;\n```\n\n| a | b |\n|---|---|\n\n\
                    Old title\n=========\n\n- first item\n  goes on\n- second\n\n    let code = 2;\n\nLast.\n\n    indented code\n\nEnd.\n";
        assert_eq!(
            paragraphs(text),
            ["One line and another.", "first item goes on", "second", "let code = 2;", "Last.", "End."]
        );
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one() {
        assert_eq!(paragraphs("````\n```\ncode\n```\nstill code\n````\ntext"), ["text"]);
        assert_eq!(paragraphs("```one``` is inline"), ["one is inline"]);
        assert_eq!(paragraphs("before\n~~~\nnever closed"), ["before"]);
    }

    #[test]
    fn links_keep_their_text_and_lose_their_targets() {
        let text = "See [`Vec<T>`](std::vec::Vec), [the *book*][book] and [Self::get]; ![badge](https://x.y/z.svg) \
                    at https://example.org/a_b or <https://example.org>.[^1]\n\n[book]: https://doc.example.org";
        assert_eq!(paragraphs(text), ["See Vec<T>, the book and Self::get; at or ."]);
    }

    #[test]
    fn html_is_cut_at_its_paragraphs() {
        let text = "<p>The <code>Name</code> of a bucket.</p> <note> <p>Names are unique&nbsp;&amp; final.</p> </note>\
                    <pre>code here</pre><ul><li>One</li><li>a < b</li></ul><!-- hidden\n\nstill --> end";
        assert_eq!(paragraphs(text), ["The Name of a bucket.", "Names are unique & final.", "One", "a < b", "end"]);
    }

    #[test]
    fn names_keep_their_underscores_and_quotes_become_plain() {
        assert_eq!(
            paragraphs("Call _this_ `read_to_end` \u{201c}now\u{201d} \u{2014} it\u{2019}s **fine**\u{2026}"),
            ["Call this read_to_end \"now\" - it's fine..."]
        );
    }

    #[test]
    fn brackets_without_end_are_no_trouble() {
        let deep = "[".repeat(5000);
        assert!(paragraphs(&deep).len() <= 1);
        assert_eq!(paragraphs("a [b (c"), ["a [b (c"]);
    }
}
