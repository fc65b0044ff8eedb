//! What the rules read: the files that git knows, a Rust file's lines of code, and its tokens.
//!
//! A scanner by lines and words, no parser: `cargo fmt` has run before, so that a block ends at the indent at which it
//! began. What breaks a rule, and what to do then, is for the rules.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fails with the whole list, so that one run of the tests names all there is to mend.
pub(crate) fn none(breaches: &[impl Display]) {
    let list: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} breaches of a rule of the house:\n{}", list.len(), list.join("\n"));
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_of_a_name(c)).filter(|word| !word.is_empty())
}

/// Files that git knows or would add; all but hidden ones and build outputs where there is no git.
pub(crate) fn tracked() -> Vec<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let listed =
        Command::new("git").args(list).current_dir(root()).output().ok().filter(|output| output.status.success());
    let mut files: BTreeSet<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect(),
        None => {
            let mut files = BTreeSet::new();
            walk(&root(), "", &mut files);
            files
        }
    };
    files.retain(|path| root().join(path).is_file());
    files.into_iter().collect()
}

fn walk(folder: &Path, prefix: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || name == "target" {
            continue;
        } else if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path);
        }
    }
}

/// A Rust file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn sources() -> Vec<Source> {
    let rust = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| Source { text: fs::read_to_string(root().join(&path)).unwrap_or_default(), path }).collect()
}

/// The files that are not built for tests alone.
pub(crate) fn of_the_product() -> Vec<Source> {
    let mut files = sources();
    let tests: Vec<PathBuf> = files.iter().flat_map(Source::test_modules).collect();
    files.retain(|file| !file.is_test(&tests));
    files
}

/// What `rule` says of the lines of code outside tests.
pub(crate) fn find(rule: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in of_the_product() {
        let found = file.code().into_iter().filter_map(|(number, line)| Some((number, rule(&file, &line)?)));
        breaches.extend(found.map(|(number, what)| format!("{}:{number}: {what}", file.path)));
    }
    breaches
}

impl Source {
    /// Whether the file is built for tests or benches only.
    fn is_test(&self, test_modules: &[PathBuf]) -> bool {
        let path = Path::new(&self.path);
        let folders = ["tests", "benches", "examples"];
        path.iter().any(|part| folders.iter().any(|folder| part == *folder))
            || test_modules.iter().any(|module| path.starts_with(module))
    }

    pub(crate) fn crate_folder(&self) -> String {
        self.path.split_once("/src/").map_or(self.path.as_str(), |(folder, _)| folder).to_owned()
    }

    /// The lines of code, numbered, without comments, the insides of strings, and what `#[cfg(test)]` stands before.
    pub(crate) fn code(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let mut open = None;
        let mut test: Option<Skipped> = None;
        for (number, line) in numbered(&self.text) {
            let code = bare(line, &mut open);
            let indent = code.len() - code.trim_start().len();
            match &mut test {
                None if code.trim_start().starts_with("#[cfg(test)]") => test = Some(Skipped { indent, open: false }),
                None => lines.push((number, code)),
                Some(skipped) => {
                    if skipped.ends_at(&code, indent) {
                        test = None;
                    }
                }
            }
        }
        lines
    }

    /// Files and folders of modules that are declared for tests only.
    pub(crate) fn test_modules(&self) -> Vec<PathBuf> {
        let path = Path::new(&self.path);
        let root = path.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs" || name == "mod.rs");
        let folder = if root { path.with_file_name("") } else { path.with_extension("") };
        let mut modules = Vec::new();
        for after in self.text.split("#[cfg(test)]\n").skip(1) {
            let declaration = after.lines().map(str::trim).find(|line| !line.starts_with("#[")).unwrap_or_default();
            let Some((_, name)) = declaration.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")) else {
                continue;
            };
            let elsewhere = after.trim_start().strip_prefix("#[path = \"").and_then(|rest| rest.split('"').next());
            modules.extend(elsewhere.map(|file| path.with_file_name(file)));
            modules.extend([folder.join(format!("{name}.rs")), folder.join(name)]);
        }
        modules
    }
}

/// An item for tests, being skipped.
struct Skipped {
    indent: usize,
    open: bool,
}

impl Skipped {
    fn ends_at(&mut self, code: &str, indent: usize) -> bool {
        let line = code.trim();
        if self.open {
            return indent == self.indent && line.starts_with('}');
        }
        self.open = line.ends_with(['{', '(', '[']) && !line.starts_with('#');
        !self.open && !line.starts_with('#') && !line.is_empty() && line.ends_with([';', ',', '}'])
    }
}

/// A string that is not at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    /// With so many `#`.
    Raw(usize),
}

/// A line without its comment and without what is inside its strings; `open` is the string that it begins in, then the
/// one that it ends in.
fn bare(line: &str, open: &mut Option<Text>) -> String {
    let mut code = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        rest = after;
        match (*open, c) {
            (Some(Text::Plain) | None, '\\') => rest = after.get(1..).unwrap_or_default(),
            (Some(Text::Plain), '"') => *open = None,
            (Some(Text::Raw(wanted)), '"') if hashes >= wanted => {
                *open = None;
                rest = &after[wanted..];
            }
            (Some(_), _) => continue,
            (None, '/') if after.starts_with('/') => break,
            (None, '\'') if after.starts_with("\"'") => rest = &after[2..],
            (None, '"') => *open = Some(Text::Plain),
            (None, 'r') if after[hashes..].starts_with('"') && !code.ends_with(is_of_a_name) => {
                *open = Some(Text::Raw(hashes));
                rest = &after[hashes + 1..];
                code.push('"');
                continue;
            }
            (None, _) => {}
        }
        code.push(c);
    }
    code
}

pub(crate) fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A word or a mark of the code, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Source {
    /// The code's tokens: names, numbers, `::`, `->`, `=>`, and single marks. Strings and characters are empty or gone.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (line, code) in self.code() {
            let mut rest = code.trim_start();
            while let Some(c) = rest.chars().next() {
                let length = match c {
                    '\'' => character(rest),
                    c if is_of_a_name(c) => rest.find(|c| !is_of_a_name(c)).unwrap_or(rest.len()),
                    _ if ["::", "->", "=>"].iter().any(|mark| rest.starts_with(mark)) => 2,
                    c => c.len_utf8(),
                };
                let (token, after) = rest.split_at(length);
                if c != '\'' {
                    tokens.push(Token { line, text: token.to_owned() });
                }
                rest = after.trim_start();
            }
        }
        tokens
    }
}

/// The length of the character at the head of `code`, quotes included, or of the mark of a lifetime.
fn character(code: &str) -> usize {
    let mut chars = code.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => code[2..].find('\'').map_or(code.len(), |at| at + 3),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The scanner itself: what it takes for code, and what for a test's.
#[test]
fn the_scanner_sees_code_and_only_code() {
    let text = [
        "//! panic!(",
        "fn a() { b(\"dbg!(\"); } // todo!(",
        "    #[cfg(test)]",
        "    #[allow(dead_code)]",
        "    mod t {",
        "        x.unwrap()",
        "    }",
        "#[cfg(test)]",
        "mod tests;",
        "fn c() { '\"'; r#\"a \" // b",
        "unsafe \"#; y.unwrap() }",
    ];
    let file = Source { path: "x/src/a.rs".into(), text: text.join("\n") };
    let code: Vec<String> =
        file.code().into_iter().map(|(_, line)| line).filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(code, ["fn a() { b(\"\"); } ", "fn c() { '; \"", "\"; y.unwrap() }"]);
    assert_eq!(file.test_modules(), [PathBuf::from("x/src/a/tests.rs"), PathBuf::from("x/src/a/tests")]);
    for file in sources() {
        let mut open = None;
        file.text.lines().for_each(|line| drop(bare(line, &mut open)));
        assert!(
            open.is_none(),
            "{}: no end of a string is found: mend bare() in tests/tests/house/source.rs",
            file.path
        );
    }
}
