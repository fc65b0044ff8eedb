//! Makes a contribution's shards of what was learned, and what is not sent this time: the next error feedback.
//!
//! a = β·e + Δ, where Δ is the base state less the trained one, and e what was not sent before; the chosen values of a,
//! rounded, are sent; the new e is a less what the decoder gives (docs/protocol.md, 14). The old e stays as it is: when the
//! new one counts, its owner decides.

use crate::codec::{EncodeError, encode_chunks, max_shard_bytes};
use crate::quantise::quantise;
use crate::select::Selector;
use crate::simd::{Ahead, Tiles, sum_tiles};
use crate::split::{self, Band};
use crate::{SparseShard, by_tensor, chunk};
use covey_proto::layout::{CHUNK, Layout};
use covey_proto::run::Quantiser;
use std::collections::VecDeque;

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

/// A contribution's bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
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

/// Compresses what training has made of `base`, on as many threads; their number changes no bit.
///
/// All are f32 `[elements]`, in the state's order: `e` is what was not sent before, and stays as it is; `trained` is the
/// trained state and becomes, in place, what is not sent now: a = β·e + (base − trained), less what the decoder will give.
/// That is the next round's `e`, once this round's contribution counts.
///
/// Beside the shards' bytes, chosen values are held until they are encoded, 6 bytes each: those of four pieces of 1 Mi
/// elements a thread, of one more and of a shard. Of all elements with Templar's quantiser, which rounds a tensor as a whole. See
/// [`working_bytes`].
///
/// # Errors
/// Another number of elements (nothing has changed), or the first element of a that is not finite, by name (`trained` is
/// spoilt).
///
/// # Panics
/// If k is not 1 to 4,096, or a shard has no chunks.
pub fn compress(
    threads: usize,
    layout: &Layout,
    how: &Compression,
    base: &[f32],
    e: &[f32],
    trained: &mut [f32],
) -> Result<Encoded, CompressError> {
    let need = layout.elements();
    for got in [base.len(), e.len(), trained.len()] {
        if got != need {
            return Err(CompressError::Elements { got, need });
        }
    }
    assert!((1..=CHUNK).contains(&how.k), "k is {}; a run has 1 to {CHUNK}", how.k);
    let from = Origin { base, e };
    let bands = split::bands(layout);
    let pieces = split::pieces(&bands);
    let mut encoder = Encoder::new(threads, layout, how);
    if how.quantiser == Quantiser::Templar {
        let jobs = pieces.iter().copied().zip(split::cut(trained, &pieces)).collect();
        let exact = choose(threads, layout, how, from, jobs)?;
        encoder.take([by_tensor::round(layout, &exact, trained)])?;
        return Ok(encoder.finish());
    }
    let mut parts = pieces.iter().copied().zip(split::cut(trained, &pieces));
    loop {
        let jobs: Vec<_> = parts.by_ref().take(PIECES_HELD * threads.max(1)).collect();
        if jobs.is_empty() {
            return Ok(encoder.finish());
        }
        encoder.take(choose(threads, layout, how, from, jobs)?)?;
    }
}

/// About the most bytes that [`compress`] takes beside what it is given: values that are held until they are encoded, and
/// the shards.
pub fn working_bytes(threads: usize, layout: &Layout, how: &Compression) -> usize {
    let (elements, k) = (layout.elements(), how.k);
    // The last piece may end inside a shard: it waits for the next ones.
    let window = (PIECES_HELD * threads.max(1) + 1) * split::PIECE_ELEMENTS + how.shard_chunks * CHUNK;
    let held = match how.quantiser {
        // As they are, and rounded.
        Quantiser::Templar => 2 * elements,
        _ => window.min(elements),
    };
    let shards = (0..layout.shards(how.shard_chunks)).map(|number| layout.shard(number, how.shard_chunks));
    let encoded: usize = shards.map(|chunks| max_shard_bytes(layout, chunks, k, how.quantiser)).sum();
    held / CHUNK * (6 * k + 4) + encoded
}

/// Pieces of work, a thread, whose chosen values are held until they are encoded: enough for threads not to wait for one
/// another, few enough to be nothing beside a model.
const PIECES_HELD: usize = 4;

/// Where a comes from besides what was trained: f32 `[elements]` each.
#[derive(Clone, Copy)]
struct Origin<'a> {
    base: &'a [f32],
    e: &'a [f32],
}

/// What the pieces send.
fn choose(
    threads: usize,
    layout: &Layout,
    how: &Compression,
    from: Origin<'_>,
    jobs: Vec<(&[Band], &mut [f32])>,
) -> Result<Vec<SparseShard>, CompressError> {
    let work = |work: &mut Work<'_>, (piece, trained): (&[Band], &mut [f32])| {
        work.piece(piece, from, trained).map_err(|(number, a)| not_finite(layout, number, a))
    };
    split::on_threads(threads, jobs, || Work::new(how), work)
}

/// Writes each shard as soon as all of its chunks have chosen, and forgets what is written.
struct Encoder<'a> {
    threads: usize,
    layout: &'a Layout,
    how: &'a Compression,
    /// Runs of chunks that have chosen, in order, from the first that is not written on.
    sent: VecDeque<SparseShard>,
    done: Encoded,
}

impl<'a> Encoder<'a> {
    fn new(threads: usize, layout: &'a Layout, how: &'a Compression) -> Encoder<'a> {
        let shards = Vec::with_capacity(layout.shards(how.shard_chunks));
        let done = Encoded { shards, stats: CompressStats::default() };
        Encoder { threads, layout, how, sent: VecDeque::new(), done }
    }

    /// Takes the chunks that come next.
    fn take(&mut self, chosen: impl IntoIterator<Item = SparseShard>) -> Result<(), EncodeError> {
        self.sent.extend(chosen);
        let Encoder { threads, layout, how, sent, done } = self;
        let known = sent.back().map_or(0, |last| last.chunks().end);
        let shard = |number: usize| layout.shard(number, how.shard_chunks);
        let whole = done.shards.len()..layout.shards(how.shard_chunks);
        let whole: Vec<usize> = whole.take_while(|number| shard(*number).end <= known).collect();
        let Some(last) = whole.last() else { return Ok(()) };
        let written = shard(*last).end;
        let run_of = |number: usize| &sent[sent.partition_point(|run| run.chunks().end <= number)];
        let encode = |(): &mut (), number: usize| {
            encode_chunks(layout, how.k, how.quantiser, shard(number), |number| run_of(number).chunk(number))
        };
        let encoded = split::on_threads(*threads, whole, || (), encode)?;
        done.stats.bytes += encoded.iter().map(Vec::len).sum::<usize>();
        done.shards.extend(encoded);
        while let Some(first) = sent.front().filter(|first| first.chunks().end <= written) {
            done.stats.values += first.values().len();
            sent.pop_front();
        }
        Ok(())
    }

    fn finish(self) -> Encoded {
        self.done
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

    /// Sends the chunks of adjacent bands; `trained`, their elements, becomes what was not sent. Fails with the number of a
    /// chunk that is not finite, and a from its first element on.
    fn piece<'d>(
        &mut self,
        bands: &[Band],
        from: Origin<'_>,
        trained: &'d mut [f32],
    ) -> Result<SparseShard, (usize, &'d [f32])> {
        let (start, end) = (bands[0].first_chunk, bands[bands.len() - 1].chunks().end);
        let mut sent = SparseShard::with_capacity(start, end - start, (end - start) * self.how.k);
        let origin = bands[0].offset;
        let mut parts = bands.iter().flat_map(|band| band.parts(TILES)).peekable();
        while let Some(part) = parts.next() {
            let ahead = parts.peek().map_or(Ahead::nothing(), |next| {
                let at = next.offset;
                Ahead::new([&from.base[at..], &from.e[at..], &trained[at - origin..]], next.tiles)
            });
            let at = part.offset - origin;
            let from = Origin { base: &from.base[part.offset..], e: &from.e[part.offset..] };
            if let Err(tile) = self.part(part.tiles, from, &mut trained[at..], &mut sent, ahead) {
                return Err((part.first_chunk + tile, &trained[at + tile * part.tiles.columns..]));
            }
        }
        Ok(sent)
    }

    /// Sends chunks with whose first element `from` and `trained` begin. Fails with the place of one that is not finite.
    fn part(
        &mut self,
        of: Tiles,
        from: Origin<'_>,
        trained: &mut [f32],
        sent: &mut SparseShard,
        mut ahead: Ahead,
    ) -> Result<(), usize> {
        sum_tiles(&mut self.tiles, from.base, from.e, trained, self.beta, of);
        (0..of.count())
            .try_for_each(|tile| if self.send(tile, of, trained, sent, &mut ahead) { Ok(()) } else { Err(tile) })
    }

    /// Sends values of a chunk, and takes what the decoder will give from `a`. Returns whether the chunk is
    /// finite; nothing has happened if not.
    #[must_use]
    fn send(&mut self, tile: usize, of: Tiles, a: &mut [f32], sent: &mut SparseShard, ahead: &mut Ahead) -> bool {
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
            let a = &mut a[tile * of.columns..];
            for (&index, &value) in self.chosen.iter().zip(&self.values) {
                ahead.fetch(1);
                let (row, column) = (u32::from(index) / columns, u32::from(index) % columns);
                a[row as usize * of.stride + column as usize] -= value;
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
            let mut e = vec![0.0; layout.elements()];
            for round in 1..5 {
                let (base, mut trained) = (wave(layout.elements(), 31 * round), wave(layout.elements(), 17 * round));
                let deltas = base.iter().zip(&trained).map(|(base, trained)| base - trained);
                let mut expected: Vec<f32> = e.iter().zip(deltas).map(|(e, delta)| 0.95f32 * e + delta).collect();
                let done = compress(1, &layout, &how, &base, &e, &mut trained).unwrap();
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
                assert_eq!(trained, expected);
                assert_eq!(done.stats.bytes, done.shards.iter().map(Vec::len).sum::<usize>());
                e = trained;
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused_by_name() {
        let layout = layout();
        let zero = vec![0.0; layout.elements()];
        for (at, value) in [(3, f32::NAN), (70 + 129, f32::INFINITY), (70 + 99 * 130, f32::NEG_INFINITY)] {
            let mut trained = wave(layout.elements(), 7);
            trained[at] = value;
            let error = compress(1, &layout, &HOW, &zero, &zero, &mut trained).unwrap_err();
            let CompressError::NotFinite { tensor, index, .. } = error else { panic!("{error}") };
            let name = if at < 70 { "bias" } else { "weight" };
            assert_eq!((tensor.as_str(), index), (name, at - layout.tensor(name).unwrap().offset));
        }
        let error = compress(1, &layout, &HOW, &[1.0], &zero, &mut zero.clone()).unwrap_err();
        assert_eq!(error, CompressError::Elements { got: 1, need: layout.elements() });
    }
}
