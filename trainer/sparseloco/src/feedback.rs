//! Error feedback: what was not sent is kept and tried again. Makes a contribution's shards.
//!
//! a = β·e + Δ; the chosen values of a, rounded, are sent; the new e is a less what the decoder gives. The old e
//! stays as it is: its owner writes the new one beside it and swaps once the round is journalled (docs/protocol.md, 14).

use crate::codec::{EncodeError, encode_chunks};
use crate::quantise::quantise;
use crate::select::Selector;
use crate::simd::{LANES, Tiles, sum_tiles, write_tiles};
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
    /// The number of threads changes no bit, of the statistics either.
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
                work.piece(piece, &self.e, delta)
                    .map_err(|(chunk, delta)| not_finite(layout, chunk, how, &self.e, delta))
            },
        )?;
        let mut sums = sent.iter().fold(Sums::default(), |sums, piece| sums.plus(&piece.sums));
        if how.quantiser == Quantiser::Templar {
            let exact: Vec<&SparseShard> = sent.iter().map(|piece| &piece.shard).collect();
            let shard = by_tensor::round(layout, &exact, &mut delta);
            (sums.sent, sums.residual) = (squares(shard.values()), squares(&delta));
            sent = vec![Sent { shard, sums }];
        }
        let piece_of = |number: usize| &sent[sent.partition_point(|piece| piece.shard.chunks().end <= number)].shard;
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
            values: sent.iter().map(|piece| piece.shard.values().len()).sum(),
            bytes: shards.iter().map(Vec::len).sum(),
            delta_norm: sums.delta.sqrt(),
            signal_norm: sums.signal.sqrt(),
            sent_norm: sums.sent.sqrt(),
            residual_norm: sums.residual.sqrt(),
        };
        Ok(Compressed { feedback: ErrorFeedback { e: delta }, shards, stats })
    }
}

/// Names the chunk's first element that is not finite. `delta` is the state from the chunk's first element on.
#[cold]
fn not_finite(layout: &Layout, number: usize, how: &Compression, e: &[f32], delta: &[f32]) -> CompressError {
    let chunk = layout.chunk(number);
    let tensor = layout.tensor_of_chunk(number);
    let bad = |&at: &usize| !(how.beta as f32 * e[at] + delta[at - chunk.offset]).is_finite();
    let at = (0..chunk.len()).map(|index| chunk.position(index)).find(bad).unwrap_or(chunk.offset);
    let (name, delta) = (tensor.name.clone(), delta[at - chunk.offset]);
    CompressError::NotFinite { tensor: name, index: at - tensor.offset, delta }
}

/// Sums of squares.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    delta: f64,
    signal: f64,
    sent: f64,
    residual: f64,
}

impl Sums {
    fn plus(self, other: &Sums) -> Sums {
        Sums {
            delta: self.delta + other.delta,
            signal: self.signal + other.signal,
            sent: self.sent + other.sent,
            residual: self.residual + other.residual,
        }
    }
}

/// What a piece of the state sends.
struct Sent {
    shard: SparseShard,
    sums: Sums,
}

/// Chunks taken at once: their rows together are long enough (2 KiB) for the processor to fetch ahead, and they fit its
/// second cache.
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
    /// chunk that is not finite, and its Δ from its first element on.
    fn piece<'d>(&mut self, bands: &[Band], e: &[f32], delta: &'d mut [f32]) -> Result<Sent, (usize, &'d [f32])> {
        let (start, end) = (bands[0].first_chunk, bands[bands.len() - 1].chunks().end);
        let values = (end - start) * self.how.k;
        let mut sent = Sent { shard: SparseShard::with_capacity(start, end - start, values), sums: Sums::default() };
        let origin = bands[0].offset;
        for band in bands {
            for first in (0..band.columns).step_by(TILES * band.tile) {
                let within = band.offset - origin + first;
                let width = (band.columns - first).min(TILES * band.tile);
                let part = &mut delta[within..];
                if let Err(tile) = self.part(band, width, &e[band.offset + first..], part, &mut sent) {
                    let from = within + tile * band.tile;
                    return Err((band.first_chunk + first / band.tile + tile, &delta[from..]));
                }
            }
        }
        Ok(sent)
    }

    /// Sends the chunks of `width` columns of a band. Fails with the place of one that is not finite.
    fn part(&mut self, band: &Band, width: usize, e: &[f32], delta: &mut [f32], sent: &mut Sent) -> Result<(), usize> {
        let of = Tiles { rows: band.rows, width, columns: band.tile, stride: band.columns };
        let tiles = width.div_ceil(of.columns);
        let elements = |tile: usize| of.rows * of.columns.min(width - tile * of.columns);
        let survey = sum_tiles(&mut self.tiles[..tiles], e, delta, self.beta, of);
        if survey.most.iter().any(|&most| most >= f32::INFINITY.to_bits()) {
            let bad = |&tile: &usize| !self.tiles[tile][..elements(tile)].iter().all(|value| value.is_finite());
            return Err((0..tiles).find(bad).unwrap_or(0));
        }
        let delta_rows = || (0..of.rows).flat_map(|row| &delta[row * of.stride..][..width]);
        sent.sums.delta += total(&survey.delta, delta_rows());
        let dense = (0..tiles).flat_map(|tile| &self.tiles[tile][..elements(tile)]);
        sent.sums.signal += total(&survey.signal, dense);
        for tile in 0..tiles {
            self.send(tile, elements(tile), sent);
        }
        let squares = write_tiles(&self.tiles[..tiles], delta, of);
        let dense = (0..tiles).flat_map(|tile| &self.tiles[tile][..elements(tile)]);
        sent.sums.residual += total(&squares, dense);
        Ok(())
    }

    /// Sends values of the first `elements` of a tile, and leaves there what was not sent.
    fn send(&mut self, tile: usize, elements: usize, sent: &mut Sent) {
        let dense = &mut self.tiles[tile][..elements];
        self.selector.choose(dense, (elements * self.how.k).div_ceil(CHUNK), &mut self.chosen);
        self.values.clear();
        self.values.extend(self.chosen.iter().map(|&index| dense[usize::from(index)]));
        if self.how.quantiser == Quantiser::Templar {
            // Rounded and subtracted once the whole tensor has chosen.
            sent.shard.push_chunk(&self.chosen, &self.values);
        } else if quantise(self.how.quantiser, &mut self.values) {
            let mut squares = [0.0; LANES];
            for (at, (&index, &value)) in self.chosen.iter().zip(&self.values).enumerate() {
                dense[usize::from(index)] -= value;
                squares[at % LANES] += value * value;
            }
            sent.sums.sent += total(&squares, &self.values);
            sent.shard.push_chunk(&self.chosen, &self.values);
        } else {
            sent.shard.push_chunk(&[], &[]);
        }
    }
}

/// A sum of squares out of interleaved f32 sums, which are fast, since only statistics use the figure; where they overflow
/// the values themselves decide in f64, which holds the square of every f32.
fn total<'v>(squares: &[f32; LANES], values: impl IntoIterator<Item = &'v f32>) -> f64 {
    match squares.iter().map(|&square| f64::from(square)).sum::<f64>() {
        sum if sum.is_finite() => sum,
        _ => self::squares(values),
    }
}

fn squares<'v>(values: impl IntoIterator<Item = &'v f32>) -> f64 {
    values.into_iter().map(|&value| f64::from(value) * f64::from(value)).sum()
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
