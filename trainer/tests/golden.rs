//! What PyTorch's `LlamaForCausalLM` computes from our export, against the CPU backend: logits, loss, gradients, text.
//!
//! tests/data/golden_model.json holds its values; tests/interop/golden_model.py makes them, and runs
//! `exports_what_transformers_is_to_judge` first for the folders that it loads.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use common::{lively_state, small_model};
use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer};
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::cpu::{CpuModel, CpuTrainer};
use covey_trainer::generate::{Continue, encode_prompt, generate};
use covey_trainer::hf::export;
use covey_trainer::{Batch, LanguageModel, Trainer, genesis};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use tokenizers::Tokenizer;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden_model.json");

/// The two models, by name.
fn models() -> [(&'static str, Model); 2] {
    let tied = Model {
        vocabulary: 48,
        width: 32,
        heads: 4,
        feed_forward: 40,
        sequence: 40,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        seed: Some(11),
        head: None,
        rope_scaling: None,
        ..small_model(true)
    };
    let untied = Model { heads: 2, kv_heads: 1, layers: 3, rope_theta: 500_000.0, tied: false, ..tied.clone() };
    [("tied", tied), ("untied", untied)]
}

fn state(model: &Model) -> Vec<f32> {
    lively_state(model, model.seed.unwrap()).iter().map(|value| *value as f32).collect()
}

/// w0 to w46, and the end of text.
fn tokenizer_json(model: &Model) -> String {
    let end = model.vocabulary - 1;
    let mut vocabulary: serde_json::Map<String, Value> = (0..end).map(|at| (format!("w{at}"), at.into())).collect();
    vocabulary.insert("<|endoftext|>".into(), end.into());
    let special = json!({
        "id": end, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [special],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" },
    })
    .to_string()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn check(name: &str, model: &Model, golden: &Value) {
    let (mut trainer, mut judge) = (CpuTrainer::new(model, Optimizer::AdamW, 1), CpuModel::new(model, 1));
    trainer.load(&mut as_le_bytes(&state(model))).unwrap();
    judge.load(&mut as_le_bytes(&state(model))).unwrap();
    let tokens: Vec<u32> = numbers(&golden["tokens"]).into_iter().map(|token| token as u32).collect();
    let (loss, gradient) = trainer.gradient(&Batch::new(model, tokens.clone()).unwrap()).unwrap();
    let expected = golden["loss"].as_f64().unwrap();
    assert!((loss - expected).abs() < 1e-5, "{name}: loss {loss}, expected {expected}");

    let logits = judge.logits(&tokens[..model.sequence as usize]).unwrap();
    let vocabulary = model.vocabulary as usize;
    for (position, row) in golden["logits"].as_object().unwrap() {
        let ours = &logits[position.parse::<usize>().unwrap() * vocabulary..][..vocabulary];
        for (token, (got, expected)) in ours.iter().zip(numbers(row)).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(error < 1e-4, "{name}: position {position}, token {token}: {got}, expected {expected}");
        }
    }

    let layout = Layout::of(model);
    let gradients = golden["gradients"].as_object().unwrap();
    assert_eq!(gradients.len(), layout.tensors().len());
    for tensor in layout.tensors() {
        let (ours, golden) = (&gradient[tensor.range()], &gradients[&tensor.name]);
        let norm = ours.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let expected = golden["norm"].as_f64().unwrap();
        assert!((norm / expected - 1.0).abs() < 1e-4, "{name}, {}: norm {norm}, expected {expected}", tensor.name);
        let root_mean_square = expected / (tensor.elements() as f64).sqrt();
        for (at, expected) in numbers(&golden["at"]).into_iter().zip(numbers(&golden["values"])) {
            let got = f64::from(ours[at as usize]);
            let allowed = 1e-3 * expected.abs().max(root_mean_square);
            assert!((got - expected).abs() < allowed, "{name}, {} [{at}]: {got}, expected {expected}", tensor.name);
        }
    }

    let tokenizer = Tokenizer::from_bytes(tokenizer_json(model)).unwrap();
    let text = &golden["generation"];
    let how = Continue::likeliest(text["tokens"].as_u64().unwrap() as usize, &tokenizer);
    let prompt = text["prompt"].as_str().unwrap();
    let tokens = encode_prompt(&tokenizer, prompt, true, &how.ends).unwrap();
    let sequence = model.sequence as usize;
    let got =
        generate(&mut judge, sequence, &tokenizer, &tokens, &how, &mut |_| ControlFlow::Continue(())).unwrap().text;
    assert_eq!(Some(got.as_str()), text["text"].as_str(), "{name}: greedy continuation of {prompt:?}");
}

#[test]
fn logits_gradients_and_text_are_those_of_transformers() {
    let golden: Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
    for (name, model) in models() {
        check(name, &model, &golden[name]);
    }
}

#[test]
#[ignore = "tests/interop/golden_model.py runs it, with COVEY_GOLDEN_DIR set"]
fn exports_what_transformers_is_to_judge() {
    let folder = std::env::var("COVEY_GOLDEN_DIR").expect("COVEY_GOLDEN_DIR names the folder to export into");
    let folder = Path::new(&folder);
    for (name, model) in models() {
        let tokenizer = folder.join(format!("{name}-tokenizer.json"));
        std::fs::write(&tokenizer, tokenizer_json(&model)).unwrap();
        export(&folder.join(name), &model, &state(&model), &tokenizer).unwrap();
        // The seed, then the initial state that the script computes again from genesis.rs's words.
        let initial = genesis::initial_state(&model).unwrap();
        let bytes: Vec<u8> = initial.iter().flat_map(|value| value.to_le_bytes()).collect();
        let genesis = [&model.seed.unwrap().to_le_bytes()[..], &bytes].concat();
        std::fs::write(folder.join(format!("{name}-genesis")), genesis).unwrap();
    }
}
