//! The one model that a swarm's supervisor has: opened when the first state is to be judged, and again when it is to work
//! on another number of threads, the former one dropped before.

use crate::evaluation::Evaluator;
use covey_proto::run::Model;
use covey_trainer::data::Dataset;
use std::io::Read;
use std::sync::Arc;

/// Judges states of one model.
pub(super) struct Judge {
    data: Arc<Dataset>,
    model: Model,
    threads: usize,
    evaluator: Option<Evaluator>,
}

/// What came of it.
pub(super) struct Judgement {
    /// Nats a token.
    pub loss: f64,
    /// Held-out sequences behind it.
    pub sequences: u64,
    /// Whether these are all that were asked for.
    pub is_whole: bool,
}

impl Judge {
    /// With nothing opened yet.
    pub(super) fn new(data: Arc<Dataset>, model: &Model) -> Judge {
        Judge { data, model: model.clone(), threads: 1, evaluator: None }
    }

    /// The threads of what is judged from now on.
    pub(super) fn set_threads(&mut self, threads: usize) {
        if threads != self.threads {
            (self.threads, self.evaluator) = (threads, None);
        }
    }

    /// The loss on up to `sequences` held-out sequences. After every few, `goes_on` is told how many are done of how many,
    /// and says whether there shall be more. None if there is no loss; the log says why.
    pub(super) fn loss(
        &mut self,
        state: &mut impl Read,
        sequences: u64,
        mut goes_on: impl FnMut(u64, u64) -> bool,
    ) -> Option<Judgement> {
        let evaluator = self.evaluator.get_or_insert_with(|| Evaluator::new(self.data.clone(), &self.model));
        let mut bytes = Vec::new();
        state.read_to_end(&mut bytes).ok()?;
        let floats: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let all = sequences.min(self.data.heldout_samples(self.model.sequence));
        goes_on(0, all);
        match evaluator.loss(&floats, sequences) {
            Ok(loss) => Some(Judgement { loss, sequences: all, is_whole: true }),
            Err(error) => {
                tracing::error!(%error, "a state has no held-out loss");
                None
            }
        }
    }
}
