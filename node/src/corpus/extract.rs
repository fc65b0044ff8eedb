//! The prose of one package: its Markdown files and the doc comments of its Rust sources, as documents.
//!
//! Decides which files are read and how small ones are joined. The order is that of the files' names, the same on every
//! machine.

use super::{CorpusError, doc_comments, markdown, prose};
use covey_trainer::data::Document;
use std::fs;
use std::path::{Path, PathBuf};

/// A larger file is generated data.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Folders inside folders.
const DEPTH_MAX: usize = 24;
/// Neighbouring files are joined to documents of about this size: many sources say only two sentences each.
const DOCUMENT_BYTES: usize = 4 << 10;
/// Markdown that is a list of changes, names or rights rather than prose.
const SKIPPED: [&str; 8] =
    ["changelog", "changes", "release", "history", "license", "copying", "code_of_conduct", "contributors"];

/// What a package gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractCounts {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub source_bytes: u64,
    /// Documentation in them, as Markdown.
    pub markdown_bytes: u64,
    /// Prose in that.
    pub prose_bytes: u64,
}

impl ExtractCounts {
    /// Adds what another package gave.
    pub fn add(&mut self, other: ExtractCounts) {
        self.files += other.files;
        self.source_bytes += other.source_bytes;
        self.markdown_bytes += other.markdown_bytes;
        self.prose_bytes += other.prose_bytes;
    }
}

/// Appends the documents of the package `name`, unpacked in `root`, to `documents`.
///
/// # Errors
/// [`CorpusError::Read`] if a folder or file cannot be read.
pub fn extract(name: &str, root: &Path, documents: &mut Vec<Document>) -> Result<ExtractCounts, CorpusError> {
    let mut files = Vec::new();
    list(root, String::new(), 0, &mut files)?;
    files.sort();
    let mut extracted = ExtractCounts::default();
    let mut open: Option<Document> = None;
    for (file, path) in files {
        let Ok(text) = String::from_utf8(fs::read(&path).map_err(CorpusError::read(&path))?) else {
            continue;
        };
        extracted.files += 1;
        extracted.source_bytes += text.len() as u64;
        let found = if file.ends_with(".rs") { doc_comments::doc_comments(&text) } else { vec![text] };
        for markdown in found {
            extracted.markdown_bytes += markdown.len() as u64;
            for paragraph in markdown::paragraphs(&markdown).into_iter().filter(|text| prose::is_prose(text)) {
                extracted.prose_bytes += paragraph.len() as u64;
                let document = open.get_or_insert_with(|| Document::new(format!("{name}/{file}"), ""));
                if !document.text.is_empty() {
                    document.text.push_str("\n\n");
                }
                document.text.push_str(&paragraph);
            }
        }
        documents.extend(open.take_if(|document| document.text.len() >= DOCUMENT_BYTES));
    }
    documents.extend(open);
    Ok(extracted)
}

/// Lists the files to read under `folder` by their names relative to the package, `/` between parts.
fn list(folder: &Path, prefix: String, depth: usize, files: &mut Vec<(String, PathBuf)>) -> Result<(), CorpusError> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(CorpusError::read(folder))? {
        let entry = entry.map_err(CorpusError::read(folder))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let metadata = fs::symlink_metadata(&path).map_err(CorpusError::read(&path))?;
        if metadata.is_dir() {
            list(&path, format!("{prefix}{name}/"), depth + 1, files)?;
        } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && is_read(&name) {
            files.push((format!("{prefix}{name}"), path));
        }
    }
    Ok(())
}

fn is_read(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.ends_with(".rs") || (lower.ends_with(".md") && !SKIPPED.iter().any(|skipped| lower.starts_with(skipped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENTENCE: &str = "This is a sentence that says what the item is for and when it should be used.";

    #[test]
    fn a_package_gives_its_prose_in_the_order_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/lib.rs"), format!("/// {SENTENCE}\nfn f() {{}} // not this one\n")).unwrap();
        fs::write(dir.path().join("README.md"), format!("# Name\n\nFirst of all: {SENTENCE}\n")).unwrap();
        fs::write(dir.path().join("CHANGELOG.md"), format!("{SENTENCE} It was changed.\n")).unwrap();
        fs::write(dir.path().join("src/latin.rs"), b"/// caf\xe9 is not UTF-8 and is not read at all by us.\n")
            .unwrap();
        let mut documents = Vec::new();
        let extracted = extract("name", dir.path(), &mut documents).unwrap();
        let text = format!("First of all: {SENTENCE}\n\n{SENTENCE}");
        assert_eq!(documents, [Document::new("name/README.md", text)]);
        assert_eq!(extracted.files, 2);
    }

    #[test]
    fn large_files_are_documents_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.md", "b.md", "c.md"] {
            fs::write(dir.path().join(name), format!("{SENTENCE}\n\n").repeat(60)).unwrap();
        }
        let mut documents = Vec::new();
        extract("name", dir.path(), &mut documents).unwrap();
        let names: Vec<_> = documents.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["name/a.md", "name/b.md", "name/c.md"]);
    }
}
