//! Brings to the disk what may wait: good pieces, finished blobs, order of use. One small thread a store does it, when
//! something is due; the last `Store` to go does what is left.

use crate::StoreError;
use crate::files::{Folder, Kind};
use crate::index::Index;
use crate::meta::{Change, Meta, Record};
use crate::state::State;
use covey_proto::Digest;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the order of use may differ from the disk's: an fsync a minute, on a store that is only read.
pub(crate) const USED_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a disk that refused is left alone.
const REFUSED_TIME: Duration = Duration::from_secs(5);
/// Bytes of the thread's stack: redb and file calls are shallow, and a swarm has many stores.
const STACK_BYTES: usize = 512 * 1024;

/// What a store and its thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    // Dropped in this order: the index is closed before the folder is unlocked.
    pub(crate) meta: Meta,
    pub(crate) folder: Folder,
    pub(crate) quota: u64,
    /// Renames and unlinks happen under this lock, so that the index never disagrees with the disk.
    pub(crate) index: Mutex<Index>,
    /// Held while pins change, so that memory and disk see the changes in one order.
    pub(crate) pinning: Mutex<()>,
    flushing: Mutex<()>,
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Schedule {
    due: Option<Instant>,
    stop: bool,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    pub(crate) fn new(folder: Folder, meta: Meta, quota: u64, index: Index) -> Shared {
        Shared {
            meta,
            folder,
            quota,
            index: Mutex::new(index),
            pinning: Mutex::default(),
            flushing: Mutex::default(),
            schedule: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everything flushed after so long, or sooner if that is due already.
    pub(crate) fn schedule(self: &Arc<Shared>, after: Duration) {
        let due = Instant::now() + after;
        let mut schedule = self.plan();
        if schedule.stop || schedule.due.is_some_and(|earlier| earlier <= due) {
            return;
        }
        schedule.due = Some(due);
        if schedule.thread.is_none() {
            let shared = self.clone();
            let thread = std::thread::Builder::new().name("blobs".into()).stack_size(STACK_BYTES);
            match thread.spawn(move || shared.work()) {
                Ok(thread) => schedule.thread = Some(thread),
                // Tried again at the next change.
                Err(error) => {
                    schedule.due = None;
                    tracing::warn!(%error, "no thread for the blob store: what is good stays in memory for now");
                }
            }
        }
        self.changed.notify_one();
    }

    fn work(self: Arc<Shared>) {
        let mut refused = false;
        let mut schedule = self.plan();
        while !schedule.stop {
            let now = Instant::now();
            match schedule.due {
                None => schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    let waited = self.changed.wait_timeout(schedule, due - now);
                    schedule = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    schedule.due = None;
                    drop(schedule);
                    let flushed = self.flush();
                    schedule = self.plan();
                    match flushed {
                        Ok(()) => refused = false,
                        Err(StoreError::Gone(_)) => {}
                        Err(error) => {
                            // Once, not each time.
                            if !std::mem::replace(&mut refused, true) {
                                tracing::warn!(%error, "the blob store cannot write; it serves on and tries again");
                            }
                            let again = Instant::now() + REFUSED_TIME;
                            schedule.due = Some(schedule.due.map_or(again, |due| due.max(again)));
                        }
                    }
                }
            }
        }
    }

    /// Ends the thread, then flushes for the last time.
    pub(crate) fn close(&self) {
        let thread = {
            let mut schedule = self.plan();
            schedule.stop = true;
            self.changed.notify_all();
            schedule.thread.take()
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        match self.flush() {
            Ok(()) | Err(StoreError::Gone(_)) => {}
            Err(error) => tracing::warn!(%error, "the blob store could not write its last changes"),
        }
    }

    /// Brings everything but buffered blobs to the disk.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.folder.still_there()?;
        let partials = self.index().partials();
        // One that fails keeps no other from the disk.
        let synced = partials.iter().map(|state| self.flush_partial(state)).fold(Ok(()), Result::and);
        self.commit_changes().and(synced)
    }

    /// Brings the good pieces of a blob to the disk; if that is all of them, its file gets its name.
    pub(crate) fn flush_partial(&self, state: &Arc<State>) -> Result<(), StoreError> {
        let root = state.blob.root;
        if let Some(unsynced) = state.unsynced() {
            let result = match &unsynced.files {
                Some(files) => files.sync(),
                None => Ok(()),
            };
            if let Err(error) = result {
                state.lose_unsynced();
                return Err(self.folder.refused("sync", &self.folder.path(&root, Kind::Partial), 0, error));
            }
            state.mark_synced(unsynced);
            self.index().mark_changed([root]);
        }
        if state.durable().is_full() {
            let mut index = self.index();
            let current = index.entry(&root).and_then(|entry| entry.partial.as_ref());
            if current.is_some_and(|current| Arc::ptr_eq(current, state)) && state.is_whole() {
                self.folder.rename(&root, Kind::Partial, Kind::Whole)?;
                index.mark_whole(&root);
                drop(index);
                self.folder.sync_prefixes([root.as_bytes()[0]])?;
                self.index().mark_synced(&[], &[root]);
            }
        } else {
            state.close_if_idle();
        }
        Ok(())
    }

    /// Tells the index on disk what changed.
    fn commit_changes(&self) -> Result<(), StoreError> {
        let (changed, changes) = {
            let mut index = self.index();
            let changed = index.take_changed();
            let changes: Vec<Change> = changed.iter().map(|root| change(&index, root)).collect();
            // Before the disk has it: a blob that is removed and begun again meanwhile must know of the claim.
            for change in &changes {
                if let Change::Blob(root, record) = change
                    && !record.good.is_empty()
                {
                    index.mark_claimed(*root, true);
                }
            }
            (changed, changes)
        };
        if changes.is_empty() {
            return Ok(());
        }
        let done = self.meta.commit(&self.folder, &changes);
        let mut index = self.index();
        if done.is_err() {
            index.mark_changed(changed);
            return done;
        }
        for change in changes {
            match change {
                Change::Blob(root, record) if record.good.is_empty() => index.mark_claimed(root, false),
                Change::Gone(root) => index.mark_claimed(root, false),
                Change::Blob(..) | Change::Pin(..) | Change::Unpin(_) => {}
            }
        }
        Ok(())
    }

    /// Makes the index on disk forget what it claims of a partial file that is no more, before another gets its name: a
    /// kill in between must not make it claim pieces of that one.
    pub(crate) fn disclaim(&self, root: &Digest) -> Result<(), StoreError> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.index().entry(root).is_some_and(|entry| entry.partial.is_some()) {
            return Ok(());
        }
        self.meta.commit(&self.folder, &[Change::Gone(*root)])?;
        let mut index = self.index();
        index.mark_claimed(*root, false);
        index.mark_changed([*root]);
        Ok(())
    }
}

/// The truth about a blob, for the index on disk.
fn change(index: &Index, root: &Digest) -> Change {
    match index.entry(root) {
        None => Change::Gone(*root),
        Some(entry) => {
            // What is good in memory only is not claimed.
            let good = entry.partial.as_ref().map_or_else(Vec::new, |state| state.durable().as_bytes().to_vec());
            Change::Blob(*root, Record { size: entry.size, used: entry.used, good })
        }
    }
}
