//! How well a state predicts text: the mean loss over batches. Which text, and how much of it, others decide.

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean nats a token over all batches, each token alike; not a number if there was none.
    pub loss: f64,
    /// Tokens predicted.
    pub tokens: u64,
}

impl Evaluation {
    /// The mean of batches' losses, each with its number of tokens, added up in their order.
    pub fn of(losses: impl IntoIterator<Item = (u64, f64)>) -> Evaluation {
        let add = |(nats, all): (f64, u64), (tokens, loss): (u64, f64)| (nats + loss * tokens as f64, all + tokens);
        let (nats, tokens) = losses.into_iter().fold((0.0, 0), add);
        Evaluation { loss: nats / tokens as f64, tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Batch, LanguageModel};
    use crate::cpu::CpuModel;
    use crate::testing::{small_model, tokens};
    use covey_sparseloco::state::as_le_bytes;

    #[test]
    fn batches_of_different_sizes_count_by_token() {
        let model = small_model();
        let mut loaded = CpuModel::new(&model, 1);
        loaded.load(&mut as_le_bytes(&crate::genesis::initial_state(&model).unwrap())).unwrap();
        let all = tokens(&model, 5, 3);
        let (small, large) = all.split_at(model.sequence as usize + 1);
        let batches = [small, large].map(|part| Batch::new(&model, part.to_vec()).unwrap());
        let mut mean = |batches: &[Batch]| {
            Evaluation::of(batches.iter().map(Batch::predictions).zip(loaded.losses(batches).unwrap()))
        };
        let (parts, whole) = (mean(&batches), mean(&[Batch::new(&model, all).unwrap()]));
        assert!((parts.loss - whole.loss).abs() < 1e-6 && parts.tokens == whole.tokens);
    }

    #[test]
    fn nothing_to_evaluate_is_not_a_number() {
        assert!(Evaluation::of([]).loss.is_nan());
    }
}
