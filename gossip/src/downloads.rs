//! Who waits for which large blob, until when. No socket, no clock, no file: the shell begins blobs in the store and has
//! the scheduler fetch them; here is what each of its callers is owed.
//!
//! A blob that several wait for is fetched once. No more are begun at a time than a scheduler takes; the others stand in
//! line.
//!
//! A name says nothing of a size, and only the last bytes prove it: anybody can name an honest blob with a wrong one. A
//! blob that is wanted under several sizes is therefore fetched under each in turn, each turn twice as long as the last
//! of its size, until one of them is whole and so proves the others wrong.

use crate::small::terms::{FetchError, Hint};
use crate::store::Partial;
use covey_exchange::Class;
use covey_exchange::scheduler::Progress;
use covey_proto::Digest;
use covey_proto::blob::BlobRef;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
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
    /// How long it is fetched before another size of the same name has its turn.
    turn: Duration,
    /// When its turn began.
    since: Instant,
}

/// The first turn of a size, if there are others: what a few MiB take on a line of 20 Mbit/s.
const TURN: Duration = Duration::from_secs(2);
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
    /// Further sizes of blobs in `all`, in the order of their turns.
    rivals: HashMap<Digest, VecDeque<Download>>,
    line: VecDeque<Digest>,
    /// Blobs that are begun or wanted.
    active: usize,
    active_max: usize,
    all_max: usize,
}

impl Downloads {
    pub(crate) fn new(active_max: usize, all_max: usize) -> Downloads {
        Downloads { all: HashMap::new(), rivals: HashMap::new(), line: VecDeque::new(), active: 0, active_max, all_max }
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
        let rivals = self.rivals.get_mut(&blob.root).into_iter().flatten();
        let mut of_root = self.all.get_mut(&blob.root).into_iter().chain(rivals);
        if let Some(download) = of_root.find(|download| download.blob == blob) {
            download.class = download.class.min(class);
            for hint in hints {
                if download.hints.len() < HINTS_MAX && !download.hints.contains(&hint) {
                    download.hints.push(hint);
                }
            }
            download.waiters.push(waiter);
            return if matches!(download.stage, Stage::Wanted(_)) { NextStep::TellScheduler } else { NextStep::None };
        }
        let count = self.all.len() + self.rivals.values().map(VecDeque::len).sum::<usize>();
        if count >= self.all_max {
            return refuse(waiter, FetchError::TooMany(count));
        }
        let hints = hints.into_iter().take(HINTS_MAX).collect();
        let (stage, span, since) = (Stage::Waiting, waiter.span.clone(), Instant::now());
        let download = Download { blob, class, hints, stage, span, waiters: vec![waiter], turn: TURN, since };
        match self.all.entry(blob.root) {
            Entry::Occupied(_) => self.rivals.entry(blob.root).or_default().push_back(download),
            Entry::Vacant(free) => {
                free.insert(download);
                self.line.push_back(blob.root);
            }
        }
        NextStep::None
    }

    /// Gives their turn to the next sizes of blobs that are fetched under another. Returns what is fetched no more; what is
    /// fetched instead is to be [begun](Downloads::begin).
    pub(crate) fn take_turns(&mut self, now: Instant) -> Vec<Digest> {
        let is_over = |root: &&Digest| {
            let is_wanted = |one: &&Download| matches!(one.stage, Stage::Wanted(_));
            let current = self.all.get(*root).filter(is_wanted);
            current.is_some_and(|one| now.saturating_duration_since(one.since) >= one.turn)
        };
        let over: Vec<Digest> = self.rivals.keys().filter(is_over).copied().collect();
        for root in &over {
            if let Some(mut download) = self.remove(root) {
                (download.stage, download.turn) = (Stage::Waiting, download.turn.saturating_mul(2));
                self.rivals.entry(*root).or_default().push_back(download);
                self.promote(root);
            }
        }
        over
    }

    /// Where nothing is fetched under a name, its next size takes the place, at the head of the line.
    fn promote(&mut self, root: &Digest) {
        let Some(rivals) = self.rivals.get_mut(root) else { return };
        if let Some(next) = rivals.pop_front() {
            self.all.insert(*root, next);
            self.line.push_front(*root);
        }
        if rivals.is_empty() {
            self.rivals.remove(root);
        }
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

    /// The store has begun a blob. None if nobody waits for it any more, or it is another size's turn.
    pub(crate) fn begun(&mut self, blob: &BlobRef, partial: Partial, now: Instant) -> Option<&Download> {
        let download = self.all.get_mut(&blob.root).filter(|download| download.blob == *blob)?;
        (download.stage, download.since) = (Stage::Wanted(partial), now);
        Some(download)
    }

    /// Ends a download for all who wait for it. A blob that is whole proves its size: whoever waits for another waits in
    /// vain.
    pub(crate) fn finish(&mut self, root: &Digest, result: &Result<(), FetchError>) {
        let Some(download) = self.remove(root) else { return };
        if result.is_ok() {
            let other = download.blob.size;
            for rival in self.rivals.remove(root).into_iter().flatten() {
                let error = FetchError::TwoSizes { root: *root, named: rival.blob.size, other };
                rival.waiters.into_iter().for_each(|waiter| drop(waiter.reply.send(Err(error.clone()))));
            }
        }
        for waiter in download.waiters {
            let _ = waiter.reply.send(result.clone());
        }
        self.promote(root);
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
        let is_unwanted = |download: &mut Download| {
            let mut waiters = std::mem::take(&mut download.waiters);
            waiters.retain(|waiter| !waiter.reply.is_closed());
            for late in waiters.extract_if(.., |waiter| waiter.deadline <= now) {
                let _ = late.reply.send(Err(error(download)));
            }
            download.waiters = waiters;
            download.waiters.is_empty()
        };
        self.rivals.retain(|_, rivals| {
            rivals.retain_mut(|rival| !is_unwanted(rival));
            !rivals.is_empty()
        });
        let unwanted = self.all.iter_mut().filter_map(|(root, download)| is_unwanted(download).then_some(*root));
        let unwanted: Vec<Digest> = unwanted.collect();
        let remove = |root: Digest| {
            let was_fetched = matches!(self.remove(&root)?.stage, Stage::Wanted(_));
            self.promote(&root);
            Some((root, was_fetched))
        };
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

    /// Blobs of one name and these sizes in MiB, wanted in this order.
    fn of_sizes(sizes: &[u64]) -> (Downloads, Vec<Answer>) {
        let mut downloads = Downloads::new(1, 9);
        let mut answers = Vec::new();
        for size in sizes {
            let (waiter, answer) = waiter(Instant::now() + Duration::from_secs(500));
            assert_eq!(downloads.add(blob(1, size << 20), Class::Round, vec![], waiter), NextStep::None);
            answers.push(answer);
        }
        (downloads, answers)
    }

    /// Has the store begin the blob whose turn it is; its size in MiB.
    fn begun(downloads: &mut Downloads, store: &crate::store::Store, now: Instant) -> u64 {
        let blob = downloads.begin().unwrap();
        store.forget(&blob.root).unwrap();
        let partial = store.begin(blob).unwrap();
        let other = BlobRef { size: blob.size + 1, ..blob };
        assert!(downloads.begun(&other, partial.clone(), now).is_none(), "it is another size's turn");
        assert!(downloads.begun(&blob, partial, now).is_some());
        blob.size >> 20
    }

    #[test]
    fn a_false_size_that_is_named_first_does_not_shut_out_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path().join("store"), 1 << 30).unwrap();
        let (mut downloads, mut answers) = of_sizes(&[4, 3]);
        let mut now = Instant::now();
        let root = blob(1, 0).root;
        // Each has its turns, twice as long each time.
        for (size, turn) in [(4, TURN), (3, TURN), (4, 2 * TURN), (3, 2 * TURN), (4, 4 * TURN)] {
            assert_eq!(begun(&mut downloads, &store, now), size);
            assert!(downloads.take_turns(now + turn - Duration::from_millis(1)).is_empty());
            now += turn;
            assert_eq!(downloads.take_turns(now), [root]);
        }
        assert_eq!(begun(&mut downloads, &store, now), 3);
        // What is whole proves its size.
        downloads.finish(&root, &Ok(()));
        assert!(matches!(answers[1].try_recv(), Ok(Ok(()))));
        let told = answers[0].try_recv();
        assert!(matches!(told, Ok(Err(FetchError::TwoSizes { other: 3_145_728, .. }))), "{told:?}");
        assert!(downloads.is_empty() && downloads.begin().is_none());
    }

    #[test]
    fn a_size_that_ends_or_is_given_up_makes_way_and_counts_like_any_other() {
        let (mut downloads, mut answers) = of_sizes(&[4, 3, 2]);
        assert_eq!(downloads.begin().unwrap().size, 4 << 20);
        assert!(downloads.take_turns(Instant::now() + 9 * TURN).is_empty(), "the store is at work on it");
        downloads.finish(&blob(1, 0).root, &Err(FetchError::TooMany(0)));
        assert!(matches!(answers[0].try_recv(), Ok(Err(FetchError::TooMany(0)))));
        assert_eq!(downloads.begin().unwrap().size, 3 << 20);
        drop(answers.remove(1));
        assert_eq!(downloads.expire(Instant::now(), late), [(blob(1, 0).root, false)]);
        assert_eq!(downloads.begin().unwrap().size, 2 << 20);
        assert!(answers[1].try_recv().is_err(), "nothing is wrong with it yet");
        for size in 3..11 {
            let (waiter, _answer) = waiter(Instant::now());
            assert_eq!(downloads.add(blob(1, size << 20), Class::Data, vec![], waiter), NextStep::None);
        }
        let (waiter, mut answer) = waiter(Instant::now());
        assert_eq!(downloads.add(blob(1, 99 << 20), Class::Data, vec![], waiter), NextStep::Refused);
        assert!(matches!(answer.try_recv(), Ok(Err(FetchError::TooMany(9)))));
    }

    #[test]
    fn each_waiter_has_its_own_time_and_the_most_urgent_class_counts() {
        let now = Instant::now();
        let mut downloads = Downloads::new(1, 9);
        let (soon, mut first) = waiter(now + Duration::from_secs(1));
        let (later, mut second) = waiter(now + Duration::from_secs(5));
        downloads.add(blob(1, 3 << 20), Class::Data, vec![], soon);
        downloads.add(blob(1, 3 << 20), Class::Round, vec![], later);
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
