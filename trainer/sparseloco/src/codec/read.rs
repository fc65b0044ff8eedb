//! From a peer's bytes to a sparse shard, or to a reason why not. Every byte here is hostile.

use super::lane::{LANES, Lane, Run, run_lanes};
use super::rans::Decoder;
use super::{CodecError, ENTRY_BYTES, GROUP_CHUNKS, assert_k, book, max_shard_bytes};
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
    let mut heads = Vec::with_capacity(LANES);
    for (first, entry) in chunks.clone().step_by(GROUP_CHUNKS).zip(entries.chunks_exact(ENTRY_BYTES)) {
        let size = entry.iter().rev().fold(0, |size, &byte| size << 8 | usize::from(byte));
        let (group, after) = rest.split_at_checked(size).ok_or(table.clone())?;
        rest = after;
        heads.push(Head::read(group, layout, first..chunks.end.min(first + GROUP_CHUNKS), quantiser)?);
        if heads.len() == LANES {
            read_groups(&mut heads, layout, k, &mut shard)?;
        }
    }
    read_groups(&mut heads, layout, k, &mut shard)?;
    if rest.is_empty() { Ok(shard) } else { Err(table) }
}

/// A group whose books are read.
struct Head<'a> {
    chunks: Range<usize>,
    runs: Vec<Run>,
    stream: Decoder<'a>,
}

impl<'a> Head<'a> {
    fn read(
        mut bytes: &'a [u8],
        layout: &Layout,
        chunks: Range<usize>,
        quantiser: Quantiser,
    ) -> Result<Head<'a>, CodecError> {
        let mut runs = Vec::with_capacity(chunks.len());
        for run in book::runs(layout, chunks.clone(), quantiser) {
            let book = book::read(quantiser, run.start, &mut bytes)?;
            runs.push(Run { chunks: run, book });
        }
        let stream = Decoder::new(bytes).ok_or(CodecError::Head { chunk: chunks.start })?;
        Ok(Head { chunks, runs, stream })
    }

    /// Values of each chunk, as the books say.
    fn counts(&self, layout: &Layout, k: usize) -> impl Iterator<Item = usize> {
        let of_run = move |run: &Run| {
            let sends = run.book.is_some();
            run.chunks.clone().map(move |chunk| if sends { layout.chunk(chunk).values(k) } else { 0 })
        };
        self.runs.iter().flat_map(of_run)
    }
}

/// Decodes groups side by side, and appends their values to the shard.
fn read_groups(
    heads: &mut Vec<Head<'_>>,
    layout: &Layout,
    k: usize,
    shard: &mut SparseShard,
) -> Result<(), CodecError> {
    let counts: Vec<usize> = heads.iter().map(|head| head.counts(layout, k).sum()).collect();
    let (mut indices, mut values) = shard.push_room(heads.iter().flat_map(|head| head.counts(layout, k)));
    let mut lanes = Vec::with_capacity(LANES);
    for (head, count) in heads.drain(..).zip(counts) {
        let (of_lane, rest) = (indices.split_at_mut(count), values.split_at_mut(count));
        let (places, after) = ((of_lane.0, rest.0), (of_lane.1, rest.1));
        (indices, values) = after;
        lanes.push(Lane::new((layout, k), head.chunks, head.runs, head.stream, places));
    }
    run_lanes(&mut lanes);
    lanes.into_iter().try_for_each(Lane::end)
}
