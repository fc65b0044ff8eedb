//! Public items are documented: what is `pub` has `///` above it, modules and re-exports apart.
//!
//! Items, fields and methods count alike, whether or not another crate can reach them: a reader of the file can.

use crate::ratchet::ratchet;
use crate::source::{Source, none, of_the_product, words};
use std::collections::BTreeMap;

/// Of a hundred public items, so many have docs.
const DOCUMENTED_PERCENT_MIN: usize = 99;

/// Files with public items that nothing is said about: how many.
const UNDOCUMENTED: &[(&str, usize)] = &[];

#[test]
fn what_is_public_is_documented() {
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    let (mut places, mut all) = (Vec::new(), 0);
    for file in of_the_product() {
        for item in public_items(&file) {
            all += 1;
            if !item.documented {
                *missing.entry(file.path.clone()).or_default() += 1;
                places.push(format!("{}:{}: {}", file.path, item.line, item.text));
            }
        }
    }
    let remedy = "say above it with /// what it is: shape, unit, range, errors; or let it be pub(crate)";
    let mut breaches = ratchet("UNDOCUMENTED", UNDOCUMENTED, 0, &missing, remedy);
    if places.len() * 100 > all * (100 - DOCUMENTED_PERCENT_MIN) {
        breaches.push(format!("{} of {all} public items have no docs; {DOCUMENTED_PERCENT_MIN} % must", places.len()));
    }
    if !breaches.is_empty() {
        breaches.extend(places);
    }
    none(&breaches);
}

struct Item {
    line: usize,
    text: String,
    documented: bool,
}

fn public_items(file: &Source) -> Vec<Item> {
    let text: Vec<&str> = file.text.lines().collect();
    let mut items = Vec::new();
    for (line, code) in file.code() {
        let Some(after) = code.trim_start().strip_prefix("pub ") else { continue };
        let first = words(after).find(|word| !["async", "const", "unsafe", "extern"].contains(word));
        let constant = after.starts_with("const ") && !after.contains("fn ");
        let item = constant
            || matches!(first, Some("fn" | "struct" | "enum" | "union" | "trait" | "type" | "static"))
            || after.split_once(':').is_some_and(|(name, rest)| words(name).count() == 1 && !rest.starts_with(':'));
        if item {
            items.push(Item { line, text: code.trim().to_owned(), documented: is_documented(&text[..line - 1]) });
        }
    }
    items
}

/// Whether a line of docs, or the docs that a macro is given, stands above, attributes between them and the item apart.
fn is_documented(above: &[&str]) -> bool {
    let mut above = above.iter().rev().map(|line| line.trim());
    let mut within_attribute = false;
    above.find_map(|line| {
        let whole = line.starts_with("#[");
        if line.starts_with("$(#[")
            || line.starts_with("///")
            || line.starts_with("#[doc")
            || line.starts_with("#[cfg_attr(doc, doc")
        {
            return Some(true);
        }
        // An attribute over several lines ends in `]` and begins with `#[`, some lines up.
        within_attribute = !whole && (within_attribute || line.ends_with(")]"));
        if whole || within_attribute { None } else { Some(false) }
    }) == Some(true)
}

#[test]
fn the_scanner_sees_docs_through_attributes() {
    let text = "/// A.\n#[derive(Debug)]\n#[serde(\n    default,\n)]\npub struct A {\n    pub b: u8,\n    /// C.\n    pub c: u8,\n}\n\
                pub(crate) fn d() {}\npub mod e;\npub use f::G;\npub const fn h() {}\n/// I.\npub const I: u8 = 1;\n";
    let file = Source { path: "x/src/a.rs".into(), text: text.into() };
    let found: Vec<(usize, bool)> = public_items(&file).iter().map(|item| (item.line, item.documented)).collect();
    assert_eq!(found, [(6, true), (7, false), (9, true), (14, false), (16, true)]);
}
