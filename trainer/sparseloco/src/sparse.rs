//! What a shard says once it is decoded: indices and values of a run of whole chunks, in flat arrays.
//!
//! Holds values; neither rounds nor encodes them.

use std::ops::Range;

/// Indices and values of consecutive chunks. A chunk's indices ascend and count row-major inside it.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseShard {
    first_chunk: usize,
    /// Where each chunk's values start, and where the last one's end.
    starts: Vec<u32>,
    indices: Vec<u16>,
    values: Vec<f32>,
}

impl SparseShard {
    /// A shard that will start at chunk `first_chunk`, still without chunks, with room for `chunks` and `values`.
    pub fn with_capacity(first_chunk: usize, chunks: usize, values: usize) -> SparseShard {
        let mut starts = Vec::with_capacity(chunks + 1);
        starts.push(0);
        SparseShard { first_chunk, starts, indices: Vec::with_capacity(values), values: Vec::with_capacity(values) }
    }

    /// Appends the next chunk; without values if it sends none.
    ///
    /// # Panics
    /// If there are not as many values as indices.
    pub fn push_chunk(&mut self, indices: &[u16], values: &[f32]) {
        assert_eq!(indices.len(), values.len(), "a value an index");
        self.indices.extend_from_slice(indices);
        self.values.extend_from_slice(values);
        self.close_chunk();
    }

    /// Appends chunks of so many values, and gives the place for them.
    pub(crate) fn push_room(&mut self, counts: impl Iterator<Item = usize>) -> (&mut [u16], &mut [f32]) {
        let begin = self.values.len();
        let mut end = begin;
        for count in counts {
            end += count;
            self.starts.push(end as u32);
        }
        self.indices.resize(end, 0);
        self.values.resize(end, 0.0);
        (&mut self.indices[begin..], &mut self.values[begin..])
    }

    fn close_chunk(&mut self) {
        // A shard has at most 2^16 chunks of at most 2^12 values.
        self.starts.push(self.values.len() as u32);
    }

    /// The chunks it covers.
    pub fn chunks(&self) -> Range<usize> {
        self.first_chunk..self.first_chunk + self.starts.len() - 1
    }

    /// Indices and values of chunk `number` of the layout; empty if the chunk sends nothing.
    ///
    /// # Panics
    /// If the shard does not cover that chunk.
    #[inline]
    pub fn chunk(&self, number: usize) -> (&[u16], &[f32]) {
        let within = number - self.first_chunk;
        let range = self.starts[within] as usize..self.starts[within + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// As [`chunk`](SparseShard::chunk), to change the values.
    pub(crate) fn chunk_mut(&mut self, number: usize) -> (&[u16], &mut [f32]) {
        let within = number - self.first_chunk;
        let range = self.starts[within] as usize..self.starts[within + 1] as usize;
        (&self.indices[range.clone()], &mut self.values[range])
    }

    /// All values, chunk by chunk.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All indices, chunk by chunk.
    pub fn indices(&self) -> &[u16] {
        &self.indices
    }
}
