//! The loss of a state on held-out text: for whoever watches a run, never for anything that is agreed.
//!
//! Which sequences, and in which order; how many there is time for, the caller decides while it goes on.

use covey_proto::run::Model;
use covey_trainer::data::Dataset;
use covey_trainer::evaluate::Evaluation;
use covey_trainer::{BackendError, Batch, BatchError, Device, LanguageModel, LoadError, open_backend};
use std::io::Read;
use std::sync::Arc;

/// Sequences of a batch: more only takes memory. Losses are added up batch by batch, so this is part of their bits.
const BATCH: usize = 8;

/// Why a state has no loss.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The state cannot be read.
    #[error("the state: {0}")]
    State(#[from] LoadError),
    /// The device refuses, or the loss is not finite.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The data is not the model's.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Sequences evaluated.
    pub done: u64,
    /// Sequences that there are.
    pub all: u64,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldoutLoss {
    /// Mean nats a token; not a number if there are no sequences.
    pub loss: f64,
    /// Sequences that it is the mean of: fewer than were asked for, if the evaluation was told to stop.
    pub sequences: u64,
}

/// Evaluates states of one model on one data set. Takes the memory of a language model from the first evaluation on.
pub struct Evaluator {
    device: Device,
    model: Model,
    data: Arc<Dataset>,
    open: Option<Box<dyn LanguageModel>>,
}

impl Evaluator {
    /// For this model and data, on all threads of `device`; opened when it is needed.
    pub fn new(device: Device, data: Arc<Dataset>, model: &Model) -> Evaluator {
        Evaluator { device, model: model.clone(), data, open: None }
    }

    /// On this data from now on.
    pub fn judge_by(&mut self, data: &Arc<Dataset>) {
        self.data = data.clone();
    }

    /// Mean loss of the parameters that `state` gives (as bytes, to the end) over at most `sequences` held-out sequences,
    /// spread evenly over all of them.
    ///
    /// `go_on` is told of the progress again and again, every second or so of a larger model, and says whether to go on.
    /// An evaluation that is stopped has seen sequences of the whole text, not only of its beginning; one that is not gives
    /// the same bits on any number of threads.
    ///
    /// # Errors
    /// The state cannot be read, the device refuses, or the loss is not finite.
    pub fn loss(
        &mut self,
        state: &mut dyn Read,
        sequences: u64,
        go_on: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<HeldoutLoss, EvaluationError> {
        let Evaluator { device, model, data, open } = self;
        let loaded = match open {
            Some(loaded) => loaded,
            None => open.insert(open_backend(device, model)?.model()?),
        };
        loaded.load(state)?;
        let there = data.heldout_samples(model.sequence);
        let all = sequences.min(there);
        let indices: Vec<u64> = (0..all).map(|i| i * there / all).collect();
        let batches: Vec<&[u64]> = indices.chunks(BATCH).collect();
        // Of each batch that is done, tokens and loss.
        let mut found: Vec<Option<(u64, f64)>> = vec![None; batches.len()];
        let mut done = 0;
        for numbers in spread(batches.len()).chunks(loaded.batches_at_once().max(1)) {
            let at_once = numbers.iter().map(|number| data.heldout_batch(model, batches[*number].iter().copied()));
            let at_once = at_once.collect::<Result<Vec<Batch>, _>>()?;
            for ((number, batch), loss) in numbers.iter().zip(&at_once).zip(loaded.losses(&at_once)?) {
                found[*number] = Some((batch.predictions(), loss));
                done += batch.sequences() as u64;
            }
            if !go_on(Progress { done, all }) {
                break;
            }
        }
        // In the order of the text, whatever the order of evaluation.
        Ok(HeldoutLoss { loss: Evaluation::of(found.into_iter().flatten()).loss, sequences: done })
    }
}

/// 0 to `count`, so ordered that the first few, however few, are spread evenly: by the bits of the number, turned round.
fn spread(count: usize) -> Vec<usize> {
    let bits = count.next_power_of_two().trailing_zeros();
    let turned = |number: usize| if bits == 0 { 0 } else { number.reverse_bits() >> (usize::BITS - bits) };
    (0..count.next_power_of_two()).map(turned).filter(|number| *number < count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{made_up_text, tiny_run};
    use covey_sparseloco::state::as_le_bytes;
    use covey_trainer::genesis::initial_state;

    #[test]
    fn the_first_few_are_spread_evenly() {
        assert_eq!(spread(8), [0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(spread(5), [0, 4, 2, 1, 3]);
        assert_eq!((spread(0), spread(1)), (vec![], vec![0]));
        let mut all = spread(1000);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
    }

    #[test]
    fn threads_change_no_bit_and_whoever_stops_early_is_told_of_how_many() {
        let (_folder, data) = made_up_text(3);
        let data = Arc::new(data);
        let model = tiny_run(data.digest()).model;
        let state = initial_state(&model).unwrap();
        let loss = |threads, go_on: &mut dyn FnMut(Progress) -> bool| {
            let mut evaluator = Evaluator::new(Device::Cpu { threads }, data.clone(), &model);
            evaluator.loss(&mut as_le_bytes(&state), 60, go_on).unwrap()
        };
        let mut seen = Vec::new();
        let whole = loss(1, &mut |progress| {
            seen.push(progress);
            true
        });
        let sequences = data.heldout_samples(model.sequence).min(60);
        assert!(sequences > 16, "{sequences} held-out sequences say nothing here");
        assert_eq!(whole.sequences, sequences);
        assert_eq!((seen[0].done, seen.last()), (8, Some(&Progress { done: sequences, all: sequences })));
        for threads in [2, 3] {
            assert_eq!(loss(threads, &mut |_| true), whole);
        }
        let part = loss(1, &mut |progress| progress.done < 9);
        assert_eq!(part.sequences, 16.min(sequences));
        assert!((part.loss / whole.loss - 1.0).abs() < 0.1, "{part:?} of {whole:?}");
        let short = Evaluator::new(Device::Cpu { threads: 1 }, data.clone(), &model).loss(
            &mut as_le_bytes(&state[1..]),
            60,
            &mut |_| true,
        );
        assert!(matches!(short, Err(EvaluationError::State(_))));
    }
}
