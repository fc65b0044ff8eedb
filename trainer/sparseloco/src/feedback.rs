//! Error feedback: what was not sent is kept and tried again. Makes a contribution's shards.
//!
//! a = β·e + Δ; the chosen values of a, rounded, are sent; the new e is a less what the decoder gives. The old e
//! stays as it is: its owner writes the new one beside it and swaps once the round is journalled (protocol-decisions, 4).

use crate::codec::{EncodeError, encode_shard};
use crate::quantise::quantise;
use crate::select::Selector;
use crate::state::{StateError, from_le_bytes, to_le_bytes};
use crate::{SparseShard, chunk};
use covey_proto::layout::{CHUNK, Chunk, Layout};
use covey_proto::run::Quantiser;

/// How a pseudo-gradient is compressed in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compression {
    /// β, rounded to f32 once.
    pub beta: f64,
    /// Values that a chunk of 4,096 sends.
    pub k: usize,
    /// How they are rounded.
    pub quantiser: Quantiser,
    /// Chunks of a shard.
    pub shard_chunks: usize,
}

/// What compression gives.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The new error feedback.
    pub feedback: ErrorFeedback,
    /// The shards' bytes, in order.
    pub shards: Vec<Vec<u8>>,
    /// What it amounts to.
    pub stats: CompressStats,
}

/// What a compression amounts to, for people: not part of any agreed bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CompressStats {
    /// Values sent.
    pub values: usize,
    /// Bytes of all shards.
    pub bytes: usize,
    /// ‖Δ‖.
    pub delta_norm: f64,
    /// ‖a‖, a = β·e + Δ.
    pub signal_norm: f64,
    /// ‖what was sent, as decoded‖.
    pub sent_norm: f64,
    /// ‖new e‖.
    pub residual_norm: f64,
}

impl CompressStats {
    /// Bits a value, everything included; 0 if nothing was sent.
    pub fn bits_per_value(&self) -> f64 {
        if self.values == 0 { 0.0 } else { self.bytes as f64 * 8.0 / self.values as f64 }
    }
}

/// Why a pseudo-gradient was not compressed: its maker's fault. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompressError {
    /// Another number of elements than the layout's.
    #[error("{got} elements; the layout has {need}")]
    Elements {
        /// Elements that came.
        got: usize,
        /// Elements of the layout.
        need: usize,
    },
    /// A NaN or an infinity, or a sum with the feedback that overflows.
    #[error("element {index} of {tensor} is not finite: the pseudo-gradient there is {delta}; lower the inner rate")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The element, row-major inside the tensor.
        index: usize,
        /// The pseudo-gradient's value there.
        delta: f32,
    },
    /// A shard could not be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// e: what has not been sent yet, f32 `[elements]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorFeedback {
    e: Vec<f32>,
}

impl ErrorFeedback {
    /// Zero: at the start, after joining by state, after eight missed rounds.
    pub fn zero(layout: &Layout) -> ErrorFeedback {
        ErrorFeedback { e: vec![0.0; layout.elements()] }
    }

    /// The elements, in the state's order.
    pub fn elements(&self) -> &[f32] {
        &self.e
    }

    /// The elements as f32, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_le_bytes(&self.e)
    }

    /// Reads [`to_bytes`](ErrorFeedback::to_bytes).
    ///
    /// # Errors
    /// Another length than the layout's, or an element that is not finite.
    pub fn from_bytes(layout: &Layout, bytes: &[u8]) -> Result<ErrorFeedback, StateError> {
        Ok(ErrorFeedback { e: from_le_bytes(bytes, layout.elements())? })
    }

    /// Compresses `delta`, f32 `[elements]`, the base state less the trained one. `self` stays as it is.
    ///
    /// # Errors
    /// A delta of another length, or a first element that is not finite.
    ///
    /// # Panics
    /// If k is not 1 to 4,096, or a shard has no chunks.
    pub fn compress(&self, layout: &Layout, how: &Compression, delta: &[f32]) -> Result<Compressed, CompressError> {
        let need = layout.elements();
        for got in [delta.len(), self.e.len()] {
            if got != need {
                return Err(CompressError::Elements { got, need });
            }
        }
        let mut work = Work::new(how);
        let mut new_e = vec![0.0; need];
        let mut shards = Vec::with_capacity(layout.shards(how.shard_chunks));
        for number in 0..layout.shards(how.shard_chunks) {
            let chunks = layout.shard(number, how.shard_chunks);
            let mut shard = SparseShard::with_capacity(chunks.start, chunks.len(), chunks.len() * how.k);
            for number in chunks {
                let chunk = layout.chunk(number);
                let dense = work
                    .sum(&chunk, &self.e, delta)
                    .ok_or_else(|| not_finite(layout, number, how.beta, &self.e, delta))?;
                work.send(dense, chunk.values(how.k), how.quantiser, &mut shard);
                chunk::scatter(&work.dense[..dense], &chunk, &mut new_e);
            }
            let bytes = encode_shard(layout, how.k, how.quantiser, &shard)?;
            work.stats.values += shard.values().len();
            work.stats.bytes += bytes.len();
            shards.push(bytes);
        }
        Ok(Compressed { feedback: ErrorFeedback { e: new_e }, shards, stats: work.finish() })
    }
}

/// Names the chunk's first element that is not finite.
#[cold]
fn not_finite(layout: &Layout, number: usize, beta: f64, e: &[f32], delta: &[f32]) -> CompressError {
    let chunk = layout.chunk(number);
    let tensor = layout.tensor_of_chunk(number);
    let bad = |&at: &usize| !(beta as f32 * e[at] + delta[at]).is_finite();
    let at = (0..chunk.len()).map(|index| chunk.position(index)).find(bad).unwrap_or(chunk.offset);
    CompressError::NotFinite { tensor: tensor.name.clone(), index: at - tensor.offset, delta: delta[at] }
}

/// Scratch of one chunk, and sums of all.
struct Work {
    beta: f32,
    dense: chunk::Scratch,
    selector: Selector,
    chosen: Vec<u16>,
    values: Vec<f32>,
    stats: CompressStats,
}

impl Work {
    fn new(how: &Compression) -> Work {
        Work {
            beta: how.beta as f32,
            dense: [0.0; CHUNK],
            selector: Selector::new(),
            chosen: Vec::with_capacity(CHUNK),
            values: Vec::with_capacity(CHUNK),
            stats: CompressStats::default(),
        }
    }

    /// Fills the front of `dense` with a = β·e + Δ and returns its length; none if an element is not finite.
    fn sum(&mut self, chunk: &Chunk, e: &[f32], delta: &[f32]) -> Option<usize> {
        let dense = &mut self.dense[..chunk.len()];
        let beta = self.beta;
        for (row, range) in dense.chunks_exact_mut(chunk.columns).zip(chunk.row_ranges()) {
            for ((a, e), delta) in row.iter_mut().zip(&e[range.clone()]).zip(&delta[range.clone()]) {
                *a = beta * e + delta;
            }
            self.stats.delta_norm += squares(&delta[range]);
        }
        let signal = squares(dense);
        self.stats.signal_norm += signal;
        signal.is_finite().then_some(dense.len())
    }

    /// Sends `count` of the first `elements` of `dense`, and leaves in `dense` what was not sent.
    fn send(&mut self, elements: usize, count: usize, quantiser: Quantiser, shard: &mut SparseShard) {
        let dense = &mut self.dense[..elements];
        self.selector.choose(dense, count, &mut self.chosen);
        self.values.clear();
        self.values.extend(self.chosen.iter().map(|&index| dense[usize::from(index)]));
        if quantise(quantiser, &mut self.values) {
            for (&index, &sent) in self.chosen.iter().zip(&self.values) {
                dense[usize::from(index)] -= sent;
            }
            self.stats.sent_norm += squares(&self.values);
            shard.push_chunk(&self.chosen, &self.values);
        } else {
            shard.push_chunk(&[], &[]);
        }
        self.stats.residual_norm += squares(dense);
    }

    /// Norms out of sums of squares.
    fn finish(self) -> CompressStats {
        CompressStats {
            delta_norm: self.stats.delta_norm.sqrt(),
            signal_norm: self.stats.signal_norm.sqrt(),
            sent_norm: self.stats.sent_norm.sqrt(),
            residual_norm: self.stats.residual_norm.sqrt(),
            ..self.stats
        }
    }
}

/// Sum of squares; finite exactly if all values are. Sixteen interleaved f32 sums for speed, since only statistics use the
/// figure; where they overflow f64 decides, which holds the square of every f32.
fn squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f32; 16];
    let whole = values.chunks_exact(16);
    let rest: f32 = whole.remainder().iter().map(|value| value * value).sum();
    for sixteen in whole {
        for (sum, &value) in sums.iter_mut().zip(sixteen) {
            *sum += value * value;
        }
    }
    match f64::from(sums.iter().sum::<f32>() + rest) {
        sum if sum.is_finite() => sum,
        _ => values.iter().map(|&value| f64::from(value) * f64::from(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_shard;

    fn layout() -> Layout {
        Layout::new(vec![("bias".into(), vec![70]), ("weight".into(), vec![100, 130])])
    }

    fn wave(elements: usize, step: usize) -> Vec<f32> {
        (0..elements).map(|at| ((at * step) % 101) as f32 / 101.0 - 0.47).collect()
    }

    const HOW: Compression = Compression { beta: 0.95, k: 64, quantiser: Quantiser::Sign, shard_chunks: 3 };

    #[test]
    fn the_residual_is_the_signal_less_what_the_shards_decode_to() {
        let layout = layout();
        for quantiser in [Quantiser::Sign, Quantiser::TwoMagnitudes] {
            let how = Compression { quantiser, ..HOW };
            let mut feedback = ErrorFeedback::zero(&layout);
            for round in 1..5 {
                let delta = wave(layout.elements(), 31 * round);
                let old = feedback.clone();
                let done = feedback.compress(&layout, &how, &delta).unwrap();
                assert_eq!(feedback, old, "the old feedback stays");
                let mut expected: Vec<f32> =
                    old.elements().iter().zip(&delta).map(|(e, delta)| 0.95f32 * e + delta).collect();
                for (number, bytes) in done.shards.iter().enumerate() {
                    let chunks = layout.shard(number, how.shard_chunks);
                    let shard = decode_shard(bytes, &layout, chunks.clone(), how.k, quantiser).unwrap();
                    for number in chunks {
                        let (indices, values) = shard.chunk(number);
                        for (&index, value) in indices.iter().zip(values) {
                            expected[layout.chunk(number).position(index.into())] -= value;
                        }
                    }
                }
                assert_eq!(done.feedback.elements(), expected);
                assert_eq!(done.stats.bytes, done.shards.iter().map(Vec::len).sum::<usize>());
                feedback = ErrorFeedback::from_bytes(&layout, &done.feedback.to_bytes()).unwrap();
                assert_eq!(feedback, done.feedback);
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused_by_name() {
        let layout = layout();
        for (at, value) in [(3, f32::NAN), (70 + 129, f32::INFINITY), (70 + 99 * 130, f32::NEG_INFINITY)] {
            let mut delta = wave(layout.elements(), 7);
            delta[at] = value;
            let error = ErrorFeedback::zero(&layout).compress(&layout, &HOW, &delta).unwrap_err();
            let CompressError::NotFinite { tensor, index, .. } = error else { panic!("{error}") };
            let name = if at < 70 { "bias" } else { "weight" };
            assert_eq!((tensor.as_str(), index), (name, at - layout.tensor(name).unwrap().offset));
        }
        let error = ErrorFeedback::zero(&layout).compress(&layout, &HOW, &[1.0]).unwrap_err();
        assert_eq!(error, CompressError::Elements { got: 1, need: layout.elements() });
    }

    #[test]
    fn feedback_of_another_shape_or_not_finite_is_refused() {
        let layout = layout();
        let mut bytes = ErrorFeedback::zero(&layout).to_bytes();
        assert!(ErrorFeedback::from_bytes(&layout, &bytes[4..]).is_err());
        bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(ErrorFeedback::from_bytes(&layout, &bytes), Err(StateError::NotFinite { index: 2 }));
    }
}
