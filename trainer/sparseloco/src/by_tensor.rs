//! Rounding that looks at a whole tensor's values at once, after all of its chunks have chosen: Templar's.

use crate::quantise::quantise;
use crate::{SparseShard, chunk};
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;

/// Rounds what the whole state sends, tensor by tensor, and subtracts it from `dense`, in which nothing was sent yet.
///
/// `exact` covers all chunks of `layout`, in order, with the chosen values as they are; so does the result, rounded.
pub(crate) fn round(layout: &Layout, exact: &[SparseShard], dense: &mut [f32]) -> SparseShard {
    let values = exact.iter().map(|shard| shard.values().len()).sum();
    let mut rounded = SparseShard::with_capacity(0, layout.chunks(), values);
    let mut chunks = exact.iter().flat_map(|shard| shard.chunks().map(|number| shard.chunk(number)));
    for tensor in layout.tensors() {
        let sent: Vec<(&[u16], &[f32])> = chunks.by_ref().take(tensor.chunks).collect();
        let mut values: Vec<f32> = sent.iter().flat_map(|(_, values)| *values).copied().collect();
        let sends = quantise(Quantiser::Templar, &mut values);
        let mut rest = &values[..];
        for (number, (indices, _)) in (tensor.first_chunk..).zip(sent) {
            let (of_chunk, after) = rest.split_at(indices.len());
            rest = after;
            if sends {
                subtract(layout, number, (indices, of_chunk), dense);
                rounded.push_chunk(indices, of_chunk);
            } else {
                rounded.push_chunk(&[], &[]);
            }
        }
    }
    rounded
}

fn subtract(layout: &Layout, number: usize, (indices, values): (&[u16], &[f32]), dense: &mut [f32]) {
    let shape = layout.chunk(number);
    let mut scratch = [0.0; covey_proto::layout::CHUNK];
    let elements = chunk::gather(dense, &shape, &mut scratch);
    for (&index, value) in indices.iter().zip(values) {
        elements[usize::from(index)] -= value;
    }
    chunk::scatter(elements, &shape, dense);
}
