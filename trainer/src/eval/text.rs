//! A text's log-likelihood in windows that fit the model, each token predicted once, as lm-eval's `loglikelihood_rolling`.

use crate::CONTEXT;

/// The windows of a text of these tokens, of at most `sequence` + 1 tokens each; what is read again has [`CONTEXT`]. The first
/// token is predicted after `begin`. The last window is a full one, so that its tokens have as much before them as can be
/// (`lm_eval/utils.py`, `get_rolling_token_windows` with one token of context).
pub fn windows(tokens: &[u32], begin: u32, sequence: usize) -> Vec<Vec<u32>> {
    let sequence = sequence.max(1);
    let first = tokens.len().min(sequence);
    let mut windows = Vec::new();
    if first > 0 {
        windows.push([&[begin | CONTEXT], &tokens[..first]].concat());
    }
    let mut predicted = first;
    while predicted < tokens.len() {
        let new = (tokens.len() - predicted).min(sequence);
        let end = predicted + new;
        let from = end.saturating_sub(sequence + 1);
        let read = tokens[from..predicted].iter().map(|token| token | CONTEXT);
        windows.push(read.chain(tokens[predicted..end].iter().copied()).collect());
        predicted = end;
    }
    windows
}

/// What a text's log-likelihood says, over one text or many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Σ −log p, in nats.
    pub nats: f64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Words: parts between white space, as Python's `re.split(r"\s+", text)` counts them.
    pub words: u64,
    /// Bytes of UTF-8.
    pub bytes: u64,
}

impl Perplexity {
    /// Of one text.
    pub fn new(text: &str, tokens: usize, nats: f64) -> Perplexity {
        let inner = text.split_whitespace().count() as u64;
        // Python's split gives an empty part before leading and behind trailing white space.
        let edges = [text.starts_with(char::is_whitespace), text.ends_with(char::is_whitespace)];
        let words = inner + edges.into_iter().filter(|edge| *edge).count() as u64;
        Perplexity { nats, tokens: tokens as u64, words: words.max(1), bytes: text.len() as u64 }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Perplexity) -> Perplexity {
        Perplexity {
            nats: self.nats + other.nats,
            tokens: self.tokens + other.tokens,
            words: self.words + other.words,
            bytes: self.bytes + other.bytes,
        }
    }

    /// e^(nats ÷ words).
    pub fn by_word(&self) -> f64 {
        (self.nats / self.words as f64).exp()
    }

    /// e^(nats ÷ bytes).
    pub fn by_byte(&self) -> f64 {
        (self.nats / self.bytes as f64).exp()
    }

    /// Bits a byte.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }

    /// Nats a token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in lm-eval's documentation: ten tokens, a context of four.
    #[test]
    fn each_token_is_predicted_once_and_the_last_window_is_full() {
        let tokens: Vec<u32> = (0..10).collect();
        let shown: Vec<String> = windows(&tokens, 99, 4)
            .iter()
            .map(|window| {
                let say = |token: &u32| {
                    if token & CONTEXT != 0 { format!("({})", token & !CONTEXT) } else { token.to_string() }
                };
                window.iter().map(say).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(shown, ["(99) 0 1 2 3", "(3) 4 5 6 7", "(5) (6) (7) 8 9"]);
        assert_eq!(windows(&tokens[..2], 99, 4), [vec![99 | CONTEXT, 0, 1]]);
        assert!(windows(&[], 99, 4).is_empty());
    }

    #[test]
    fn perplexities_are_by_word_and_byte() {
        let one = Perplexity::new(" two words\n", 3, 4.0);
        assert_eq!((one.words, one.bytes), (4, 11));
        let both = one.plus(Perplexity::new("one", 1, 2.0));
        assert_eq!((both.words, both.bytes, both.tokens), (5, 14, 4));
        assert!((both.by_word() - 1.2_f64.exp()).abs() < 1e-12);
        assert!((both.bits_per_byte() - 6.0 / 14.0 / std::f64::consts::LN_2).abs() < 1e-12);
        assert!((both.by_byte().ln() * 14.0 - 6.0).abs() < 1e-9 && both.nats_per_token() == 1.5);
    }
}
