//! How a model's parameters lie in one flat state, and how they are cut into chunks.
//!
//! Tensors are row-major f32 under Hugging Face's names and shapes, in byte order of their names. A matrix is cut into
//! 64×64 tiles (smaller at its right and lower edges), row-major over the grid of tiles; anything else into runs of
//! 4,096 elements, the last shorter. A chunk never straddles tensors.

use crate::model::Model;
use std::ops::Range;

/// Elements of a whole chunk.
pub const CHUNK: usize = 4096;
/// Side of a matrix tile.
pub const TILE: usize = 64;
const _: () = assert!(TILE * TILE == CHUNK);

/// One parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Hugging Face's name.
    pub name: String,
    /// `[rows, columns]` of a matrix (`[out, in]`), `[n]` of a vector.
    pub shape: Vec<usize>,
    /// Where its first element lies in the state.
    pub offset: usize,
    /// The number of its first chunk.
    pub first_chunk: usize,
    /// How many chunks it is cut into.
    pub chunks: usize,
}

impl Tensor {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
    /// Its elements in the state.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.elements()
    }
    /// Its chunks.
    pub fn chunk_range(&self) -> Range<usize> {
        self.first_chunk..self.first_chunk + self.chunks
    }
}

/// One chunk: `rows × columns` elements of the state, row-major, `stride` apart from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where its first element lies in the state.
    pub offset: usize,
    /// Rows; 1 in a vector.
    pub rows: usize,
    /// Elements a row.
    pub columns: usize,
    /// Elements from one row's start to the next's.
    pub stride: usize,
}

impl Chunk {
    /// Elements, 1 to [`CHUNK`].
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }
    /// Never: a chunk has an element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Where element `index` (row-major inside the chunk) lies in the state.
    #[inline]
    pub fn position(&self, index: usize) -> usize {
        self.offset + index / self.columns * self.stride + index % self.columns
    }
    /// The state's ranges that make up the chunk, a row each.
    pub fn row_ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.rows).map(|row| {
            let start = self.offset + row * self.stride;
            start..start + self.columns
        })
    }
    /// Values that the chunk sends when a whole one sends `k`: ⌈n·k/4096⌉.
    pub fn values(&self, k: usize) -> usize {
        (self.len() * k).div_ceil(CHUNK)
    }
}

/// All tensors of a model, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    elements: usize,
    chunks: usize,
}

impl Layout {
    /// The layout of these tensors; they are sorted by name here.
    pub fn new(mut shapes: Vec<(String, Vec<usize>)>) -> Layout {
        shapes.sort();
        let mut layout = Layout { tensors: Vec::with_capacity(shapes.len()), elements: 0, chunks: 0 };
        for (name, shape) in shapes {
            let chunks = match shape[..] {
                [rows, columns] => rows.div_ceil(TILE) * columns.div_ceil(TILE),
                _ => shape.iter().product::<usize>().div_ceil(CHUNK),
            };
            let tensor = Tensor { name, shape, offset: layout.elements, first_chunk: layout.chunks, chunks };
            layout.elements += tensor.elements();
            layout.chunks += chunks;
            layout.tensors.push(tensor);
        }
        layout
    }

    /// The layout of a LLaMA-style model.
    pub fn of(model: &Model) -> Layout {
        let width = model.width as usize;
        let (vocabulary, ff) = (model.vocabulary as usize, model.feed_forward as usize);
        let (query, kv) = (model.query_width() as usize, model.kv_heads as usize * model.head_width() as usize);
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![vocabulary, width]),
            ("model.norm.weight".to_owned(), vec![width]),
        ];
        if !model.tied {
            shapes.push(("lm_head.weight".to_owned(), vec![vocabulary, width]));
        }
        for layer in 0..model.layers {
            let mut add = |name: &str, shape: Vec<usize>| shapes.push((format!("model.layers.{layer}.{name}"), shape));
            add("input_layernorm.weight", vec![width]);
            add("post_attention_layernorm.weight", vec![width]);
            add("self_attn.q_proj.weight", vec![query, width]);
            add("self_attn.k_proj.weight", vec![kv, width]);
            add("self_attn.v_proj.weight", vec![kv, width]);
            add("self_attn.o_proj.weight", vec![width, query]);
            add("mlp.gate_proj.weight", vec![ff, width]);
            add("mlp.up_proj.weight", vec![ff, width]);
            add("mlp.down_proj.weight", vec![width, ff]);
        }
        Layout::new(shapes)
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
    /// Elements of the state.
    pub fn elements(&self) -> usize {
        self.elements
    }
    /// Chunks in all.
    pub fn chunks(&self) -> usize {
        self.chunks
    }
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok().map(|at| &self.tensors[at])
    }
    /// The tensor that chunk `number` belongs to.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn tensor_of_chunk(&self, number: usize) -> &Tensor {
        assert!(number < self.chunks, "chunk {number} of {}", self.chunks);
        let after = self.tensors.partition_point(|tensor| tensor.first_chunk <= number);
        &self.tensors[after - 1]
    }
    /// The tensors that have elements in this range of the state, in order.
    pub fn tensors_in(&self, elements: Range<usize>) -> impl Iterator<Item = &Tensor> {
        let overlaps =
            move |tensor: &&Tensor| tensor.range().start < elements.end && elements.start < tensor.range().end;
        self.tensors.iter().filter(overlaps)
    }
    /// Where chunk `number` lies.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn chunk(&self, number: usize) -> Chunk {
        let tensor = self.tensor_of_chunk(number);
        let within = number - tensor.first_chunk;
        match tensor.shape[..] {
            [rows, columns] => {
                let across = columns.div_ceil(TILE);
                let (top, left) = (within / across * TILE, within % across * TILE);
                Chunk {
                    offset: tensor.offset + top * columns + left,
                    rows: TILE.min(rows - top),
                    columns: TILE.min(columns - left),
                    stride: columns,
                }
            }
            _ => {
                let start = within * CHUNK;
                let length = CHUNK.min(tensor.elements() - start);
                Chunk { offset: tensor.offset + start, rows: 1, columns: length, stride: length }
            }
        }
    }
    /// The chunks of shard `number` when a shard has `shard_chunks`.
    pub fn shard(&self, number: usize, shard_chunks: usize) -> Range<usize> {
        let start = (number * shard_chunks).min(self.chunks);
        start..(start + shard_chunks).min(self.chunks)
    }
    /// Contribution shards when a shard has `shard_chunks`.
    pub fn shards(&self, shard_chunks: usize) -> usize {
        self.chunks.div_ceil(shard_chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_element_once() {
        let layout = Layout::new(vec![
            ("b".into(), vec![130, 70]),
            ("a".into(), vec![5000]),
            ("c".into(), vec![64, 64]),
            ("d".into(), vec![1, 1]),
        ]);
        let mut seen = vec![0u8; layout.elements()];
        for number in 0..layout.chunks() {
            let chunk = layout.chunk(number);
            assert!(chunk.len() <= CHUNK && layout.tensor_of_chunk(number).chunk_range().contains(&number));
            for index in 0..chunk.len() {
                seen[chunk.position(index)] += 1;
            }
            assert_eq!(chunk.row_ranges().map(|r| r.len()).sum::<usize>(), chunk.len());
        }
        assert!(seen.iter().all(|&times| times == 1));
        assert_eq!(layout.tensors()[0].name, "a");
        assert_eq!(layout.chunk(0).values(64), 64);
        assert_eq!(layout.chunk(layout.chunks() - 1).values(64), 1);
    }
}
