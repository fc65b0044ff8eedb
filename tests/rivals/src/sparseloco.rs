//! Compression, decoding and aggregation of real pseudo-gradients, beside PyTorch, zstd, and a plain copy of the bytes
//! that compression must move.

use crate::gradients::{Gradients, HOW, train};
use crate::report::{Report, keep_least, peak_memory, reset_peak, seconds};
use crate::torch::Torch;
use covey_proto::layout::{CHUNK, Layout};
use covey_sparseloco::state::as_le_bytes;
use covey_sparseloco::{Encoded, OuterStep, SparseShard, StepError, compress, decode_shard, outer_step_decoding};
use std::fs;

/// Parameters of the timings, at least.
const ELEMENTS: usize = 100_000_000;
const RUNS: usize = 7;
/// Bytes that compression moves a parameter: e, the base and the trained state are read, the new e is written over the last.
const MOVED: f64 = 16.0;
const STEP: OuterStep<'static> = OuterStep { alpha: 0.01, rho: 1.0, reach: &[] };
const CONTRIBUTORS: [usize; 7] = [1, 2, 4, 8, 12, 16, 20];

/// Fills the report.
pub fn measure(report: &mut Report) {
    let small = train();
    let copies = ELEMENTS.div_ceil(small.layout.elements());
    let large = small.tiled(copies);
    report.number("parameters", large.layout.elements() as f64, 0, "");
    report.number("k", HOW.k as f64, 0, "of 4096");
    let shards = sizes(report, &small, &large);
    compression(report, &small, &large, copies);
    // Only the layout and the bytes: what aggregation needs is to be seen in the memory.
    drop((large.feedback, large.delta));
    aggregation(report, &large.layout, &shards);
}

/// Bytes, beside the raw layout of 12 bits an index and 2 a value, and that after zstd. Returns the large model's shards.
fn sizes(report: &mut Report, small: &Gradients, large: &Gradients) -> Vec<Vec<u8>> {
    let done = compressed(small, &mut vec![0.0; small.delta.len()], 1);
    let shards: Vec<SparseShard> = done
        .shards
        .iter()
        .enumerate()
        .map(|(number, bytes)| decode(&small.layout, number, bytes).expect("our own"))
        .collect();
    let raw = raw_layout(&shards);
    let zstd = zstd::bulk::compress(&raw, 19).expect("zstd takes any bytes").len();
    let (values, bytes) = (done.stats.values as f64, done.stats.bytes as f64);
    report.number("bits_per_value", done.stats.bits_per_value(), 3, "bits, all included (goal: 8.7)");
    report.number("raw_bits_per_value", raw.len() as f64 * 8.0 / values, 3, "bits, 12+2 and a bf16 scale a chunk");
    report.number("zstd19_bits_per_value", zstd as f64 * 8.0 / values, 3, "bits, zstd -19 of that");
    report.number("size_vs_raw", raw.len() as f64 / bytes, 3, "x smaller");
    report.number("size_vs_zstd19", zstd as f64 / bytes, 3, "x smaller");
    let f32_bytes = small.layout.elements() as f64 * 4.0;
    report.number("size_vs_f32", f32_bytes / bytes, 1, "x smaller");
    compressed(large, &mut vec![0.0; large.delta.len()], 1).shards
}

/// Compresses Δ: the base, of which zeros, `trained`, are left; they become what is not sent.
fn compressed(of: &Gradients, trained: &mut [f32], threads: usize) -> Encoded {
    let done = compress(threads, &of.layout, &HOW, &of.delta, &of.feedback, trained);
    done.expect("the pseudo-gradient is finite")
}

/// Scales, indices of 12 bits, values of 2 bits: each kind on its own, as is best for zstd.
fn raw_layout(shards: &[SparseShard]) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut push = |number: u32, width: u32| bits.extend((0..width).map(|at| number >> at & 1 == 1));
    for shard in shards {
        for number in shard.chunks() {
            let scale = shard.chunk(number).1.first().map_or(0, |value| value.abs().to_bits() >> 16);
            push(scale, 16);
        }
    }
    for shard in shards {
        shard.indices().iter().for_each(|&index| push(index.into(), 12));
    }
    for shard in shards {
        shard.values().iter().for_each(|value| push(u32::from(value.is_sign_negative()), 2));
    }
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    bits.chunks(8).map(byte).collect()
}

fn decode(layout: &Layout, number: usize, bytes: &[u8]) -> Result<SparseShard, StepError> {
    let chunks = layout.shard(number, HOW.shard_chunks);
    Ok(decode_shard(bytes, layout, chunks, HOW.k, HOW.quantiser).expect("our own shards decode"))
}

/// Seconds of compression, of a copy and of PyTorch, in turn, on one and two threads.
fn compression(report: &mut Report, small: &Gradients, large: &Gradients, copies: usize) {
    let elements = large.layout.elements();
    let base = std::env::temp_dir().join(format!("covey-rivals-{}.f32", std::process::id()));
    let delta = small.delta.iter().flat_map(|value| value.to_le_bytes());
    let feedback = as_le_bytes(&small.feedback).iter().copied();
    fs::write(&base, feedback.chain(delta).collect::<Vec<u8>>()).expect("a file in /tmp");
    let arguments = [&base.display().to_string(), &copies.to_string(), &HOW.beta.to_string(), &HOW.k.to_string()];
    let mut torch = Torch::start("torch_topk.py", &arguments.map(String::as_str));
    let (mut ours, mut copy, mut theirs) = ([f64::MAX; 2], [f64::MAX; 2], [f64::MAX; 2]);
    for _ in 0..RUNS {
        for threads in [1, 2] {
            // Zeros would not be in memory yet.
            let mut trained = vec![1e-9; elements];
            let (time, done) = seconds(|| compressed(large, &mut trained, threads));
            keep_least(&mut ours[threads - 1], time);
            drop((done, trained));
            let mut to = vec![1.0; elements * 2];
            keep_least(&mut copy[threads - 1], copying(large, &mut to, threads));
            drop(to);
            if let Some(time) = torch.as_mut().and_then(|torch| torch.turn(threads)) {
                keep_least(&mut theirs[threads - 1], time);
            }
        }
    }
    let _ = fs::remove_file(base);
    let speed = |seconds: f64| elements as f64 * 4e-9 / seconds;
    for (threads, suffix) in [(1, "1_thread"), (2, "2_threads")] {
        report.number(&format!("compress_{suffix}"), speed(ours[threads - 1]), 2, "GB/s of f32 parameters");
        let moved = elements as f64 * MOVED * 1e-9 / copy[threads - 1];
        report.number(&format!("copy_traffic_{suffix}"), moved, 2, "GB/s of traffic, read and written");
    }
    report.number("compress_seconds", ours[1], 4, "s, two threads");
    report.number("copy_seconds", copy[1], 4, "s, 16 bytes a parameter, two threads");
    report.number("compress_vs_copy", ours[1] / copy[1], 2, "x its time (goal: 2.5)");
    report.number("compress_vs_copy_1_thread", ours[0] / copy[0], 2, "x its time");
    let Some(torch) = torch.filter(|_| theirs[1] < f64::MAX) else {
        report.text("pytorch", "none found: set COVEY_TORCH_PYTHON");
        return;
    };
    report.text("pytorch", &torch.version);
    report.number("pytorch_1_thread", speed(theirs[0]), 3, "GB/s of f32 parameters");
    report.number("pytorch_2_threads", speed(theirs[1]), 3, "GB/s of f32 parameters");
    report.number("compress_vs_pytorch", theirs[1] / ours[1], 1, "x as fast, two threads (goal: 10)");
    report.number("compress_vs_pytorch_1_thread", theirs[0] / ours[0], 1, "x as fast");
}

/// Seconds to copy e and Δ, 8 bytes a parameter read and as many written, to memory that is there already.
fn copying(large: &Gradients, to: &mut [f32], threads: usize) -> f64 {
    let (e, delta) = to.split_at_mut(large.delta.len());
    let pairs = [(large.feedback.as_slice(), e), (large.delta.as_slice(), delta)];
    let (time, ()) = seconds(|| {
        if threads == 1 {
            return pairs.into_iter().for_each(|(from, to)| to.copy_from_slice(from));
        }
        std::thread::scope(|scope| {
            for (from, to) in pairs {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
    });
    time
}

/// Decoding, and the outer step from bytes, by contributors.
fn aggregation(report: &mut Report, layout: &Layout, shards: &[Vec<u8>]) {
    let speed = |seconds: f64| layout.elements() as f64 * 4e-9 / seconds;
    let mut decoding = f64::MAX;
    for _ in 0..RUNS {
        let all = || shards.iter().enumerate().all(|(number, bytes)| decode(layout, number, bytes).is_ok());
        let (time, done) = seconds(all);
        assert!(done, "our own shards decode");
        keep_least(&mut decoding, time);
    }
    report.number("decode_1_thread", speed(decoding), 2, "GB/s of f32 parameters");
    let bytes: usize = shards.iter().map(Vec::len).sum();
    report.number("decode_wire_1_thread", bytes as f64 * 1e-6 / decoding, 1, "MB/s of shards");
    // Contributions take their shards' bytes from one another's: who sent what changes no time.
    let mut theta = vec![1.0; layout.elements()];
    let mut apply = |contributors: usize, threads: usize| {
        let mut least = f64::MAX;
        reset_peak();
        for _ in 0..3 {
            let decode = |_: usize, number: usize| decode(layout, number, &shards[number]);
            let cut = (contributors, HOW.shard_chunks);
            let (time, done) = seconds(|| outer_step_decoding(threads, layout, &mut theta, cut, STEP, decode));
            done.expect("our own shards fit");
            keep_least(&mut least, time);
        }
        (least, peak_memory())
    };
    let mut times = Vec::new();
    for contributors in CONTRIBUTORS {
        let (alone, _) = apply(contributors, 1);
        let (time, peak) = apply(contributors, 2);
        let name = |what: &str| format!("{what}_of_{contributors}");
        report.number(&name("aggregate_1_thread"), alone, 4, "s: decode twice, norms, outer step");
        report.number(&name("aggregate_2_threads"), time, 4, "s");
        report.number(&name("aggregate_peak"), peak * 1e-6, 1, "MB, the whole process: state, shards, and the rest");
        times.push(time);
    }
    let each = (times[6] - times[0]) / 19.0;
    report.number("aggregate_each_more", each, 4, "s a contributor, two threads");
    report.number("aggregate_speed_each", speed(each), 2, "GB/s of f32 parameters a contributor");
    // 1 where time is a + b·contributors.
    let middle = times[0] + each * 7.0;
    report.number("aggregate_linear", times[3] / middle, 2, "time of 8, by the line through 1 and 20");
    report.number("state_size", layout.elements() as f64 * 4e-6, 1, "MB");
    report.number("chunks", layout.elements().div_ceil(CHUNK) as f64, 0, "at least");
}
