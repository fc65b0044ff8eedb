use super::book::runs;
use super::*;
use crate::SparseShard;
use crate::quantise::quantise;
use crate::quantise::{MAGNITUDE_MAX, MAGNITUDE_MIN};
use crate::select::Selector;
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use proptest::prelude::*;

fn layout(shapes: &[&[usize]]) -> Layout {
    Layout::new(shapes.iter().enumerate().map(|(at, shape)| (format!("t{at:03}"), shape.to_vec())).collect())
}

/// Values whose positions are as good as random, from a seed.
fn noise(seed: u64, elements: usize) -> Vec<f32> {
    let mut reader = covey_proto::derive("covey/test/noise", &[&seed.to_le_bytes()]);
    let mut bytes = vec![0; elements * 4];
    reader.fill(&mut bytes);
    let pair = |bytes: &[u8]| f32::from(i16::from_le_bytes([bytes[0], bytes[1]]));
    bytes.chunks_exact(4).map(|four| pair(&four[..2]) * pair(&four[2..]) / 1e9).collect()
}

fn sparse(
    layout: &Layout,
    chunks: std::ops::Range<usize>,
    k: usize,
    quantiser: Quantiser,
    state: &[f32],
) -> SparseShard {
    let mut shard = SparseShard::with_capacity(chunks.start, chunks.len(), 0);
    let (mut selector, mut chosen) = (Selector::new(), Vec::new());
    for run in runs(layout, chunks, quantiser) {
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        for number in run {
            let chunk = layout.chunk(number);
            let dense: Vec<f32> = (0..chunk.len()).map(|index| state[chunk.position(index)]).collect();
            selector.choose(&dense, chunk.values(k), &mut chosen);
            values.extend(chosen.iter().map(|&index| dense[index as usize]));
            indices.push(chosen.clone());
        }
        let sends = quantise(quantiser, &mut values);
        for indices in indices {
            let rest = values.split_off(indices.len());
            match sends {
                true => shard.push_chunk(&indices, &values),
                false => shard.push_chunk(&[], &[]),
            }
            values = rest;
        }
    }
    shard
}

fn shapes() -> impl Strategy<Value = Layout> {
    let shape = prop_oneof![
        (1usize..150, 1usize..150).prop_map(|(rows, columns)| vec![rows, columns]),
        (1usize..9000).prop_map(|elements| vec![elements]),
    ];
    proptest::collection::vec(shape, 1..5)
        .prop_map(|shapes| layout(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn quantisers() -> impl Strategy<Value = Quantiser> {
    prop_oneof![Just(Quantiser::Sign), Just(Quantiser::TwoMagnitudes), Just(Quantiser::Templar)]
}

fn ks() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..=4096, 1usize..=128, Just(4096)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_shard_comes_back_and_fits_its_bound(
        layout in shapes(), k in ks(), quantiser in quantisers(), seed: u64, silent: bool,
    ) {
        let mut state = noise(seed, layout.elements());
        if silent {
            let half = state.len() / 2;
            state[half..].fill(1e-30);
        }
        let shard = sparse(&layout, 0..layout.chunks(), k, quantiser, &state);
        let bytes = encode_shard(&layout, k, quantiser, &shard).unwrap();
        prop_assert!(bytes.len() <= max_shard_bytes(&layout, 0..layout.chunks(), k, quantiser));
        prop_assert_eq!(decode_shard(&bytes, &layout, 0..layout.chunks(), k, quantiser).unwrap(), shard);
    }

    #[test]
    fn a_changed_byte_is_refused_or_is_another_shard_in_its_one_form(
        layout in shapes(), k in ks(), quantiser in quantisers(), seed: u64, at: prop::sample::Index, xor in 1u8..,
    ) {
        let shard = sparse(&layout, 0..layout.chunks(), k, quantiser, &noise(seed, layout.elements()));
        let mut bytes = encode_shard(&layout, k, quantiser, &shard).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        if let Ok(other) = decode_shard(&bytes, &layout, 0..layout.chunks(), k, quantiser) {
            prop_assert_ne!(&other, &shard);
            prop_assert_eq!(encode_shard(&layout, k, quantiser, &other).unwrap(), bytes);
        }
    }

    #[test]
    fn a_shard_cut_short_or_made_longer_is_refused(
        layout in shapes(), k in ks(), quantiser in quantisers(), seed: u64, at: prop::sample::Index, more in 1usize..9,
    ) {
        let shard = sparse(&layout, 0..layout.chunks(), k, quantiser, &noise(seed, layout.elements()));
        let mut bytes = encode_shard(&layout, k, quantiser, &shard).unwrap();
        prop_assert!(decode_shard(&bytes[..at.index(bytes.len())], &layout, 0..layout.chunks(), k, quantiser).is_err());
        bytes.resize(bytes.len() + more, 0);
        prop_assert!(decode_shard(&bytes, &layout, 0..layout.chunks(), k, quantiser).is_err());
    }

    #[test]
    fn arbitrary_streams_are_refused_or_canonical(
        layout in shapes(), k in ks(), quantiser in quantisers(), noise in proptest::collection::vec(any::<u8>(), 0..400),
        scale in MAGNITUDE_MIN - 1..=MAGNITUDE_MAX + 1,
    ) {
        // A plausible head, so that the noise reaches the stream.
        let chunks = 0..layout.chunks().min(GROUP_CHUNKS);
        let scale = scale.to_le_bytes();
        let book = |_| match quantiser {
            Quantiser::Sign => scale.to_vec(),
            Quantiser::TwoMagnitudes => scale.repeat(2),
            Quantiser::Templar => [&[2, 0, 0, 0, 0, 0, 0][..], &scale].concat(),
        };
        let head: Vec<u8> = runs(&layout, chunks.clone(), quantiser).flat_map(book).collect();
        let mut bytes = ((head.len() + noise.len()) as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&noise);
        for bytes in [&bytes, &noise] {
            if let Ok(shard) = decode_shard(bytes, &layout, chunks.clone(), k, quantiser) {
                prop_assert_eq!(&encode_shard(&layout, k, quantiser, &shard).unwrap(), bytes);
            }
        }
    }
}

#[test]
fn sizes_are_near_the_index_sets_entropy() {
    let layout = layout(&[&[1024, 1024]]);
    let state = noise(1, layout.elements());
    for (k, quantiser, limit) in [
        (64, Quantiser::Sign, 8.70),
        (256, Quantiser::Sign, 6.50),
        (1024, Quantiser::Sign, 4.29),
        (64, Quantiser::TwoMagnitudes, 9.95),
        (64, Quantiser::Templar, 9.42),
        (2048, Quantiser::Sign, 3.05),
        (4096, Quantiser::Sign, 1.01),
    ] {
        let shard = sparse(&layout, 0..layout.chunks(), k, quantiser, &state);
        let bytes = encode_shard(&layout, k, quantiser, &shard).unwrap();
        let bits = bytes.len() as f64 * 8.0 / shard.values().len() as f64;
        println!("k {k} {quantiser:?}: {bits:.4} bits a value");
        assert!(bits <= limit, "k {k} {quantiser:?}: {bits:.4} bits a value, limit {limit}");
    }
}

#[test]
fn a_group_is_found_by_the_table_alone() {
    let layout = layout(&[&[64 * 64, 3 * 64]]);
    let state = noise(2, layout.elements());
    let whole =
        encode_shard(&layout, 64, Quantiser::Sign, &sparse(&layout, 0..192, 64, Quantiser::Sign, &state)).unwrap();
    let second =
        encode_shard(&layout, 64, Quantiser::Sign, &sparse(&layout, 64..128, 64, Quantiser::Sign, &state)).unwrap();
    let first_bytes = u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    assert_eq!(whole[4..8], second[..4]);
    assert_eq!(whole[12 + first_bytes..][..second.len() - 4], second[4..]);
}

#[test]
fn what_the_run_does_not_allow_is_not_encoded() {
    let layout = layout(&[&[64]]);
    let encode = |indices: &[u16], values: &[f32]| {
        let mut shard = SparseShard::with_capacity(0, 1, 0);
        shard.push_chunk(indices, values);
        encode_shard(&layout, 128, Quantiser::Sign, &shard)
    };
    assert!(encode(&[], &[]).is_ok() && encode(&[3, 9], &[1.0, -1.0]).is_ok());
    assert_eq!(encode(&[3], &[1.0]), Err(EncodeError::Count { chunk: 0, got: 1, need: 2 }));
    for indices in [[3, 3], [9, 3], [3, 64]] {
        assert_eq!(encode(&indices, &[1.0, 1.0]), Err(EncodeError::Indices { chunk: 0, elements: 64 }));
    }
    for values in [[1.0, 2.0], [0.0, 0.0], [1.0001, 1.0001], [f32::NAN, f32::NAN], [1e-30, 1e-30], [2e6, 2e6]] {
        assert_eq!(encode(&[3, 9], &values), Err(EncodeError::Values { chunk: 0, quantiser: Quantiser::Sign }));
    }
}

#[test]
fn refusals_name_the_chunk_and_the_reason() {
    let layout = layout(&[&[64, 128]]);
    let shard = sparse(&layout, 0..2, 64, Quantiser::Sign, &noise(3, layout.elements()));
    let good = encode_shard(&layout, 64, Quantiser::Sign, &shard).unwrap();
    let decode = |bytes: &[u8]| decode_shard(bytes, &layout, 0..2, 64, Quantiser::Sign).unwrap_err();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes)
    };
    let max = max_shard_bytes(&layout, 0..2, 64, Quantiser::Sign);
    assert_eq!(decode(&vec![0; max + 1]), CodecError::TooLong { got: max + 1, max });
    assert_eq!(decode(&[]), CodecError::Table { groups: 1, got: 0 });
    assert_eq!(changed(0, good[0] ^ 1), CodecError::Table { groups: 1, got: good.len() });
    assert!(matches!(changed(7, 0xff), CodecError::Scales { chunk: 1, .. }));
    assert_eq!(changed(15, 0xff), CodecError::Head { chunk: 0 });
}
