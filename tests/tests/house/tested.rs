//! What decides has tests: where a file has some length and branches, a reader finds beside it what it is held to.
//!
//! A file decides if it has [`CODE_LINES_MIN`] lines of code or more, and [`BRANCHES_MIN`] of `if`, `match` and `while`.
//! It has tests if it has a module for tests, or if a file of tests beside it, or of the module that it is a part of, names
//! something that it defines. A shell that sockets, processes or other crates must be there for may be covered from
//! further away: [`COVERED`] says where.

use crate::source::{Source, none, of_the_product, sources, words};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

/// Lines of code, blank ones and comments apart, below which a file is read at a glance.
const CODE_LINES_MIN: usize = 60;
/// Fewer branches decide nothing.
const BRANCHES_MIN: usize = 5;

/// Files without tests of their own: where a file or folder covers them, and why not here.
const COVERED: &[(&str, &str, &str)] = &[
    (
        "gossip/blobs/src/serve.rs",
        "gossip/blobs/tests",
        "the store from outside, on a real disk: pieces, crashes, damaged files",
    ),
    (
        "gossip/exchange/src/scheduler/answers.rs",
        "gossip/exchange/tests",
        "the scheduler is one machine: its rules one by one, and histories of a simulated swarm",
    ),
    (
        "gossip/exchange/src/scheduler/asking.rs",
        "gossip/exchange/tests",
        "the scheduler is one machine: its rules one by one, and histories of a simulated swarm",
    ),
    (
        "gossip/exchange/src/scheduler/sources.rs",
        "gossip/exchange/tests",
        "the scheduler is one machine: its rules one by one, and histories of a simulated swarm",
    ),
    (
        "gossip/exchange/src/scheduler/watch.rs",
        "gossip/exchange/tests",
        "the scheduler is one machine: its rules one by one, and histories of a simulated swarm",
    ),
    ("gossip/src/handle.rs", "gossip/tests/nodes.rs", "a face: it asks the network's task, which real nodes have"),
    (
        "gossip/src/links/fetcher.rs",
        "gossip/tests/pieces.rs",
        "a stream's reader: peers that answer honestly, wrongly, late and never, over real sockets",
    ),
    (
        "gossip/src/links/server.rs",
        "gossip/tests/pieces.rs",
        "a stream's two halves: floods, cancels, peers that do not read, over real sockets",
    ),
    (
        "gossip/src/network/lookups.rs",
        "gossip/tests/discovery.rs",
        "it carries out what discovery decides, which has tests of its own: needs a whole swarm",
    ),
    (
        "gossip/src/network/piece_links.rs",
        "gossip/tests/exchange.rs",
        "a task for each stream: needs peers at the other ends, some of which leave, and a network that breaks",
    ),
    (
        "gossip/src/network/running.rs",
        "gossip/tests/nodes.rs",
        "the loop over all sockets: it selects, and its owners decide",
    ),
    ("node/src/footprint.rs", "tests/swarms/memory.rs", "a sum that is to be what real processes take"),
    ("proto/src/run/bytes.rs", "proto/src/run/tests.rs", "one of a run's two forms, tried together"),
    ("node/src/cli/model/export.rs", "tests/cli.rs", "a command: what comes of each of its options, by the binary"),
    ("trainer/src/hf/companions.rs", "trainer/tests/checkpoint.rs", "whole folders, spoilt one way after the other"),
    ("trainer/src/hf/weights.rs", "trainer/tests/checkpoint.rs", "whole folders, spoilt one way after the other"),
    ("node/devnet/src/chain/grow.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/chain/mod.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/chain/replay.rs", "node/devnet/tests/survives.rs", "killed at any instant, and executed again"),
    ("node/devnet/src/chain/store.rs", "node/devnet/tests/survives.rs", "killed at any instant, and executed again"),
    ("node/devnet/src/chain/submit.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/pallets/subtensor/register.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/pallets/subtensor/weights.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/rpc/archive.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/rpc/chain_head.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/rpc/legacy.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/rpc/transactions.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/devnet/src/runtime/extensions.rs", "node/devnet/tests/clients.rs", "a chain as its clients see it"),
    ("node/src/audit/mod.rs", "tests/swarms/audit.rs", "a finished swarm, changed after the fact"),
    ("node/chain/src/substrate/link.rs", "tests/chain.rs", "against devnets with faults"),
    ("node/chain/src/substrate/register.rs", "tests/keys.rs", "an operator's way, on a devnet"),
    ("node/chain/src/substrate/runtime.rs", "tests/chain.rs", "against devnets with faults"),
    ("node/chain/src/substrate/session.rs", "tests/chain.rs", "against devnets with faults"),
    ("node/chain/src/substrate/witness.rs", "tests/chain.rs", "against devnets with faults"),
    ("node/src/cli/data.rs", "tests/cli.rs", "the binary, as a person meets it"),
    ("node/src/cli/devnet.rs", "tests/cli.rs", "the binary, as a person meets it"),
    ("node/src/cli/init.rs", "tests/keys.rs", "an operator's way, on a devnet"),
    ("node/src/cli/node.rs", "tests/swarms", "whole swarms, from the command line"),
    ("node/src/cli/peers.rs", "tests/cli.rs", "the binary, as a person meets it"),
    ("node/src/cli/transfer.rs", "tests/wide.rs", "over an emulated wide-area network"),
    ("node/src/cli/watch.rs", "tests/cli.rs", "the binary, as a person meets it"),
    ("node/src/observe/mod.rs", "tests/swarms/killed.rs", "the pages of nodes that die and come back"),
    ("node/src/peer/catching_up.rs", "tests/swarms/churn.rs", "newcomers, and nodes that were killed"),
    (
        "node/src/peer/gathering/mod.rs",
        "tests/swarms/honest.rs",
        "what it decides is round/src/gather.rs, with histories",
    ),
    ("node/src/peer/mining/miner.rs", "tests/swarms/churn.rs", "miners killed in every phase"),
    ("node/src/peer/mod.rs", "tests/swarms", "the loop: what it decides is in state machines, with histories"),
    ("node/src/peer/start.rs", "tests/swarms/stranger.rs", "a node on a chain in memory"),
    ("node/src/peer/validating/validator.rs", "tests/swarms/honest.rs", "who scores whom, and what it comes to"),
    ("node/src/report/html/facts.rs", "node/src/report/html/tests.rs", "the page as a whole"),
    ("node/src/report/html/plots/duration.rs", "node/src/report/html/tests.rs", "the page as a whole"),
    ("node/src/report/html/plots/loss.rs", "node/src/report/html/tests.rs", "the page as a whole"),
    ("node/src/report/html/plots/selection.rs", "node/src/report/html/tests.rs", "the page as a whole"),
    ("node/src/report/html/plots/weights.rs", "node/src/report/html/tests.rs", "the page as a whole"),
    ("node/src/service/mod.rs", "tests/swarms", "whole swarms, from the command line"),
    ("node/src/service/speak.rs", "tests/swarms", "whole swarms, from the command line"),
    (
        "node/src/swarm/mod.rs",
        "tests/swarms",
        "whole swarms, some of them killed; what it decides by has tests of its own",
    ),
    (
        "trainer/sparseloco/src/codec/lane.rs",
        "trainer/sparseloco/tests",
        "pinned vectors and foreign bytes, through the codec",
    ),
];

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
    let mut tests = everything.iter().filter(|other| is_near(Path::new(&other.path), Path::new(&file.path)));
    tests.any(|tests| words(&tests.text).any(|word| defined.contains(word)))
}

/// Whether `tests` are a file of tests beside `file`, or those of the module that the file is a part of.
fn is_near(tests: &Path, file: &Path) -> bool {
    let (Some(name), Some(folder)) = (tests.file_name().and_then(OsStr::to_str), file.parent()) else { return false };
    let of_the_folder = folder.file_name().is_some_and(|folder| name == format!("{}_tests.rs", folder.display()));
    let beside = tests.parent() == Some(folder) && (name == "tests.rs" || name.ends_with("_tests.rs"));
    beside || (tests.parent() == folder.parent() && (name == "tests.rs" || of_the_folder))
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
    let near = |tests: &str, file: &str| is_near(Path::new(tests), Path::new(file));
    assert!(near("x/src/a_tests.rs", "x/src/a.rs") && near("x/src/a_tests.rs", "x/src/a/b.rs"));
    assert!(near("x/src/a/tests.rs", "x/src/a/b/c.rs") && !near("x/src/b_tests.rs", "x/src/a/b.rs"));
}
