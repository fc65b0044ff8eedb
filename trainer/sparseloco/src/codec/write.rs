//! From a sparse shard to its bytes. The layout is in the module's head; here is the order of work.

use super::book::{self, Book, runs};
use super::rans::{self, Step};
use super::{ENTRY_BYTES, GROUP_CHUNKS, assert_k, gap};
use crate::SparseShard;
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use std::ops::Range;

/// Why a shard cannot be written: its maker's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A chunk that sends neither nothing nor what the run says.
    #[error("chunk {chunk} sends {got} values; it must send {need}, or none")]
    Count {
        /// The chunk.
        chunk: usize,
        /// Values in the shard.
        got: usize,
        /// Values that the run says.
        need: usize,
    },
    /// Indices that do not rise or leave the chunk.
    #[error("chunk {chunk} has indices that do not rise, or leave its {elements} elements")]
    Indices {
        /// The chunk.
        chunk: usize,
        /// Its elements.
        elements: usize,
    },
    /// Values that the quantiser does not make.
    #[error("chunk {chunk} has values that {quantiser:?} does not make: round them with `quantise` first")]
    Values {
        /// The chunk.
        chunk: usize,
        /// The run's quantiser.
        quantiser: Quantiser,
    },
}

/// Encodes a shard whose values were rounded by [`quantise`](crate::quantise::quantise). The layout is in the
/// [module's head](crate::codec).
///
/// # Errors
/// A shard that the run does not allow. The first offending chunk is named.
///
/// # Panics
/// If k is not 1 to 4,096, or the shard covers chunks that the layout does not have.
pub fn encode_shard(
    layout: &Layout,
    k: usize,
    quantiser: Quantiser,
    shard: &SparseShard,
) -> Result<Vec<u8>, EncodeError> {
    encode_chunks(layout, k, quantiser, shard.chunks(), |number| shard.chunk(number))
}

/// Encodes the shard of these chunks, whose indices and values `sent` knows, wherever they lie.
pub(crate) fn encode_chunks<'s>(
    layout: &Layout,
    k: usize,
    quantiser: Quantiser,
    chunks: Range<usize>,
    sent: impl Fn(usize) -> (&'s [u16], &'s [f32]),
) -> Result<Vec<u8>, EncodeError> {
    assert_k(k);
    let groups = chunks.len().div_ceil(GROUP_CHUNKS);
    let mut out = vec![0; groups * ENTRY_BYTES];
    let (mut steps, mut words) = (Vec::new(), Vec::new());
    for group in 0..groups {
        let begin = out.len();
        let first = chunks.start + group * GROUP_CHUNKS;
        steps.clear();
        for run in runs(layout, first..chunks.end.min(first + GROUP_CHUNKS), quantiser) {
            let values = run.clone().flat_map(|number| sent(number).1);
            let book =
                book::write(quantiser, values, &mut out).ok_or(EncodeError::Values { chunk: run.start, quantiser })?;
            for number in run {
                let shape = layout.chunk(number);
                let (indices, values) = sent(number);
                let need = book.map_or(0, |_| shape.values(k));
                check(indices, number, shape.len(), need)?;
                if let Some(book) = &book {
                    push_steps(&mut steps, (indices, values), shape.len() as u32, book);
                }
            }
        }
        rans::encode(&steps, &mut words, &mut out);
        // At most 64 chunks of 4,096 values of 5 bytes.
        let bytes = (out.len() - begin) as u32;
        out[group * ENTRY_BYTES..][..ENTRY_BYTES].copy_from_slice(&bytes.to_le_bytes());
    }
    Ok(out)
}

/// Whether the chunk sends what the run allows.
fn check(indices: &[u16], chunk: usize, elements: usize, need: usize) -> Result<(), EncodeError> {
    if indices.len() != need {
        return Err(EncodeError::Count { chunk, got: indices.len(), need });
    }
    let rising = indices.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || indices.last().is_some_and(|&last| usize::from(last) >= elements) {
        return Err(EncodeError::Indices { chunk, elements });
    }
    Ok(())
}

/// The steps of one chunk, in the decoder's order. The book has all its values.
fn push_steps(steps: &mut Vec<Step>, (indices, values): (&[u16], &[f32]), elements: u32, book: &Book) {
    let value_bits = book.bits;
    let (mut positions, mut left, mut at) = (elements, indices.len() as u32, 0);
    for (&index, value) in indices.iter().zip(values) {
        let symbol = book.symbol(*value);
        let mut gap = u32::from(index) - at;
        loop {
            if positions == left {
                steps.push(Step::plain(value_bits, symbol as u16));
                break;
            }
            let level = gap::level(positions, left);
            let class = (gap >> level.shift) as usize;
            if class < gap::ESCAPE {
                let (start, freq) = level.slots_of(class);
                let low = gap & ((1 << level.shift) - 1);
                let bits = (low << value_bits | symbol) as u16;
                steps.push(Step { start, freq, width: (level.shift + value_bits) as u8, bits });
                break;
            }
            let (start, freq) = level.slots_of(gap::ESCAPE);
            steps.push(Step { start, freq, width: 0, bits: 0 });
            let skipped = (gap::ESCAPE as u32) << level.shift;
            positions -= skipped;
            gap -= skipped;
        }
        positions -= gap + 1;
        left -= 1;
        at = u32::from(index) + 1;
    }
}
