//! Files become questions, and questions tokens.

use crate::cli::{Failure, Plain};
use covey_trainer::eval::task::{Item, Layout};
use covey_trainer::eval::text::windows;
use covey_trainer::eval::{encode, question};
use covey_trainer::generate::Tokenizer;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of the largest file of items or text.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A file, read.
pub(super) struct Task {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub kind: Kind,
}

/// What a file holds.
pub(super) enum Kind {
    /// Multiple choice.
    Items(Layout, Vec<Item>),
    /// Texts.
    Texts(Vec<String>),
}

/// What the model is asked of one item or text.
pub(super) struct Asked {
    /// Each choice behind the question; or a text's windows.
    pub lists: Vec<Vec<u32>>,
    /// Tokens of the text.
    pub tokens: usize,
}

impl Asked {
    /// Tokens that are read of the longest list.
    pub(super) fn longest(&self) -> usize {
        self.lists.iter().map(|list| list.len().saturating_sub(1)).max().unwrap_or(0)
    }
}

/// A line of a file of texts.
#[derive(Deserialize)]
struct TextLine {
    text: String,
}

/// Reads a file of items, whose layout is the one that its first line has or the one that is said, or of texts.
///
/// # Errors
/// A file that cannot be read or is too large, or a line that is no item: with its number.
pub(super) fn read(path: &Path, layout: Option<Layout>, limit: usize) -> Result<Task, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).map_err(|error| Plain(format!("{shown}: {error}")))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(Plain(format!("{shown} is no file")).into());
    }
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if bytes.map_err(|error| Plain(format!("{shown}: {error}")))? as u64 > FILE_BYTES_MAX {
        return Err(Plain(format!("{shown}: over {FILE_BYTES_MAX} bytes: give a part of it")).into());
    }
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        if text.trim().is_empty() {
            return Err(Plain(format!("{shown} holds no text")).into());
        }
        return Ok(Task { name, kind: Kind::Texts(vec![text]) });
    }
    let numbered = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(limit);
    let Some((_, first)) = numbered().next() else { return Err(Plain(format!("{shown} has no lines")).into()) };
    let fault = |number: usize, what: &dyn std::fmt::Display| Plain(format!("{shown}, line {}: {what}", number + 1));
    let kind = match layout.or_else(|| Layout::of(first)) {
        Some(layout) => {
            let item = |(number, line)| Item::parse(layout, line).map_err(|error| fault(number, &error));
            Kind::Items(layout, numbered().map(item).collect::<Result<_, _>>()?)
        }
        None => {
            let text = |(number, line)| match serde_json::from_str(line) {
                Ok(TextLine { text }) if text.trim().is_empty() => Err(fault(number, &"an empty text")),
                Ok(TextLine { text }) => Ok(text),
                Err(_) => Err(fault(number, &"neither a \"text\" nor an item of a known layout (see --layout)")),
            };
            Kind::Texts(numbered().map(text).collect::<Result<_, _>>()?)
        }
    };
    Ok(Task { name, kind })
}

/// The first `shots` items of a file.
///
/// # Errors
/// As [`read`]; or the file has fewer, or no items.
pub(super) fn examples(path: &Path, layout: Option<Layout>, shots: usize) -> Result<Vec<Item>, Failure> {
    match read(path, layout, shots)?.kind {
        Kind::Items(_, items) if items.len() == shots => Ok(items),
        Kind::Items(_, items) => {
            Err(Plain(format!("{} has {} items; --shots asks for {shots}", path.display(), items.len())).into())
        }
        Kind::Texts(_) => Err(Plain(format!("{} has texts, and no items to show", path.display())).into()),
    }
}

/// How questions become tokens.
pub(super) struct Asking<'a> {
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// Answered before each question.
    pub examples: &'a [Item],
    /// What a text begins with.
    pub begin: u32,
    /// Tokens that are read at once.
    pub sequence: usize,
}

impl Asking<'_> {
    /// What the model is asked of each item or text.
    ///
    /// # Errors
    /// A choice without tokens, or the tokenizer fails.
    pub(super) fn ask(&self, task: &Task) -> Result<Vec<Asked>, Failure> {
        let of_item = |item: &Item| {
            let context = item.context(self.examples);
            let ask = |choice: &String| question(self.tokenizer, &context, &format!(" {choice}"), self.sequence);
            let lists = item.choices.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
            Ok(Asked { tokens: lists.iter().map(Vec::len).sum(), lists })
        };
        let of_text = |text: &String| {
            let tokens = encode(self.tokenizer, text)?;
            Ok(Asked { lists: windows(&tokens, self.begin, self.sequence), tokens: tokens.len() })
        };
        match &task.kind {
            Kind::Items(_, items) => items.iter().map(of_item).collect(),
            Kind::Texts(texts) => texts.iter().map(of_text).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read_file(name: &str, text: &str, layout: Option<Layout>) -> Result<Task, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        super::read(&path, layout, 2).map_err(|error| format!("{error}"))
    }

    const ITEM: &str = r#"{"query":"q","choices":["x","y"],"gold":1}"#;

    #[test]
    fn a_file_is_items_or_texts_by_its_lines() {
        let Task { kind: Kind::Items(Layout::Plain, items), .. } =
            read_file("a.jsonl", &format!("{ITEM}\n\n{ITEM}\n{ITEM}"), None).unwrap()
        else {
            panic!("items")
        };
        assert_eq!(items.len(), 2, "the first two");
        let Task { kind: Kind::Texts(texts), .. } = read_file("a.jsonl", "{\"text\":\"one\"}\n", None).unwrap() else {
            panic!("texts")
        };
        assert_eq!(texts, ["one"]);
        assert!(
            matches!(read_file("a.txt", "all of it\n", None).unwrap().kind, Kind::Texts(texts) if texts == ["all of it\n"])
        );
    }

    #[test]
    fn what_cannot_be_asked_is_named_with_its_line() {
        let fault = |text: &str, layout| read_file("a.jsonl", text, layout).err().unwrap();
        assert!(fault(&format!("{ITEM}\n{{}}"), None).contains("a.jsonl, line 2: missing field `query`"));
        assert!(fault("{\"a\":1}", None).contains("line 1: neither a"));
        assert!(fault(ITEM, Some(Layout::Piqa)).contains("missing field `goal`"));
        assert!(fault(" \n", None).contains("has no lines"));
        assert!(fault("{\"text\":\" \"}", None).contains("line 1: an empty text"));
        assert!(read_file("a.txt", "\n", None).err().is_some_and(|error| error.contains("holds no text")));
        let folder = tempfile::tempdir().unwrap();
        assert!(super::read(&folder.path().join("none.jsonl"), None, 1).is_err());
        assert!(super::read(folder.path(), None, 1).is_err());
        let path = folder.path().join("few.jsonl");
        fs::write(&path, ITEM).unwrap();
        assert!(examples(&path, None, 2).err().is_some_and(|error| error.to_string().contains("has 1 items")));
        assert_eq!(examples(&path, None, 1).unwrap().len(), 1);
    }
}
