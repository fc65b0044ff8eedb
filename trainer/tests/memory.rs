//! What a trainer and a language model take, counted at the allocator: never a whole copy beside what they promise.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use covey_proto::layout::Layout;
use covey_proto::run::{Model, Optimizer, Quantiser};
use covey_sparseloco::state::as_le_bytes;
use covey_sparseloco::{Compression, OuterStep, decode_shard, working_bytes};
use covey_trainer::{Batch, Device, StepHyper, genesis, open_backend};
use peak_alloc::PeakAlloc;
use std::io::{self, Write};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that were in use at most while `work` ran, beyond those in use before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (ALLOCATOR.peak_usage().saturating_sub(before), result)
}

/// Swallows what is written, as a file would.
struct File;

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One test: the allocator counts for the whole process.
#[test]
fn nobody_holds_more_than_promised() {
    let model = Model {
        vocabulary: 4096,
        width: 512,
        layers: 3,
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
    let layout = Layout::of(&model);
    let elements = layout.elements();
    assert!(elements > 8_000_000, "small against the pieces of work, {elements} would say nothing");
    // 1 % of a copy of the model, and the odd vector.
    let little = elements / 25;
    let base = genesis::initial_state(&model).unwrap();
    let backend = open_backend(&Device::Cpu { threads: 1 }, &model).unwrap();

    let (taken, mut trainer) = peak(|| backend.trainer(Optimizer::AdamW).unwrap());
    assert!(taken <= backend.trainer_memory(Optimizer::AdamW).total() as usize + little, "a trainer takes {taken}");
    let batch = Batch::new(&model, (0..4 * 17).map(|at| at * 53 % 4096).collect()).unwrap();
    let hyper = StepHyper {
        rate: 1e-3,
        embed_rate: 1e-3,
        momentum: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 1.0,
    };
    let small = |what: &str, more: usize| assert!(more <= little, "{what} takes {more} more");
    // Matrix products pack their factors into blocks that stay in cache.
    let packed = |what: &str, more: usize| assert!(more <= little + (4 << 20), "{what} takes {more} more");
    small("load", peak(|| trainer.load(&mut as_le_bytes(&base)).unwrap()).0);
    packed("step", peak(|| trainer.step(&batch, &hyper).unwrap()).0);
    small("save", peak(|| trainer.save(&mut File).unwrap()).0);
    small("save_moments", peak(|| trainer.save_moments(&mut File).unwrap()).0);
    let mut moments = Vec::new();
    trainer.save_moments(&mut moments).unwrap();
    small("restore_moments", peak(|| trainer.restore_moments(&mut moments.as_slice()).unwrap()).0);
    let how = Compression { beta: 0.95, k: 1024, quantiser: Quantiser::Sign, shard_chunks: 64 };
    let (taken, done) = peak(|| trainer.contribute(&base, &how).unwrap());
    // A quarter of the values: 6 bytes each of four million elements, and all of them encoded.
    let said = working_bytes(1, &layout, &how);
    let right = said / 10 * 7..=said + little;
    assert!(right.contains(&taken), "contribute takes {taken} more, {said} were said, {} encoded", done.stats.bytes);
    assert!(said <= elements + elements / 5, "a byte a parameter here, far less of a larger model");
    small("save_feedback", peak(|| trainer.save_feedback(&mut File).unwrap()).0);
    small("keep_feedback", peak(|| trainer.keep_feedback()).0);
    drop(trainer);

    let (taken, mut judge) = peak(|| backend.model().unwrap());
    assert!(taken <= backend.model_memory().total() as usize + little, "a model takes {taken}");
    small("load", peak(|| judge.load(&mut as_le_bytes(&base)).unwrap()).0);
    packed("losses", peak(|| judge.losses(std::slice::from_ref(&batch)).unwrap()).0);
    let decode = |(number, bytes): (usize, &Vec<u8>)| {
        decode_shard(bytes, &layout, layout.shard(number, how.shard_chunks), how.k, how.quantiser)
    };
    let factors = vec![Some(1.0); layout.tensors().len()];
    let step = OuterStep { alpha: 0.1, rho: 1.0, reach: &[] };
    let mut shards = done.shards.iter().enumerate().map(decode);
    let (taken, ()) = peak(|| judge.try_step(&mut shards, &factors, step).unwrap());
    let named = done.stats.values * 6;
    assert!(taken <= named + named / 4 + little, "try_step takes {taken} more, {} values", done.stats.values);
    small("undo", peak(|| judge.undo()).0);
}
