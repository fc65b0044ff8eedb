//! What a round costs without a model: compression, decoding, the outer step (which decodes twice, for norms and for values)
//! and the state's root, in GB/s of f32 parameters on one thread, compression and root also on two, and bits a value.
//!
//! ```text
//! cargo bench -p covey-sparseloco [-- MILLIONS_OF_PARAMETERS [K]]
//! ```

use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use covey_sparseloco::{
    Compression, OuterStep, SparseShard, StepError, compress, decode_shard, encode_shard, max_shard_bytes,
    outer_step_decoding, state_manifest_on,
};
use std::time::Instant;

const RUNS: usize = 5;
const CONTRIBUTORS: usize = 4;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<usize>().ok());
    let (millions, only) = (numbers.next().unwrap_or(16), numbers.next());
    let layout = Layout::new(vec![("weight".to_owned(), vec![millions * 256, 4096])]);
    println!("{millions} Mi parameters, one thread where nothing is said, best of {RUNS}; GB/s of f32 parameters");
    println!(
        "   k  quantiser        bits/value  of bound  compress  2 threads   encode   decode  outer step ({CONTRIBUTORS})"
    );
    for k in [64, 256, 1024].into_iter().filter(|&k| only.is_none_or(|only| only == k)) {
        for quantiser in [Quantiser::Sign, Quantiser::TwoMagnitudes] {
            row(&layout, k, quantiser);
        }
    }
    root(&layout);
}

/// The state root, over runs of as many elements as the presets have.
fn root(layout: &Layout) {
    let state = noise(layout.elements());
    let bytes = (state.len() * 4) as f64;
    let [one, two] = [1, 2].map(|threads| best(|| state_manifest_on(threads, &state, 65_536)).0);
    println!("state root: {:.2} GB/s, {:.2} on 2 threads ({two:.4} s)", bytes * 1e-9 / one, bytes * 1e-9 / two);
}

fn row(layout: &Layout, k: usize, quantiser: Quantiser) {
    let how = Compression { beta: 0.95, k, quantiser, shard_chunks: 1024 };
    let delta = noise(layout.elements());
    let e = vec![0.0; layout.elements()];
    let compress = |threads| {
        let runs = (0..RUNS).map(|_| {
            let mut trained = vec![0.5; layout.elements()];
            let start = Instant::now();
            let done = compress(threads, layout, &how, &delta, &e, &mut trained).expect("the noise is finite");
            (start.elapsed().as_secs_f64(), done)
        });
        runs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one run")
    };
    let ((compress_alone, _), (compress, done)) = (compress(1), compress(2));
    let decode = || -> Vec<SparseShard> {
        let decoded =
            done.shards.iter().enumerate().map(|(number, bytes)| {
                decode_shard(bytes, layout, layout.shard(number, how.shard_chunks), k, quantiser)
            });
        decoded.collect::<Result<_, _>>().expect("our own shards decode")
    };
    let (decode_time, shards) = best(decode);
    let (encode_time, _) = best(|| {
        shards
            .iter()
            .map(|shard| encode_shard(layout, k, quantiser, shard).expect("a decoded shard"))
            .collect::<Vec<_>>()
    });
    let mut theta = delta.clone();
    let (apply_time, ()) = best(|| {
        let decode = |_: usize, number: usize| -> Result<SparseShard, StepError> {
            let chunks = layout.shard(number, how.shard_chunks);
            Ok(decode_shard(&done.shards[number], layout, chunks, k, quantiser).expect("our own shards decode"))
        };
        let (cut, step) = ((CONTRIBUTORS, how.shard_chunks), OuterStep { alpha: 0.01, rho: 1.0, reach: &[] });
        outer_step_decoding(1, layout, &mut theta, cut, step, decode).expect("the state stays finite");
    });
    let bound = max_shard_bytes(layout, layout.shard(0, how.shard_chunks), k, quantiser) as f64;
    let speed = |seconds: f64| layout.elements() as f64 * 4e-9 / seconds;
    println!(
        "{k:>4}  {:<15} {:>10.3} {:>8.1}% {:>10.2} {:>10.2} {:>8.2} {:>8.2} {:>13.2}",
        format!("{quantiser:?}"),
        done.stats.bits_per_value(),
        done.shards[0].len() as f64 / bound * 100.0,
        speed(compress_alone),
        speed(compress),
        speed(encode_time),
        speed(decode_time),
        speed(apply_time),
    );
}

fn best<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut least = f64::MAX;
    let mut result = None;
    for _ in 0..RUNS {
        let start = Instant::now();
        result = Some(work());
        least = least.min(start.elapsed().as_secs_f64());
    }
    (least, result.expect("at least one run"))
}

/// Nearly Gaussian: sums of eight bytes of a xorshift generator.
fn noise(elements: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let sum: i32 = state.to_le_bytes().iter().map(|&byte| i32::from(byte)).sum();
        // The low bits break the ties that sums of bytes would have.
        (sum - 1020) as f32 / 209.0 + (state & 0xffff) as f32 * 1e-9
    };
    (0..elements).map(|_| next()).collect()
}
