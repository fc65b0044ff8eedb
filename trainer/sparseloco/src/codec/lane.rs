//! One group's decoding as a lane that goes forward a value at a time, so that several go side by side.
//!
//! A value's place depends on the one before, through a chain of some sixty cycles in which a processor has little to do.
//! Four lanes fill it: groups are independent. Every byte here is hostile.

use super::book::Book;
use super::rans::Decoder;
use super::{CodecError, gap};
use covey_proto::layout::Layout;
use covey_simd::vectorised;
use std::ops::Range;

/// Groups that are decoded side by side.
pub(super) const LANES: usize = 4;

/// Chunks that share a book.
pub(super) struct Run {
    pub(super) chunks: Range<usize>,
    /// None: they send nothing.
    pub(super) book: Option<Book>,
}

/// One group on its way.
pub(super) struct Lane<'a> {
    layout: &'a Layout,
    k: usize,
    group: usize,
    runs: std::vec::IntoIter<Run>,
    run: Run,
    chunk: usize,
    book: Book,
    stream: Decoder<'a>,
    /// Positions and values that the chunk has left, and where its next position is.
    positions: u32,
    left: u32,
    at: u32,
    /// Symbols that the run has used, as a mask.
    used: u8,
    /// Where values go.
    indices: &'a mut [u16],
    values: &'a mut [f32],
    out: usize,
    /// How it ended.
    end: Option<Result<(), CodecError>>,
}

impl<'a> Lane<'a> {
    /// A lane for a group whose books are read. `indices` and `values` have room for what the books say.
    pub(super) fn new(
        (layout, k): (&'a Layout, usize),
        group: Range<usize>,
        runs: Vec<Run>,
        stream: Decoder<'a>,
        (indices, values): (&'a mut [u16], &'a mut [f32]),
    ) -> Lane<'a> {
        let run = Run { chunks: group.start..group.start, book: None };
        let mut lane = Lane {
            layout,
            k,
            group: group.start,
            runs: runs.into_iter(),
            run,
            chunk: group.start,
            book: Book::NONE,
            stream,
            positions: 0,
            left: 0,
            at: 0,
            used: 0,
            indices,
            values,
            out: 0,
            end: None,
        };
        lane.next_chunk();
        lane
    }

    /// How it ended: valid, or the first fault.
    pub(super) fn end(self) -> Result<(), CodecError> {
        self.end.unwrap_or(Err(CodecError::Truncated { chunk: self.chunk }))
    }

    /// Goes on to the next chunk that sends something, or ends.
    #[cold]
    fn next_chunk(&mut self) {
        loop {
            if self.chunk < self.run.chunks.end {
                if self.run.book.is_some() {
                    let shape = self.layout.chunk(self.chunk);
                    (self.positions, self.left, self.at) = (shape.len() as u32, shape.values(self.k) as u32, 0);
                    return;
                }
                self.chunk = self.run.chunks.end;
            }
            if self.run.book.is_some_and(|book| !book.fits(self.used)) {
                return self.fail(CodecError::Unused { chunk: self.run.chunks.start });
            }
            let Some(run) = self.runs.next() else { break };
            (self.chunk, self.used, self.book) = (run.chunks.start, 0, run.book.unwrap_or(Book::NONE));
            self.run = run;
        }
        self.end = Some(match self.stream.is_finished() {
            true => Ok(()),
            false => Err(CodecError::Ending { chunk: self.group }),
        });
    }

    #[cold]
    fn fail(&mut self, why: CodecError) {
        self.end = Some(Err(why));
    }

    /// One step: a value, or an escape.
    #[inline(always)]
    fn step(&mut self) {
        let (positions, left) = (self.positions, self.left);
        let bits = self.book.bits;
        let (gap, plain);
        if positions == left {
            (gap, plain) = (0, self.stream.take_bits(bits));
        } else {
            let level = gap::level(positions, left);
            let class = level.class_of(self.stream.slot());
            let (start, freq) = level.slots_of(class);
            self.stream.take_symbol(start, freq);
            if class == gap::ESCAPE {
                return self.escape(level.shift);
            }
            plain = self.stream.take_bits(level.shift + bits);
            gap = (class as u32) << level.shift | plain >> bits;
        }
        let symbol = plain & ((1 << bits) - 1) & 3;
        if gap > positions - left {
            return self.fail(CodecError::Index { chunk: self.chunk });
        }
        let room = self.indices.get_mut(self.out).zip(self.values.get_mut(self.out));
        let (true, Some((index, value))) = (self.stream.refill(), room) else {
            return self.fail(CodecError::Truncated { chunk: self.chunk });
        };
        // Below 4,096: positions only ever shrink from the chunk's elements.
        *index = (self.at + gap) as u16;
        *value = self.book.values[symbol as usize];
        self.used |= 1 << symbol;
        self.out += 1;
        (self.at, self.positions, self.left) = (self.at + gap + 1, positions - gap - 1, left - 1);
        if left == 1 {
            self.chunk += 1;
            self.next_chunk();
        }
    }

    /// No value in the next 31·2^shift positions.
    #[cold]
    fn escape(&mut self, shift: u32) {
        let skipped = (gap::ESCAPE as u32) << shift;
        if skipped > self.positions - self.left {
            return self.fail(CodecError::Index { chunk: self.chunk });
        }
        if !self.stream.refill() {
            return self.fail(CodecError::Truncated { chunk: self.chunk });
        }
        (self.positions, self.at) = (self.positions - skipped, self.at + skipped);
    }
}

vectorised! {
    /// Decodes groups side by side, to their ends.
    pub(super) fn run_lanes(lanes: &mut [Lane<'_>]) {
        while let [a, b, c, d] = &mut *lanes {
            if a.end.is_some() || b.end.is_some() || c.end.is_some() || d.end.is_some() {
                break;
            }
            a.step();
            b.step();
            c.step();
            d.step();
        }
        for lane in lanes {
            while lane.end.is_none() {
                lane.step();
            }
        }
    }
}
