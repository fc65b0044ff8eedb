//! Who waits for which large blob, until when. No socket, no clock, no file: the shell begins blobs in the store and has
//! the scheduler fetch them; here is what each of its callers is owed.
//!
//! A blob that several wait for is fetched once. No more are begun at a time than a scheduler takes; the others stand in
//! line.

use crate::small::terms::{FetchError, Hint};
use crate::store::Partial;
use covey_exchange::Class;
use covey_exchange::scheduler::Progress;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;
use tokio::sync::{oneshot, watch};
use tracing::Span;

/// One caller's download.
pub(crate) struct Waiter {
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<(), FetchError>>,
    /// How it stands, from time to time.
    pub(crate) progress: watch::Sender<Option<Progress>>,
    /// What is logged of it is logged within.
    pub(crate) span: Span,
}

/// How far a blob is.
pub(crate) enum Stage {
    /// It stands in line.
    Waiting,
    /// The store is making room for it.
    Beginning,
    /// It is being fetched.
    Wanted(Partial),
}

/// A blob that somebody waits for.
pub(crate) struct Download {
    pub(crate) blob: BlobRef,
    pub(crate) class: Class,
    pub(crate) hints: Vec<Hint>,
    pub(crate) stage: Stage,
    /// Its first waiter's.
    pub(crate) span: Span,
    waiters: Vec<Waiter>,
}

/// Hints kept for a blob.
const HINTS_MAX: usize = 64;

/// What a new waiter calls for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Nothing now: it stands in line, or is being begun.
    None,
    /// Its blob is being fetched: there may be more hints, or more haste.
    TellScheduler,
    /// It was answered.
    Refused,
}

/// All downloads.
pub(crate) struct Downloads {
    all: HashMap<Digest, Download>,
    line: VecDeque<Digest>,
    /// Blobs that are begun or wanted.
    active: usize,
    active_max: usize,
    all_max: usize,
}

impl Downloads {
    pub(crate) fn new(active_max: usize, all_max: usize) -> Downloads {
        Downloads { all: HashMap::new(), line: VecDeque::new(), active: 0, active_max, all_max }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn get(&self, root: &Digest) -> Option<&Download> {
        self.all.get(root)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Download> {
        self.all.values()
    }

    /// The store's half of a blob that is being fetched.
    pub(crate) fn partial(&self, root: &Digest) -> Option<&Partial> {
        match &self.all.get(root)?.stage {
            Stage::Wanted(partial) => Some(partial),
            _ => None,
        }
    }

    pub(crate) fn add(&mut self, blob: BlobRef, class: Class, hints: Vec<Hint>, waiter: Waiter) -> NextStep {
        let refuse = |waiter: Waiter, error| {
            // Whoever waited may have given up.
            let _ = waiter.reply.send(Err(error));
            NextStep::Refused
        };
        if let Some(download) = self.all.get_mut(&blob.root) {
            let other = download.blob.size;
            if other != blob.size {
                return refuse(waiter, FetchError::TwoSizes { root: blob.root, named: blob.size, other });
            }
            download.class = download.class.min(class);
            for hint in hints {
                if download.hints.len() < HINTS_MAX && !download.hints.contains(&hint) {
                    download.hints.push(hint);
                }
            }
            download.waiters.push(waiter);
            return if matches!(download.stage, Stage::Wanted(_)) { NextStep::TellScheduler } else { NextStep::None };
        }
        if self.all.len() >= self.all_max {
            return refuse(waiter, FetchError::TooMany(self.all.len()));
        }
        let hints = hints.into_iter().take(HINTS_MAX).collect();
        let (stage, span) = (Stage::Waiting, waiter.span.clone());
        self.all.insert(blob.root, Download { blob, class, hints, stage, span, waiters: vec![waiter] });
        self.line.push_back(blob.root);
        NextStep::None
    }

    /// The next blob to begin in the store, if another may be.
    pub(crate) fn begin(&mut self) -> Option<BlobRef> {
        while self.active < self.active_max {
            let root = self.line.pop_front()?;
            // Those that nobody waits for any more still stand in line.
            if let Some(download) = self.all.get_mut(&root).filter(|one| matches!(one.stage, Stage::Waiting)) {
                download.stage = Stage::Beginning;
                self.active += 1;
                return Some(download.blob);
            }
        }
        None
    }

    /// The store has begun a blob. None if nobody waits for it any more.
    pub(crate) fn begun(&mut self, root: &Digest, partial: Partial) -> Option<&Download> {
        let download = self.all.get_mut(root)?;
        download.stage = Stage::Wanted(partial);
        Some(download)
    }

    /// Ends a download for all who wait for it.
    pub(crate) fn finish(&mut self, root: &Digest, result: &Result<(), FetchError>) {
        for waiter in self.remove(root).map(|download| download.waiters).unwrap_or_default() {
            let _ = waiter.reply.send(result.clone());
        }
    }

    fn remove(&mut self, root: &Digest) -> Option<Download> {
        let download = self.all.remove(root)?;
        if matches!(download.stage, Stage::Waiting) {
            self.line.retain(|other| other != root);
        } else {
            self.active -= 1;
        }
        Some(download)
    }

    /// Ends the waiters whose time is up, and forgets those that gave up. Returns the blobs that nobody waits for any
    /// more, and whether they were being fetched.
    pub(crate) fn expire(&mut self, now: Instant, error: impl Fn(&Download) -> FetchError) -> Vec<(Digest, bool)> {
        let mut unwanted = Vec::new();
        for (root, download) in &mut self.all {
            let mut waiters = std::mem::take(&mut download.waiters);
            waiters.retain(|waiter| !waiter.reply.is_closed());
            for late in waiters.extract_if(.., |waiter| waiter.deadline <= now) {
                let _ = late.reply.send(Err(error(download)));
            }
            download.waiters = waiters;
            if download.waiters.is_empty() {
                unwanted.push(*root);
            }
        }
        let remove = |root: Digest| Some((root, matches!(self.remove(&root)?.stage, Stage::Wanted(_))));
        unwanted.into_iter().filter_map(remove).collect()
    }

    /// Tells those who wait for a blob how it stands.
    pub(crate) fn tell(&self, root: &Digest, progress: Progress) {
        for waiter in self.all.get(root).map(|download| &download.waiters[..]).unwrap_or_default() {
            waiter.progress.send_replace(Some(progress));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Answer = oneshot::Receiver<Result<(), FetchError>>;

    fn waiter(deadline: Instant) -> (Waiter, Answer) {
        let (reply, answer) = oneshot::channel();
        (Waiter { deadline, reply, progress: watch::Sender::new(None), span: Span::none() }, answer)
    }

    fn blob(n: u8, size: u64) -> BlobRef {
        BlobRef { root: Digest::of(&[n]), size }
    }

    fn late(download: &Download) -> FetchError {
        FetchError::Timeout { root: download.blob.root, asked: 0, lacking: 0, connected: 0 }
    }

    #[test]
    fn as_many_as_may_be_are_begun_and_the_rest_stands_in_line() {
        let now = Instant::now();
        let mut downloads = Downloads::new(2, 3);
        let mut answers: Vec<Answer> = vec![];
        for n in 0..4 {
            let (waiter, answer) = waiter(now + Duration::from_secs(9));
            let called = downloads.add(blob(n, 5 << 20), Class::Data, vec![], waiter);
            assert_eq!(called, if n < 3 { NextStep::None } else { NextStep::Refused });
            answers.push(answer);
        }
        assert!(matches!(answers[3].try_recv(), Ok(Err(FetchError::TooMany(3)))));
        let roots: Vec<_> = std::iter::from_fn(|| downloads.begin()).map(|blob| blob.root).collect();
        assert_eq!(roots, [blob(0, 0).root, blob(1, 0).root]);
        downloads.finish(&roots[0], &Ok(()));
        assert!(matches!(answers[0].try_recv(), Ok(Ok(()))));
        assert_eq!(downloads.begin(), Some(blob(2, 5 << 20)));
        assert_eq!(downloads.begin(), None);
    }

    #[test]
    fn each_waiter_has_its_own_time_and_the_most_urgent_class_counts() {
        let now = Instant::now();
        let mut downloads = Downloads::new(1, 9);
        let (soon, mut first) = waiter(now + Duration::from_secs(1));
        let (later, mut second) = waiter(now + Duration::from_secs(5));
        let (other, mut third) = waiter(now + Duration::from_secs(5));
        downloads.add(blob(1, 3 << 20), Class::Data, vec![], soon);
        downloads.add(blob(1, 3 << 20), Class::Round, vec![], later);
        assert_eq!(downloads.add(blob(1, 4 << 20), Class::Round, vec![], other), NextStep::Refused);
        assert!(matches!(third.try_recv(), Ok(Err(FetchError::TwoSizes { other: 3_145_728, .. }))));
        assert_eq!(downloads.get(&blob(1, 0).root).unwrap().class, Class::Round);
        assert_eq!(downloads.begin(), Some(blob(1, 3 << 20)));
        assert!(downloads.expire(now + Duration::from_secs(2), late).is_empty());
        assert!(matches!(first.try_recv(), Ok(Err(FetchError::Timeout { .. }))));
        assert!(second.try_recv().is_err(), "its time is not up");
        // Nobody waits any more: it is not fetched on, and another may begin.
        drop(second);
        assert_eq!(downloads.expire(now + Duration::from_secs(2), late), [(blob(1, 0).root, false)]);
        assert!(downloads.is_empty());
        let (waiter, _answer) = waiter(now);
        downloads.add(blob(2, 3 << 20), Class::Data, vec![], waiter);
        assert!(downloads.begin().is_some());
    }
}
