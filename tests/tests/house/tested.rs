//! What decides has tests: where a file has some length and branches, a reader finds beside it what it is held to.
//!
//! A file decides if it has [`CODE_LINES_MIN`] lines of code or more, and [`BRANCHES_MIN`] of `if`, `match` and `while`.
//! It has tests if it has a module for tests, or if a file of tests in its folder names something that it defines. A shell
//! that sockets, processes or other crates must be there for may be covered from further away: [`COVERED`] says where.

use crate::source::{Source, none, of_the_product, sources, words};
use std::collections::BTreeSet;
use std::path::Path;

/// Lines of code, blank ones and comments apart, below which a file is read at a glance.
const CODE_LINES_MIN: usize = 60;
/// Fewer branches decide nothing.
const BRANCHES_MIN: usize = 5;

/// Files without tests of their own: where a file or folder covers them, and why not here.
const COVERED: &[(&str, &str, &str)] = &[];

/// Files that decide, and have no tests yet.
const UNTESTED: &[&str] = &[];

#[test]
fn what_decides_has_tests() {
    let everything = sources();
    let bare: BTreeSet<String> = of_the_product()
        .iter()
        .filter(|file| file.path.contains("/src/") && decides(file) && !has_tests(file, &everything))
        .map(|file| file.path.clone())
        .collect();
    let known = |path: &str| UNTESTED.contains(&path) || COVERED.iter().any(|(of, ..)| *of == path);
    let mut breaches = Vec::new();
    for path in bare.iter().filter(|path| !known(path)) {
        breaches.push(format!(
            "{path}: it decides, and has no tests: add #[cfg(test)] mod tests, or a tests.rs beside \
                               it that names what it defines; a shell that others cover: COVERED, with the place"
        ));
    }
    let mut listed = BTreeSet::new();
    for path in UNTESTED.iter().copied().chain(COVERED.iter().map(|(of, ..)| *of)) {
        if !listed.insert(path) {
            breaches.push(format!("{path}: listed twice: take one of its lines out"));
        }
        if !bare.contains(path) {
            breaches.push(format!("{path}: it has tests now, or decides nothing, well done: take its line out"));
        }
    }
    for (path, by, _) in COVERED {
        if !crate::source::root().join(by).exists() {
            breaches.push(format!("{path}: nothing is at {by}, which is to cover it: name the place"));
        }
    }
    none(&breaches);
}

fn decides(file: &Source) -> bool {
    let code = file.code();
    let lines = code.iter().filter(|(_, line)| !line.trim().is_empty()).count();
    let branches = code.iter().flat_map(|(_, line)| words(line)).filter(|word| ["if", "match", "while"].contains(word));
    lines >= CODE_LINES_MIN && branches.count() >= BRANCHES_MIN
}

fn has_tests(file: &Source, everything: &[Source]) -> bool {
    if file.text.contains("#[cfg(test)]\nmod ")
        || file.text.contains("#[cfg(test)]\n#[path")
        || file.text.contains("    #[test]")
    {
        return true;
    }
    let defined = defines(file);
    let folder = Path::new(&file.path).parent();
    let beside =
        everything.iter().filter(|other| Path::new(&other.path).parent() == folder && is_of_tests(&other.path));
    beside.into_iter().any(|tests| words(&tests.text).any(|word| defined.contains(word)))
}

fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// What the file gives a name to, short names apart: those occur anywhere.
fn defines(file: &Source) -> BTreeSet<String> {
    let tokens = file.tokens();
    let kinds = ["fn", "struct", "enum", "trait", "type"];
    let named = tokens.windows(2).filter(|pair| kinds.contains(&pair[0].text.as_str()) && pair[1].text.len() > 3);
    named.map(|pair| pair[1].text.clone()).collect()
}

#[test]
fn tests_beside_count_for_what_they_name() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let lines = "    let a = 1;\n".repeat(CODE_LINES_MIN);
    let branches = "    if a {}\n".repeat(BRANCHES_MIN);
    let room = file("x/src/a.rs", &format!("fn choose() {{\n{lines}{branches}}}\n"));
    let other = file("x/src/b.rs", &format!("fn refuse() {{\n{lines}{branches}}}\n"));
    let plain = file("x/src/c.rs", &format!("fn plain() {{\n{lines}}}\n"));
    let tests = file("x/src/tests.rs", "use super::a::choose;");
    assert!(decides(&room) && decides(&other) && !decides(&plain));
    let everything = [tests];
    assert!(has_tests(&room, &everything) && !has_tests(&other, &everything));
}
