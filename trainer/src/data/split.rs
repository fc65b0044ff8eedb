//! Chooses what is held out: whole sources where there are many, whole documents otherwise.
//!
//! Text from the same source (a package, a folder, a book) shares its terms and phrases, so a held-out document whose
//! siblings are trained on looks easier than it is. Which sources go is decided by a hash of their names: adding one
//! source does not reshuffle the others, and nobody picks.

use super::Document;
use covey_proto::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer sources than this are not split by source: one would be too large a part of the whole.
pub const GROUPS_MIN: usize = 12;

/// Splits `documents` into (held out, training), about `bytes_wanted` bytes of the former and at least one document of
/// each if there are two.
pub fn hold_out(documents: Vec<Document>, bytes_wanted: u64) -> (Vec<Document>, Vec<Document>) {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for document in &documents {
        *sizes.entry(document.group()).or_default() += document.text.len() as u64;
    }
    let by_group = sizes.len() >= GROUPS_MIN;
    let mut chosen: BTreeSet<usize> = BTreeSet::new();
    let mut bytes = 0;
    if by_group {
        let groups = choose(sizes.iter().map(|(name, size)| (Digest::of(name.as_bytes()), *name, *size)), bytes_wanted);
        for (index, document) in documents.iter().enumerate().filter(|(_, d)| groups.contains(d.group())) {
            chosen.insert(index);
            bytes += document.text.len() as u64;
        }
    }
    if bytes < bytes_wanted / 2 || chosen.is_empty() {
        let left = documents.iter().enumerate().filter(|(index, _)| !chosen.contains(index));
        let more = choose(
            left.map(|(index, document)| (digest(document), index, document.text.len() as u64)),
            bytes_wanted.saturating_sub(bytes),
        );
        chosen.extend(more);
    }
    if chosen.len() == documents.len() {
        chosen.pop_last();
    }
    let (mut heldout, mut train) = (Vec::new(), Vec::new());
    for (index, document) in documents.into_iter().enumerate() {
        if chosen.contains(&index) { heldout.push(document) } else { train.push(document) }
    }
    (heldout, train)
}

/// The digest by which a document is chosen and ordered.
pub(super) fn digest(document: &Document) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("covey/1/document");
    hasher.update(&(document.name.len() as u64).to_le_bytes());
    hasher.update(document.name.as_bytes());
    hasher.update(document.text.as_bytes());
    Digest::new(*hasher.finalize().as_bytes())
}

/// Takes in the order of the digests what fits in a quarter more than `wanted`, until `wanted` is reached; the smallest
/// of all if nothing fits.
fn choose<T: Ord + Copy>(all: impl Iterator<Item = (Digest, T, u64)>, wanted: u64) -> BTreeSet<T> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    let mut chosen = BTreeSet::new();
    let mut bytes = 0;
    for (_, item, size) in &all {
        if bytes < wanted && bytes + size <= wanted + wanted / 4 {
            chosen.insert(*item);
            bytes += size;
        }
    }
    if chosen.is_empty() {
        chosen.extend(all.iter().min_by_key(|(digest, _, size)| (*size, *digest)).map(|(_, item, _)| *item));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(groups: usize, each: usize) -> Vec<Document> {
        (0..groups * each)
            .map(|n| Document::new(format!("source{}/{n}", n % groups), format!("text {n:0900}")))
            .collect()
    }

    #[test]
    fn many_sources_are_split_by_source() {
        let (heldout, train) = hold_out(documents(50, 10), 20_000);
        let bytes: usize = heldout.iter().map(|d| d.text.len()).sum();
        assert!((10_000..=25_000).contains(&bytes), "{bytes}");
        let trained: BTreeSet<_> = train.iter().map(Document::group).collect();
        assert!(heldout.iter().all(|d| !trained.contains(d.group())));
    }

    #[test]
    fn a_new_source_does_not_reshuffle_the_others() {
        let (before, _) = hold_out(documents(50, 10), 20_000);
        let mut more = documents(50, 10);
        more.push(Document::new("brandnew/0", "short"));
        let (after, _) = hold_out(more, 20_000);
        let kept = before.iter().filter(|d| after.contains(d)).count();
        assert!(kept * 2 > before.len(), "{kept} of {}", before.len());
    }

    #[test]
    fn few_sources_are_split_by_document_and_neither_part_is_empty() {
        for count in 2..20 {
            let (heldout, train) = hold_out(documents(1, count), 500);
            assert!(!heldout.is_empty() && !train.is_empty(), "{count} documents");
        }
        let (heldout, train) = hold_out(documents(1, 1), 500);
        assert_eq!(heldout.len() + train.len(), 1);
    }
}
