//! Reads a user's own text: .txt and .md files, .jsonl with a "text" or the "messages" of a conversation a line, folders of
//! those.
//!
//! Decides how files become documents and what is refused. What is kept of the text is [`super::dedup`]'s matter.

use super::conversations::{self, ConversationFault};
use super::{DataError, Document};
use crate::chat::{ChatTemplate, Message};
use crate::open_regular;
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Text read in all: it is held in memory a few times over while it is prepared.
pub const INPUT_BYTES_MAX: u64 = 1 << 30;
/// Files read from a folder.
pub const FILES_MAX: usize = 100_000;
/// Folders inside folders.
pub const DEPTH_MAX: usize = 16;
/// A text longer than this is cut into documents of about this size, so that a part of a book can be held out.
pub const PIECE_BYTES_MAX: usize = 16 << 10;
/// Pieces are no smaller than this: a few paragraphs.
pub const PIECE_BYTES_MIN: usize = 2 << 10;

/// Reads the documents at `path`: a .txt, .md or .jsonl file, or a folder of them (in the order of their names; links
/// to folders and files of other kinds are passed over). Conversations become text by `template`.
///
/// # Errors
/// [`DataError`] says which file is missing, empty, not UTF-8, not JSONL or too large, or which conversation
/// cannot be learnt from.
pub fn read_documents(path: &Path, template: Option<&ChatTemplate>) -> Result<Vec<Document>, DataError> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    if fs::metadata(path).map_err(DataError::read(path))?.is_dir() {
        let mut files = Vec::new();
        list(path, path, 0, &mut files)?;
        files.sort();
        for (name, file) in files {
            read_file(&name, &file, template, &mut bytes, &mut documents)?;
        }
    } else {
        if kind(path).is_none() {
            return Err(DataError::Kind(path.to_path_buf()));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        read_file(&name, path, template, &mut bytes, &mut documents)?;
    }
    if documents.is_empty() { Err(DataError::Empty(path.to_path_buf())) } else { Ok(documents) }
}

/// How a file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    JsonLines,
}

fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" | "md" | "markdown" => Some(Kind::Text),
        "jsonl" => Some(Kind::JsonLines),
        _ => None,
    }
}

/// Lists the files under `folder` with their names relative to `root`, `/` between parts on every system.
fn list(root: &Path, folder: &Path, depth: usize, files: &mut Vec<(String, PathBuf)>) -> Result<(), DataError> {
    if depth > DEPTH_MAX {
        return Err(DataError::TooMany { path: root.to_path_buf(), what: "folders inside each other", max: DEPTH_MAX });
    }
    for entry in fs::read_dir(folder).map_err(DataError::read(folder))? {
        let entry = entry.map_err(DataError::read(folder))?;
        let path = entry.path();
        if entry.file_type().map_err(DataError::read(&path))?.is_dir() {
            list(root, &path, depth + 1, files)?;
        } else if kind(&path).is_some() && path.is_file() {
            if files.len() == FILES_MAX {
                return Err(DataError::TooMany { path: root.to_path_buf(), what: "files", max: FILES_MAX });
            }
            let parts = path.strip_prefix(root).unwrap_or(&path).components();
            let name = parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            files.push((name, path));
        }
    }
    Ok(())
}

fn read_file(
    name: &str,
    path: &Path,
    template: Option<&ChatTemplate>,
    bytes: &mut u64,
    documents: &mut Vec<Document>,
) -> Result<(), DataError> {
    let before = *bytes;
    *bytes = bytes.saturating_add(fs::metadata(path).map_err(DataError::read(path))?.len());
    if *bytes > INPUT_BYTES_MAX {
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes: *bytes, max: INPUT_BYTES_MAX });
    }
    let mut raw = Vec::new();
    let file = open_regular(path).map_err(DataError::read(path))?;
    let room = INPUT_BYTES_MAX.saturating_sub(before);
    file.take(room.saturating_add(1)).read_to_end(&mut raw).map_err(DataError::read(path))?;
    // It may have grown since its size was asked for.
    if raw.len() as u64 > room {
        let bytes = before.saturating_add(raw.len() as u64);
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes, max: INPUT_BYTES_MAX });
    }
    let text = String::from_utf8(raw)
        .map_err(|e| DataError::NotUtf8 { path: path.to_path_buf(), offset: e.utf8_error().valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match kind(path) {
        Some(Kind::JsonLines) => read_json_lines(name, path, text, template, documents),
        _ => {
            documents.extend(pieces(name, text));
            Ok(())
        }
    }
}

/// One line of a JSONL file: one of the two; other fields are nobody's concern.
#[derive(Deserialize)]
struct JsonLine {
    text: Option<String>,
    messages: Option<Vec<Message>>,
}

fn read_json_lines(
    name: &str,
    path: &Path,
    text: &str,
    template: Option<&ChatTemplate>,
    documents: &mut Vec<Document>,
) -> Result<(), DataError> {
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let fault = |fault: String| DataError::JsonLine { path: path.to_path_buf(), line: number, fault };
        let JsonLine { text, messages } = serde_json::from_str(line).map_err(|error| fault(error.to_string()))?;
        let name = format!("{name}#{number}");
        match (text, messages) {
            (Some(text), None) if text.trim().is_empty() => {}
            (Some(text), None) => documents.push(Document::new(name, text)),
            (None, Some(messages)) => {
                let template =
                    template.ok_or_else(|| DataError::NoTemplate { path: path.to_path_buf(), line: number })?;
                let read = conversations::document(name, &messages, template);
                let of = |fault: ConversationFault| DataError::Conversation {
                    path: path.to_path_buf(),
                    line: number,
                    fault: Box::new(fault),
                };
                documents.push(read.map_err(of)?);
            }
            (Some(_), Some(_)) => return Err(fault("both `text` and `messages`".to_owned())),
            (None, None) => return Err(fault("missing field `text` or `messages`".to_owned())),
        }
    }
    Ok(())
}

/// Cuts a long text into documents at blank lines, or where there are none at line ends or spaces.
fn pieces(name: &str, text: &str) -> Vec<Document> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    let size = (text.len() / 256).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    if text.len() < 2 * size {
        return vec![Document::new(name, text)];
    }
    let mut documents = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut(rest, size));
        documents.push(Document::new(format!("{name}#{:06}", documents.len()), piece.trim()));
        rest = after.trim_start();
    }
    documents
}

/// Where to end a piece of about `size` bytes: the next blank line, line end or space, whichever comes within reach.
fn cut(text: &str, size: usize) -> usize {
    if text.len() < size + size / 2 {
        return text.len();
    }
    let start = text.ceil_char_boundary(size);
    let reach = text.ceil_char_boundary(2 * size);
    let window = text.get(start..reach).unwrap_or_default();
    ["\n\n", "\n", " "].iter().find_map(|end| window.find(end)).map_or(start, |at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names() {
        let dir = folder();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/second.md"), "two").unwrap();
        fs::write(dir.path().join("a.txt"), "one").unwrap();
        fs::write(dir.path().join("picture.png"), [0xff, 0xd8]).unwrap();
        let names: Vec<_> = read_documents(dir.path(), None).unwrap().into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["a.txt", "b/second.md"]);
    }

    #[test]
    fn a_book_is_cut_at_blank_lines_without_losing_a_word() {
        let dir = folder();
        let text: String = (0..4000).map(|n| format!("Paragraph number {n} says little.\n\n")).collect();
        fs::write(dir.path().join("book.txt"), &text).unwrap();
        let documents = read_documents(&dir.path().join("book.txt"), None).unwrap();
        assert!(documents.len() > 40, "{} pieces", documents.len());
        assert!(documents.iter().all(|d| d.group() == "book.txt" && d.text.len() <= 2 * PIECE_BYTES_MAX));
        let again: Vec<_> = documents.iter().flat_map(|d| d.text.split_whitespace()).collect();
        assert_eq!(again, text.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_text_without_any_space_is_cut_between_characters() {
        let documents = pieces("wide", &"é".repeat(20_000));
        assert!(documents.len() > 3);
        assert_eq!(documents.iter().map(|d| d.text.chars().count()).sum::<usize>(), 20_000);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let dir = folder();
        let at = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            read_documents(&path, None).unwrap_err().to_string()
        };
        assert!(at("bad.txt", b"fine\xff").contains("offset 4"));
        assert!(at("empty.txt", b" \n").contains("holds no text"));
        assert!(
            at("lines.jsonl", b"{\"text\":\"a\"}\n{\"txt\":1}\n")
                .contains("line 2: missing field `text` or `messages`")
        );
        assert!(at("chat.jsonl", br#"{"messages":[{"role":"assistant","content":"x"}]}"#).contains("--chat-template"));
        assert!(at("both.jsonl", br#"{"text":"a","messages":[]}"#).contains("line 1: both"));
        assert!(at("data.bin", b"x").contains("is no .txt"));
        assert!(read_documents(&dir.path().join("none.txt"), None).unwrap_err().to_string().contains("does not exist"));
        let empty = folder();
        assert!(matches!(read_documents(empty.path(), None), Err(DataError::Empty(_))));
    }

    #[test]
    fn a_byte_order_mark_and_extra_fields_do_not_matter() {
        let dir = folder();
        let path = dir.path().join("x.jsonl");
        fs::write(&path, "\u{feff}{\"id\":7,\"text\":\"hello\"}\n\n").unwrap();
        let documents = read_documents(&path, None).unwrap();
        assert_eq!(documents, [Document::new("x.jsonl#1", "hello")]);
    }

    #[test]
    fn conversations_and_texts_may_stand_in_one_file() {
        let dir = folder();
        let path = dir.path().join("x.jsonl");
        let talk = r#"{"messages":[{"role":"user","content":"1+1?"},{"role":"assistant","content":"2","weight":1}],"source":"me"}"#;
        fs::write(&path, format!("{{\"text\":\"hello\"}}\n{talk}\n")).unwrap();
        let chatml = ChatTemplate::named("chatml");
        let documents = read_documents(&path, chatml.as_ref()).unwrap();
        assert_eq!((documents.len(), &documents[0]), (2, &Document::new("x.jsonl#1", "hello")));
        assert_eq!((documents[1].name.as_str(), documents[1].bytes_learnt()), ("x.jsonl#2", 12));
        fs::write(&path, talk.replace("assistant", "robot")).unwrap();
        let fault = read_documents(&path, chatml.as_ref()).unwrap_err().to_string();
        assert!(fault.contains("x.jsonl, line 1: no message has the role"), "{fault}");
    }
}
