//! The rules of the house as tests: what a reviewer would otherwise have to look for in every change.
//!
//! Each test reads the files that git knows, or is about to (the whole tree where there is no git), and names file, line
//! and remedy for each breach. The tables at the top are the exceptions; they may shrink, not grow, without a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// Who may depend on whom: imports go down a floor. Sibling crates do not know each other.
const FLOORS: [(&str, &[&str]); 13] = [
    ("covey-proto", &[]),
    ("covey-sparseloco", &["covey-proto"]),
    ("covey-round", &["covey-proto"]),
    ("covey-kernels", &["covey-proto"]),
    ("covey-blobs", &["covey-proto"]),
    ("covey-exchange", &["covey-proto"]),
    ("covey-gossip", &["covey-proto", "covey-blobs", "covey-exchange"]),
    ("covey-trainer", &["covey-proto", "covey-sparseloco", "covey-kernels"]),
    (
        "covey",
        &[
            "covey-proto",
            "covey-sparseloco",
            "covey-round",
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
    ("covey-wan", &[]),
    (
        "covey-tests",
        &[
            "covey-proto",
            "covey-sparseloco",
            "covey-round",
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
const LONG: [(&str, usize); 1] = [
    // One table after another of the run's numbers, their checks and their wire form.
    ("proto/src/run.rs", 640),
];

/// `expect`s outside tests, by crate: the most there may be. Each states an invariant; a new one is weighed against an
/// error that the caller can handle.
const EXPECTS_MAX: [(&str, usize); 4] = [("node", 15), ("node/round", 1), ("proto", 2), ("trainer", 5)];

/// Test files without a head: the file beside, of which they are the tests, says it all.
const HEADLESS: [&str; 1] = ["trainer/sparseloco/src/codec/tests.rs"];

/// Where `unsafe` is: SIMD and the matrix product, behind bounds-checked views.
const UNSAFE: [&str; 4] = [
    "trainer/sparseloco/src/simd/ahead.rs",
    "trainer/sparseloco/src/simd/mod.rs",
    "trainer/sparseloco/src/simd/pack.rs",
    "trainer/src/cpu/simd.rs",
];

/// Where code panics on purpose.
const PANICS: [&str; 1] = [
    // A command of tests: the network task must come back after a panic.
    "gossip/src/network/running.rs",
];

/// Crates with a lint table of their own: the workspace's, but `unsafe_code` is "deny", so that one module can allow it.
const OWN_LINTS: [&str; 3] = ["trainer", "trainer/sparseloco", "kernels"];

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
    let headless = |file: &Source| !file.text.starts_with("//!") && !HEADLESS.contains(&file.path.as_str());
    let remedy = "begin with //!: what the file decides, what it leaves to others";
    let breaches = sources().into_iter().filter(headless).map(|file| format!("{}:1: {remedy}", file.path));
    none(&breaches.collect::<Vec<_>>());
}

#[test]
fn no_file_holds_two_ideas() {
    let mut breaches = Vec::new();
    for file in sources() {
        let most = LONG.iter().find(|(path, _)| *path == file.path).map_or(LINES_MAX, |(_, lines)| *lines);
        let lines = file.text.lines().count();
        if lines > most {
            breaches
                .push(format!("{}:{most}: {lines} lines; the limit is {most}: look for the second idea", file.path));
        }
    }
    none(&breaches);
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
    for (folder, count) in counts {
        let most = EXPECTS_MAX.iter().find(|(of, _)| *of == folder).map_or(0, |(_, most)| *most);
        if count > most {
            breaches.push(format!("{folder}: {count} expects; EXPECTS_MAX has {most}: return an error, or say why it cannot fail and raise it"));
        }
    }
    none(&breaches);
}

#[test]
fn unsafe_is_where_it_is_known_to_be() {
    none(&find(|file, line| {
        let here = words(line).any(|word| word == "unsafe") && !UNSAFE.contains(&file.path.as_str());
        here.then(|| "unsafe: only in the files of UNSAFE, with a SAFETY: line".to_owned())
    }));
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
        assert!(open.is_none(), "{}: no end of a string is found: mend bare() in tests/tests/house.rs", file.path);
    }
}

// ---- reading --------------------------------------------------------------------------------------------------------

fn none(breaches: &[impl Display]) {
    let list: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} breaches of a rule of the house:\n{}", list.len(), list.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_of_a_name(c)).filter(|word| !word.is_empty())
}

/// Files that git knows or would add; all but hidden ones and build outputs where there is no git.
fn tracked() -> Vec<String> {
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

/// A Rust file.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let rust = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| Source { text: fs::read_to_string(root().join(&path)).unwrap_or_default(), path }).collect()
}

/// The files that are not built for tests alone.
fn of_the_product() -> Vec<Source> {
    let mut files = sources();
    let tests: Vec<PathBuf> = files.iter().flat_map(Source::test_modules).collect();
    files.retain(|file| !file.is_test(&tests));
    files
}

/// What `rule` says of the lines of code outside tests.
fn find(rule: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
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

    fn crate_folder(&self) -> String {
        self.path.split_once("/src/").map_or(self.path.as_str(), |(folder, _)| folder).to_owned()
    }

    /// The lines of code, numbered, without comments, the insides of strings, and what `#[cfg(test)]` stands before.
    fn code(&self) -> Vec<(usize, String)> {
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
    fn test_modules(&self) -> Vec<PathBuf> {
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

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
