//! How work on a state is cut for threads: into bands, runs of whole chunks whose elements lie together.
//!
//! A matrix's band is a row of its tiles: 64 rows of the matrix. The cut follows from the layout alone, and what a piece
//! of work gives does not depend on who does it, so that the number of threads changes no bit.

use crate::simd::Tiles;
use covey_proto::layout::{CHUNK, Layout, TILE};
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

/// Elements of a piece of work: 4 MiB of f32, enough to hide what handing it out costs. A wider band is one piece.
pub(crate) const PIECE_ELEMENTS: usize = 1 << 20;
/// Chunks of a band of what is no matrix.
const RUN_CHUNKS: usize = 16;

/// Whole chunks whose elements make up one range of the state: `rows × columns`, cut every `tile` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    /// The first chunk's number.
    pub(crate) first_chunk: usize,
    /// Where its first element lies in the state.
    pub(crate) offset: usize,
    /// Rows, at most 64; 1 in what is no matrix.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) columns: usize,
    /// Columns of a chunk; the last may have fewer.
    pub(crate) tile: usize,
}

impl Band {
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.rows * self.columns
    }

    pub(crate) fn chunks(&self) -> Range<usize> {
        self.first_chunk..self.first_chunk + self.columns.div_ceil(self.tile)
    }

    /// The band in as few parts of at most `most` chunks as will do, nearly equal.
    pub(crate) fn parts(&self, most: usize) -> impl Iterator<Item = Part> {
        let chunks = self.chunks().len();
        let each = chunks.div_ceil(chunks.div_ceil(most));
        (0..chunks).step_by(each).map(move |first| {
            let column = first * self.tile;
            let width = (self.columns - column).min(each * self.tile);
            Part {
                first_chunk: self.first_chunk + first,
                offset: self.offset + column,
                tiles: Tiles { rows: self.rows, width, columns: self.tile, stride: self.columns },
            }
        })
    }
}

/// Adjacent chunks of a band.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first chunk's number.
    pub(crate) first_chunk: usize,
    /// Where its first element lies in the state.
    pub(crate) offset: usize,
    /// How the chunks lie from there on.
    pub(crate) tiles: Tiles,
}

/// All bands of a layout, in order.
pub(crate) fn bands(layout: &Layout) -> Vec<Band> {
    let mut bands = Vec::new();
    for tensor in layout.tensors() {
        let (mut first_chunk, mut offset) = (tensor.first_chunk, tensor.offset);
        let mut left = tensor.elements();
        while left > 0 {
            let (rows, columns, tile) = match tensor.shape[..] {
                [_, columns] => (TILE.min(left / columns), columns, TILE),
                _ => (1, left.min(RUN_CHUNKS * CHUNK), CHUNK),
            };
            let band = Band { first_chunk, offset, rows, columns, tile };
            first_chunk = band.chunks().end;
            offset = band.range().end;
            left -= rows * columns;
            bands.push(band);
        }
    }
    bands
}

/// The bands in pieces of work, in order.
pub(crate) fn pieces(bands: &[Band]) -> Vec<&[Band]> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    for (at, band) in bands.iter().enumerate() {
        if band.range().end - bands[start].offset >= PIECE_ELEMENTS {
            pieces.push(&bands[start..=at]);
            start = at + 1;
        }
    }
    if start < bands.len() {
        pieces.push(&bands[start..]);
    }
    pieces
}

/// Cuts a state into the pieces' elements.
///
/// # Panics
/// If the state is not the one that was cut into these pieces.
pub(crate) fn cut<'s>(mut state: &'s mut [f32], pieces: &[&[Band]]) -> Vec<&'s mut [f32]> {
    let elements = |piece: &&[Band]| piece.iter().map(|band| band.range().len()).sum();
    let take = |piece| {
        let (front, rest) = std::mem::take(&mut state).split_at_mut(elements(piece));
        state = rest;
        front
    };
    pieces.iter().map(take).collect()
}

/// Does the jobs on as many threads, each with a scratch of its own, and returns what they gave, in their order; or what
/// the first that failed did. Jobs are begun in order, none after a failure.
pub(crate) fn on_threads<J: Send, S, R: Send, E: Send>(
    threads: usize,
    jobs: Vec<J>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = threads.min(jobs.len());
    if threads <= 1 {
        let mut scratch = scratch();
        return jobs.into_iter().map(|job| work(&mut scratch, job)).collect();
    }
    let queue = Mutex::new(jobs.into_iter().enumerate().collect::<VecDeque<_>>());
    let waiting = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || {
        let (mut scratch, mut done) = (scratch(), Vec::new());
        loop {
            // A binding, so that the lock is given back before the work.
            let next = waiting().pop_front();
            let Some((number, job)) = next else { return done };
            let result = work(&mut scratch, job);
            if result.is_err() {
                waiting().clear();
            }
            done.push((number, result));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_the_layouts_chunks_in_order() {
        let shapes = [vec![130, 70], vec![70_000], vec![64, 64], vec![1, 1], vec![3, 5, 7], vec![2000, 1000]];
        let layout = Layout::new(shapes.into_iter().enumerate().map(|(at, shape)| (format!("t{at}"), shape)).collect());
        let bands = bands(&layout);
        let (mut chunks, mut elements) = (0, 0);
        for band in &bands {
            assert_eq!((band.first_chunk, band.offset), (chunks, elements));
            for (at, number) in band.chunks().enumerate() {
                let chunk = layout.chunk(number);
                let columns = band.tile.min(band.columns - at * band.tile);
                assert_eq!((chunk.offset, chunk.rows, chunk.columns), (elements + at * band.tile, band.rows, columns));
            }
            (chunks, elements) = (band.chunks().end, band.range().end);
        }
        assert_eq!((chunks, elements), (layout.chunks(), layout.elements()));
        let pieces = pieces(&bands);
        assert_eq!(pieces.concat(), bands);
        let mut state = vec![0.0; elements];
        assert_eq!(cut(&mut state, &pieces).iter().map(|part| part.len()).sum::<usize>(), elements);
        assert!(pieces.len() > 1);
    }

    #[test]
    fn jobs_give_their_results_in_order_and_the_first_failure() {
        for threads in [0, 1, 2, 5] {
            let numbers = || (0..100).collect::<Vec<u32>>();
            let twice = on_threads(threads, numbers(), || (), |(), job| Ok::<u32, u32>(job * 2));
            assert_eq!(twice, Ok((0..200).step_by(2).collect()));
            let fails = on_threads(threads, numbers(), || (), |(), job| if job % 40 == 39 { Err(job) } else { Ok(()) });
            assert_eq!(fails, Err(39));
        }
    }
}
