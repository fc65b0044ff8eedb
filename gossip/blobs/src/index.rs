//! What the store holds, in memory: sizes, order of use, pins, what the disk has not confirmed. No I/O.

use crate::state::State;
use covey_proto::Digest;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the tags of veils begin with; no tag of a caller does.
pub(super) const VEIL: &str = "veil-";

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) size: u64,
    /// When it was last used: microseconds since 1970, and the only entry of that number.
    pub(super) used: u64,
    /// Its file is a partial one: pieces are missing, or it became whole and is not yet renamed.
    pub(super) partial: Option<Arc<State>>,
    /// Its bytes may not have reached the disk.
    dirty: bool,
    /// Its name may not have.
    unlisted: bool,
}

impl Entry {
    pub(super) fn is_whole(&self) -> bool {
        self.partial.as_ref().is_none_or(|state| state.is_whole())
    }

    /// Whether its size is proven, or someone relies on it.
    pub(super) fn is_settled(&self) -> bool {
        self.is_whole() || self.is_fetched()
    }

    fn is_fetched(&self) -> bool {
        self.partial.as_ref().is_some_and(|state| state.is_live())
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Digest, Entry>,
    /// By order of use, oldest first.
    order: BTreeMap<u64, Digest>,
    /// Entries with a partial file.
    partials: BTreeSet<Digest>,
    pins: HashMap<String, Vec<Digest>>,
    /// How many tags hold a blob, whether or not it is there.
    held: HashMap<Digest, usize>,
    /// How many of them veil it.
    veiled: HashMap<Digest, usize>,
    /// Entries that the index on disk does not know as they are, or still knows.
    changed: HashSet<Digest>,
    /// Blobs of which the index on disk claims good pieces of a partial file, or is about to.
    claimed: HashSet<Digest>,
    bytes: u64,
    /// Bytes that are being written and are no entry yet.
    promised: u64,
    clock: u64,
}

impl Index {
    /// A number for a use that is later than all before, and now if the clock did not go back.
    fn tick(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.clock = now.max(self.clock.saturating_add(1));
        self.clock
    }

    /// Adds what was found at opening, in the order of use.
    pub(super) fn restore(&mut self, root: Digest, size: u64, used: u64, partial: Option<Arc<State>>) {
        self.clock = used.max(self.clock.saturating_add(1));
        self.add(root, size, self.clock, partial);
    }

    pub(super) fn insert(&mut self, root: Digest, size: u64, partial: Option<Arc<State>>) {
        self.remove(&root);
        let used = self.tick();
        self.add(root, size, used, partial);
        self.changed.insert(root);
    }

    fn add(&mut self, root: Digest, size: u64, used: u64, partial: Option<Arc<State>>) {
        if partial.is_some() {
            self.partials.insert(root);
        }
        self.entries.insert(root, Entry { size, used, partial, dirty: false, unlisted: false });
        self.order.insert(used, root);
        self.bytes += size;
    }

    pub(super) fn remove(&mut self, root: &Digest) -> Option<Entry> {
        let entry = self.entries.remove(root)?;
        self.order.remove(&entry.used);
        self.partials.remove(root);
        self.changed.insert(*root);
        self.bytes -= entry.size;
        Some(entry)
    }

    /// A partial blob's file has become a whole one.
    pub(super) fn mark_whole(&mut self, root: &Digest) {
        if let Some(entry) = self.entries.get_mut(root) {
            (entry.partial, entry.unlisted) = (None, true);
            self.partials.remove(root);
            self.changed.insert(*root);
        }
    }

    /// A whole blob's file has become a partial one.
    pub(super) fn mark_partial(&mut self, root: &Digest, state: Arc<State>) {
        if let Some(entry) = self.entries.get_mut(root) {
            entry.partial = Some(state);
            self.partials.insert(*root);
            self.changed.insert(*root);
        }
    }

    /// Marks as used; its size, if it is there whole.
    pub(super) fn touch(&mut self, root: &Digest) -> Option<u64> {
        let used = self.tick();
        let entry = self.entries.get_mut(root)?;
        self.order.remove(&entry.used);
        entry.used = used;
        self.order.insert(used, *root);
        self.changed.insert(*root);
        entry.is_whole().then_some(entry.size)
    }

    pub(super) fn entry(&self, root: &Digest) -> Option<&Entry> {
        self.entries.get(root)
    }

    /// All entries, least recently used first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.order.values().filter_map(|root| Some((root, self.entries.get(root)?)))
    }

    pub(super) fn partials(&self) -> Vec<Arc<State>> {
        let state = |root| self.entries.get(root).and_then(|entry: &Entry| entry.partial.clone());
        self.partials.iter().filter_map(state).collect()
    }

    /// The size of a blob that is there whole.
    pub(super) fn size(&self, root: &Digest) -> Option<u64> {
        self.entries.get(root).filter(|entry| entry.is_whole()).map(|entry| entry.size)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn promise(&mut self, bytes: u64) {
        self.promised += bytes;
    }

    pub(super) fn release_promise(&mut self, bytes: u64) {
        self.promised -= bytes;
    }

    /// Whether so many bytes more fit a quota.
    pub(super) fn fits(&self, needed: u64, quota: u64) -> bool {
        self.bytes.saturating_add(self.promised).saturating_add(needed) <= quota
    }

    /// Bytes that cannot be evicted.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let stays = |(root, entry): &(&Digest, &Entry)| self.held.contains_key(*root) || entry.is_fetched();
        self.promised + self.entries.iter().filter(stays).map(|(_, entry)| entry.size).sum::<u64>()
    }

    /// What may be evicted, the oldest first.
    fn evictable(&self, spare: &[Digest]) -> impl Iterator<Item = (Digest, u64)> {
        let free = |root: &&Digest| !self.held.contains_key(*root) && !spare.contains(*root);
        let entries = self.order.values().filter(free).filter_map(|root| Some((*root, self.entries.get(root)?)));
        entries.filter(|(_, entry)| !entry.is_fetched()).map(|(root, entry)| (root, entry.size))
    }

    pub(super) fn oldest_unpinned(&self, spare: &[Digest]) -> Option<Digest> {
        self.evictable(spare).next().map(|(root, _)| root)
    }

    /// Whether so many bytes more could be made to fit a quota.
    pub(super) fn could_fit(&self, needed: u64, quota: u64, spare: &[Digest]) -> bool {
        let mut over = self.bytes.saturating_add(self.promised).saturating_add(needed).saturating_sub(quota);
        over == 0
            || self.evictable(spare).any(|(_, size)| {
                over = over.saturating_sub(size);
                over == 0
            })
    }

    pub(super) fn mark_dirty(&mut self, root: Digest) {
        if let Some(entry) = self.entries.get_mut(&root) {
            (entry.dirty, entry.unlisted) = (true, true);
        }
    }

    pub(super) fn mark_unlisted(&mut self, root: Digest) {
        if let Some(entry) = self.entries.get_mut(&root) {
            entry.unlisted = true;
        }
    }

    /// Which of these blobs need an fsync of the file, and which one of the folder only.
    pub(super) fn unsynced(&self, roots: &[Digest]) -> (Vec<Digest>, Vec<Digest>) {
        let distinct: HashSet<&Digest> = roots.iter().collect();
        let unsure = distinct.into_iter().filter_map(|root| Some((*root, self.entries.get(root)?)));
        let (dirty, rest): (Vec<_>, Vec<_>) = unsure.partition(|(_, entry)| entry.dirty);
        let unlisted = rest.into_iter().filter(|(_, entry)| entry.unlisted);
        (dirty.into_iter().map(|(root, _)| root).collect(), unlisted.map(|(root, _)| root).collect())
    }

    pub(super) fn mark_synced(&mut self, dirty: &[Digest], unlisted: &[Digest]) {
        for root in dirty.iter().chain(unlisted) {
            if let Some(entry) = self.entries.get_mut(root) {
                (entry.dirty, entry.unlisted) = (false, false);
            }
        }
    }

    /// What the index on disk must be told; it counts as told.
    pub(super) fn take_changed(&mut self) -> HashSet<Digest> {
        std::mem::take(&mut self.changed)
    }

    /// It must be told again.
    pub(super) fn mark_changed(&mut self, roots: impl IntoIterator<Item = Digest>) {
        self.changed.extend(roots);
    }

    /// The index on disk claims good pieces of a partial file now, or is about to; or it does not.
    pub(super) fn mark_claimed(&mut self, root: Digest, claims: bool) {
        match claims {
            true => self.claimed.insert(root),
            false => self.claimed.remove(&root),
        };
    }

    pub(super) fn is_claimed(&self, root: &Digest) -> bool {
        self.claimed.contains(root)
    }

    /// Sets a tag; returns what it stood for.
    pub(super) fn pin(&mut self, tag: String, roots: Vec<Digest>) -> Option<Vec<Digest>> {
        let veils = tag.starts_with(VEIL);
        for root in &roots {
            *self.held.entry(*root).or_default() += 1;
            if veils {
                *self.veiled.entry(*root).or_default() += 1;
            }
        }
        let before = self.pins.insert(tag, roots);
        self.release(before.as_deref().unwrap_or_default(), veils);
        before
    }

    pub(super) fn unpin(&mut self, tag: &str) -> Option<Vec<Digest>> {
        let before = self.pins.remove(tag);
        self.release(before.as_deref().unwrap_or_default(), tag.starts_with(VEIL));
        before
    }

    /// Gives a tag back what it stood for, if anything.
    pub(super) fn restore_pin(&mut self, tag: &str, before: Option<Vec<Digest>>) {
        match before {
            Some(before) => drop(self.pin(tag.to_owned(), before)),
            None => drop(self.unpin(tag)),
        }
    }

    pub(super) fn pins(&self) -> &HashMap<String, Vec<Digest>> {
        &self.pins
    }

    /// Whether nobody is to be shown this blob yet.
    pub(super) fn is_veiled(&self, root: &Digest) -> bool {
        self.veiled.contains_key(root)
    }

    fn release(&mut self, roots: &[Digest], veiled: bool) {
        for root in roots {
            count_down(&mut self.held, root);
            if veiled {
                count_down(&mut self.veiled, root);
            }
        }
    }
}

fn count_down(counts: &mut HashMap<Digest, usize>, root: &Digest) {
    if let Some(count) = counts.get_mut(root) {
        *count -= 1;
        if *count == 0 {
            counts.remove(root);
        }
    }
}
