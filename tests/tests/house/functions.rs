//! A function fits a screen: past [`LINES_MAX`] lines look for the parent that keeps the order, and the children that have
//! the substance.

use crate::ratchet::ratchet;
use crate::source::{Source, none, of_the_product};
use std::collections::BTreeMap;

/// Lines of a function, from `fn` to its last brace. Sixty is what a reader keeps in mind; a table of arms may take more.
const LINES_MAX: usize = 80;

/// Longer ones, with their length.
const LONG: &[(&str, usize)] = &[];

#[test]
fn a_function_fits_a_screen() {
    let mut found = BTreeMap::new();
    for file in of_the_product() {
        for (name, lines) in functions(&file) {
            let key = format!("{} {name}", file.path);
            let longest = found.entry(key).or_insert(0);
            *longest = lines.max(*longest);
        }
    }
    let remedy = "keep the order in it, and give each step a function of its own";
    none(&ratchet("LONG in house/functions.rs", LONG, LINES_MAX, &found, remedy));
}

/// Each function with a body, and how many lines it has.
fn functions(file: &Source) -> Vec<(String, usize)> {
    let tokens = file.tokens();
    let mut functions = Vec::new();
    // Functions that are open: name, first line, and the depth of braces outside; none until their body begins.
    let mut open: Vec<(String, usize, Option<usize>)> = Vec::new();
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "fn" => {
                let name = tokens.get(at + 1).map(|next| next.text.as_str()).unwrap_or_default();
                if name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
                    open.push((name.to_owned(), token.line, None));
                }
            }
            "(" | "[" => others += 1,
            ")" | "]" => others = others.saturating_sub(1),
            // A declaration without a body.
            ";" if others == 0 => drop(open.pop_if(|(_, _, body)| body.is_none())),
            "{" => {
                if let Some((_, _, body @ None)) = open.last_mut() {
                    *body = Some(braces);
                }
                braces += 1;
            }
            "}" => {
                braces = braces.saturating_sub(1);
                if let Some((name, first, _)) = open.pop_if(|(_, _, body)| *body == Some(braces)) {
                    functions.push((name, token.line + 1 - first));
                }
            }
            _ => {}
        }
    }
    functions
}

#[test]
fn a_function_ends_at_its_brace() {
    let text = "trait A {\n    fn a(&self, _: [u8; 2]);\n    fn b(&self) {\n        let c = || { '}' };\n        fn d() {}\n    }\n}\n\
                fn e(f: fn() -> u8)\nwhere\n    u8: Copy,\n{\n    \"{\";\n}\n";
    let file = Source { path: "x/src/a.rs".into(), text: text.into() };
    assert_eq!(functions(&file), [("d".to_owned(), 1), ("b".to_owned(), 4), ("e".to_owned(), 6)]);
}
