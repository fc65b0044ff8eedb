//! The states that a node stands on: the newest in memory, once, and the one before it on the disk.
//!
//! The outer step is taken in place: whoever applies a round takes the parameters with it and brings the next ones back.
//! Should it be stopped on the way they are lost, and read from the disk when they are needed again.

use crate::disk::{Disk, DiskError};
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use std::sync::Arc;
use tokio::sync::watch;

/// States that a node knows: the newest, and the one before it, from which it recomputes when a majority disagrees.
const STATES_MAX: usize = 2;

/// A state whose root and head are known, and which is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// After which round, with which head.
    pub tip: Tip,
    /// The state root.
    pub root: Digest,
}

/// A state with its parameters in memory.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Which one.
    pub sealed: Sealed,
    /// The parameters, `[elements]`.
    pub parameters: Arc<Vec<f32>>,
}

/// A state to start from. Its parameters are read from the disk where they are not in memory.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// Which one.
    pub sealed: Sealed,
    parameters: Option<Arc<Vec<f32>>>,
}

/// A state that is on the disk, as far as the node knows, cannot be read from there.
#[derive(Debug, thiserror::Error)]
pub(super) enum BaseError {
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no such file, or another state is in it.
    #[error("the state of head {0} is neither in memory nor on the disk")]
    Gone(Digest),
}

impl Base {
    /// The base itself, whose parameters are nobody else's; what stays finds them on the disk.
    pub(super) fn take(&mut self) -> Base {
        Base { sealed: self.sealed, parameters: self.parameters.take() }
    }

    /// The parameters, `[elements]`; reads them, which blocks, unless they are in memory.
    ///
    /// # Errors
    /// They are nowhere.
    pub(super) fn parameters(self, disk: &Disk, elements: usize) -> Result<Arc<Vec<f32>>, BaseError> {
        if let Some(parameters) = self.parameters {
            return Ok(parameters);
        }
        let Sealed { tip, root } = self.sealed;
        let saved = disk.state(tip.round, elements)?.filter(|saved| (saved.tip, saved.root) == (tip, root));
        Ok(Arc::new(saved.ok_or(BaseError::Gone(tip.head))?.parameters))
    }
}

impl From<State> for Base {
    fn from(State { sealed, parameters }: State) -> Base {
        Base { sealed, parameters: Some(parameters) }
    }
}

/// The head of a base: known, or told once it is; closed if it never will be.
pub(super) type AwaitedHead = watch::Receiver<Option<Digest>>;

/// Parameters after a round whose head is still being computed.
struct Headless {
    round: Round,
    parameters: Arc<Vec<f32>>,
    /// Where the head is told to whoever trains from them.
    head: watch::Sender<Option<Digest>>,
}

/// Owns what a node has of states.
pub(super) struct States {
    /// The newest last; none until the run's first state has come.
    sealed: Vec<Sealed>,
    /// The newest one's parameters, unless somebody has taken them.
    newest: Option<Arc<Vec<f32>>>,
    headless: Option<Headless>,
}

impl States {
    /// A node that stands here.
    pub(super) fn new(state: State) -> States {
        States { sealed: vec![state.sealed], newest: Some(state.parameters), headless: None }
    }

    /// A node that has no state yet.
    pub(super) fn none() -> States {
        States { sealed: Vec::new(), newest: None, headless: None }
    }

    /// Whether there is none yet.
    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// The newest sealed state's root; zero while there is none.
    pub(super) fn root(&self) -> Digest {
        self.sealed.last().map_or(Digest::ZERO, |sealed| sealed.root)
    }

    /// All that are known, the newest last.
    pub(super) fn all(&self) -> &[Sealed] {
        &self.sealed
    }

    /// The sealed state with this head.
    pub(super) fn of_head(&self, head: Digest) -> Option<Sealed> {
        self.sealed.iter().copied().find(|sealed| sealed.tip.head == head)
    }

    /// The state with this head, to be read.
    pub(super) fn base(&self, head: Digest) -> Option<Base> {
        let sealed = self.of_head(head)?;
        let is_newest = self.sealed.last() == Some(&sealed);
        Some(Base { sealed, parameters: self.newest.clone().filter(|_| is_newest) })
    }

    /// The state with this head, to be changed: nobody else has its parameters any more.
    pub(super) fn take(&mut self, head: Digest) -> Option<Base> {
        let base = self.base(head)?;
        if base.parameters.is_some() {
            self.newest = None;
        }
        Some(base)
    }

    /// The parameters after a round are there, but not their head.
    pub(super) fn step(&mut self, round: Round, parameters: Arc<Vec<f32>>) {
        self.headless = Some(Headless { round, parameters, head: watch::Sender::new(None) });
    }

    /// The parameters after `round`, whose head will be told.
    pub(super) fn headless(&self, round: Option<Round>) -> Option<(Arc<Vec<f32>>, AwaitedHead)> {
        let found = self.headless.as_ref().filter(|headless| Some(headless.round) == round)?;
        Some((found.parameters.clone(), found.head.subscribe()))
    }

    /// What was stepped has another head than it would have had: whoever waits for it waits in vain.
    pub(super) fn forget_headless(&mut self) {
        self.headless = None;
    }

    /// A round's state is complete and on the disk.
    pub(super) fn seal(&mut self, state: State) {
        let State { sealed, parameters } = state;
        if let Some(headless) = self.headless.take() {
            // Nobody may train from them: then nobody hears it.
            headless.head.send_replace(Some(sealed.tip.head));
        }
        self.sealed.push(sealed);
        let spare = self.sealed.len().saturating_sub(STATES_MAX);
        self.sealed.drain(..spare);
        self.newest = Some(parameters);
    }

    /// The node stands here now, wherever it stood before: states of this round and later ones are others'.
    pub(super) fn stand_at(&mut self, state: State) {
        self.sealed.retain(|sealed| sealed.tip.round < state.sealed.tip.round);
        self.forget_headless();
        self.seal(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(round: u32, value: f32) -> State {
        let tip = Tip { round: Some(Round(round)), head: Digest::of(&round.to_le_bytes()) };
        State { sealed: Sealed { tip, root: Digest::of(&value.to_le_bytes()) }, parameters: Arc::new(vec![value]) }
    }

    fn head(round: u32) -> Digest {
        Digest::of(&round.to_le_bytes())
    }

    fn folder() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        (folder, disk)
    }

    fn on_disk(disk: &Disk, state: &State) {
        disk.write_state(&state.sealed.tip, state.sealed.root, &state.parameters).unwrap();
    }

    #[test]
    fn the_newest_is_in_memory_and_the_one_before_it_is_read() {
        let (_folder, disk) = folder();
        on_disk(&disk, &state(1, 1.5));
        let mut states = States::new(state(1, 1.5));
        states.seal(state(2, 2.5));
        assert_eq!(*states.base(head(2)).unwrap().parameters(&disk, 1).unwrap(), [2.5]);
        assert_eq!(*states.base(head(1)).unwrap().parameters(&disk, 1).unwrap(), [1.5]);
        states.seal(state(3, 3.5));
        assert!(states.base(head(1)).is_none(), "two are enough");
        assert_eq!(states.root(), state(3, 3.5).sealed.root);
    }

    #[test]
    fn taken_parameters_are_nobody_elses_and_come_from_the_disk_if_they_are_lost() {
        let (_folder, disk) = folder();
        let mut states = States::new(state(1, 1.5));
        let taken = states.take(head(1)).unwrap().parameters(&disk, 1).unwrap();
        assert_eq!(Arc::strong_count(&taken), 1, "they can be changed in place");
        let lost = states.base(head(1)).unwrap();
        assert!(matches!(lost.clone().parameters(&disk, 1), Err(BaseError::Gone(of)) if of == head(1)));
        on_disk(&disk, &state(1, 9.5));
        assert!(lost.clone().parameters(&disk, 1).is_err(), "a state with another root is another state");
        on_disk(&disk, &state(1, 1.5));
        assert_eq!(*lost.parameters(&disk, 1).unwrap(), [1.5]);
    }

    #[test]
    fn who_trains_from_parameters_without_a_head_is_told_it_or_that_there_is_none() {
        let mut states = States::new(state(1, 1.5));
        states.step(Round(2), Arc::new(vec![2.5]));
        assert!(states.headless(Some(Round(1))).is_none());
        let (parameters, awaited) = states.headless(Some(Round(2))).unwrap();
        assert_eq!((&*parameters, *awaited.borrow()), (&vec![2.5], None));
        states.seal(state(2, 2.5));
        assert_eq!(*awaited.borrow(), Some(head(2)));
        states.step(Round(3), Arc::new(vec![3.5]));
        let (_, awaited) = states.headless(Some(Round(3))).unwrap();
        states.stand_at(state(2, 7.5));
        assert!(awaited.has_changed().is_err(), "it will never be told");
        assert_eq!(
            states.all().iter().map(|sealed| sealed.root).collect::<Vec<_>>(),
            [state(1, 1.5).sealed.root, state(2, 7.5).sealed.root]
        );
    }
}
