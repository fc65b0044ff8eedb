//! What counting reaches without learning: the bar that a model must pass to have learnt anything.
//!
//! Both models are exact counts over the training tokens, judged on the held-out ones in order. Unigram: add one.
//! Bigram: Witten–Bell interpolation, p(b|a) = (c(ab) + T(a)·p₁(b)) / (c(a) + T(a)) with T(a) the number of different
//! successors of a (Witten and Bell 1991), which has no constant to tune.

use super::Dataset;
use super::tokens::Tokens;
use crate::CONTEXT;
use std::collections::HashMap;

/// Losses of counting models on held-out text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Nats a token when all tokens are as likely.
    pub uniform_nats: f64,
    /// Nats a token by frequency.
    pub unigram_nats: f64,
    /// Nats a token by the token before.
    pub bigram_nats: f64,
    /// [`unigram_nats`](Self::unigram_nats) as bits a byte of text.
    pub unigram_bits_per_byte: f64,
    /// [`bigram_nats`](Self::bigram_nats) as bits a byte of text.
    pub bigram_bits_per_byte: f64,
}

/// Counts the training tokens and judges the counts on the held-out ones. Takes time linear in the tokens.
pub fn baseline(dataset: &Dataset) -> Baseline {
    let (unigram_nats, bigram_nats) = nats(dataset.train(), dataset.heldout(), dataset.vocabulary());
    Baseline {
        uniform_nats: f64::from(dataset.vocabulary()).ln(),
        unigram_nats,
        bigram_nats,
        unigram_bits_per_byte: dataset.bits_per_byte(unigram_nats),
        bigram_bits_per_byte: dataset.bits_per_byte(bigram_nats),
    }
}

/// Mean nats of every held-out token that is learnt, but the first, by (unigram, bigram).
fn nats(train: &Tokens, heldout: &Tokens, vocabulary: u32) -> (f64, f64) {
    let mut single = vec![0_u64; vocabulary as usize];
    let mut leading = vec![0_u64; vocabulary as usize];
    let mut successors = vec![0_u64; vocabulary as usize];
    let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
    for token in train.iter() {
        single[token_of(token) as usize] += 1;
    }
    for (first, second) in train.iter().zip(train.iter().skip(1)).map(|(a, b)| (token_of(a), token_of(b))) {
        let count = pairs.entry((first, second)).or_default();
        *count += 1;
        leading[first as usize] += 1;
        successors[first as usize] += u64::from(*count == 1);
    }
    let total = train.len() as f64 + f64::from(vocabulary);
    let (mut unigram, mut bigram, mut count) = (0.0, 0.0, 0_u64);
    for (first, second) in heldout.iter().zip(heldout.iter().skip(1)).filter(|(_, second)| second & CONTEXT == 0) {
        let (first, second) = (token_of(first), token_of(second));
        let (a, b) = (first as usize, second as usize);
        count += 1;
        let by_frequency = (single[b] as f64 + 1.0) / total;
        unigram -= by_frequency.ln();
        let (seen, different) = (leading[a] as f64, successors[a] as f64);
        let together = pairs.get(&(first, second)).copied().unwrap_or(0) as f64;
        bigram -= match leading[a] {
            0 => by_frequency.ln(),
            _ => ((together + different * by_frequency) / (seen + different)).ln(),
        };
    }
    let count = count.max(1) as f64;
    (unigram / count, bigram / count)
}

fn token_of(token: u32) -> u32 {
    token & !CONTEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_after_every_token() {
        let train = [1, 2, 3, 1, 2, 1, 1, 0, 2, 2, 3];
        let train = Tokens::Narrow(train.to_vec());
        for a in 0..6_u16 {
            let sums = (0..6_u16).fold((0.0, 0.0), |(one, two), b| {
                let (unigram, bigram) = nats(&train, &Tokens::Narrow(vec![a, b]), 6);
                (one + (-unigram).exp(), two + (-bigram).exp())
            });
            assert!((sums.0 - 1.0).abs() < 1e-12 && (sums.1 - 1.0).abs() < 1e-12, "after {a}: {sums:?}");
        }
    }

    #[test]
    fn a_bigram_learns_what_a_unigram_cannot() {
        let train: Vec<u16> = (0..400).map(|n| n % 4).collect();
        let (unigram, bigram) = nats(&Tokens::Narrow(train.clone()), &Tokens::Narrow(train[..40].to_vec()), 4);
        assert!((unigram - 4.0_f64.ln()).abs() < 0.01, "{unigram}");
        assert!(bigram < 0.02, "{bigram}");
    }
}
