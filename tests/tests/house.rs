//! The rules of the house as tests: what a reviewer would otherwise have to look for in every change.
//!
//! Each test reads the files that git knows, or is about to (the whole tree where there is no git), and names file, line
//! and remedy for each breach. Tables hold the exceptions, here and at the top of the files in `house/`: they may shrink,
//! not grow, without a reason, and a line that is no longer needed must go (`ratchet`).
//!
//! | file | rule |
//! |---|---|
//! | here | crates know only the floors below, files have heads and one idea, no panics, unsafe, unbounded queues, dead links |
//! | `circles` | within a crate, modules form no circle |
//! | `docs` | what is public is documented |
//! | `errors` | an error is a type, not a text |
//! | `functions` | a function fits a screen |
//! | `tested` | what decides has tests |
//! | `source` | the scanner: files, lines of code, tokens |

#[path = "house/circles.rs"]
mod circles;
#[path = "house/docs.rs"]
mod docs;
#[path = "house/errors.rs"]
mod errors;
#[path = "house/functions.rs"]
mod functions;
#[path = "house/ratchet.rs"]
mod ratchet;
#[path = "house/source.rs"]
mod source;
#[path = "house/tested.rs"]
mod tested;

use ratchet::{ratchet, stale};
use source::{find, none, numbered, of_the_product, root, sources, tracked, words};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use toml::{Table, Value};

/// Who may depend on whom: imports go down a floor. Sibling crates do not know each other.
const FLOORS: [(&str, &[&str]); 15] = [
    ("covey-proto", &[]),
    ("covey-simd", &[]),
    ("covey-sparseloco", &["covey-proto", "covey-simd"]),
    ("covey-round", &["covey-proto"]),
    ("covey-kernels", &["covey-proto"]),
    ("covey-blobs", &["covey-proto"]),
    ("covey-exchange", &["covey-proto"]),
    ("covey-gossip", &["covey-proto", "covey-blobs", "covey-exchange"]),
    ("covey-trainer", &["covey-proto", "covey-simd", "covey-sparseloco", "covey-kernels"]),
    ("covey-chain", &["covey-proto", "covey-round", "covey-timelock"]),
    (
        "covey",
        &[
            "covey-proto",
            "covey-sparseloco",
            "covey-round",
            "covey-chain",
            "covey-kernels",
            "covey-gossip",
            "covey-trainer",
            "covey-wan",
            "covey-timelock",
            "covey-devnet",
        ],
    ),
    ("covey-timelock", &[]),
    ("covey-devnet", &["covey-proto", "covey-timelock"]),
    ("covey-wan", &["covey-proto"]),
    (
        "covey-tests",
        &[
            "covey-proto",
            "covey-sparseloco",
            "covey-round",
            "covey-chain",
            "covey-kernels",
            "covey-blobs",
            "covey-exchange",
            "covey-gossip",
            "covey-trainer",
            "covey",
            "covey-timelock",
            "covey-devnet",
            "covey-wan",
        ],
    ),
];

const LINES_MAX: usize = 600;
/// Longer files, with their length: it may fall.
const LONG: [(&str, usize); 0] = [];

/// `expect`s outside tests, by crate: the most there may be. Each states an invariant; a new one is weighed against an
/// error that the caller can handle.
const EXPECTS_MAX: [(&str, usize); 5] =
    [("node", 12), ("node/chain", 1), ("node/round", 1), ("proto", 2), ("trainer", 4)];

/// Test files without a head: the file beside, of which they are the tests, says it all.
const HEADLESS: [&str; 1] = ["trainer/sparseloco/src/codec/tests.rs"];

/// Where `unsafe` is: SIMD, the matrix product behind bounds-checked views, and threads that borrow from their caller.
const UNSAFE: [&str; 5] = [
    "trainer/simd/src/level.rs",
    "trainer/sparseloco/src/simd/ahead.rs",
    "trainer/sparseloco/src/simd/pack.rs",
    "trainer/src/cpu/pool.rs",
    "trainer/src/cpu/product.rs",
];

/// Where code panics on purpose.
const PANICS: [&str; 1] = [
    // A command of tests: the network task must come back after a panic.
    "gossip/src/network/running.rs",
];

/// Crates with a lint table of their own: the workspace's, but `unsafe_code` is "deny", so that one module can allow it.
const OWN_LINTS: [&str; 4] = ["trainer", "trainer/simd", "trainer/sparseloco", "kernels"];

// ---- the rules ------------------------------------------------------------------------------------------------------

#[test]
fn imports_go_down_a_floor() {
    let mut breaches = Vec::new();
    for (folder, manifest) in manifests() {
        let name = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
        let Some((_, allowed)) = FLOORS.iter().find(|(of, _)| *of == name) else {
            breaches
                .push(format!("{folder}/Cargo.toml: {name} is on no floor: add it to FLOORS in tests/tests/house.rs"));
            continue;
        };
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let named = manifest.get(kind).and_then(Value::as_table).into_iter().flat_map(Table::keys);
            let ours = named.filter(|dependency| *dependency == "covey" || dependency.starts_with("covey-"));
            breaches.extend(ours.filter(|dependency| !allowed.contains(&dependency.as_str())).map(|dependency| {
                format!("{folder}/Cargo.toml: {name} must not know {dependency}: move what both need down, into one of {allowed:?}")
            }));
        }
    }
    none(&breaches);
}

#[test]
fn every_crate_has_the_workspaces_lints() {
    let root = manifest(".");
    let mut lints = root["workspace"]["lints"].as_table().expect("the workspace has lints").clone();
    let shared = Value::Table([("workspace".to_owned(), Value::Boolean(true))].into_iter().collect());
    lints["rust"]["unsafe_code"] = "deny".into();
    let own = Value::Table(lints);
    let mut breaches = Vec::new();
    for (folder, manifest) in manifests() {
        let found = manifest.get("lints");
        let right = found == Some(&shared) || (OWN_LINTS.contains(&folder.as_str()) && found == Some(&own));
        if !right {
            breaches
                .push(format!("{folder}/Cargo.toml: write [lints] workspace = true (who has an own table: OWN_LINTS)"));
        }
    }
    none(&breaches);
}

#[test]
fn every_file_says_what_it_decides() {
    let headless: Vec<String> =
        sources().into_iter().filter(|file| !file.text.starts_with("//!")).map(|file| file.path).collect();
    let remedy = "begin with //!: what the file decides, what it leaves to others";
    let unknown = headless.iter().filter(|path| !HEADLESS.contains(&path.as_str()));
    let mut breaches: Vec<String> = unknown.map(|path| format!("{path}:1: {remedy}")).collect();
    breaches.extend(stale("HEADLESS", &HEADLESS, |path| headless.iter().any(|bare| bare == path)));
    none(&breaches);
}

#[test]
fn no_file_holds_two_ideas() {
    let lengths = sources().into_iter().map(|file| (file.path, file.text.lines().count()));
    none(&ratchet("LONG", &LONG, LINES_MAX, &lengths.collect(), "look for the second idea"));
}

#[test]
fn code_does_not_panic_where_it_could_answer() {
    let words = [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    none(&find(|file, line| {
        let word = words.iter().find(|word| line.contains(*word))?;
        (*word != "panic!(" || !PANICS.contains(&file.path.as_str()))
            .then(|| format!("{word} outside tests: return an error, or expect(\"the invariant\")"))
    }));
}

#[test]
fn an_expect_states_its_invariant() {
    let mut breaches = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in of_the_product() {
        let lines = file.code();
        for (at, (number, line)) in lines.iter().enumerate() {
            for after in line.split(".expect(").skip(1) {
                *counts.entry(file.crate_folder()).or_default() += 1;
                let next = lines.get(at + 1).map_or("", |(_, next)| next.as_str());
                let argument = if after.trim().is_empty() { next } else { after };
                if !argument.trim_start().starts_with('"') {
                    breaches.push(format!("{}:{number}: expect(\"...\") with the invariant in words", file.path));
                }
            }
        }
    }
    let remedy = "return an error, or say why it cannot fail and raise it";
    breaches.extend(ratchet("EXPECTS_MAX", &EXPECTS_MAX, 0, &counts, remedy));
    none(&breaches);
}

#[test]
fn unsafe_is_where_it_is_known_to_be() {
    let is_unsafe = |line: &str| words(line).any(|word| word == "unsafe");
    let mut breaches = find(|file, line| {
        let here = is_unsafe(line) && !UNSAFE.contains(&file.path.as_str());
        here.then(|| "unsafe: only in the files of UNSAFE, with a SAFETY: line".to_owned())
    });
    let files = of_the_product();
    let uses =
        |path: &str| files.iter().any(|file| file.path == path && file.code().iter().any(|(_, line)| is_unsafe(line)));
    breaches.extend(stale("UNSAFE", &UNSAFE, uses));
    none(&breaches);
}

#[test]
fn every_queue_has_a_bound() {
    none(&find(|_, line| {
        let word =
            ["unbounded_channel", "unbounded(", "mpsc::channel()"].into_iter().find(|word| line.contains(word))?;
        Some(format!("{word}: give the queue a bound, and say what happens when it is full"))
    }));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let roots = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let mut breaches = Vec::new();
    for path in tracked().iter().filter(|path| !path.ends_with("Cargo.lock")) {
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        for (number, line) in numbered(&text) {
            let absolute =
                |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "._-~}".contains(c));
            if roots.iter().any(|name| line.match_indices(name).any(|(at, _)| absolute(at))) {
                breaches.push(format!("{path}:{number}: an absolute path: make it relative to the repository"));
            }
        }
    }
    none(&breaches);
}

#[test]
fn a_lib_is_a_table_of_contents() {
    let mut breaches = Vec::new();
    // The crate of the tests is what its tests share, and no more.
    for file in
        sources().into_iter().filter(|file| file.path.ends_with("src/lib.rs") && file.path != "tests/src/lib.rs")
    {
        let mut statement = String::new();
        for (number, line) in file.code() {
            let line = line.trim();
            if statement.is_empty() && (line.is_empty() || line.starts_with('#') || line == "}") {
                continue;
            }
            statement.push_str(line);
            if !line.ends_with(';') {
                continue;
            }
            let words: Vec<&str> = words(&statement).filter(|word| *word != "pub").take(4).collect();
            let listed = matches!(words[..], ["use" | "mod", ..])
                && (!statement.contains('{') || words[0] == "use" || words[2] == "include");
            if !listed {
                breaches
                    .push(format!("{}:{number}: logic in lib.rs: move it to a module, and name that here", file.path));
            }
            statement.clear();
        }
        if !statement.is_empty() {
            breaches.push(format!(
                "{}: logic in lib.rs, {statement:.60}: move it to a module, and name that here",
                file.path
            ));
        }
    }
    none(&breaches);
}

#[test]
fn the_readme_starts_the_thing_with_two_commands() {
    let text = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let section = text.split("\n## Quick start").nth(1).map(|rest| rest.split("\n## ").next().unwrap_or_default());
    let section = section.expect("README.md has a section \"## Quick start\"");
    let mut fenced = false;
    let mut commands = Vec::new();
    for line in section.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.trim_start_matches("$ ").starts_with("cargo ") {
            commands.push(line);
        }
    }
    assert_eq!(
        commands.len(),
        2,
        "README.md, Quick start: two fenced commands that begin with cargo, not {commands:?}"
    );
}

#[test]
fn what_the_documents_link_to_is_there() {
    let mut breaches = Vec::new();
    for path in ["README.md", "CONTRIBUTING.md"] {
        if !root().join(path).is_file() {
            breaches.push(format!("{path} is missing: write it"));
        }
    }
    let files = tracked();
    if !files.iter().any(|path| path.starts_with("docs/") && path.ends_with(".md")) {
        breaches.push("docs/ has no page: write one, and link it from README.md".to_owned());
    }
    for path in files.iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        for (number, line) in numbered(&text) {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
            for link in links.filter(|link| !link.is_empty() && !link.contains(':')) {
                if !root().join(folder).join(link).exists() {
                    breaches.push(format!("{path}:{number}: nothing is at {link}: write it, or mend the link"));
                }
            }
        }
    }
    none(&breaches);
}

// ---- reading --------------------------------------------------------------------------------------------------------

fn manifest(folder: &str) -> Table {
    let path = root().join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Folder and manifest of each member of the workspace.
fn manifests() -> Vec<(String, Table)> {
    let root = manifest(".");
    let members = root["workspace"]["members"].as_array().expect("the workspace has members");
    let folders = members.iter().filter_map(Value::as_str);
    folders.map(|folder| (folder.to_owned(), manifest(folder))).collect()
}
