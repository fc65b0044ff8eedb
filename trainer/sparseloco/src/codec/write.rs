//! From a sparse shard to its bytes. The layout is in the module's head; here is the order of work.

use super::rans::{self, Step};
use super::{ENTRY_BYTES, GROUP_CHUNKS, Scales, assert_k, gap};
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
        for number in first..chunks.end.min(first + GROUP_CHUNKS) {
            let elements = layout.chunk(number).len();
            let values = sent(number);
            let scales = check(values, number, elements, layout.chunk(number).values(k), quantiser)?;
            out.extend_from_slice(&scales.low.to_le_bytes());
            if quantiser == Quantiser::TwoMagnitudes {
                out.extend_from_slice(&scales.high.to_le_bytes());
            }
            push_steps(&mut steps, values, elements as u32, scales);
        }
        rans::encode(&steps, &mut words, &mut out);
        // At most 64 chunks of 4,096 values of 5 bytes.
        let bytes = (out.len() - begin) as u32;
        out[group * ENTRY_BYTES..][..ENTRY_BYTES].copy_from_slice(&bytes.to_le_bytes());
    }
    Ok(out)
}

/// The chunk's scales, if it is what the run allows.
fn check(
    (indices, values): (&[u16], &[f32]),
    chunk: usize,
    elements: usize,
    need: usize,
    quantiser: Quantiser,
) -> Result<Scales, EncodeError> {
    if indices.is_empty() {
        return Ok(Scales::NONE);
    }
    if indices.len() != need {
        return Err(EncodeError::Count { chunk, got: indices.len(), need });
    }
    let rising = indices.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || usize::from(indices[need - 1]) >= elements {
        return Err(EncodeError::Indices { chunk, elements });
    }
    scales_of(values, quantiser).ok_or(EncodeError::Values { chunk, quantiser })
}

fn scales_of(values: &[f32], quantiser: Quantiser) -> Option<Scales> {
    let magnitudes = || values.iter().map(|value| value.abs().to_bits());
    let (low, high) = (magnitudes().min()?, magnitudes().max()?);
    let exact = low & 0xffff == 0 && high & 0xffff == 0 && magnitudes().all(|bits| bits == low || bits == high);
    let scales = Scales { low: (low >> 16) as u16, high: (high >> 16) as u16 };
    let allowed = quantiser == Quantiser::TwoMagnitudes || low == high;
    (exact && allowed && scales.are_valid() && !scales.are_none()).then_some(scales)
}

/// The steps of one chunk, in the decoder's order.
fn push_steps(steps: &mut Vec<Step>, (indices, values): (&[u16], &[f32]), elements: u32, scales: Scales) {
    let value_bits = scales.value_bits();
    let high = u32::from(scales.high) << 16;
    let (mut positions, mut left, mut at) = (elements, indices.len() as u32, 0);
    for (&index, value) in indices.iter().zip(values) {
        let choice = u32::from(value_bits == 2 && value.abs().to_bits() == high);
        let value_bits_set = u32::from(value.is_sign_negative()) | choice << 1;
        let mut gap = u32::from(index) - at;
        loop {
            if positions == left {
                steps.push(Step::plain(value_bits, value_bits_set as u16));
                break;
            }
            let level = gap::level(positions, left);
            let class = (gap >> level.shift) as usize;
            if class < gap::ESCAPE {
                let (start, freq) = level.slots_of(class);
                let low = gap & ((1 << level.shift) - 1);
                let bits = (low << value_bits | value_bits_set) as u16;
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
