//! Continues a prompt, a token at a time.

use super::files::END_TOKENS;
use crate::backend::{BackendError, LanguageModel};
use covey_proto::derive;
use covey_proto::run::Model;
use tokenizers::Tokenizer;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The most tokens to add.
    pub tokens_max: usize,
    /// 0: always the likeliest token, the lower of two as likely. Above: drawn from softmax(logits/temperature).
    pub temperature: f64,
    /// What draws derive from; the same seed, state and machine draw the same text.
    pub seed: u64,
}

/// Why a prompt could not be continued.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The tokenizer failed.
    #[error("the tokenizer fails: {0}")]
    Tokenizer(String),
    /// Nothing to start from.
    #[error("the prompt is empty, and the tokenizer has no token that begins a text")]
    Empty,
    /// A temperature that is none.
    #[error("the temperature is {0}; it must be 0 to 100")]
    Temperature(f64),
    /// The model refused: a tokenizer of another model, say.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Continues `prompt` with what is loaded in `loaded`, and gives what was added. `on_text` gets it piece by piece, as
/// soon as its bytes are whole characters. Ends after `tokens_max` tokens or at the end of the text. The model sees the
/// last `model.sequence` tokens.
///
/// # Errors
/// An empty prompt where nothing begins a text, a tokenizer that is not the model's, a temperature that is none.
pub fn generate(
    loaded: &mut dyn LanguageModel,
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &str,
    sampling: &Sampling,
    on_text: &mut dyn FnMut(&str),
) -> Result<String, GenerateError> {
    if !(0.0..=100.0).contains(&sampling.temperature) {
        return Err(GenerateError::Temperature(sampling.temperature));
    }
    let failed = |error: tokenizers::Error| GenerateError::Tokenizer(error.to_string());
    let end = END_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
    let mut tokens = tokenizer.encode(prompt, false).map_err(failed)?.get_ids().to_vec();
    if tokens.is_empty() {
        tokens.push(end.ok_or(GenerateError::Empty)?);
    }
    let prompt_tokens = tokens.len();
    let mut draws = derive("covey/1/generate", &[&sampling.seed.to_le_bytes()]);
    let mut text = String::new();
    for _ in 0..sampling.tokens_max {
        let seen = &tokens[tokens.len().saturating_sub(model.sequence as usize)..];
        let logits = loaded.logits(seen)?;
        let last = &logits[logits.len() - model.vocabulary as usize..];
        let token = if sampling.temperature == 0.0 {
            likeliest(last)
        } else {
            let mut bytes = [0; 8];
            draws.fill(&mut bytes);
            // 53 bits: a uniform number in 0..1.
            drawn(last, sampling.temperature, (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64)
        };
        if Some(token) == end {
            break;
        }
        tokens.push(token);
        let whole = tokenizer.decode(&tokens[prompt_tokens..], true).map_err(failed)?;
        // A character may take several tokens; until then its bytes decode to U+FFFD.
        if let Some(more) = whole.strip_prefix(text.as_str()).filter(|more| !more.ends_with('\u{fffd}')) {
            on_text(more);
            text = whole;
        }
    }
    let whole = tokenizer.decode(&tokens[prompt_tokens..], true).map_err(failed)?;
    if let Some(more) = whole.strip_prefix(text.as_str()).filter(|more| !more.is_empty()) {
        on_text(more);
    }
    Ok(whole)
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// The token at which the cumulated softmax(logits/temperature) passes `share`, 0 to 1.
fn drawn(logits: &[f32], temperature: f64, share: f64) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| ((f64::from(*logit) - f64::from(most)) / temperature).exp();
    let mut left = share * logits.iter().map(weight).sum::<f64>();
    for (token, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return token as u32;
        }
    }
    // Rounding left nothing over: the likeliest is never wrong.
    likeliest(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_as_likely_the_lower_is_chosen() {
        assert_eq!(likeliest(&[0.0, 3.0, 1.0, 3.0]), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, f32::ln(3.0), f32::NEG_INFINITY];
        let shares = [0.0, 0.24, 0.26, 0.99];
        assert_eq!(shares.map(|share| drawn(&logits, 1.0, share)), [0, 0, 1, 1]);
        // At half the temperature the odds are squared: 1 to 9.
        assert_eq!([0.09, 0.11].map(|share| drawn(&logits, 0.5, share)), [0, 1]);
    }
}
