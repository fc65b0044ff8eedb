//! Error feedback: what was not sent is kept and tried again. Makes a contribution's shards.
//!
//! a = β·e + Δ; the chosen values of a, rounded, are sent; the new e is a less what the decoder gives. The old e
//! stays as it is: its owner writes the new one beside it and swaps once the round is journalled (docs/protocol.md, 14).

use crate::codec::{EncodeError, encode_chunks};
use crate::quantise::quantise;
use crate::select::Selector;
use crate::simd::{Ahead, Tiles, sum_tiles};
use crate::split::{self, Band};
use crate::state::{StateError, from_le_bytes, to_le_bytes};
use crate::{SparseShard, by_tensor, chunk};
use covey_proto::layout::{CHUNK, Layout};
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
    #[error(
        "element {index} of {tensor} is not finite: with what was not sent before, it is {value}; lower the inner rate"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The element, row-major inside the tensor.
        index: usize,
        /// a = β·e + Δ there.
        value: f32,
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

    /// Compresses `delta`, f32 `[elements]`, the base state less the trained one. `self` stays as it is. One thread;
    /// [`compress_into`](ErrorFeedback::compress_into) is faster where `delta` can be given away.
    ///
    /// # Errors
    /// A delta of another length, or a first element that is not finite.
    ///
    /// # Panics
    /// If k is not 1 to 4,096, or a shard has no chunks.
    pub fn compress(&self, layout: &Layout, how: &Compression, delta: &[f32]) -> Result<Compressed, CompressError> {
        self.compress_into(layout, how, delta.to_vec(), 1)
    }

    /// Compresses `delta`, f32 `[elements]`, on as many threads; the new feedback takes its memory. `self` stays as it is.
    /// The number of threads changes no bit.
    ///
    /// # Errors
    /// As [`compress`](ErrorFeedback::compress)'s.
    ///
    /// # Panics
    /// As [`compress`](ErrorFeedback::compress)'s.
    pub fn compress_into(
        &self,
        layout: &Layout,
        how: &Compression,
        mut delta: Vec<f32>,
        threads: usize,
    ) -> Result<Compressed, CompressError> {
        let need = layout.elements();
        for got in [delta.len(), self.e.len()] {
            if got != need {
                return Err(CompressError::Elements { got, need });
            }
        }
        assert!((1..=CHUNK).contains(&how.k), "k is {}; a run has 1 to {CHUNK}", how.k);
        let bands = split::bands(layout);
        let pieces = split::pieces(&bands);
        let jobs = pieces.iter().copied().zip(split::cut(&mut delta, &pieces)).collect();
        let mut sent = split::on_threads(
            threads,
            jobs,
            || Work::new(how),
            |work, (piece, delta)| {
                work.piece(piece, &self.e, delta).map_err(|(number, a)| not_finite(layout, number, a))
            },
        )?;
        if how.quantiser == Quantiser::Templar {
            let exact: Vec<&SparseShard> = sent.iter().collect();
            sent = vec![by_tensor::round(layout, &exact, &mut delta)];
        }
        let piece_of = |number: usize| &sent[sent.partition_point(|piece| piece.chunks().end <= number)];
        let shards = (0..layout.shards(how.shard_chunks)).collect();
        let shards = split::on_threads(
            threads,
            shards,
            || (),
            |(), number| {
                let chunks = layout.shard(number, how.shard_chunks);
                encode_chunks(layout, how.k, how.quantiser, chunks, |number| piece_of(number).chunk(number))
            },
        )?;
        let stats = CompressStats {
            values: sent.iter().map(|piece| piece.values().len()).sum(),
            bytes: shards.iter().map(Vec::len).sum(),
        };
        Ok(Compressed { feedback: ErrorFeedback { e: delta }, shards, stats })
    }
}

/// Names the chunk's first element that is not finite. `a` is the state from the chunk's first element on.
#[cold]
fn not_finite(layout: &Layout, number: usize, a: &[f32]) -> CompressError {
    let chunk = layout.chunk(number);
    let tensor = layout.tensor_of_chunk(number);
    let value = |at: usize| a[at - chunk.offset];
    let mut positions = (0..chunk.len()).map(|index| chunk.position(index));
    let at = positions.find(|&at| !value(at).is_finite()).unwrap_or(chunk.offset);
    CompressError::NotFinite { tensor: tensor.name.clone(), index: at - tensor.offset, value: value(at) }
}

/// Chunks taken at once, at most: their rows are long enough to be read fast, and they fit the second cache.
const TILES: usize = 8;

/// Scratch of a few adjacent chunks.
struct Work<'h> {
    how: &'h Compression,
    beta: f32,
    tiles: Vec<chunk::Scratch>,
    selector: Selector,
    chosen: Vec<u16>,
    values: Vec<f32>,
}

impl<'h> Work<'h> {
    fn new(how: &'h Compression) -> Work<'h> {
        Work {
            how,
            beta: how.beta as f32,
            tiles: vec![[0.0; CHUNK]; TILES],
            selector: Selector::new(),
            chosen: Vec::with_capacity(CHUNK + 1),
            values: Vec::with_capacity(CHUNK),
        }
    }

    /// Sends the chunks of adjacent bands; `delta`, their elements, becomes what was not sent. Fails with the number of a
    /// chunk that is not finite, and a from its first element on.
    fn piece<'d>(
        &mut self,
        bands: &[Band],
        e: &[f32],
        delta: &'d mut [f32],
    ) -> Result<SparseShard, (usize, &'d [f32])> {
        let (start, end) = (bands[0].first_chunk, bands[bands.len() - 1].chunks().end);
        let mut sent = SparseShard::with_capacity(start, end - start, (end - start) * self.how.k);
        let origin = bands[0].offset;
        let mut parts = bands.iter().flat_map(|band| band.parts(TILES)).peekable();
        while let Some(part) = parts.next() {
            let ahead = parts.peek().map_or(Ahead::nothing(), |next| {
                Ahead::new(&e[next.offset..], &delta[next.offset - origin..], next.tiles)
            });
            let from = part.offset - origin;
            if let Err(tile) = self.part(part.tiles, &e[part.offset..], &mut delta[from..], &mut sent, ahead) {
                return Err((part.first_chunk + tile, &delta[from + tile * part.tiles.columns..]));
            }
        }
        Ok(sent)
    }

    /// Sends chunks with whose first element `e` and `delta` begin. Fails with the place of one that is not finite.
    fn part(
        &mut self,
        of: Tiles,
        e: &[f32],
        delta: &mut [f32],
        sent: &mut SparseShard,
        mut ahead: Ahead,
    ) -> Result<(), usize> {
        sum_tiles(&mut self.tiles, e, delta, self.beta, of);
        (0..of.count())
            .try_for_each(|tile| if self.send(tile, of, delta, sent, &mut ahead) { Ok(()) } else { Err(tile) })
    }

    /// Sends values of a chunk, and takes what the decoder will give from `delta`, which is a. Returns whether the chunk is
    /// finite; nothing has happened if not.
    #[must_use]
    fn send(&mut self, tile: usize, of: Tiles, delta: &mut [f32], sent: &mut SparseShard, ahead: &mut Ahead) -> bool {
        let dense = &self.tiles[tile][..of.elements_of(tile)];
        let count = (dense.len() * self.how.k).div_ceil(CHUNK);
        self.selector.choose_and_fetch(dense, count, &mut self.chosen, ahead);
        self.values.clear();
        self.values.extend(self.chosen.iter().map(|&index| dense[usize::from(index)]));
        // What is not finite is among the largest.
        if !self.values.iter().all(|value| value.is_finite()) {
            return false;
        }
        if self.how.quantiser == Quantiser::Templar {
            // Rounded and subtracted once the whole tensor has chosen.
            sent.push_chunk(&self.chosen, &self.values);
        } else if quantise(self.how.quantiser, &mut self.values) {
            let columns = of.columns_of(tile) as u32;
            let delta = &mut delta[tile * of.columns..];
            for (&index, &value) in self.chosen.iter().zip(&self.values) {
                ahead.fetch(1);
                let (row, column) = (u32::from(index) / columns, u32::from(index) % columns);
                delta[row as usize * of.stride + column as usize] -= value;
            }
            sent.push_chunk(&self.chosen, &self.values);
        } else {
            sent.push_chunk(&[], &[]);
        }
        true
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
