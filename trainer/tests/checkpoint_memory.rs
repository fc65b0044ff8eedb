//! A checkpoint is loaded in the memory of its state, and exported beside it without a second copy.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use covey_proto::run::Model;
use covey_trainer::data::{synthetic, tokenizer::Words};
use covey_trainer::genesis::initial_state;
use covey_trainer::gguf::{self, GgufOptions, GgufType};
use covey_trainer::hf::{ExportOptions, WeightType, export_as, load};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes beside the state: blocks, buffers, heads, tokenizers.
const BESIDE: usize = 8 << 20;

/// What `work` takes at most beside what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let done = work();
    (ALLOCATOR.peak_usage().saturating_sub(before), done)
}

#[test]
fn no_copy_of_a_state_is_made() {
    let temporary = tempfile::tempdir().unwrap();
    let model = Model {
        vocabulary: 20_000,
        width: 512,
        layers: 1,
        heads: 8,
        kv_heads: 4,
        feed_forward: 1024,
        sequence: 16,
        rope_theta: 10_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    };
    let state = initial_state(&model).unwrap();
    let bytes = 4 * state.len();
    assert!(bytes > 4 * BESIDE, "{bytes} bytes say nothing");
    let tokenizer = temporary.path().join("tokenizer.json");
    let documents = synthetic::documents(1, 20_000);
    let mut words = Words::new();
    let lists: Vec<_> = documents.iter().map(|document| words.read(document).unwrap()).collect();
    std::fs::write(&tokenizer, words.train(&lists, 300, &[]).json).unwrap();
    let dir = temporary.path().join("model");
    for (weights, shard_bytes_max) in [(WeightType::F32, u64::MAX), (WeightType::Bf16, 1_000_000)] {
        let options = ExportOptions { weights, shard_bytes_max, like: None, chat: None };
        let (taken, ()) = peak(|| export_as(&dir, &model, &state, &tokenizer, &options).unwrap());
        assert!(taken < BESIDE, "an export takes {taken}");
        let (taken, (_, loaded)) = peak(|| load(&dir).unwrap());
        assert_eq!(loaded.len(), state.len());
        assert!(taken < bytes + BESIDE, "loading {bytes} takes {taken}");
    }
    for kind in [GgufType::F32, GgufType::Q8_0] {
        let options = GgufOptions { kind, name: "m".into(), like: None, chat: None };
        let file = temporary.path().join("m.gguf");
        let (taken, ()) = peak(|| gguf::write(&file, &model, &state, &tokenizer, &options).unwrap());
        assert!(taken < BESIDE, "{kind:?} takes {taken}");
    }
}
