//! What the store holds, in memory: sizes, order of use, pins, what the disk has not confirmed. No I/O.

use covey_proto::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug)]
struct Entry {
    size: u64,
    used: u64,
    /// Its bytes may not have reached the disk.
    dirty: bool,
    /// Its name may not have.
    unlisted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Digest, Entry>,
    /// By order of use, oldest first.
    order: BTreeMap<u64, Digest>,
    pins: HashMap<String, Vec<Digest>>,
    /// How many tags hold a blob, whether or not it is there.
    held: HashMap<Digest, usize>,
    bytes: u64,
    clock: u64,
}

impl Index {
    pub(super) fn insert(&mut self, root: Digest, size: u64) {
        self.remove(&root);
        self.clock += 1;
        let entry = Entry { size, used: self.clock, dirty: false, unlisted: false };
        self.entries.insert(root, entry);
        self.order.insert(self.clock, root);
        self.bytes += size;
    }

    pub(super) fn remove(&mut self, root: &Digest) {
        if let Some(entry) = self.entries.remove(root) {
            self.order.remove(&entry.used);
            self.bytes -= entry.size;
        }
    }

    /// Marks as used; its size, if it is there.
    pub(super) fn touch(&mut self, root: &Digest) -> Option<u64> {
        let entry = self.entries.get_mut(root)?;
        self.clock += 1;
        self.order.remove(&entry.used);
        entry.used = self.clock;
        self.order.insert(self.clock, *root);
        Some(entry.size)
    }

    pub(super) fn size(&self, root: &Digest) -> Option<u64> {
        self.entries.get(root).map(|entry| entry.size)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn pinned_bytes(&self) -> u64 {
        self.held.keys().filter_map(|root| self.size(root)).sum()
    }

    pub(super) fn oldest_unpinned(&self, spare: &[Digest]) -> Option<Digest> {
        let free = |root: &&Digest| !self.held.contains_key(*root) && !spare.contains(*root);
        self.order.values().find(free).copied()
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

    /// Sets a tag; returns what it stood for.
    pub(super) fn pin(&mut self, tag: String, roots: Vec<Digest>) -> Option<Vec<Digest>> {
        for root in &roots {
            *self.held.entry(*root).or_default() += 1;
        }
        let before = self.pins.insert(tag, roots);
        self.release(before.as_deref().unwrap_or_default());
        before
    }

    pub(super) fn unpin(&mut self, tag: &str) -> Option<Vec<Digest>> {
        let before = self.pins.remove(tag);
        self.release(before.as_deref().unwrap_or_default());
        before
    }

    pub(super) fn pins(&self) -> &HashMap<String, Vec<Digest>> {
        &self.pins
    }

    fn release(&mut self, roots: &[Digest]) {
        for root in roots {
            if let Some(count) = self.held.get_mut(root) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(root);
                }
            }
        }
    }
}
