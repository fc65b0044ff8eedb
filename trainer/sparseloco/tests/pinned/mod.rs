//! What tests/data/sparseloco_vectors.json is made of, and whether this build makes the same. The integration test asks once,
//! the crate's own tests once for each level of vector instructions.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use crate::common::{ErrorFeedback, layout, noise};
use covey_proto::Digest;
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use covey_sparseloco::{
    CODEC_VERSION, Compression, OuterStep, SparseShard, decode_shard, outer_step, state_root, state_shards,
};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;

/// The repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One shard's question: everything that its reader knows from the run.
#[derive(Clone)]
struct Case {
    name: &'static str,
    layout: Layout,
    chunks: Range<usize>,
    k: usize,
    quantiser: Quantiser,
}

impl Case {
    fn new(name: &'static str, shapes: &[&[usize]], k: usize, quantiser: Quantiser) -> Case {
        let layout = layout(shapes);
        Case { name, chunks: 0..layout.chunks(), layout, k, quantiser }
    }

    /// The shard that this pseudo-gradient makes.
    fn encode(&self, delta: &[f32]) -> Vec<u8> {
        let shard_chunks = self.chunks.len();
        let how = Compression { beta: 0.95, k: self.k, quantiser: self.quantiser, shard_chunks };
        let done = ErrorFeedback::zero(&self.layout).compress(&self.layout, &how, delta).unwrap();
        done.shards[self.chunks.start / shard_chunks].clone()
    }

    fn decode(&self, bytes: &[u8]) -> Result<SparseShard, covey_sparseloco::CodecError> {
        decode_shard(bytes, &self.layout, self.chunks.clone(), self.k, self.quantiser)
    }

    fn to_json(&self, bytes: &[u8]) -> Value {
        json!({
            "name": self.name, "shapes": shapes_of(&self.layout), "chunks": [self.chunks.start, self.chunks.end],
            "k": self.k, "quantiser": self.quantiser, "bytes": hex::encode(bytes),
        })
    }
}

fn shapes_of(layout: &Layout) -> Value {
    layout.tensors().iter().map(|tensor| json!([tensor.name, tensor.shape])).collect()
}

fn cases() -> Vec<(Case, Vec<f32>)> {
    use Quantiser::{Sign, Templar, TwoMagnitudes};
    let noisy = |case: Case, seed| (case.clone(), noise(seed, case.layout.elements()));
    let with = |case: Case, delta: &dyn Fn(usize) -> f32| {
        let delta = (0..case.layout.elements()).map(delta).collect();
        (case, delta)
    };
    let part = Case { chunks: 2..4, ..Case::new("chunks 2 and 3 of five", &[&[130, 100]], 40, Sign) };
    vec![
        noisy(Case::new("whole tiles, signs", &[&[64, 128]], 64, Sign), 1),
        noisy(Case::new("ragged tiles, two magnitudes", &[&[70, 66], &[5]], 100, TwoMagnitudes), 2),
        noisy(Case::new("more than one group", &[&[1, 64 * 70]], 64, Sign), 3),
        noisy(Case::new("more than one group, two magnitudes", &[&[1, 4 * 70]], 2048, TwoMagnitudes), 4),
        noisy(Case::new("every value sent", &[&[9], &[2, 3]], 4096, Sign), 5),
        noisy(Case::new("nearly every value sent", &[&[300]], 3900, TwoMagnitudes), 6),
        noisy(part, 7),
        with(Case::new("silent chunks among others", &[&[64, 256]], 8, Sign), &|at| {
            if at / 64 % 2 == 0 { at as f32 } else { 1e-30 }
        }),
        with(Case::new("nothing sent", &[&[100, 100]], 64, TwoMagnitudes), &|_| 0.0),
        with(Case::new("only the last positions", &[&[4096]], 3, Sign), &|at| {
            if at > 4092 { -0.25 } else { 0.0 }
        }),
        with(Case::new("equal magnitudes", &[&[500]], 64, TwoMagnitudes), &|at| {
            if at % 3 == 0 { -1.5 } else { 1.5 }
        }),
        with(Case::new("largest and smallest magnitudes", &[&[64]], 256, TwoMagnitudes), &|at| match at {
            5 => 1e30,
            9 => -1e-25,
            _ => 0.0,
        }),
        noisy(Case::new("two tensors in a group, Templar's values", &[&[70, 66], &[300]], 100, Templar), 9),
        noisy(Case::new("a tensor over two groups, Templar's values", &[&[4, 64 * 70]], 256, Templar), 10),
        with(Case::new("one value and no bits, Templar's", &[&[64]], 128, Templar), &|at| {
            if at < 2 { 0.5 } else { 0.0 }
        }),
        with(Case::new("a silent tensor beside another, Templar's values", &[&[90], &[64, 65]], 64, Templar), &|at| {
            if at < 90 { 0.0 } else { at as f32 - 2000.0 }
        }),
    ]
}

fn shard_vectors() -> Vec<Value> {
    let vector = |(case, delta): (Case, Vec<f32>)| {
        let bytes = case.encode(&delta);
        let shard = case.decode(&bytes).unwrap();
        let indices: Vec<&[u16]> = case.chunks.clone().map(|number| shard.chunk(number).0).collect();
        let bits = |number| shard.chunk(number).1.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        let mut vector = case.to_json(&bytes);
        vector["indices"] = json!(indices);
        vector["value_bits"] = json!(case.chunks.clone().map(bits).collect::<Vec<_>>());
        vector
    };
    cases().into_iter().map(vector).collect()
}

/// Bytes that are near a valid shard and are none.
fn refused_vectors() -> Vec<Value> {
    let (sign, delta) = cases().swap_remove(0);
    let sign_bytes = sign.encode(&delta);
    let two = Case::new("", &[&[64]], 128, Quantiser::TwoMagnitudes);
    let two_bytes = two.encode(&noise(8, 64));
    let mut vectors = Vec::new();
    let mut refuse = |name: &'static str, case: &Case, bytes: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let case = Case { name, ..case.clone() };
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        let mut vector = case.to_json(&bytes);
        vector["why"] = json!(case.decode(&bytes).unwrap_err().to_string());
        vectors.push(vector);
    };
    refuse("no bytes", &sign, &sign_bytes, &|bytes| bytes.clear());
    refuse("a byte too many", &sign, &sign_bytes, &|bytes| bytes.push(0));
    refuse("a byte too many, in the table too", &sign, &sign_bytes, &|bytes| {
        bytes.push(0);
        bytes[0] += 1;
    });
    refuse("a word too few", &sign, &sign_bytes, &|bytes| {
        bytes.truncate(bytes.len() - 4);
        bytes[0] -= 4;
    });
    refuse("a negative scale", &sign, &sign_bytes, &|bytes| bytes[5] |= 0x80);
    refuse("a scale below the smallest", &sign, &sign_bytes, &|bytes| bytes[4..6].copy_from_slice(&[0x7f, 0x21]));
    refuse("a scale above the largest", &sign, &sign_bytes, &|bytes| bytes[4..6].copy_from_slice(&[0x81, 0x49]));
    refuse("a scale that is not a number", &sign, &sign_bytes, &|bytes| bytes[4..6].copy_from_slice(&[0xc0, 0x7f]));
    refuse("a chunk silenced, its values left", &sign, &sign_bytes, &|bytes| bytes[4..6].fill(0));
    refuse("a state below the least", &sign, &sign_bytes, &|bytes| bytes[11..16].fill(0));
    refuse("a state above the largest", &sign, &sign_bytes, &|bytes| bytes[15] |= 0x80);
    refuse("a changed last byte", &sign, &sign_bytes, &|bytes| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
    refuse("magnitudes out of order", &two, &two_bytes, &|bytes| {
        let (low, high) = bytes[4..8].split_at_mut(2);
        low.swap_with_slice(high);
    });
    refuse("the low magnitude silent", &two, &two_bytes, &|bytes| bytes[4..6].fill(0));
    // Index 0 and 1, both of the low magnitude: each symbol is the first class of its table.
    let unused = unused_magnitude(&two);
    refuse("a magnitude that no value has", &two, &unused, &|_| {});
    let (values, delta) = cases().into_iter().find(|(case, _)| case.name.starts_with("one value")).unwrap();
    // Table, count, value, state.
    let values_bytes = values.encode(&delta);
    refuse("five values of a tensor", &values, &values_bytes, &|bytes| bytes[4] = 5);
    refuse("a value that is not a number", &values, &values_bytes, &|bytes| bytes[5..9].fill(0xff));
    refuse("a value too small", &values, &values_bytes, &|bytes| bytes[5..9].copy_from_slice(&1e-30f32.to_le_bytes()));
    refuse("minus zero", &values, &values_bytes, &|bytes| bytes[5..9].copy_from_slice(&(-0.0f32).to_le_bytes()));
    refuse("two equal values", &values, &values_bytes, &|bytes| {
        let twice = [&[2], &bytes[5..9], &bytes[5..9]].concat();
        bytes.splice(4..9, twice);
        bytes[0] += 4;
    });
    refuse("a value that no index has", &values, &values_bytes, &|bytes| {
        let two = [&[2], &bytes[5..9], &1f32.to_le_bytes()[..]].concat();
        bytes.splice(4..9, two);
        bytes[0] += 4;
    });
    vectors
}

/// A chunk of two values that names two magnitudes and uses one: found by search, since no encoder writes it.
fn unused_magnitude(case: &Case) -> Vec<u8> {
    let found = (0..=u32::MAX).find_map(|low| {
        let mut bytes = vec![12, 0, 0, 0, 0x80, 0x3f, 0x00, 0x40];
        // A chunk of two values fits a state without words.
        bytes.extend_from_slice(&(u64::from(low) << 16 | 1 << 47).to_le_bytes());
        bytes[0] = bytes.len() as u8 - 4;
        let unused = covey_sparseloco::CodecError::Unused { chunk: 0 };
        (case.decode(&bytes) == Err(unused)).then_some(bytes)
    });
    found.expect("some state decodes to two values of one magnitude")
}

/// Contributors of different loudness; the second sends nothing of the first tensor, the last far too much of the second.
fn deltas(layout: &Layout) -> Vec<Vec<f32>> {
    let mut deltas: Vec<Vec<f32>> = (1..4).map(|uid| noise(100 + uid, layout.elements())).collect();
    deltas[1][layout.tensors()[0].range()].fill(0.0);
    deltas[2].iter_mut().for_each(|value| *value *= 8.0);
    deltas[2][layout.tensors()[1].range()].iter_mut().for_each(|value| *value *= 1e7);
    deltas
}

fn outer_vectors() -> Vec<Value> {
    let layout = layout(&[&[12, 3], &[40], &[7, 9]]);
    let how = Compression { beta: 0.95, k: 1024, quantiser: Quantiser::Sign, shard_chunks: 2 };
    let contributions: Vec<Vec<Vec<u8>>> = deltas(&layout)
        .iter()
        .map(|delta| ErrorFeedback::zero(&layout).compress(&layout, &how, delta).unwrap().shards)
        .collect();
    let theta = noise(9, layout.elements());
    let hex_of = |theta: &[f32]| state_shards(theta, theta.len()).map(hex::encode).collect::<String>();
    let vector = |(alpha, rho): (f64, f64)| {
        let mut stepped = theta.clone();
        outer_step(
            &layout,
            &mut stepped,
            &decode_all(&layout, &how, &contributions),
            OuterStep { alpha, rho, reach: &[] },
        )
        .unwrap();
        json!({
            "name": format!("alpha {alpha}, rho {rho}"), "shapes": shapes_of(&layout), "k": how.k, "quantiser": how.quantiser,
            "shard_chunks": how.shard_chunks, "alpha": alpha, "rho": rho,
            "contributions": contributions.iter().map(|shards| shards.iter().map(hex::encode).collect()).collect::<Vec<Vec<_>>>(),
            "theta": hex_of(&theta), "stepped": hex_of(&stepped),
        })
    };
    [(1.0, 1.0), (0.65, 0.0), (0.65, 0.5)].into_iter().map(vector).collect()
}

fn decode_all(layout: &Layout, how: &Compression, contributions: &[Vec<Vec<u8>>]) -> Vec<Vec<SparseShard>> {
    let decode = |(number, bytes): (usize, &Vec<u8>)| {
        decode_shard(bytes, layout, layout.shard(number, how.shard_chunks), how.k, how.quantiser).unwrap()
    };
    contributions.iter().map(|shards| shards.iter().enumerate().map(decode).collect()).collect()
}

/// Three rounds of three contributors on a state of 83 k elements: one digest for all that was made.
fn pin(quantiser: Quantiser, k: usize, rho: f64) -> Value {
    let layout = layout(&[&[5000], &[200, 333], &[64], &[65, 190]]);
    let how = Compression { beta: 0.95, k, quantiser, shard_chunks: 7 };
    let mut theta = noise(10, layout.elements());
    let mut feedback = vec![ErrorFeedback::zero(&layout); 3];
    let mut shard_digests = Vec::new();
    for round in 0..3 {
        let mut contributions = Vec::new();
        for (feedback, mut delta) in feedback.iter_mut().zip(deltas(&layout)) {
            delta.rotate_left(round * 1000);
            let done = feedback.compress(&layout, &how, &delta).unwrap();
            shard_digests.extend(done.shards.iter().flat_map(|bytes| *Digest::of(bytes).as_bytes()));
            *feedback = done.feedback;
            contributions.push(done.shards);
        }
        let step = OuterStep { alpha: 0.7, rho, reach: &[] };
        outer_step(&layout, &mut theta, &decode_all(&layout, &how, &contributions), step).unwrap();
    }
    let feedback: Vec<u8> = feedback.iter().flat_map(ErrorFeedback::to_bytes).collect();
    json!({
        "name": format!("three rounds, k {k}, rho {rho}"), "quantiser": quantiser,
        "shards": Digest::of(&shard_digests), "feedback": Digest::of(&feedback), "state_root": state_root(&theta, 16384),
    })
}

/// The file: one vector a line.
fn vectors() -> String {
    let pins = [
        pin(Quantiser::Sign, 64, 1.0),
        pin(Quantiser::Sign, 64, 0.0),
        pin(Quantiser::TwoMagnitudes, 64, 0.0),
        pin(Quantiser::TwoMagnitudes, 1024, 1.0),
    ];
    let list = |vectors: &[Value]| vectors.iter().map(|vector| format!("  {vector}")).collect::<Vec<_>>().join(",\n");
    format!(
        "{{\n\"codec\": {CODEC_VERSION},\n\"shards\": [\n{}\n],\n\"refused\": [\n{}\n],\n\"outer\": [\n{}\n],\n\"pins\": [\n{}\n]\n}}\n",
        list(&shard_vectors()),
        list(&refused_vectors()),
        list(&outer_vectors()),
        list(&pins),
    )
}

/// Makes every vector anew and compares with the file, or writes the file if COVEY_REGENERATE is set.
pub(crate) fn everything_made_is_as_pinned() {
    let path = root().join("tests/data/sparseloco_vectors.json");
    let made = vectors();
    if std::env::var_os("COVEY_REGENERATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap();
    serde_json::from_str::<Value>(&pinned).unwrap();
    for (made, pinned) in made.lines().zip(pinned.lines()) {
        assert_eq!(made, pinned);
    }
    assert_eq!(made.len(), pinned.len());
}
