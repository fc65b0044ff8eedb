//! Tokens a second of a text that is continued, at SmolLM2-135M's shape: a prompt, single tokens after a short context and
//! after a long one. Weights are random; what a token is does not change what it costs.
//!
//! `cargo bench -p covey-trainer --bench generate [-- THREADS]...`; beside llama.cpp: tests/interop/time_llama_cpp.py.

use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::{Device, LanguageModel, genesis, open_backend};
use std::time::Instant;

const PROMPT: usize = 512;
const SINGLE: usize = 48;
/// Best of so many: the machine may do something else meanwhile.
const TIMES: usize = 3;

fn main() {
    let asked: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let threads = if asked.is_empty() { vec![1, 2] } else { asked };
    let model = Model {
        vocabulary: 49_152,
        width: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        feed_forward: 1536,
        sequence: 8192,
        rope_theta: 100_000.0,
        norm_epsilon: 1e-5,
        tied: true,
        seed: Some(1),
        head: None,
        rope_scaling: None,
    };
    let bytes = 4 * Layout::of(&model).elements();
    let state = genesis::initial_state(&model).expect("it is drawn");
    println!("{} parameters, {:.0} MB", bytes / 4, bytes as f64 / 1e6);
    println!("threads  prompt of {PROMPT}, tok/s  after 16, tok/s  GB/s of weights  after {PROMPT}, tok/s");
    for threads in threads {
        let backend = open_backend(&Device::Cpu { threads }, &model).expect("a model that can be");
        let mut loaded = backend.model().expect("room for a model");
        loaded.load(&mut as_le_bytes(&state)).expect("a whole state");
        let prompt = best(PROMPT, || prepare(&mut *loaded, PROMPT));
        let short = best(SINGLE, || single(&mut *loaded, 16));
        let long = best(SINGLE, || single(&mut *loaded, PROMPT));
        let rate = short * bytes as f64 / 1e9;
        println!("{threads:7}  {prompt:20.1}  {short:15.1}  {rate:15.1}  {long:16.1}");
    }
}

/// Tokens a second of the fastest of some calls, each of which says how long it took for `tokens`.
fn best(tokens: usize, mut call: impl FnMut() -> f64) -> f64 {
    let fastest = (0..TIMES).map(|_| call()).fold(f64::INFINITY, f64::min);
    tokens as f64 / fastest
}

fn prepare(loaded: &mut dyn LanguageModel, tokens: usize) -> f64 {
    loaded.rewind(0);
    let text: Vec<u32> = (0..tokens as u32).map(|at| at * 7 % 49_152).collect();
    let begun = Instant::now();
    loaded.extend(&text).expect("a text within the sequence");
    begun.elapsed().as_secs_f64()
}

fn single(loaded: &mut dyn LanguageModel, context: usize) -> f64 {
    if loaded.context().len() < context {
        prepare(loaded, context);
    }
    loaded.rewind(context);
    let begun = Instant::now();
    for token in 0..SINGLE as u32 {
        loaded.extend(&[token]).expect("a text within the sequence");
    }
    begun.elapsed().as_secs_f64()
}
