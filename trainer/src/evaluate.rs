//! How well a state predicts text: mean loss over batches, and bits a byte, which tokenizers cannot flatter.

use crate::backend::{Backend, BackendError, Batch};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean nats a token over all batches, each token alike; not a number if there was none.
    pub loss: f64,
    /// Tokens predicted.
    pub tokens: u64,
}

impl Evaluation {
    /// e^loss: of how many tokens the model is as unsure as of equally likely ones.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }

    /// Bits that a byte of the text costs, when the predicted tokens stand for `text_bytes` bytes:
    /// loss · tokens ÷ ln 2 ÷ bytes.
    pub fn bits_per_byte(&self, text_bytes: u64) -> f64 {
        self.loss * self.tokens as f64 / std::f64::consts::LN_2 / text_bytes as f64
    }
}

/// Mean loss of what is loaded over `batches`.
///
/// # Errors
/// Another model's batch, or a loss that is not finite.
pub fn evaluate<'a>(
    backend: &mut dyn Backend,
    batches: impl IntoIterator<Item = &'a Batch>,
) -> Result<Evaluation, BackendError> {
    let (mut nats, mut tokens) = (0.0, 0);
    for batch in batches {
        nats += backend.loss(batch)? * batch.predictions() as f64;
        tokens += batch.predictions();
    }
    Ok(Evaluation { loss: nats / tokens as f64, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use crate::testing::{small_model, tokens};

    #[test]
    fn batches_of_different_sizes_count_by_token() {
        let model = small_model();
        let mut backend = CpuBackend::new(&model);
        backend.load(&crate::genesis::initial_state(&model)).unwrap();
        let all = tokens(&model, 5, 3);
        let (small, large) = all.split_at(model.sequence as usize + 1);
        let batches = [small, large].map(|part| Batch::new(&model, part.to_vec()).unwrap());
        let parts = evaluate(&mut backend, &batches).unwrap();
        let whole = evaluate(&mut backend, [&Batch::new(&model, all).unwrap()]).unwrap();
        assert!((parts.loss - whole.loss).abs() < 1e-6 && parts.tokens == whole.tokens);
        let even = Evaluation { loss: std::f64::consts::LN_2 * 8.0, tokens: 100 };
        assert!((even.bits_per_byte(100) - 8.0).abs() < 1e-12 && (even.perplexity() - 256.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_to_evaluate_is_not_a_number() {
        let mut backend = CpuBackend::new(&small_model());
        assert!(evaluate(&mut backend, []).unwrap().loss.is_nan());
    }
}
