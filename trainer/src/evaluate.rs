//! How well a state predicts text: mean loss over batches, and bits a byte, which tokenizers cannot flatter.

use crate::backend::{BackendError, Batch, LanguageModel};

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

    /// Bits that a byte of the text costs, when the predicted tokens stand for `text_bytes` bytes:
    /// loss · tokens ÷ ln 2 ÷ bytes.
    pub fn bits_per_byte(&self, text_bytes: u64) -> f64 {
        self.loss * self.tokens as f64 / std::f64::consts::LN_2 / text_bytes as f64
    }
}

/// Mean loss of what is loaded over `batches`. All of them are worked on at once.
///
/// # Errors
/// Another model's batch, or a loss that is not finite.
pub fn evaluate(model: &mut dyn LanguageModel, batches: &[Batch]) -> Result<Evaluation, BackendError> {
    Ok(Evaluation::of(batches.iter().map(Batch::predictions).zip(model.losses(batches)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuModel;
    use crate::testing::{small_model, tokens};
    use covey_sparseloco::state::as_le_bytes;

    #[test]
    fn batches_of_different_sizes_count_by_token() {
        let model = small_model();
        let mut loaded = CpuModel::new(&model, 1);
        loaded.load(&mut as_le_bytes(&crate::genesis::initial_state(&model))).unwrap();
        let all = tokens(&model, 5, 3);
        let (small, large) = all.split_at(model.sequence as usize + 1);
        let batches = [small, large].map(|part| Batch::new(&model, part.to_vec()).unwrap());
        let parts = evaluate(&mut loaded, &batches).unwrap();
        let whole = evaluate(&mut loaded, &[Batch::new(&model, all).unwrap()]).unwrap();
        assert!((parts.loss - whole.loss).abs() < 1e-6 && parts.tokens == whole.tokens);
        let even = Evaluation { loss: std::f64::consts::LN_2 * 8.0, tokens: 100 };
        assert!((even.bits_per_byte(100) - 8.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_evaluate_is_not_a_number() {
        let model = small_model();
        let mut loaded = CpuModel::new(&model, 2);
        loaded.load(&mut as_le_bytes(&crate::genesis::initial_state(&model))).unwrap();
        assert!(evaluate(&mut loaded, &[]).unwrap().loss.is_nan());
    }
}
