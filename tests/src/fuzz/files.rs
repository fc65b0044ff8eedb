//! What a node reads from its own folder or is handed as a file: a crash, a bad disk or another's hand may have been at it.

use covey::disk::{Disk, Journal, JournalContribution};
use covey_proto::layout::Layout;
use covey_proto::run::{Run, Scoring};
use covey_proto::{BlockNumber, Digest, HotkeyPair, Round, Uid};
use covey_round::engine::Tip;
use covey_round::rating::{Evaluation, PeerKey, Ratings, Scored};
use covey_sparseloco::state::{as_le_bytes, read};
use covey_trainer::LoadError;
use covey_trainer::data::Manifest;
use covey_trainer::hf::header::read_head;
use covey_trainer::hf::load_model;
use covey_trainer::moments::{Kind, MomentsReader, MomentsWriter};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use tempfile::TempDir;

/// Parameters of the states and moments here.
const ELEMENTS: usize = 6;

/// Puts `data` into a file of that name, alone in its folder for as long as `read` looks at it.
fn with_file<T>(name: &str, data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    static FOLDER: OnceLock<Mutex<TempDir>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| Mutex::new(tempfile::tempdir().expect("a temporary folder")));
    // What a panic left behind is written over.
    let folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.path().join(name);
    fs::write(&path, data).expect("a temporary file");
    let result = read(&path);
    fs::remove_file(&path).expect("a temporary file");
    result
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

// ---- a node's folder ------------------------------------------------------------------------------------------------

pub(super) fn journal(data: &[u8]) -> bool {
    with_file("journal.json", data, |path| {
        let Ok(file) = Disk::at(parent(path)).journal() else { return false };
        let journal = file.read();
        assert!(file.change(|_| ()).is_ok(), "what was read can be written");
        let again = Disk::at(parent(path)).journal().map(|file| file.read());
        assert_eq!(again.ok(), Some(journal));
        true
    })
}

pub(super) fn journals() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"head");
    let contribution =
        JournalContribution { round: Round(7), base: digest, manifest: digest, call: Some("0a20ff".into()) };
    let full = Journal { contribution: Some(contribution), record: Some("c511".into()) };
    [Journal::default(), full].iter().map(|journal| serde_json::to_vec(journal).expect("a journal is JSON")).collect()
}

/// The bytes are a state's file.
pub(super) fn saved_state(data: &[u8]) -> bool {
    with_file("state-7.bin", data, |path| {
        let state = Disk::at(parent(path)).newest_state(ELEMENTS).expect("a folder that can be read");
        if let Some(state) = &state {
            assert_eq!((state.tip.round, state.parameters.len()), (Some(Round(7)), ELEMENTS));
        }
        state.is_some()
    })
}

pub(super) fn saved_states() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tip = Tip { round: Some(Round(7)), head: Digest::of(b"head") };
    let written = Disk::at(folder.path()).write_state(&tip, Digest::of(b"root"), &[1.5; ELEMENTS]);
    written.expect("a temporary folder can be written");
    vec![fs::read(folder.path().join("state-7.bin")).expect("what was written")]
}

fn layout() -> Layout {
    Layout::new(vec![("a".to_owned(), vec![70, 3]), ("b".to_owned(), vec![10])])
}

pub(super) fn feedback(data: &[u8]) -> bool {
    let Ok(feedback) = read(&mut &*data, layout().elements()) else { return false };
    assert_eq!(as_le_bytes(&feedback), data);
    assert_eq!(data.len(), 4 * layout().elements());
    true
}

pub(super) fn feedbacks() -> Vec<Vec<u8>> {
    vec![(0..layout().elements()).flat_map(|at| (at as f32 - 100.5).to_le_bytes()).collect()]
}

/// The hash at the end is made here: what is behind it is hostile, too.
pub(super) fn moments(data: &[u8]) -> bool {
    let hashed = [data, Digest::of(data).as_bytes()].concat();
    let Ok((steps, moments)) = read_moments(&hashed) else { return false };
    assert_eq!(write_moments(steps, &moments), hashed);
    assert!(data.is_empty() || read_moments(&[data, &[0; 32]].concat()).is_err());
    true
}

fn read_moments(mut bytes: &[u8]) -> Result<(u64, [f32; 2 * ELEMENTS]), LoadError> {
    let mut moments = [0.0; 2 * ELEMENTS];
    let (mut reader, steps) = MomentsReader::begin(&mut bytes, Kind::AdamW, ELEMENTS)?;
    reader.read(&mut moments)?;
    reader.finish()?;
    Ok((steps, moments))
}

fn write_moments(steps: u64, moments: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut write = || {
        let mut writer = MomentsWriter::begin(&mut bytes, Kind::AdamW, steps, ELEMENTS)?;
        writer.write(moments)?;
        writer.finish()
    };
    write().expect("memory takes what it is given");
    bytes
}

pub(super) fn momentss() -> Vec<Vec<u8>> {
    let mut bytes = write_moments(9, &[[0.5; ELEMENTS], [0.25; ELEMENTS]].concat());
    bytes.truncate(bytes.len() - 32);
    vec![bytes]
}

fn scoring() -> Scoring {
    static SCORING: OnceLock<Scoring> = OnceLock::new();
    let run = || super::proto::runs().first().and_then(|bytes| Run::from_bytes(bytes).ok());
    SCORING.get_or_init(|| run().expect("presets are runs").scoring).clone()
}

pub(super) fn ratings(data: &[u8]) -> bool {
    let Ok(ratings) = Ratings::from_bytes(&scoring(), data) else { return false };
    let bytes = ratings.to_bytes();
    assert_eq!(bytes.len(), data.len());
    assert_eq!(Ratings::from_bytes(&scoring(), &bytes), Ok(ratings));
    true
}

pub(super) fn ratingss() -> Vec<Vec<u8>> {
    let mut ratings = Ratings::new(&scoring());
    let scored = |uid: u8, evaluation| Scored {
        peer: PeerKey { uid: Uid::from(uid), hotkey: key(uid).hotkey(), registered_at: BlockNumber(1) },
        evaluation,
    };
    let gains = Evaluation::Gains { own: 0.02, random: 0.01 };
    let all =
        [scored(1, gains), scored(4, Evaluation::Failed), scored(200, Evaluation::Gains { own: 0.0, random: 0.03 })];
    for round in 0..3 {
        ratings.observe(Round(round), &all).expect("rounds rise");
    }
    vec![Ratings::new(&scoring()).to_bytes(), ratings.to_bytes()]
}

fn key(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

// ---- others' files --------------------------------------------------------------------------------------------------

/// `dataset.json`.
pub(super) fn dataset(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::from_bytes(data) else { return false };
    assert_eq!(manifest.to_bytes(), data);
    assert_eq!(manifest.digest(), Digest::of(data));
    true
}

pub(super) fn datasets() -> Vec<Vec<u8>> {
    let (digest, other) = (Digest::of(b"tokens"), Digest::of(b"more tokens"));
    let text = |format: u32, tokens: u32, chat: &str| {
        format!(
            r#"{{"format":{format},"name":"a \"name\"","tokenizer":"{digest}","vocabulary":512,"end_of_text":0,"train_documents":2,"train_bytes":3,"heldout_documents":1,"heldout_bytes":1,"train":[{{"digest":"{digest}","tokens":{tokens}}},{{"digest":"{other}","tokens":1}}],"heldout":[]{chat}}}"#
        )
    };
    let chat = format!(r#","chat_template":"{digest}""#);
    [text(1, 524_288, ""), text(2, 262_144, &chat)].map(String::into_bytes).to_vec()
}

/// A model's `config.json`.
pub(super) fn model_config(data: &[u8]) -> bool {
    let Ok(model) = with_file("config.json", data, |path| load_model(&parent(path))) else { return false };
    assert!(model.seed.is_none() && model.head_width() > 0 && model.head_width().is_multiple_of(2));
    assert!(model.heads.is_multiple_of(model.kv_heads));
    true
}

pub(super) fn model_configs() -> Vec<Vec<u8>> {
    let plain = r#"{"model_type":"llama","vocab_size":49152,"hidden_size":576,"num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"intermediate_size":1536,"max_position_embeddings":8192,"rms_norm_eps":1e-05,"rope_theta":100000,"rope_scaling":null,"tie_word_embeddings":true}"#;
    let scaled = r#"{"vocab_size":128256,"hidden_size":2048,"num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":64,"intermediate_size":8192,"max_position_embeddings":131072,"rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}}"#;
    [plain, scaled].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// The bytes are a file of parameters, whose head is read.
pub(super) fn safetensors(data: &[u8]) -> bool {
    let Ok(head) = read_head(&mut &*data, data.len() as u64, 1 << 16) else { return false };
    let mut bytes = 0;
    for entry in head.values() {
        assert!(entry.start >= 8 && entry.start + entry.bytes <= data.len() as u64, "{entry:?}");
        bytes += entry.bytes;
    }
    assert!(bytes <= data.len() as u64, "tensors do not overlap");
    true
}

pub(super) fn safetensorss() -> Vec<Vec<u8>> {
    let head = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}} "#;
    vec![[&(head.len() as u64).to_le_bytes()[..], head, &[1; 14]].concat(), [&2u64.to_le_bytes()[..], b"{}"].concat()]
}
