//! No circles between the modules of a crate: whoever reads a room must not have to read all the others first.
//!
//! In each folder of modules an arrow goes from one to another whose items it names, by `crate::`, `super::`, `self::`
//! or the name of a module inside. A name that a parent only passes on (`pub use`, or an import of its own that a child
//! takes from it) leads to where it is defined. The folder's `mod.rs`, or the file named like the folder, is a room like
//! the others, called `mod`: an arrow leads to it for what it defines itself. Tests may import whatever they like.
//! An import that runs up is one that closes a circle: modules without circles have an order.

use crate::source::{Source, Token, none, of_the_product};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Circles that are still there: the folder, and the modules that import one another.
const CIRCLES: &[(&str, &[&str])] = &[
    // FRAME's macros: the runtime's version lists its APIs, and the APIs are the runtime's.
    ("node/devnet/src/runtime", &["apis", "mod"]),
];

/// Imports that are told of each arrow of a circle; the rest is counted.
const IMPORTS_TOLD_MAX: usize = 2;

#[test]
fn the_modules_of_a_folder_form_no_circle() {
    let found = circles(&of_the_product());
    let within = |circle: &Circle, (folder, rooms): (&str, &[&str])| {
        circle.folder == folder && circle.rooms.iter().all(|room| rooms.contains(&room.as_str()))
    };
    let unknown = found.iter().filter(|circle| !CIRCLES.iter().any(|known| within(circle, *known)));
    let mut breaches: Vec<String> = unknown.map(Circle::told).collect();
    for known in CIRCLES {
        let left: Vec<&Circle> = found.iter().filter(|circle| within(circle, *known)).collect();
        if left.iter().map(|circle| circle.rooms.len()).sum::<usize>() < known.1.len() {
            let write: Vec<String> = left.iter().map(|circle| circle.entry()).collect();
            let remedy = match &write[..] {
                [] => "take its line out of CIRCLES".to_owned(),
                write => format!("write {} into CIRCLES", write.join(", ")),
            };
            breaches.push(format!("{}: the circle of {:?} has shrunk, well done: {remedy}", known.0, known.1));
        }
    }
    none(&breaches);
}

/// From which module to which, and the imports that make it so.
type Arrows = BTreeMap<(String, String), Vec<String>>;

/// Modules of a folder, each of which leads to each.
struct Circle {
    folder: String,
    rooms: BTreeSet<String>,
    arrows: Arrows,
}

impl Circle {
    fn entry(&self) -> String {
        format!("({:?}, &{:?})", self.folder, self.rooms.iter().collect::<Vec<_>>())
    }

    fn told(&self) -> String {
        let mut text = format!(
            "{}: a circle of {}: turn the arrow with the fewest imports, or move what both ends need into a module below \
             them; its line for CIRCLES would be {}",
            self.folder,
            self.rooms.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            self.entry()
        );
        for ((from, to), imports) in &self.arrows {
            let told = imports.iter().take(IMPORTS_TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = imports.len().saturating_sub(IMPORTS_TOLD_MAX);
            text += &format!(
                "\n    {from} -> {to}: {told}{}",
                if more > 0 { format!(", {more} more") } else { String::new() }
            );
        }
        text
    }
}

/// Every circle in the folders of `files`, which may be of several crates.
fn circles(files: &[Source]) -> Vec<Circle> {
    let mut crates: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.contains("/src/")) {
        crates.entry(file.crate_folder()).or_default().push(Module::read(file));
    }
    crates.iter().flat_map(|(folder, modules)| circles_of_a_crate(folder, modules)).collect()
}

fn circles_of_a_crate(folder: &str, modules: &[Module]) -> Vec<Circle> {
    let by_name: BTreeMap<&[String], &Module> = modules.iter().map(|module| (&module.name[..], module)).collect();
    // By folder of modules, arrows between those in it.
    let mut arrows: BTreeMap<Vec<String>, Arrows> = BTreeMap::new();
    for module in modules {
        for path in module.paths.iter().filter(|path| !path.passes_on) {
            let Some(target) = resolve(&by_name, &path.names, 0) else { continue };
            let shared = module.name.iter().zip(target).take_while(|(one, other)| one == other).count();
            let (from, to) = (room(&module.name, shared), room(target, shared));
            // lib.rs and main.rs are tables of contents: they import everything, and define nothing.
            if from == to || (shared == 0 && (module.name.is_empty() || target.is_empty())) {
                continue;
            }
            let import = format!("{}:{} {}", module.path, path.line, path.names.join("::"));
            arrows.entry(module.name[..shared].to_vec()).or_default().entry((from, to)).or_default().push(import);
        }
    }
    let mut circles = Vec::new();
    for (inside, arrows) in arrows {
        let place = std::iter::once(format!("{folder}/src")).chain(inside).collect::<Vec<_>>().join("/");
        circles.extend(knots(&arrows).into_iter().map(|rooms| {
            let within = |(from, to): &(String, String)| rooms.contains(from) && rooms.contains(to);
            let arrows =
                arrows.iter().filter(|(ends, _)| within(ends)).map(|(ends, found)| (ends.clone(), found.clone()));
            Circle { folder: place.clone(), arrows: arrows.collect(), rooms: rooms.clone() }
        }));
    }
    circles
}

/// The module's name within the folder of depth `depth`.
fn room(name: &[String], depth: usize) -> String {
    name.get(depth).map_or("mod", String::as_str).to_owned()
}

/// The rooms that lead to one another, each with all those of its knot.
fn knots(arrows: &Arrows) -> BTreeSet<BTreeSet<String>> {
    let rooms: BTreeSet<&String> = arrows.keys().flat_map(|(from, to)| [from, to]).collect();
    let reached = |start: &String| {
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut next: Vec<&String> = arrows.keys().filter(|(from, _)| from == start).map(|(_, to)| to).collect();
        while let Some(room) = next.pop() {
            if seen.insert(room) {
                next.extend(arrows.keys().filter(|(from, _)| from == room).map(|(_, to)| to));
            }
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<&String>> = rooms.iter().map(|room| (*room, reached(room))).collect();
    let knot = |room: &&String| -> BTreeSet<String> {
        reach[*room].iter().filter(|other| reach[**other].contains(*room)).map(|other| (*other).clone()).collect()
    };
    rooms.iter().map(knot).filter(|knot| knot.len() > 1).collect()
}

/// The module in which `path` ends, through what modules pass on.
fn resolve<'a>(modules: &BTreeMap<&'a [String], &'a Module>, path: &[String], depth: usize) -> Option<&'a [String]> {
    let deepest = (0..=path.len()).rev().find_map(|length| modules.get_key_value(&path[..length]));
    let (name, module) = deepest?;
    let passed_on = path.get(name.len()).and_then(|item| module.names.get(item));
    match passed_on {
        // A name that is passed on and on comes to an end: no crate of ours does so eight times.
        Some(path) if depth < 8 => resolve(modules, path, depth + 1).or(Some(name)),
        _ => Some(name),
    }
}

/// A file's module, and what it names of others in its crate.
struct Module {
    path: String,
    name: Vec<String>,
    paths: Vec<Named>,
    /// What its own `use`s call by a name of this module.
    names: BTreeMap<String, Vec<String>>,
}

/// A path within the crate, from its root.
struct Named {
    line: usize,
    names: Vec<String>,
    /// Whether it stands in a `pub use`.
    passes_on: bool,
}

impl Module {
    fn read(file: &Source) -> Module {
        let mut module = Module {
            path: file.path.clone(),
            name: module_name(&file.path),
            paths: Vec::new(),
            names: BTreeMap::new(),
        };
        let tokens = file.tokens();
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let children: BTreeSet<&str> =
            (0..tokens.len()).filter(|at| text(*at) == "mod" && text(at + 2) == ";").map(|at| text(at + 1)).collect();
        let (mut depth, mut inline) = (0_usize, Vec::new());
        let mut import = Import::No;
        let mut at = 0;
        while at < tokens.len() {
            match text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    inline.retain(|(opened, _)| *opened < depth + 1);
                }
                "mod" if text(at + 2) == "{" => inline.push((depth + 1, text(at + 1).to_owned())),
                "use" if text(at.wrapping_sub(1)) != "<" && text(at + 1) != "<" => {
                    import =
                        if [")", "pub"].contains(&text(at.wrapping_sub(1))) { Import::PassedOn } else { Import::Own };
                }
                ";" => import = Import::No,
                first => {
                    let begins = text(at + 1) == "::" && !["::", ".", "in"].contains(&text(at.wrapping_sub(1)));
                    let mut here = module.name.clone();
                    here.extend(inline.iter().map(|(_, name): &(usize, String)| name.clone()));
                    let base = match first {
                        "crate" => Some(Vec::new()),
                        "self" => Some(here),
                        "super" => Some(here[..here.len().saturating_sub(1)].to_vec()),
                        child if inline.is_empty() && children.contains(child) => {
                            Some([&here[..], &[child.to_owned()]].concat())
                        }
                        _ => None,
                    };
                    if begins && let Some(base) = base {
                        at = module.take(&tokens, at + 2, base, import);
                        continue;
                    }
                }
            }
            at += 1;
        }
        module
    }

    /// Notes the paths that continue `base` at the token `at`; says where they end.
    fn take(&mut self, tokens: &[Token], mut at: usize, mut base: Vec<String>, import: Import) -> usize {
        let text = |at: usize| tokens.get(at).map_or("}", |token| token.text.as_str());
        if text(at) == "{" {
            at += 1;
            while text(at) != "}" {
                at = if text(at) == "," { at + 1 } else { self.take(tokens, at, base.clone(), import) };
            }
            return at + 1;
        }
        let line = tokens.get(at).map_or(0, |token| token.line);
        loop {
            match text(at) {
                "super" => drop(base.pop()),
                "self" | "*" | "<" => {}
                name => base.push(name.to_owned()),
            }
            at += 1;
            match (text(at), text(at + 1)) {
                ("::", "{") => return self.take(tokens, at + 1, base, import),
                ("::", "<") => break,
                ("::", _) => at += 1,
                _ => break,
            }
        }
        let renamed = text(at) == "as";
        if let (Some(last), true) = (base.last(), import != Import::No) {
            let name = if renamed { text(at + 1) } else { last };
            self.names.insert(name.to_owned(), base.clone());
        }
        self.paths.push(Named { line, names: base, passes_on: import == Import::PassedOn });
        if renamed { at + 2 } else { at }
    }
}

/// The `use` that a token stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Import {
    No,
    Own,
    PassedOn,
}

/// `a/src/b/mod.rs` and `a/src/b.rs` are b; `a/src/lib.rs` has no name.
fn module_name(path: &str) -> Vec<String> {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let mut names: Vec<String> =
        Path::new(inside).with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|last| last == "mod" || (names.len() == 1 && (last == "lib" || last == "main"))) {
        names.pop();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_circle_is_found_however_it_is_named() {
        let files = [
            file("x/src/lib.rs", "mod a; mod b; mod c; pub use c::Shown;"),
            file("x/src/a.rs", "use crate::{b::B, other};\nfn f() { other() }"),
            file("x/src/b.rs", "fn f(_: super::Shown) {}"),
            file("x/src/c/mod.rs", "mod d;\nmod e;\nuse d::D;\npub struct Shown;"),
            file("x/src/c/d.rs", "pub mod inner { pub fn g() { super::super::e::h(); crate::a::f() } }"),
            file("x/src/c/e.rs", "use super::D;\n#[cfg(test)]\nmod tests {\n    use crate::c::Shown;\n}"),
        ];
        let found: Vec<String> = circles(&files).iter().map(Circle::entry).collect();
        assert_eq!(found, [r#"("x/src", &["a", "b", "c"])"#, r#"("x/src/c", &["d", "e"])"#]);
        let told = circles(&files)[0].told();
        assert!(told.contains("b -> c: x/src/b.rs:1 Shown"), "{told}");
    }

    #[test]
    fn a_parent_that_passes_names_on_is_in_no_circle_and_one_that_defines_them_is() {
        let passes = [
            file("x/src/c/mod.rs", "mod d;\nmod e;\npub use d::D;\npub use e::E;"),
            file("x/src/c/d.rs", "pub struct D;"),
            file("x/src/c/e.rs", "use super::D;\npub struct E;"),
        ];
        assert!(circles(&passes).is_empty());
        let defines = [
            file("x/src/c/mod.rs", "mod d;\nstruct Here;\nfn f() { d::g() }"),
            file("x/src/c/d.rs", "use super::Here;\npub fn g() {}"),
        ];
        assert_eq!(circles(&defines)[0].entry(), r#"("x/src/c", &["d", "mod"])"#);
    }
}
