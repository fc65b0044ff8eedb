//! From a sparse shard to its bytes. The layout is in the module's head; here is the order of work.

use super::book::{self, Book, runs};
use super::rans::{Encoder, Symbol};
use super::{ENTRY_BYTES, GROUP_CHUNKS, assert_k, gap};
use crate::SparseShard;
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use covey_simd::vectorised;
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
    let (mut books, mut stream) = (Vec::with_capacity(GROUP_CHUNKS), Encoder::default());
    for group in 0..groups {
        let begin = out.len();
        let first = chunks.start + group * GROUP_CHUNKS;
        books.clear();
        for run in runs(layout, first..chunks.end.min(first + GROUP_CHUNKS), quantiser) {
            let values = run.clone().flat_map(|number| sent(number).1);
            let book =
                book::write(quantiser, values, &mut out).ok_or(EncodeError::Values { chunk: run.start, quantiser })?;
            for number in run {
                let shape = layout.chunk(number);
                let need = book.map_or(0, |_| shape.values(k));
                check(sent(number).0, number, shape.len(), need)?;
                books.push((shape.len() as u32, book));
            }
        }
        stream.begin();
        for (within, (elements, book)) in books.iter().enumerate().rev() {
            if let Some(book) = book {
                let (indices, values) = sent(first + within);
                write_chunk(&mut stream, indices, values, *elements, book);
            }
        }
        stream.finish(&mut out);
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

vectorised! {
    /// Writes the steps of one chunk, which the book has all values of, from the last to the first.
    fn write_chunk(stream: &mut Encoder, indices: &[u16], values: &[f32], elements: u32, book: &Book) {
        // A value's own step, and one for each 31 positions or more that are skipped.
        stream.reserve(indices.len() + elements as usize / gap::ESCAPE);
        for (at, (&index, value)) in indices.iter().zip(values).enumerate().rev() {
            let start = at.checked_sub(1).map_or(0, |before| u32::from(indices[before]) + 1);
            let left = (indices.len() - at) as u32;
            write_value(stream, elements - start, left, u32::from(index) - start, (book.bits, book.symbol(*value)));
        }
    }
}

/// Writes the steps of one value, of `left` in as many positions, that comes after a gap.
#[inline(always)]
fn write_value(stream: &mut Encoder, positions: u32, left: u32, gap: u32, (value_bits, symbol): (u32, u32)) {
    if positions == left {
        return stream.step(&Symbol::ALL, value_bits, symbol);
    }
    let level = gap::level(positions, left);
    let class = (gap >> level.shift) as usize;
    if class < gap::ESCAPE {
        let low = gap & ((1 << level.shift) - 1);
        return stream.step(level.symbol(class), level.shift + value_bits, low << value_bits | symbol);
    }
    write_far(stream, level, positions, left, gap, (value_bits, symbol));
}

/// Writes a value so far away that the positions before it are skipped first: its own step, and before that the skip.
#[cold]
fn write_far(stream: &mut Encoder, level: &gap::Level, positions: u32, left: u32, gap: u32, value: (u32, u32)) {
    let skipped = (gap::ESCAPE as u32) << level.shift;
    write_value(stream, positions - skipped, left, gap - skipped, value);
    stream.step(level.symbol(gap::ESCAPE), 0, 0);
}
