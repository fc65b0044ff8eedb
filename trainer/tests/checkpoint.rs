//! Somebody else's checkpoint: single or in shards, in any of three kinds of numbers, with what old files carry besides;
//! and exports that go on from one.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;
#[path = "common/words.rs"]
mod words;

use common::{lively_state, small_model};
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_trainer::hf::{Companions, ExportOptions, HfError, WeightType, copy_companions, export, export_as, load};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use words::word_tokenizer;

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder with an export of the small model, its state, and its tensors, which a test may change before [`Folder::write`].
struct Folder {
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    model: Model,
    state: Vec<f32>,
    tensors: Tensors,
}

impl Folder {
    fn new(tied: bool, kind: Dtype) -> Folder {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("model");
        let model = Model { seed: None, ..small_model(tied) };
        // Numbers that fit into all three kinds: sixteenths.
        let state: Vec<f32> =
            lively_state(&model, 3).iter().map(|value| (value * 16.0).round() as f32 / 16.0).collect();
        export(&dir, &model, &state, &word_tokenizer(temporary.path())).unwrap();
        let narrow = |value: &f32| match kind {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::BF16 => ((value.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
            _ => half(*value).to_le_bytes().to_vec(),
        };
        let layout = Layout::of(&model);
        let tensors = layout.tensors().iter().map(|tensor| {
            let bytes = state[tensor.range()].iter().flat_map(narrow).collect();
            (tensor.name.clone(), (kind, tensor.shape.clone(), bytes))
        });
        let tensors = tensors.collect();
        Folder { _temporary: temporary, dir, model, state, tensors }
    }

    fn write(&self) {
        write(&self.dir.join("model.safetensors"), &self.tensors);
    }

    /// Writes the tensors into files of so many, and their index.
    fn write_shards(&self, each: usize) -> Value {
        fs::remove_file(self.dir.join("model.safetensors")).unwrap();
        let all: Vec<_> = self.tensors.clone().into_iter().collect();
        let mut map = serde_json::Map::new();
        for (number, some) in all.chunks(each).enumerate() {
            let file = format!("part-{number}.safetensors");
            map.extend(some.iter().map(|(name, _)| (name.clone(), file.clone().into())));
            write(&self.dir.join(file), &some.iter().cloned().collect());
        }
        let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        self.write_index(&index);
        index
    }

    fn write_index(&self, index: &Value) {
        fs::write(self.dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    fn expect(&self) {
        let (model, state) = load(&self.dir).unwrap();
        assert_eq!(model, self.model);
        assert!(state == self.state);
    }

    fn fault(&self) -> String {
        load(&self.dir).unwrap_err().to_string()
    }
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (kind, shape, bytes))| (name.as_str(), TensorView::new(*kind, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A sixteenth of at most a few units as an IEEE half: always exact.
fn half(value: f32) -> u16 {
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    ((bits >> 16) & 0x8000) as u16 | (((bits >> 13) & 0x3_ffff) as u16).wrapping_sub((112 << 10) as u16) & 0x7fff
}

#[test]
fn all_three_kinds_of_numbers_are_read_in_one_file_or_several() {
    for kind in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        for tied in [true, false] {
            let folder = Folder::new(tied, kind);
            folder.write();
            folder.expect();
            folder.write_shards(4);
            folder.expect();
        }
    }
}

#[test]
fn what_old_checkpoints_carry_is_passed_over_and_a_tied_output_matrix_must_be_the_embedding() {
    let mut folder = Folder::new(true, Dtype::BF16);
    let frequencies = "model.layers.1.self_attn.rotary_emb.inv_freq".to_owned();
    folder.tensors.insert(frequencies, (Dtype::F32, vec![2], vec![0; 8]));
    let embedding = folder.tensors["model.embed_tokens.weight"].clone();
    folder.tensors.insert("lm_head.weight".to_owned(), embedding.clone());
    folder.write();
    folder.expect();
    let (kind, shape, mut bytes) = embedding;
    bytes[2 * 30] ^= 1;
    folder.tensors.insert("lm_head.weight".to_owned(), (kind, shape, bytes));
    folder.write();
    let fault = folder.fault();
    assert!(fault.contains("differs from the embedding at element 30") && fault.contains("tie_word"), "{fault}");
}

#[test]
fn tensors_that_are_not_as_they_must_be_are_refused_with_file_and_name() {
    let fault = |spoil: &dyn Fn(&mut Tensors)| {
        let mut folder = Folder::new(true, Dtype::F32);
        spoil(&mut folder.tensors);
        folder.write();
        let fault = folder.fault();
        assert!(fault.contains("model.safetensors: "), "{fault}");
        fault
    };
    let norm = "model.norm.weight";
    let prefix = fault(&|tensors| {
        *tensors = tensors.iter().map(|(name, rest)| (name.replacen("model.", "", 1), rest.clone())).collect();
    });
    assert!(prefix.contains("has no prefix \"model.\"") && prefix.contains("LlamaForCausalLM"), "{prefix}");
    let missing = fault(&|tensors| drop(tensors.remove(norm)));
    assert!(missing.contains("model.norm.weight is missing"), "{missing}");
    let stranger = fault(&|tensors| {
        tensors.insert("model.layers.0.self_attn.q_norm.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    assert!(stranger.contains("q_norm.weight belongs to no model"), "{stranger}");
    let kind = fault(&|tensors| {
        tensors.insert(norm.into(), (Dtype::F64, vec![24], vec![0; 192]));
    });
    assert!(kind.contains("only F32, BF16 and F16"), "{kind}");
    let infinite = fault(&|tensors| {
        tensors.insert(norm.into(), (Dtype::F16, vec![24], [0, 0x7c].repeat(24)));
    });
    assert!(infinite.contains("model.norm.weight holds inf"), "{infinite}");
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    let folder = Folder::new(true, Dtype::F32);
    let index = folder.write_shards(5);
    let fault = |spoil: &dyn Fn(&mut Value)| {
        let mut index = index.clone();
        spoil(&mut index);
        folder.write_index(&index);
        folder.fault()
    };
    let norm = "model.norm.weight";
    let outside = ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "weights.bin", "..", "a\0.safetensors"];
    for file in outside {
        let fault = fault(&|index| index["weight_map"][norm] = file.into());
        assert!(fault.contains("only files of the same folder"), "{file}: {fault}");
    }
    let elsewhere = fault(&|index| index["weight_map"][norm] = "part-0.safetensors".into());
    assert!(elsewhere.contains("holds tensor model.norm.weight; the index says that it is in part-0"), "{elsewhere}");
    let nowhere = fault(&|index| drop(index["weight_map"].as_object_mut().unwrap().remove(norm)));
    assert!(nowhere.contains("is in no file"), "{nowhere}");
    let away = fault(&|index| index["weight_map"][norm] = "gone.safetensors".into());
    assert!(away.contains("gone.safetensors is missing"), "{away}");
    assert!(fault(&|index| *index = json!([])).contains("is no index"));
    fs::remove_file(folder.dir.join("model.safetensors.index.json")).unwrap();
    assert!(folder.fault().contains("model.safetensors is missing"));
}

#[test]
fn an_export_in_shards_of_bf16_comes_back_rounded() {
    let folder = Folder::new(false, Dtype::F32);
    let out = folder.dir.with_file_name("out");
    let tokenizer = folder.dir.join("tokenizer.json");
    let options = ExportOptions { weights: WeightType::Bf16, shard_bytes_max: 2048, like: None, chat: None };
    let fine: Vec<f32> = lively_state(&folder.model, 9).iter().map(|value| *value as f32).collect();
    export_as(&out, &folder.model, &fine, &tokenizer, &options).unwrap();
    let files: Vec<String> =
        fs::read_dir(&out).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let shards = files.iter().filter(|name| name.starts_with("model-")).count();
    assert!(
        shards > 2 && files.iter().any(|name| *name == format!("model-00001-of-{shards:05}.safetensors")),
        "{files:?}"
    );
    let index: Value = serde_json::from_slice(&fs::read(out.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 2 * fine.len());
    let (model, state) = load(&out).unwrap();
    assert_eq!(model, folder.model);
    for (fine, rounded) in fine.iter().zip(&state) {
        assert!((fine - rounded).abs() <= fine.abs() / 256.0 && rounded.to_bits() & 0xffff == 0, "{fine} {rounded}");
    }
    let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["dtype"], &config["torch_dtype"]), (&"bfloat16".into(), &"bfloat16".into()));
    // An export is replaced, shards and all.
    export(&out, &folder.model, &folder.state, &tokenizer).unwrap();
    assert!(load(&out).unwrap().1 == folder.state && !out.join("model.safetensors.index.json").exists());
    let tiny = ExportOptions { shard_bytes_max: 3, ..options };
    let refused = export_as(&out, &folder.model, &fine, &tokenizer, &tiny);
    assert!(matches!(refused, Err(HfError::ShardBytes { got: 3, .. })));
}

#[test]
fn what_stands_beside_a_models_parameters_is_carried_on() {
    let folder = Folder::new(true, Dtype::F32);
    let put = |name: &str, text: &str| fs::write(folder.dir.join(name), text).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(folder.dir.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = 4096.into();
    config["eos_token_id"] = json!([2, 7]);
    config["pad_token_id"] = 2.into();
    put("config.json", &config.to_string());
    put(
        "tokenizer_config.json",
        r#"{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}"#,
    );
    put("generation_config.json", r#"{"temperature":0.7,"eos_token_id":[2,7]}"#);
    let beside = folder.dir.with_file_name("beside");
    copy_companions(&folder.dir, &beside).unwrap();
    assert!(!beside.join("model.safetensors").exists() && beside.join("tokenizer.json").exists());
    let companions = Companions::read(&beside).unwrap();
    assert_eq!(companions.chat_template().as_deref(), Some("d"));
    assert_eq!((companions.token_id("eos_token_id"), companions.token_id("unk_token_id")), (Some(2), None));
    put("chat_template.jinja", "own file");
    assert_eq!(Companions::read(&folder.dir).unwrap().chat_template().as_deref(), Some("own file"));

    // Trained on shorter sequences than it was made for.
    let model = Model { sequence: 5, ..folder.model.clone() };
    let (out, tokenizer) = (folder.dir.with_file_name("out"), folder.dir.join("tokenizer.json"));
    let options = ExportOptions { like: Some(folder.dir.clone()), ..ExportOptions::default() };
    export_as(&out, &model, &folder.state, &tokenizer, &options).unwrap();
    for name in ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(folder.dir.join(name)).unwrap(), "{name}");
    }
    let written: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    for name in ["max_position_embeddings", "eos_token_id", "pad_token_id"] {
        assert_eq!(written[name], config[name], "{name}");
    }
    let other = Model { feed_forward: 11, ..folder.model.clone() };
    let state = vec![0.5; Layout::of(&other).elements()];
    let refused = export_as(&out, &other, &state, &tokenizer, &options).unwrap_err();
    assert!(refused.to_string().contains("intermediate_size differs"), "{refused}");
    put("generation_config.json", "[]");
    assert!(matches!(Companions::read(&folder.dir), Err(HfError::Json { .. })));
}
