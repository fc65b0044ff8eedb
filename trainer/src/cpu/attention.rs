//! Causal grouped-query attention: a task is a sequence and a key head, worked on in blocks of queries that skip the keys
//! after them. The query heads of a key head are stacked as rows of one matrix: `[position, head of the group]`.
//!
//! Probabilities are kept for the backward pass while they are small ([`KEPT_MAX`]) and computed again otherwise.

use super::angles::{AngleTables, Angles};
use super::kernels::{Turn, rotate_rows, row_dots, softmax_again, softmax_back, softmax_causal};
use super::passes::Passes;
use super::pool::Pool;
use super::product::{Into, View, ViewMut, multiply, takes_tiles, transpose};
use super::shape::Shape;
use covey_proto::run::Model;

/// Positions of a block of queries. Smaller blocks skip more of the keys that they cannot see; larger ones make larger products.
const BLOCK: usize = 32;
/// Probabilities kept for the backward pass, in elements over all layers (256 MiB); beyond, they are computed again.
const KEPT_MAX: usize = 64 << 20;

/// What the backward pass of one layer's attention needs.
#[derive(Default)]
pub(super) struct Kept {
    /// Rotated queries, scaled by 1/√head: `[sequence, key head, position, head of the group, head width]`.
    queries: Vec<f32>,
    /// Rotated keys: `[sequence, key head, position, head width]`.
    keys: Vec<f32>,
    /// Blocks of probabilities, if they are kept.
    probabilities: Vec<f32>,
    /// ln Σ e^score of each row of queries.
    log_sums: Vec<f32>,
}

/// Angles and scratch; one serves all layers.
pub(super) struct Attention {
    angles: AngleTables,
    keep: bool,
    /// One a thread.
    scratch: Vec<Scratch>,
}

/// What one task works with. Without a backward pass, what belongs to it is empty.
struct Scratch {
    probabilities: Vec<f32>,
    d_probabilities: Vec<f32>,
    /// Keys, or values, transposed: `[head width, position]`.
    turned: Vec<f32>,
    out: Vec<f32>,
    d_out: Vec<f32>,
    d_queries: Vec<f32>,
    d_keys: Vec<f32>,
    sums: Vec<f32>,
}

/// A sequence and a key head on their way forward.
struct Forward<'a> {
    number: usize,
    out: ViewMut<'a>,
    queries: &'a mut [f32],
    keys: &'a mut [f32],
    log_sums: &'a mut [f32],
    /// Room for all blocks, if they are kept.
    probabilities: Option<&'a mut [f32]>,
}

/// A sequence and a key head on their way back.
struct Backward<'a> {
    number: usize,
    d_queries: ViewMut<'a>,
    d_keys: ViewMut<'a>,
    d_values: ViewMut<'a>,
}

/// A block of queries: positions `first..end` see keys `0..end`.
struct Block {
    first: usize,
    end: usize,
    /// Where its probabilities start among those of its sequence and key head.
    offset: usize,
}

fn blocks(length: usize, group: usize) -> impl DoubleEndedIterator<Item = Block> + Clone {
    (0..length.div_ceil(BLOCK)).map(move |number| {
        let first = number * BLOCK;
        // Before it lie `number` whole blocks, of BLOCK·group rows and BLOCK, 2·BLOCK, … keys.
        let offset = BLOCK * group * BLOCK * (number * (number + 1) / 2);
        Block { first, end: (first + BLOCK).min(length), offset }
    })
}

/// Elements of all blocks of one sequence and key head.
fn block_elements(length: usize, group: usize) -> usize {
    blocks(length, group).last().map_or(0, |block| block.offset + (block.end - block.first) * group * block.end)
}

/// Elements of the largest block of probabilities.
fn largest_block(shape: &Shape) -> usize {
    BLOCK.min(shape.sequence) * shape.group() * shape.sequence
}

/// Elements of a layer's probabilities.
fn kept_elements(shape: &Shape, tokens: usize) -> usize {
    let pairs = tokens.div_ceil(shape.sequence) * shape.kv_heads;
    pairs * block_elements(shape.sequence, shape.group())
}

/// Whether probabilities are kept for the backward pass.
fn keeps(shape: &Shape, tokens: usize, passes: Passes) -> bool {
    match passes {
        Passes::Forward => false,
        Passes::Both { keep } => keep.unwrap_or_else(|| kept_elements(shape, tokens) * shape.layers.len() <= KEPT_MAX),
    }
}

impl Kept {
    /// Elements of all buffers that there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Kept { queries, keys, probabilities, log_sums } = self;
        [queries, keys, probabilities, log_sums].into_iter().map(Vec::len).sum()
    }
}

impl Attention {
    /// For up to `tokens` tokens at once, on up to `threads` threads.
    pub(super) fn new(shape: &Shape, model: &Model, tokens: usize, passes: Passes, threads: usize) -> Attention {
        Attention {
            angles: AngleTables::new(shape, model),
            keep: keeps(shape, tokens, passes),
            scratch: (0..threads.max(1)).map(|_| Scratch::new(shape, passes)).collect(),
        }
    }

    /// The rotary angles of all positions.
    pub(super) fn angles(&self) -> Angles<'_> {
        self.angles.all()
    }

    /// Room for one layer.
    pub(super) fn kept(&self, shape: &Shape, tokens: usize) -> Kept {
        let kept = if self.keep { kept_elements(shape, tokens) } else { 0 };
        Kept {
            queries: vec![0.0; tokens * shape.query_width],
            keys: vec![0.0; tokens * shape.kv_width],
            probabilities: vec![0.0; kept],
            log_sums: vec![0.0; tokens * shape.heads],
        }
    }

    /// Elements of [`Attention::new`] and of as many [`Attention::kept`] as `layers`.
    pub(super) fn elements(shape: &Shape, tokens: usize, layers: usize, passes: Passes, threads: usize) -> usize {
        let (rows, block) = (shape.sequence * shape.group(), largest_block(shape));
        let forward = block + (rows + shape.sequence) * shape.head;
        let backward = block + (2 * rows + shape.sequence) * shape.head + rows;
        let kept = if keeps(shape, tokens, passes) { kept_elements(shape, tokens) } else { 0 };
        let layer = tokens * (shape.query_width + shape.kv_width + shape.heads) + kept;
        let of_a_thread = forward + if passes == Passes::Forward { 0 } else { backward };
        AngleTables::elements(shape) + threads.max(1) * of_a_thread + layers * layer
    }

    /// Elements of all buffers that there are, but for the layers'.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let of_a_thread = |scratch: &Scratch| {
            let Scratch { probabilities, d_probabilities, turned, out, d_out, d_queries, d_keys, sums } = scratch;
            let all = [probabilities, d_probabilities, turned, out, d_out, d_queries, d_keys, sums];
            all.into_iter().map(Vec::len).sum::<usize>()
        };
        self.angles.held() + self.scratch.iter().map(of_a_thread).sum::<usize>()
    }

    /// out `[tokens, query width]` from queries and values `[tokens, query width + kv_width]` and keys `[tokens, kv_width]`, for
    /// sequences of `length` tokens.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn forward(
        &mut self,
        pool: &Pool,
        shape: &Shape,
        kept: &mut Kept,
        out: &mut [f32],
        query_value: &[f32],
        key: &[f32],
        length: usize,
    ) {
        let (head, group, tokens) = (shape.head, shape.group(), key.len() / shape.kv_width);
        let sequences = ViewMut::dense(out, tokens, shape.query_width).row_parts(vec![length; tokens / length]);
        let outs = sequences.into_iter().flat_map(|rows| rows.column_parts(vec![group * head; shape.kv_heads]));
        let packed = kept.queries.chunks_mut(length * group * head).zip(kept.keys.chunks_mut(length * head));
        let packed = packed.zip(kept.log_sums.chunks_mut(length * group));
        let mut probabilities = kept.probabilities.chunks_mut(block_elements(length, group));
        let tasks = outs.zip(packed).enumerate().map(|(number, (out, ((queries, keys), log_sums)))| {
            let probabilities = if self.keep { probabilities.next() } else { None };
            Forward { number, out, queries, keys, log_sums, probabilities }
        });
        let angles = self.angles.all();
        pool.each_with(&mut self.scratch, tasks, |scratch, task| {
            scratch.forward(shape, angles, task, query_value, key, length);
        });
    }

    /// The gradients of what [`Attention::forward`] was given, from its result and the result's gradient.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &mut self,
        pool: &Pool,
        shape: &Shape,
        kept: &Kept,
        d_query_value: &mut [f32],
        d_key: &mut [f32],
        d_out: &[f32],
        out: &[f32],
        query_value: &[f32],
        length: usize,
    ) {
        let (head, group, stride) = (shape.head, shape.group(), shape.query_width + shape.kv_width);
        let tokens = d_key.len() / shape.kv_width;
        let each = vec![length; tokens / length];
        let d_key = ViewMut::dense(d_key, tokens, shape.kv_width).row_parts(each.iter().copied());
        let d_query_value = ViewMut::dense(d_query_value, tokens, stride).row_parts(each);
        let pairs = d_key.into_iter().zip(d_query_value).flat_map(|(d_key, d_query_value)| {
            let (d_query, d_value) = d_query_value.split_columns(shape.query_width);
            let heads = |width| vec![width; shape.kv_heads];
            let d_queries = d_query.column_parts(heads(group * head)).into_iter();
            d_queries.zip(d_key.column_parts(heads(head))).zip(d_value.column_parts(heads(head)))
        });
        let tasks = pairs.enumerate().map(|(number, ((d_queries, d_keys), d_values))| Backward {
            number,
            d_queries,
            d_keys,
            d_values,
        });
        let angles = self.angles.all();
        pool.each_with(&mut self.scratch, tasks, |scratch, mut task| {
            scratch.take_columns(shape, task.number, d_out, out, length);
            scratch.backward(shape, kept, &mut task, query_value, length);
            scratch.rotate_back(shape, angles, task, length);
        });
    }
}

impl Scratch {
    fn new(shape: &Shape, passes: Passes) -> Scratch {
        let room = |elements: usize| vec![0.0; elements];
        let backward = if passes == Passes::Forward { 0 } else { 1 };
        let (rows, block) = (shape.sequence * shape.group(), largest_block(shape));
        Scratch {
            probabilities: room(block),
            d_probabilities: room(backward * block),
            turned: room(shape.sequence * shape.head),
            out: room(rows * shape.head),
            d_out: room(backward * rows * shape.head),
            d_queries: room(backward * rows * shape.head),
            d_keys: room(backward * shape.sequence * shape.head),
            sums: room(backward * rows),
        }
    }

    fn forward(
        &mut self,
        shape: &Shape,
        angles: Angles<'_>,
        task: Forward<'_>,
        query_value: &[f32],
        key: &[f32],
        length: usize,
    ) {
        let (head, group, stride) = (shape.head, shape.group(), shape.query_width + shape.kv_width);
        let Forward { number, mut out, queries, keys, log_sums, mut probabilities } = task;
        let (token, kv) = (number / shape.kv_heads * length, number % shape.kv_heads);
        rotate(shape, angles, queries, keys, &query_value[token * stride..], &key[token * shape.kv_width..], kv);
        let values = &query_value[token * stride + shape.query_width + kv * head..];
        let keys = View::dense(keys, length, head);
        transpose(&mut self.turned[..length * head], keys);
        for block in blocks(length, group) {
            let rows = (block.end - block.first) * group;
            let p = match &mut probabilities {
                Some(kept) => &mut kept[block.offset..][..rows * block.end],
                None => &mut self.probabilities[..rows * block.end],
            };
            let q = View::dense(&queries[block.first * group * head..], rows, head);
            let scores = ViewMut::dense(p, rows, block.end);
            multiply(scores, q, turned_or(&self.turned, keys, block.end, rows), Into::Set);
            let log_sums = &mut log_sums[block.first * group..][..rows];
            softmax_causal(p, block.end, block.first, group, log_sums);
            let o = ViewMut::dense(&mut self.out[block.first * group * head..], rows, head);
            multiply(o, View::dense(p, rows, block.end), View::new(values, block.end, head, stride), Into::Set);
        }
        for (position, packed) in self.out[..length * group * head].chunks_exact(group * head).enumerate() {
            out.row(position).copy_from_slice(packed);
        }
    }

    /// Fills `out`, `d_out` and `sums` with a task's columns of the result and its gradient, and their products' sums.
    fn take_columns(&mut self, shape: &Shape, number: usize, d_out: &[f32], out: &[f32], length: usize) {
        let (head, group) = (shape.head, shape.group());
        let (token, kv) = (number / shape.kv_heads * length, number % shape.kv_heads);
        let columns = kv * group * head..(kv + 1) * group * head;
        for (packed, source) in [(&mut self.out, out), (&mut self.d_out, d_out)] {
            let rows = source[token * shape.query_width..].chunks_exact(shape.query_width);
            for (packed, row) in packed[..length * group * head].chunks_exact_mut(group * head).zip(rows) {
                packed.copy_from_slice(&row[columns.clone()]);
            }
        }
        row_dots(&mut self.sums[..length * group], &self.d_out, &self.out, head);
    }

    /// Fills `d_queries` and `d_keys`, still rotated, and the task's `d_values`.
    fn backward(&mut self, shape: &Shape, kept: &Kept, task: &mut Backward<'_>, query_value: &[f32], length: usize) {
        let (head, group, stride) = (shape.head, shape.group(), shape.query_width + shape.kv_width);
        let elements = block_elements(length, group);
        let (token, kv) = (task.number / shape.kv_heads * length, task.number % shape.kv_heads);
        let values = View::new(&query_value[token * stride + shape.query_width + kv * head..], length, head, stride);
        let queries = &kept.queries[task.number * length * group * head..][..length * group * head];
        let keys = View::dense(&kept.keys[task.number * length * head..], length, head);
        transpose(&mut self.turned[..length * head], values);
        // The last block sees all keys and sets their gradients; the others add to them.
        let mut into = Into::Set;
        for block in blocks(length, group).rev() {
            let (rows, first_row) = ((block.end - block.first) * group, block.first * group);
            let q = View::dense(&queries[first_row * head..], rows, head);
            let k = keys.rows(0..block.end);
            let p = if kept.probabilities.is_empty() {
                let p = &mut self.probabilities[..rows * block.end];
                multiply(ViewMut::dense(p, rows, block.end), q, k.t(), Into::Set);
                let log_sums = &kept.log_sums[task.number * length * group + first_row..];
                softmax_again(p, block.end, block.first, group, log_sums);
                p
            } else {
                &kept.probabilities[task.number * elements + block.offset..][..rows * block.end]
            };
            let d_out = View::dense(&self.d_out[first_row * head..], rows, head);
            let d = &mut self.d_probabilities[..rows * block.end];
            let v = turned_or(&self.turned, values, block.end, rows);
            multiply(ViewMut::dense(d, rows, block.end), d_out, v, Into::Set);
            softmax_back(d, p, block.end, &self.sums[first_row..]);
            let d_v = task.d_values.again().split_rows(block.end).0;
            multiply(d_v, View::dense(p, rows, block.end).t(), d_out, into);
            let d = View::dense(d, rows, block.end);
            multiply(ViewMut::dense(&mut self.d_queries[first_row * head..], rows, head), d, k, Into::Set);
            multiply(ViewMut::dense(&mut self.d_keys, block.end, head), d.t(), q, into);
            into = Into::Add;
        }
    }

    /// Turns the gradients of queries and keys back, and puts them where they belong.
    fn rotate_back(&mut self, shape: &Shape, angles: Angles<'_>, task: Backward<'_>, length: usize) {
        let (head, half, group) = (shape.head, shape.head / 2, shape.group());
        let scale = 1.0 / (head as f32).sqrt();
        let Angles { cosines, sines } = angles;
        // `out` and `turned` are free by now.
        for member in 0..group {
            let out = &mut self.out[member * head..length * group * head];
            let from = &self.d_queries[member * head..length * group * head];
            rotate_rows(out, group * head, from, group * head, cosines, sines, half, scale, Turn::Back);
        }
        let (out, from) = (&mut self.turned[..length * head], &self.d_keys[..length * head]);
        rotate_rows(out, head, from, head, cosines, sines, half, 1.0, Turn::Back);
        for (mut to, packed, width) in [(task.d_queries, &self.out, group * head), (task.d_keys, &self.turned, head)] {
            for (position, packed) in packed[..length * width].chunks_exact(width).enumerate() {
                to.row(position).copy_from_slice(packed);
            }
        }
    }
}

/// The first `seen` rows of keys or values as the right factor of a product with `rows` rows: their transposed copy
/// `[head, length]` where the kernel reads it faster, to the same bits.
fn turned_or<'a>(turned: &'a [f32], given: View<'a>, seen: usize, rows: usize) -> View<'a> {
    if takes_tiles(rows, seen) {
        let length = given.height();
        View::new(&turned[..length * given.width()], given.width(), length, length).columns(0..seen)
    } else {
        given.rows(0..seen).t()
    }
}

fn rotate(
    shape: &Shape,
    angles: Angles<'_>,
    queries: &mut [f32],
    keys: &mut [f32],
    query_value: &[f32],
    key: &[f32],
    kv: usize,
) {
    let (head, half, group, stride) = (shape.head, shape.head / 2, shape.group(), shape.query_width + shape.kv_width);
    let scale = 1.0 / (head as f32).sqrt();
    let Angles { cosines, sines } = angles;
    for member in 0..group {
        let (out, from) = (&mut queries[member * head..], &query_value[(kv * group + member) * head..]);
        rotate_rows(out, group * head, from, stride, cosines, sines, half, scale, Turn::Forward);
    }
    rotate_rows(keys, head, &key[kv * head..], shape.kv_width, cosines, sines, half, 1.0, Turn::Forward);
}
