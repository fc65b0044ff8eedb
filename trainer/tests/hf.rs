//! Export and load, and folders that are not what they claim to be.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;
#[path = "common/words.rs"]
mod words;

use common::{lively_state, small_model};
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::generate::{Continue, Sampling, encode_prompt, generate};
use covey_trainer::hf::{HfError, export, load};
use covey_trainer::{Device, genesis, open_backend};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
use words::word_tokenizer as tokenizer;

fn exported(model: &Model) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    export(&dir, model, &genesis::initial_state(model).unwrap(), &tokenizer(folder.path())).unwrap();
    (folder, dir)
}

#[test]
fn what_was_exported_loads_to_the_bit() {
    for tied in [true, false] {
        let model = Model { seed: Some(0), ..small_model(tied) };
        let (_folder, dir) = exported(&model);
        let (loaded, state) = load(&dir).unwrap();
        assert_eq!(loaded, Model { seed: None, ..model.clone() });
        assert!(state == genesis::initial_state(&model).unwrap());
        let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        let expected =
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
        assert_eq!(files, expected);
    }
}

#[test]
fn an_export_replaces_an_export_and_nothing_else() {
    let model = small_model(true);
    let (folder, dir) = exported(&model);
    let mut state = genesis::initial_state(&model).unwrap();
    state[3] = 0.5;
    export(&dir, &model, &state, &tokenizer(folder.path())).unwrap();
    assert!(load(&dir).unwrap().1 == state);
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let refused = export(&dir, &model, &state, &tokenizer(folder.path()));
    assert!(matches!(refused, Err(HfError::Occupied { .. })), "{refused:?}");
    assert!(dir.join("notes.txt").exists());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is left beside: {left:?}");
}

#[test]
fn what_cannot_be_exported_is_refused_with_the_reason() {
    let model = small_model(true);
    let folder = tempfile::tempdir().unwrap();
    let (dir, tokenizer) = (folder.path().join("model"), tokenizer(folder.path()));
    let mut state = genesis::initial_state(&model).unwrap();
    let message = |result: Result<(), HfError>| result.unwrap_err().to_string();
    assert!(message(export(&dir, &model, &state[1..], &tokenizer)).contains("the model has"));
    let few = Model { vocabulary: 22, ..model.clone() };
    assert!(message(export(&dir, &few, &genesis::initial_state(&few).unwrap(), &tokenizer)).contains("has 23 tokens"));
    assert!(message(export(&dir, &model, &state, &folder.path().join("none.json"))).contains("is missing"));
    fs::write(folder.path().join("bad.json"), "{}").unwrap();
    assert!(message(export(&dir, &model, &state, &folder.path().join("bad.json"))).contains("is no tokenizer"));
    state[0] = f32::NAN;
    assert!(message(export(&dir, &model, &state, &tokenizer)).contains("parameter 0 is NaN"));
    assert!(!dir.exists());
}

#[test]
fn a_folder_that_is_no_model_is_refused_with_the_reason() {
    let model = small_model(true);
    let fault = |spoil: &dyn Fn(&Path)| {
        let (_folder, dir) = exported(&model);
        spoil(&dir);
        load(&dir).unwrap_err().to_string()
    };
    let weights = |dir: &Path| dir.join("model.safetensors");
    let edit = |dir: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(text.contains(from));
        fs::write(dir.join("config.json"), text.replace(from, to)).unwrap();
    };
    let missing = fault(&|dir| fs::remove_file(weights(dir)).unwrap());
    assert!(missing.contains("model.safetensors is missing"), "{missing}");
    assert!(fault(&|dir| fs::remove_file(dir.join("config.json")).unwrap()).contains("config.json is missing"));
    let size = 4 * Layout::of(&model).elements();
    for cut in [1, 9, size / 2] {
        let fault = fault(&|dir| {
            let bytes = fs::read(weights(dir)).unwrap();
            fs::write(weights(dir), &bytes[..bytes.len() - cut]).unwrap();
        });
        assert!(fault.contains("is cut short"), "{cut} bytes less: {fault}");
    }
    let vast = fault(&|dir| fs::OpenOptions::new().write(true).open(weights(dir)).unwrap().set_len(1 << 33).unwrap());
    assert!(vast.contains("the limit is"), "{vast}");
    let shape = fault(&|dir| edit(dir, "\"intermediate_size\": 10", "\"intermediate_size\": 11"));
    assert!(shape.contains("has shape [24, 10]"), "{shape}");
    let untied = fault(&|dir| edit(dir, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"));
    assert!(untied.contains("lm_head.weight is missing"), "{untied}");
    let layers = fault(&|dir| edit(dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"));
    assert!(layers.contains("belongs to no model"), "{layers}");
    let nan = fault(&|dir| {
        let mut bytes = fs::read(weights(dir)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(weights(dir), bytes).unwrap();
    });
    assert!(nan.contains("holds NaN"), "{nan}");
}

#[test]
fn generation_is_repeatable_streams_what_it_returns_and_outlives_the_window() {
    let model = small_model(true);
    let (_folder, dir) = exported(&model);
    let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    let mut loaded = open_backend(&Device::Cpu { threads: 1 }, &model).unwrap().model().unwrap();
    let state = lively_state(&model, 6).iter().map(|value| *value as f32).collect::<Vec<_>>();
    loaded.load(&mut as_le_bytes(&state)).unwrap();
    let mut run = |prompt: &str, temperature: f64, seed: u64| {
        let mut how = Continue::likeliest(20, &tokenizer);
        how.sampling = Sampling { temperature, seed, ..how.sampling };
        let prompt = encode_prompt(&tokenizer, prompt, true, &how.ends).unwrap();
        let mut streamed = String::new();
        let mut on_text = |more: &str| {
            streamed.push_str(more);
            ControlFlow::Continue(())
        };
        let text = generate(&mut *loaded, 7, &tokenizer, &prompt, &how, &mut on_text).unwrap().text;
        assert_eq!(text, streamed);
        text
    };
    // Longer than the sequence of 7.
    let greedy = run("w1 w2 w3 w4 w5 w6 w7 w8 w9", 0.0, 1);
    assert_eq!(greedy, run("w1 w2 w3 w4 w5 w6 w7 w8 w9", 0.0, 2));
    assert_eq!(greedy, run("w3 w4 w5 w6 w7 w8 w9", 0.0, 2), "only the window counts");
    assert_eq!(run("w1", 1.5, 7), run("w1", 1.5, 7));
    assert_ne!(run("w1", 1.5, 7), run("w1", 1.5, 8));
    run("", 1.0, 1);
    let mut hot = Continue::likeliest(1, &tokenizer);
    hot.sampling.temperature = f64::NAN;
    assert!(generate(&mut *loaded, 7, &tokenizer, &[1], &hot, &mut |_| ControlFlow::Continue(())).is_err());
}
