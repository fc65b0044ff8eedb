//! The shard codec: what decodes is the one encoding of what it says; what does not, names a chunk of its own.

use super::take;
use covey_proto::layout::{CHUNK, Layout};
use covey_proto::run::Quantiser;
use covey_sparseloco::{CodecError, decode_shard, encode_shard, max_shard_bytes};
use std::ops::Range;
use std::sync::OnceLock;

const KS: [usize; 4] = [64, 1, 500, CHUNK];

/// Whole and ragged tiles, and tensors of one dimension: 75 chunks, two groups.
fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    let shapes =
        || vec![("a".to_owned(), vec![64 * 9, 64 * 8]), ("b".to_owned(), vec![70, 65]), ("c".to_owned(), vec![100])];
    LAYOUT.get_or_init(|| Layout::new(shapes()))
}

/// What the first three bytes ask for: k, quantiser, and the chunks that the shard covers.
fn asked([k, quantiser, chunks]: [u8; 3]) -> (usize, Quantiser, Range<usize>) {
    let all = layout().chunks();
    let k = KS[usize::from(k) % KS.len()];
    let quantiser = (1..=u32::from(u8::MAX)).map_while(Quantiser::from_byte).cycle().nth(usize::from(quantiser));
    let chunks = match chunks % 4 {
        0 => 0..all,
        1 => 0..3,
        2 => all - 6..all,
        _ => 60..70,
    };
    (k, quantiser.expect("there is a quantiser"), chunks)
}

pub(super) fn shard(mut data: &[u8]) -> bool {
    let (k, quantiser, chunks) = asked(take(&mut data));
    match decode_shard(data, layout(), chunks.clone(), k, quantiser) {
        Ok(shard) => {
            assert_eq!(encode_shard(layout(), k, quantiser, &shard).as_deref(), Ok(data), "one value, one encoding");
            assert!(data.len() <= max_shard_bytes(layout(), chunks.clone(), k, quantiser));
            assert_eq!(shard.chunks(), chunks);
            for number in chunks {
                let (indices, values) = shard.chunk(number);
                assert!(indices.is_sorted_by(|before, after| before < after));
                let last = indices.last().map_or(0, |last| usize::from(*last));
                assert!(indices.is_empty() || last < layout().chunk(number).len());
                assert!(values.iter().all(|value| value.is_finite() && value.abs() <= 1_048_576.0));
            }
            true
        }
        Err(error) => {
            assert!(chunk_of(&error).is_none_or(|chunk| chunks.contains(&chunk)), "{error}: not one of {chunks:?}");
            false
        }
    }
}

/// The chunk that an error blames: none if the shard as a whole cannot be.
fn chunk_of(error: &CodecError) -> Option<usize> {
    match *error {
        CodecError::TooLong { .. } | CodecError::Table { .. } => None,
        CodecError::Head { chunk }
        | CodecError::Scales { chunk, .. }
        | CodecError::Index { chunk }
        | CodecError::Values { chunk }
        | CodecError::Unused { chunk }
        | CodecError::Truncated { chunk }
        | CodecError::Ending { chunk } => Some(chunk),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let head = |k: u8, quantiser: u8, chunks: u8| [k, quantiser, chunks];
    let kinds = [head(0, 0, 1), head(0, 1, 2), head(0, 2, 1), head(1, 0, 0), head(1, 2, 3), head(3, 1, 2)];
    kinds.into_iter().filter_map(|kind| Some([kind.as_slice(), &encoded(kind)?].concat())).collect()
}

/// A shard in which every third chunk sends nothing.
fn encoded(kind: [u8; 3]) -> Option<Vec<u8>> {
    let (k, quantiser, chunks) = asked(kind);
    let mut shard = covey_sparseloco::SparseShard::with_capacity(chunks.start, chunks.len(), 0);
    for number in chunks {
        let chunk = layout().chunk(number);
        let count = chunk.values(k);
        if number % 3 == 2 {
            shard.push_chunk(&[], &[]);
            continue;
        }
        let step = chunk.len() / count;
        let indices: Vec<u16> = (0..count).map(|at| (at * step + (at * 7) % step) as u16).collect();
        let values: Vec<f32> = (0..count).map(|at| value(quantiser, number, at, count)).collect();
        shard.push_chunk(&indices, &values);
    }
    encode_shard(layout(), k, quantiser, &shard).ok()
}

fn value(quantiser: Quantiser, chunk: usize, at: usize, count: usize) -> f32 {
    let sign = if (at + chunk).is_multiple_of(3) { -1.0 } else { 1.0 };
    match quantiser {
        Quantiser::Sign => sign * 0.25,
        Quantiser::TwoMagnitudes => {
            sign * if count > 1 && at % 2 == 1 {
                0.5
            } else if count > 1 {
                0.125
            } else {
                0.5
            }
        }
        // A table of four values a tensor.
        _ => [-0.75, -0.25, 0.25, 0.75][(at + chunk) % 4],
    }
}
