//! From a peer's bytes to a sparse shard, or to a reason why not. Every byte here is hostile.

use super::book::{self, Book, runs};
use super::rans::Decoder;
use super::{CodecError, ENTRY_BYTES, GROUP_CHUNKS, assert_k, gap, max_shard_bytes};
use crate::SparseShard;
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use std::ops::Range;

/// Decodes the shard of these chunks. What it accepts, [`encode_shard`](super::encode_shard) encodes to the same bytes. Memory is sized by the run,
/// never by the bytes.
///
/// # Errors
/// Bytes that are not the one encoding of a shard of this run; the chunk is named.
///
/// # Panics
/// If k is not 1 to 4,096, or the layout does not have these chunks.
pub fn decode_shard(
    bytes: &[u8],
    layout: &Layout,
    chunks: Range<usize>,
    k: usize,
    quantiser: Quantiser,
) -> Result<SparseShard, CodecError> {
    assert_k(k);
    let max = max_shard_bytes(layout, chunks.clone(), k, quantiser);
    if bytes.len() > max {
        return Err(CodecError::TooLong { got: bytes.len(), max });
    }
    let groups = chunks.len().div_ceil(GROUP_CHUNKS);
    let table = CodecError::Table { groups, got: bytes.len() };
    let (entries, mut rest) = bytes.split_at_checked(groups * ENTRY_BYTES).ok_or(table.clone())?;
    let values = chunks.clone().map(|number| layout.chunk(number).values(k)).sum();
    let mut shard = SparseShard::with_capacity(chunks.start, chunks.len(), values);
    for (first, entry) in chunks.clone().step_by(GROUP_CHUNKS).zip(entries.chunks_exact(ENTRY_BYTES)) {
        let size = entry.iter().rev().fold(0, |size, &byte| size << 8 | usize::from(byte));
        let (group, after) = rest.split_at_checked(size).ok_or(table.clone())?;
        rest = after;
        read_group(group, layout, first..chunks.end.min(first + GROUP_CHUNKS), k, quantiser, &mut shard)?;
    }
    if rest.is_empty() { Ok(shard) } else { Err(table) }
}

fn read_group(
    bytes: &[u8],
    layout: &Layout,
    chunks: Range<usize>,
    k: usize,
    quantiser: Quantiser,
    shard: &mut SparseShard,
) -> Result<(), CodecError> {
    let mut rest = bytes;
    let mut books = Vec::with_capacity(chunks.len());
    for run in runs(layout, chunks.clone(), quantiser) {
        books.push((run.clone(), book::read(quantiser, run.start, &mut rest)?));
    }
    let mut stream = Decoder::new(rest).ok_or(CodecError::Head { chunk: chunks.start })?;
    for (run, book) in books {
        let mut used = 0;
        for chunk in run.clone() {
            if let Some(book) = &book {
                let shape = layout.chunk(chunk);
                used |= read_chunk(&mut stream, chunk, shape.len() as u32, shape.values(k) as u32, book, shard)?;
            }
            shard.close_chunk();
        }
        if book.is_some_and(|book| !book.fits(used)) {
            return Err(CodecError::Unused { chunk: run.start });
        }
    }
    if stream.is_finished() { Ok(()) } else { Err(CodecError::Ending { chunk: chunks.start }) }
}

/// Reads the values of a chunk; returns the symbols that it uses, as a mask.
fn read_chunk(
    stream: &mut Decoder<'_>,
    chunk: usize,
    elements: u32,
    count: u32,
    book: &Book,
    shard: &mut SparseShard,
) -> Result<u8, CodecError> {
    let truncated = || CodecError::Truncated { chunk };
    let value_bits = book.bits;
    let value_mask = (1 << value_bits) - 1;
    let (mut positions, mut left, mut at) = (elements, count, 0);
    let mut used = 0;
    while left > 0 {
        let (gap, bits);
        if positions == left {
            (gap, bits) = (0, stream.take_bits(value_bits));
        } else {
            let level = gap::level(positions, left);
            let class = level.class_of(stream.slot());
            let (start, freq) = level.slots_of(class);
            stream.take_symbol(start, freq);
            if class == gap::ESCAPE {
                let skipped = (gap::ESCAPE as u32) << level.shift;
                if skipped > positions - left {
                    return Err(CodecError::Index { chunk });
                }
                stream.refill().ok_or_else(truncated)?;
                positions -= skipped;
                at += skipped;
                continue;
            }
            let plain = stream.take_bits(level.shift + value_bits);
            gap = (class as u32) << level.shift | plain >> value_bits;
            bits = plain & value_mask;
            if gap > positions - left {
                return Err(CodecError::Index { chunk });
            }
        }
        stream.refill().ok_or_else(truncated)?;
        used |= 1 << (bits & 3);
        // Below 4,096: positions only ever shrink from the chunk's elements. The mask is for the optimiser.
        shard.push((at + gap) as u16, book.values[(bits & 3) as usize]);
        at += gap + 1;
        positions -= gap + 1;
        left -= 1;
    }
    Ok(used)
}
