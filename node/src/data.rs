//! The data sets of a run's phases: which of them a round trains on, and whether they are the run's.

use covey_proto::run::Run;
use covey_proto::{Digest, Round};
use covey_trainer::data::Dataset;
use std::sync::Arc;

/// A data set for each of a run's phases, in their order. Tokens are held once, however often this is cloned.
#[derive(Clone, Debug)]
pub struct PhaseData(Arc<[Arc<Dataset>]>);

/// Why data sets are not a run's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PhaseDataError {
    /// As many data sets as the run has phases are needed.
    #[error("{got} training data sets; the run has {needed} phases: give one for each, in their order")]
    Count {
        /// Data sets that came.
        got: usize,
        /// The run's phases.
        needed: usize,
    },
    /// Another data set.
    #[error("the training data of phase {phase} is {got}, but the run's is {needed}: prepare or copy that data set")]
    Other {
        /// Phase, from 0.
        phase: usize,
        /// As given.
        got: Digest,
        /// The run's.
        needed: Digest,
    },
    /// The run counts more sequences than there are.
    #[error("the training data of phase {phase} has {got} sequences; the run counts {needed}: its samples are wrong")]
    TooFew {
        /// Phase, from 0.
        phase: usize,
        /// Sequences of the data set.
        got: u64,
        /// As the run counts.
        needed: u64,
    },
}

impl PhaseData {
    /// The data sets of `run`, checked against it.
    ///
    /// # Errors
    /// Not one for each phase, another one, or one with fewer sequences than the run counts.
    pub fn new(run: &Run, sets: impl IntoIterator<Item = Arc<Dataset>>) -> Result<PhaseData, PhaseDataError> {
        let sets: Arc<[Arc<Dataset>]> = sets.into_iter().collect();
        let needed = run.phases.len() + 1;
        if sets.len() != needed {
            return Err(PhaseDataError::Count { got: sets.len(), needed });
        }
        let firsts = std::iter::once(0).chain(run.phases.iter().map(|phase| phase.from));
        for (phase, (set, from)) in sets.iter().zip(firsts).enumerate() {
            let data = run.data_of(Round(from));
            if set.digest() != data.digest {
                return Err(PhaseDataError::Other { phase, got: set.digest(), needed: data.digest });
            }
            let samples = set.samples(run.model.sequence);
            if samples < data.samples {
                return Err(PhaseDataError::TooFew { phase, got: samples, needed: data.samples });
            }
        }
        Ok(PhaseData(sets))
    }

    /// What `round` trains on.
    pub fn of(&self, run: &Run, round: Round) -> &Arc<Dataset> {
        // As many sets as phases: checked when this was made.
        &self.0[run.phase_of(round).min(self.0.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{made_up_text, tiny_run};
    use covey_proto::run::Phase;

    #[test]
    fn each_phase_has_its_data_and_another_runs_is_refused() {
        let (_one, one) = made_up_text(1);
        let (_two, two) = made_up_text(2);
        let (one, two) = (Arc::new(one), Arc::new(two));
        let mut run = tiny_run(one.digest());
        let samples = two.samples(run.model.sequence);
        run.phases = vec![Phase { from: 3, digest: two.digest(), samples }];
        let fault =
            |run: &Run, sets: &[&Arc<Dataset>]| PhaseData::new(run, sets.iter().map(|set| (*set).clone())).unwrap_err();
        assert_eq!(fault(&run, &[&one]), PhaseDataError::Count { got: 1, needed: 2 });
        assert_eq!(
            fault(&run, &[&one, &one]),
            PhaseDataError::Other { phase: 1, got: one.digest(), needed: two.digest() }
        );
        let data = PhaseData::new(&run, [one.clone(), two.clone()]).unwrap();
        let digests = [0, 2, 3, 9].map(|round| data.of(&run, Round(round)).digest());
        assert_eq!(digests, [one.digest(), one.digest(), two.digest(), two.digest()]);
        run.phases[0].samples += 1;
        let few = PhaseDataError::TooFew { phase: 1, got: samples, needed: samples + 1 };
        assert_eq!(fault(&run, &[&one, &two]), few);
    }
}
