//! GGUF files: their bytes are pinned, as `tests/interop/open_exports.py` had them read by llama.cpp's own reader and by
//! transformers.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;
#[path = "common/words.rs"]
mod words;

use common::{lively_state, small_model};
use covey_proto::Digest;
use covey_proto::run::Model;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::data::{synthetic, tokenizer::Words};
use covey_trainer::gguf::{GgufError, GgufOptions, GgufType, write};
use covey_trainer::hf::{ExportOptions, export_as};
use covey_trainer::{Device, open_backend};
use std::fs;
use std::path::{Path, PathBuf};

/// A model with heads whose rows are whole blocks of q8_0, and a byte-level tokenizer of fewer tokens than it has.
fn model(tied: bool) -> Model {
    Model {
        vocabulary: 304,
        width: 64,
        heads: 4,
        kv_heads: 2,
        feed_forward: 96,
        sequence: 64,
        seed: None,
        ..small_model(tied)
    }
}

fn state(model: &Model) -> Vec<f32> {
    lively_state(model, 21).iter().map(|value| *value as f32).collect()
}

fn tokenizer(folder: &Path) -> PathBuf {
    let documents = synthetic::documents(1, 20_000);
    let mut words = Words::new();
    let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
    let path = folder.join("given-tokenizer.json");
    fs::write(&path, words.train(&lists, 300, &[]).json).unwrap();
    path
}

fn options(kind: GgufType) -> GgufOptions {
    GgufOptions { kind, name: "small".into(), like: None, chat: None }
}

/// The digests change with the bytes of a file: then `tests/interop/open_exports.py` must agree with the new ones.
#[test]
fn the_bytes_of_a_file_never_change() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(folder.path());
    let path = folder.path().join("model.gguf");
    let pinned = [
        (GgufType::F32, false, "eb378ada8577eb2a5b435e359e48947325ec071b471890e49368a86699931bc2"),
        (GgufType::F32, true, "c425a4af8ccec6fcdb01c711b0b39012a0cc32748711e1680048566e617ad9ad"),
        (GgufType::Bf16, true, "b2821d65695faa7172eb905ba5eda5e0b0b91007cbd8a95548c08a732ab6461e"),
        (GgufType::Q8_0, true, "25b050a7deb746b97b20e578a82eae10416d64297cfdef914a0a4cfb3902708a"),
    ];
    let found = pinned.map(|(kind, tied, _)| {
        let model = model(tied);
        write(&path, &model, &state(&model), &tokenizer, &options(kind)).unwrap();
        (kind, tied, Digest::of(&fs::read(&path).unwrap()).to_string())
    });
    assert_eq!(found, pinned.map(|(kind, tied, digest)| (kind, tied, digest.to_owned())));
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "nothing is left beside");
}

#[test]
fn what_cannot_be_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, path) = (tokenizer(folder.path()), folder.path().join("model.gguf"));
    let model = model(true);
    let mut state = state(&model);
    let refusal = |model: &Model, state: &[f32], tokenizer: &Path| {
        let refused = write(&path, model, state, tokenizer, &options(GgufType::F32));
        refused.unwrap_err()
    };
    assert!(matches!(refusal(&model, &state[1..], &tokenizer), GgufError::Elements { .. }));
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let words = words::word_tokenizer(&other);
    assert!(refusal(&model, &state, &words).to_string().contains("convert_hf_to_gguf.py"));
    state[7] = f32::INFINITY;
    assert!(matches!(refusal(&model, &state, &tokenizer), GgufError::NotFinite { at: 7, .. }));
    assert!(!path.exists());
    state[7] = 0.0;
    let nowhere = write(&folder.path().join("no/model.gguf"), &model, &state, &tokenizer, &options(GgufType::F32));
    assert!(matches!(nowhere, Err(GgufError::Io { .. })));
}

/// Run by `tests/interop/open_exports.py`: what it has others read.
#[test]
#[ignore = "writes files for tests/interop/open_exports.py, into COVEY_GOLDEN_DIR"]
fn files_for_others_to_read() {
    let folder = PathBuf::from(std::env::var_os("COVEY_GOLDEN_DIR").expect("the script gives a folder"));
    let tokenizer = tokenizer(&folder);
    for (name, tied) in [("tied", true), ("untied", false)] {
        let model = model(tied);
        let state = state(&model);
        let hf = ExportOptions { shard_bytes_max: 40_000, ..ExportOptions::default() };
        export_as(&folder.join(name), &model, &state, &tokenizer, &hf).unwrap();
        for (kind, word) in [(GgufType::F32, "f32"), (GgufType::Bf16, "bf16"), (GgufType::Q8_0, "q8_0")] {
            let path = folder.join(format!("{name}-{word}.gguf"));
            write(&path, &model, &state, &tokenizer, &options(kind)).unwrap();
        }
        let tokens: Vec<u32> = (0..48).map(|at| at * 37 % 300).collect();
        let mut loaded = open_backend(&Device::Cpu { threads: 1 }, &model).unwrap().model().unwrap();
        loaded.load(&mut as_le_bytes(&state)).unwrap();
        let logits = loaded.logits(&tokens).unwrap();
        fs::write(folder.join(format!("{name}-logits.f32")), as_le_bytes(&logits)).unwrap();
        let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        fs::write(folder.join(format!("{name}-tokens.u32")), tokens).unwrap();
    }
}
