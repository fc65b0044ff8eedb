//! Errors are types: `Result<_, String>` tells no caller what happened, and gives it nothing to decide by.
//!
//! Apart from `clap`, whose value parsers are only ever read by a person, and traits that are not ours.

use crate::ratchet::ratchet;
use crate::source::{Source, Token, none, of_the_product};
use std::collections::BTreeMap;

/// Files in which text is what an error may be, and why: how often it stands there.
const TEXT_IS_RIGHT: &[(&str, usize, &str)] = &[
    ("node/devnet/src/chain/state.rs", 1, "sp_state_machine's TrieBackendStorage wants it"),
    ("node/src/cli/data.rs", 1, "a value parser: ROUND:PATH"),
    ("node/src/cli/eval.rs", 1, "a value parser: a layout"),
    ("node/src/cli/model/describe.rs", 1, "a value parser: an optimizer"),
    ("node/src/cli/run.rs", 1, "a value parser: a hash"),
    ("node/src/cli/swarm.rs", 1, "a value parser: KIND=N"),
    ("node/src/lab/mod.rs", 2, "value parsers: a method, what to do on a miss"),
    ("node/src/misbehave.rs", 1, "a value parser: a kind of misbehaviour"),
    ("node/src/swarm/plan.rs", 1, "a value parser: whom to kill, and when"),
];

/// Files whose errors are not types yet: how often.
const TEXT_FOR_ERRORS: &[(&str, usize)] = &[];

#[test]
fn an_error_is_a_type() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for file in of_the_product() {
        for line in texts_for_errors(&file.tokens()) {
            *found.entry(file.path.clone()).or_default() += 1;
            places.push(format!("{}:{line}: Result<_, String>", file.path));
        }
    }
    let mut table: Vec<(&str, usize)> = TEXT_FOR_ERRORS.to_vec();
    table.extend(TEXT_IS_RIGHT.iter().map(|(path, count, _)| (*path, *count)));
    let remedy = "write an enum with fields, whose message gives value, limit and remedy (a value parser of clap, or a \
                  trait that is not ours: TEXT_IS_RIGHT, with the reason)";
    let mut breaches = ratchet("TEXT_FOR_ERRORS or TEXT_IS_RIGHT", &table, 0, &found, remedy);
    if !breaches.is_empty() {
        breaches.extend(places);
    }
    none(&breaches);
}

/// The lines in which a `Result<_, String>` begins.
fn texts_for_errors(tokens: &[Token]) -> Vec<usize> {
    let begins = |at: &usize| tokens[*at].text == "Result" && tokens.get(at + 1).is_some_and(|next| next.text == "<");
    let starts = (0..tokens.len()).filter(begins);
    starts.filter(|start| last_argument(&tokens[start + 2..]) == ["String"]).map(|start| tokens[start].line).collect()
}

/// The last of the arguments of a type, from behind its `<`; nothing if there is but one.
fn last_argument(tokens: &[Token]) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut argument: Option<Vec<&str>> = None;
    for token in tokens {
        let text = token.text.as_str();
        match text {
            ">" if depth == 0 => break,
            "," if depth == 0 => {
                argument = Some(Vec::new());
                continue;
            }
            "<" | "(" | "[" => depth += 1,
            ">" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(argument) = &mut argument {
            argument.push(text);
        }
    }
    argument.unwrap_or_default()
}

#[test]
fn text_for_an_error_is_seen_within_other_types() {
    let text = "fn a() -> Result<Vec<(u8, String)>, String> {}\nfn b(_: fn(&str) -> Result<(), String>) {}\n\
                fn c() -> Result<String, Error> {}\nfn d() -> io::Result<String> {}\ntype E = Box<Result<\n    u8,\n    String>>;";
    let file = Source { path: "x/src/a.rs".into(), text: text.into() };
    assert_eq!(texts_for_errors(&file.tokens()), [1, 2, 5]);
}
