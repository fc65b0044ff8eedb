//! A small model, a run that trains it, and tokens, for unit tests.

use covey_proto::derive;
use covey_proto::run::{Model, Run};

pub(crate) fn small_model() -> Model {
    Model {
        vocabulary: 67,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        feed_forward: 24,
        sequence: 12,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    }
}

/// Tokens of a batch of `sequences`, the same for the same seed.
pub(crate) fn tokens(model: &Model, sequences: usize, seed: u64) -> Vec<u32> {
    let mut stream = derive("covey/test/tokens", &[&seed.to_le_bytes()]);
    let mut draw = || {
        let mut bytes = [0; 4];
        stream.fill(&mut bytes);
        u32::from_le_bytes(bytes) % model.vocabulary
    };
    (0..sequences * (model.sequence as usize + 1)).map(|_| draw()).collect()
}

/// A word-level tokenizer of 23 tokens: w0 to w21 and the end of text, which is special.
pub(crate) fn word_tokenizer() -> tokenizers::Tokenizer {
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..22).map(|at| (format!("w{at}"), at.into())).collect();
    vocabulary.insert("<|endoftext|>".into(), 22.into());
    let special = serde_json::json!({
        "id": 22, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special], "decoder": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    });
    tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// A run of [`small_model`].
pub(crate) fn run() -> Run {
    let mut run = Run::from_toml(RUN).unwrap();
    run.model = small_model();
    run
}

const RUN: &str = r#"
[chain]
genesis = "0101010101010101010101010101010101010101010101010101010101010101"
netuid = 3
start = 1000
genesis_state = "0202020202020202020202020202020202020202020202020202020202020202"

[clock]
length = 115
anchor = 5
commit = 92
vote = 108
commit_margin = 4
announce_margin = 8
vote_margin = 3
beacon = "chain"

[electorate]
window = 8
contributions_max = 20
contributions_min = 4
stake_min = 10
electorate_min = 100
checkpoint = 10

[model]
vocabulary = 256
width = 8
layers = 1
heads = 2
kv_heads = 1
feed_forward = 16
sequence = 16
rope_theta = 10000.0
norm_epsilon = 1e-5
tied = true
seed = 1

[data]
digest = "0303030303030303030303030303030303030303030303030303030303030303"
samples = 100000

[inner]
steps = 30
batch = 4
rate = 1e-3
warmup_steps = 5
beta1 = 0.9
beta2 = 0.95
epsilon = 1e-8
weight_decay = 0.1
clip = 1.0
steps_min = 5

[outer]
rate = 0.65
rho = 1.0

[compress]
k = 64
beta = 0.95
quantiser = "sign"
shard_chunks = 64
state_elements = 65536
inline_max = 16384

[scoring]
sequences = 8
rate = 0.2
average = 0.05
share = 0.5
power = 2.0
"#;

/// Numbers between −1 and 1, the same for the same seed.
pub(crate) fn uniform(count: usize, seed: u64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    derive("covey/test/uniform", &[&seed.to_le_bytes()]).fill(&mut bytes);
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| u32::from_le_bytes(*word) as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}
