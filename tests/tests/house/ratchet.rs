//! Tables of what is not yet as it should be: each may shrink, and must be written shorter once it did.
//!
//! An entry that is too high would let the next change grow back to it, so a test fails for that as well, and says the
//! line to write.

use std::collections::BTreeMap;

/// What `found` says more or less than `table`: a count for each key, at most `limit` for those without an entry.
///
/// `table` is the table's name, `remedy` what to do about a count that is too high. A count that is not found is 0.
pub(crate) fn ratchet(
    name: &str,
    table: &[(&str, usize)],
    limit: usize,
    found: &BTreeMap<String, usize>,
    remedy: &str,
) -> Vec<String> {
    let mut breaches = Vec::new();
    for (key, count) in found {
        let most = table.iter().find(|(of, _)| of == key).map_or(limit, |(_, most)| *most);
        if *count > most {
            breaches.push(format!("{key}: {count}, and {most} is the most ({name}): {remedy}"));
        }
    }
    for (key, most) in table {
        let count = found.get(*key).copied().unwrap_or(0);
        if count <= limit {
            breaches.push(format!("{key}: now {count}, well done: take its line out of {name}"));
        } else if count < *most {
            breaches.push(format!("{key}: now {count}, well done: write (\"{key}\", {count}) into {name}"));
        }
    }
    breaches
}

/// The entries of a list of files that are no longer needed.
pub(crate) fn stale(name: &str, list: &[&str], needed: impl Fn(&str) -> bool) -> Vec<String> {
    let stale = list.iter().filter(|path| !needed(path));
    stale.map(|path| format!("{path}: needs no exception any more, well done: take it out of {name}")).collect()
}

#[test]
fn a_ratchet_holds_both_ways() {
    let table = [("a", 5), ("b", 7), ("c", 9), ("gone", 4)];
    let found = [("a", 5), ("b", 6), ("c", 10), ("d", 3), ("e", 2)].map(|(key, count)| (key.to_owned(), count));
    let breaches = ratchet("TABLE", &table, 2, &BTreeMap::from(found), "mend it");
    assert_eq!(
        breaches,
        [
            "c: 10, and 9 is the most (TABLE): mend it",
            "d: 3, and 2 is the most (TABLE): mend it",
            "b: now 6, well done: write (\"b\", 6) into TABLE",
            "gone: now 0, well done: take its line out of TABLE",
        ]
    );
    assert_eq!(stale("LIST", &["x", "y"], |path| path == "x").len(), 1);
}
