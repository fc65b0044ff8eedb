//! Which token is next: logits in, a token out.
//!
//! What is applied, and in which order, is `transformers`' (generation/logits_process.py): the repetition penalty, then the
//! temperature, top-k, top-p, min-p. Each sees what the one before it left. No I/O; the same seed draws the same tokens.

use blake3::OutputReader;
use covey_proto::derive;
use std::collections::HashSet;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest token, the lower of two as likely. Above, to 100: drawn from softmax(logits/temperature).
    pub temperature: f64,
    /// Only the so many likeliest tokens are drawn, and those as likely as the last of them; 0: all.
    pub top_k: usize,
    /// Only the fewest likeliest tokens that have this share of the probability together are drawn, above 0 to 1; 1: all.
    pub top_p: f64,
    /// Only tokens at least so likely, as a share of the likeliest one's probability, are drawn, 0 to 1; 0: all.
    pub min_p: f64,
    /// What the logits of tokens that were seen are divided by, or multiplied where they are negative (CTRL, arXiv
    /// 1909.05858), above 0 to 100; 1: nothing.
    pub repetition_penalty: f64,
    /// What draws derive from; the same seed, state and machine draw the same text.
    pub seed: u64,
}

impl Sampling {
    /// Whether a choice can be made by these numbers.
    ///
    /// # Errors
    /// The first number that is outside of its range.
    pub fn check(&self) -> Result<(), SamplingFault> {
        let Sampling { temperature, top_p, min_p, repetition_penalty: penalty, .. } = *self;
        let must =
            |holds: bool, name, value, needed| if holds { Ok(()) } else { Err(SamplingFault { name, value, needed }) };
        must((0.0..=100.0).contains(&temperature), "temperature", temperature, "0 to 100")?;
        must(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0, and at most 1")?;
        must((0.0..=1.0).contains(&min_p), "min_p", min_p, "0 to 1")?;
        must(penalty > 0.0 && penalty <= 100.0, "repetition_penalty", penalty, "above 0, and at most 100")
    }
}

impl Default for Sampling {
    /// The likeliest token, always.
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A number that no choice can be made by.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}; it must be {needed}")]
pub struct SamplingFault {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be.
    pub needed: &'static str,
}

/// Chooses tokens, one after the other.
pub struct Sampler {
    sampling: Sampling,
    draws: OutputReader,
    /// The tokens that can still be drawn, with their scores.
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    /// A sampler at the beginning of its draws.
    ///
    /// # Errors
    /// A number outside of its range.
    pub fn new(sampling: Sampling) -> Result<Sampler, SamplingFault> {
        sampling.check()?;
        let draws = derive("covey/1/generate", &[&sampling.seed.to_le_bytes()]);
        Ok(Sampler { sampling, draws, candidates: Vec::new() })
    }

    /// The token that follows `seen`, by its `logits`, f32 `[vocabulary]`.
    pub fn choose(&mut self, logits: &[f32], seen: &[u32]) -> u32 {
        self.begin(logits, seen);
        if self.sampling.temperature == 0.0 {
            return likeliest(&self.candidates);
        }
        self.narrow();
        let mut bytes = [0; 8];
        self.draws.fill(&mut bytes);
        // 53 bits: a uniform number in 0..1.
        drawn(&self.candidates, (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// What the temperature, top-k, top-p and min-p leave.
    fn narrow(&mut self) {
        for (_, score) in &mut self.candidates {
            *score /= self.sampling.temperature;
        }
        keep_top_k(&mut self.candidates, self.sampling.top_k);
        keep_top_p(&mut self.candidates, self.sampling.top_p);
        keep_min_p(&mut self.candidates, self.sampling.min_p);
    }

    /// All tokens as candidates, those that were seen at a penalty.
    fn begin(&mut self, logits: &[f32], seen: &[u32]) {
        let penalty = self.sampling.repetition_penalty;
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits.iter().map(|logit| f64::from(*logit))));
        if penalty == 1.0 {
            return;
        }
        for token in seen.iter().copied().collect::<HashSet<u32>>() {
            if let Some((_, score)) = self.candidates.get_mut(token as usize) {
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }
}

/// The highest score's token; of equal ones the first.
fn likeliest(candidates: &[(u32, f64)]) -> u32 {
    let first = candidates.first().copied().unwrap_or((0, f64::NEG_INFINITY));
    candidates.iter().fold(first, |best, next| if next.1 > best.1 { *next } else { best }).0
}

fn most(candidates: &[(u32, f64)]) -> f64 {
    candidates.iter().fold(f64::NEG_INFINITY, |most, (_, score)| most.max(*score))
}

/// Keeps the `count` highest scores, and those that equal the last of them.
fn keep_top_k(candidates: &mut Vec<(u32, f64)>, count: usize) {
    if count == 0 || count >= candidates.len() {
        return;
    }
    let mut scores: Vec<f64> = candidates.iter().map(|(_, score)| *score).collect();
    let (_, least, _) = scores.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    candidates.retain(|(_, score)| *score >= least);
}

/// Keeps the fewest highest scores whose probabilities reach `share` together, at least one.
fn keep_top_p(candidates: &mut Vec<(u32, f64)>, share: f64) {
    if share >= 1.0 || candidates.is_empty() {
        return;
    }
    let most = most(candidates);
    let total: f64 = candidates.iter().map(|(_, score)| (score - most).exp()).sum();
    // Tokens below this share have not 1 − p together, however many they are: all of them go, unsorted.
    let rare = (1.0 - share) / candidates.len() as f64;
    let mut ordered: Vec<(u32, f64)> =
        candidates.iter().map(|(token, score)| (*token, (score - most).exp() / total)).collect();
    let rest: f64 = ordered.iter().filter(|(_, share)| *share < rare).map(|(_, share)| share).sum();
    ordered.retain(|(_, share)| *share >= rare);
    // The least likely first; of equal ones the higher token goes first.
    ordered.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    let mut below = rest;
    let last = ordered.last().copied();
    ordered.retain(|(_, probability)| {
        below += probability;
        below > 1.0 - share
    });
    let kept: HashSet<u32> = ordered.iter().chain(&last).map(|(token, _)| *token).collect();
    candidates.retain(|(token, _)| kept.contains(token));
}

/// Keeps what is at least `share` times as likely as the likeliest.
fn keep_min_p(candidates: &mut Vec<(u32, f64)>, share: f64) {
    let most = most(candidates);
    if share > 0.0 {
        candidates.retain(|(_, score)| (score - most).exp() >= share);
    }
}

/// The token at which the cumulated softmax of the scores passes `share`, 0 to 1.
fn drawn(candidates: &[(u32, f64)], share: f64) -> u32 {
    let most = most(candidates);
    let weight = |score: f64| (score - most).exp();
    let mut left = share * candidates.iter().map(|(_, score)| weight(*score)).sum::<f64>();
    for (token, score) in candidates {
        left -= weight(*score);
        if left < 0.0 {
            return *token;
        }
    }
    // Rounding left nothing over: the likeliest is never wrong.
    likeliest(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 10] = [1.5, -0.5, 3.0, 2.9, 0.0, 3.0, -2.0, 1.0, 2.0, -7.5];

    fn candidates(logits: &[f32]) -> Vec<(u32, f64)> {
        (0..).zip(logits.iter().map(|logit| f64::from(*logit))).collect()
    }

    fn tokens(candidates: &[(u32, f64)]) -> Vec<u32> {
        candidates.iter().map(|(token, _)| *token).collect()
    }

    #[test]
    fn of_two_as_likely_the_lower_is_chosen() {
        assert_eq!(likeliest(&candidates(&[0.0, 3.0, 1.0, 3.0])), 1);
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.choose(&LOGITS, &[]), 2);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = candidates(&[0.0, f32::ln(3.0), f32::NEG_INFINITY]);
        assert_eq!([0.0, 0.24, 0.26, 0.99].map(|share| drawn(&logits, share)), [0, 0, 1, 1]);
    }

    #[test]
    fn what_is_seen_costs_a_penalty_whatever_its_sign() {
        let sampling = Sampling { repetition_penalty: 1.3, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).unwrap();
        sampler.begin(&LOGITS, &[2, 2, 6, 99]);
        let scores: Vec<f64> = sampler.candidates.iter().map(|(_, score)| *score).collect();
        assert!((scores[2] - 3.0 / 1.3).abs() < 1e-12 && (scores[6] + 2.6).abs() < 1e-12 && scores[5] == 3.0);
        assert_eq!(sampler.choose(&LOGITS, &[2]), 5);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let cases = [
            (Sampling { temperature: f64::NAN, ..Sampling::default() }, "temperature is NaN; it must be 0 to 100"),
            (Sampling { top_p: 0.0, ..Sampling::default() }, "top_p is 0; it must be above 0, and at most 1"),
            (Sampling { min_p: 1.5, ..Sampling::default() }, "min_p is 1.5; it must be 0 to 1"),
            (Sampling { repetition_penalty: 0.0, ..Sampling::default() }, "repetition_penalty is 0"),
        ];
        for (sampling, message) in cases {
            let fault = Sampler::new(sampling).err().unwrap().to_string();
            assert!(fault.contains(message), "{fault}");
        }
    }

    /// tests/interop/golden_sampling.py makes the numbers.
    #[test]
    fn what_is_left_to_draw_from_is_what_transformers_leaves() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden_sampling.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let list = |name: &str| golden[name].as_array().unwrap().iter();
        let logits: Vec<f32> = list("logits").map(|logit| logit.as_f64().unwrap() as f32).collect();
        let seen: Vec<u32> = list("seen").map(|token| token.as_u64().unwrap() as u32).collect();
        for case in list("cases") {
            let number = |name: &str, neutral: f64| case["sampling"][name].as_f64().unwrap_or(neutral);
            let sampling = Sampling {
                temperature: number("temperature", 1.0),
                top_k: number("top_k", 0.0) as usize,
                top_p: number("top_p", 1.0),
                min_p: number("min_p", 0.0),
                repetition_penalty: number("repetition_penalty", 1.0),
                seed: 0,
            };
            let mut sampler = Sampler::new(sampling).unwrap();
            sampler.begin(&logits, &seen);
            sampler.narrow();
            let left = case["left"].as_object().unwrap();
            assert_eq!(sampler.candidates.len(), left.len(), "{sampling:?}");
            for (token, score) in &sampler.candidates {
                let expected = left[&token.to_string()].as_f64().unwrap();
                assert!((score - expected).abs() < 1e-5, "{sampling:?}, token {token}: {score}, expected {expected}");
            }
        }
    }

    #[test]
    fn equal_scores_at_the_edge_of_top_k_all_stay() {
        let mut left = candidates(&LOGITS);
        keep_top_k(&mut left, 1);
        assert_eq!(tokens(&left), [2, 5]);
    }

    #[test]
    fn top_p_drops_the_rare_ones_unsorted_as_if_it_had_sorted_them() {
        let logits: Vec<f32> = (0..2_000).map(|at| ((at * 7919) % 2_000) as f32 / 100.0).collect();
        for share in [0.01, 0.5, 0.9, 0.999] {
            let mut left = candidates(&logits);
            keep_top_p(&mut left, share);
            let mut sorted = candidates(&logits);
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let total: f64 = sorted.iter().map(|(_, score)| score.exp()).sum();
            let mut reached = 0.0;
            let needed = sorted.iter().take_while(|(_, score)| {
                let goes_on = reached < share;
                reached += score.exp() / total;
                goes_on
            });
            let mut needed: Vec<u32> = needed.map(|(token, _)| *token).collect();
            needed.sort_unstable();
            assert_eq!(tokens(&left), needed, "{share}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_some_token_of_the_vocabulary_comes(
            logits in proptest::collection::vec(-50.0f32..50.0, 1..40),
            top_k in 0usize..50, top_p in 0.001f64..1.0, min_p in 0.0f64..1.0, seed in 0u64..9, penalty in 0.1f64..9.0,
        ) {
            let sampling = Sampling { temperature: 0.7, top_k, top_p, min_p, repetition_penalty: penalty, seed };
            let seen: Vec<u32> = (0..logits.len() as u32 / 2).collect();
            let mut sampler = Sampler::new(sampling).unwrap();
            let chosen = (0..4).map(|_| sampler.choose(&logits, &seen)).collect::<Vec<_>>();
            proptest::prop_assert!(chosen.iter().all(|token| (*token as usize) < logits.len()));
            let mut again = Sampler::new(sampling).unwrap();
            proptest::prop_assert_eq!(chosen, (0..4).map(|_| again.choose(&logits, &seen)).collect::<Vec<_>>());
        }
    }
}
