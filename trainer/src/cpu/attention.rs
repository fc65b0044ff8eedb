//! Causal grouped-query attention, a sequence and a key head at a time, in blocks of queries that skip the keys after
//! them. The query heads of a key head are stacked as rows of one matrix: `[position, head of the group]`.
//!
//! Probabilities are kept for the backward pass while they are small ([`KEPT_MAX`]) and computed again otherwise.

use super::angles::Angles;
use super::kernels::{Turn, rotate_rows, row_dots, softmax_again, softmax_back, softmax_causal};
use super::passes::Passes;
use super::product::{Into, View, ViewMut, multiply};
use super::shape::Shape;

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
    cosines: Vec<f32>,
    sines: Vec<f32>,
    keep: bool,
    probabilities: Vec<f32>,
    d_probabilities: Vec<f32>,
    out: Vec<f32>,
    d_out: Vec<f32>,
    d_queries: Vec<f32>,
    d_keys: Vec<f32>,
    sums: Vec<f32>,
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
    /// For up to `tokens` tokens at once.
    pub(super) fn new(shape: &Shape, tokens: usize, theta: f64, passes: Passes) -> Attention {
        let half = shape.head / 2;
        let angle = |position: usize, pair: usize| position as f64 / theta.powf((2 * pair) as f64 / shape.head as f64);
        let table = |function: fn(f64) -> f64| {
            (0..shape.sequence * half).map(|at| function(angle(at / half, at % half)) as f32).collect()
        };
        let room = |elements: usize| vec![0.0; elements];
        let backward = if passes == Passes::Forward { 0 } else { 1 };
        let (rows, block) = (shape.sequence * shape.group(), largest_block(shape));
        Attention {
            cosines: table(f64::cos),
            sines: table(f64::sin),
            keep: keeps(shape, tokens, passes),
            probabilities: room(block),
            d_probabilities: room(backward * block),
            out: room(rows * shape.head),
            d_out: room(backward * rows * shape.head),
            d_queries: room(backward * rows * shape.head),
            d_keys: room(backward * shape.sequence * shape.head),
            sums: room(backward * rows),
        }
    }

    /// The rotary angles of all positions.
    pub(super) fn angles(&self) -> Angles<'_> {
        Angles { cosines: &self.cosines, sines: &self.sines }
    }

    /// Room for one layer.
    pub(super) fn kept(&self, shape: &Shape, tokens: usize) -> Kept {
        let kept = if self.keep { kept_elements(shape, tokens) } else { 0 };
        Kept {
            queries: vec![0.0; tokens * shape.width],
            keys: vec![0.0; tokens * shape.kv_width],
            probabilities: vec![0.0; kept],
            log_sums: vec![0.0; tokens * shape.heads],
        }
    }

    /// Elements of [`Attention::new`] and of as many [`Attention::kept`] as `layers`.
    pub(super) fn elements(shape: &Shape, tokens: usize, layers: usize, passes: Passes) -> usize {
        let (rows, block) = (shape.sequence * shape.group(), largest_block(shape));
        let forward = shape.sequence * shape.head + block + rows * shape.head;
        let backward = block + (2 * rows + shape.sequence) * shape.head + rows;
        let kept = if keeps(shape, tokens, passes) { kept_elements(shape, tokens) } else { 0 };
        let layer = tokens * (shape.width + shape.kv_width + shape.heads) + kept;
        forward + layers * layer + if passes == Passes::Forward { 0 } else { backward }
    }

    /// Elements of all buffers that there are, but for the layers'.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Attention { cosines, sines, keep: _, probabilities, d_probabilities, out, d_out, d_queries, d_keys, sums } =
            self;
        let all = [cosines, sines, probabilities, d_probabilities, out, d_out, d_queries, d_keys, sums];
        all.into_iter().map(Vec::len).sum()
    }

    /// out `[tokens, width]` from queries and values `[tokens, width + kv_width]` and keys `[tokens, kv_width]`, for
    /// sequences of `length` tokens.
    pub(super) fn forward(
        &mut self,
        shape: &Shape,
        kept: &mut Kept,
        out: &mut [f32],
        query_value: &[f32],
        key: &[f32],
        length: usize,
    ) {
        let (head, group, stride) = (shape.head, shape.group(), shape.width + shape.kv_width);
        let (elements, keep) = (block_elements(length, group), self.keep);
        for pair in 0..key.len() / (length * head) {
            let (sequence, kv) = (pair / shape.kv_heads, pair % shape.kv_heads);
            let token = sequence * length;
            let queries = &mut kept.queries[pair * length * group * head..][..length * group * head];
            let keys = &mut kept.keys[pair * length * head..][..length * head];
            self.rotate(shape, queries, keys, &query_value[token * stride..], &key[token * shape.kv_width..], kv);
            let values = &query_value[token * stride + shape.width + kv * head..];
            for block in blocks(length, group) {
                let rows = (block.end - block.first) * group;
                let p = if keep {
                    &mut kept.probabilities[pair * elements + block.offset..][..rows * block.end]
                } else {
                    &mut self.probabilities[..rows * block.end]
                };
                let q = View::dense(&queries[block.first * group * head..], rows, head);
                multiply(ViewMut::dense(p, rows, block.end), q, View::dense(keys, block.end, head).t(), Into::Set);
                let log_sums = &mut kept.log_sums[(pair * length + block.first) * group..][..rows];
                softmax_causal(p, block.end, block.first, group, log_sums);
                let o = ViewMut::dense(&mut self.out[block.first * group * head..], rows, head);
                multiply(o, View::dense(p, rows, block.end), View::new(values, block.end, head, stride), Into::Set);
            }
            let columns = kv * group * head..(kv + 1) * group * head;
            let rows = out[token * shape.width..].chunks_exact_mut(shape.width);
            for (row, packed) in rows.zip(self.out[..length * group * head].chunks_exact(group * head)) {
                row[columns.clone()].copy_from_slice(packed);
            }
        }
    }

    /// The gradients of what [`Attention::forward`] was given, from its result and the result's gradient.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &mut self,
        shape: &Shape,
        kept: &mut Kept,
        d_query_value: &mut [f32],
        d_key: &mut [f32],
        d_out: &[f32],
        out: &[f32],
        query_value: &[f32],
        length: usize,
    ) {
        let (head, group, stride) = (shape.head, shape.group(), shape.width + shape.kv_width);
        for pair in 0..d_key.len() / (length * head) {
            let (sequence, kv) = (pair / shape.kv_heads, pair % shape.kv_heads);
            let token = sequence * length;
            let columns = kv * group * head..(kv + 1) * group * head;
            for (packed, source) in [(&mut self.out, out), (&mut self.d_out, d_out)] {
                let rows = source[token * shape.width..].chunks_exact(shape.width);
                for (packed, row) in packed[..length * group * head].chunks_exact_mut(group * head).zip(rows) {
                    packed.copy_from_slice(&row[columns.clone()]);
                }
            }
            row_dots(&mut self.sums[..length * group], &self.d_out, &self.out, head);
            let values = &query_value[token * stride + shape.width + kv * head..];
            let d_values = &mut d_query_value[token * stride + shape.width + kv * head..];
            self.backward_pair(shape, kept, pair, values, d_values, length);
            self.rotate_back(
                shape,
                &mut d_query_value[token * stride..],
                &mut d_key[token * shape.kv_width..],
                kv,
                length,
            );
        }
    }

    /// One sequence and key head: fills `d_queries`, `d_keys` (still rotated) and the columns of `d_values`.
    fn backward_pair(
        &mut self,
        shape: &Shape,
        kept: &mut Kept,
        pair: usize,
        values: &[f32],
        d_values: &mut [f32],
        length: usize,
    ) {
        let (head, group, stride) = (shape.head, shape.group(), shape.width + shape.kv_width);
        let elements = block_elements(length, group);
        let queries = &kept.queries[pair * length * group * head..][..length * group * head];
        let keys = &kept.keys[pair * length * head..][..length * head];
        // The last block sees all keys and sets their gradients; the others add to them.
        let mut into = Into::Set;
        for block in blocks(length, group).rev() {
            let (rows, first_row) = ((block.end - block.first) * group, block.first * group);
            let q = View::dense(&queries[first_row * head..], rows, head);
            let k = View::dense(keys, block.end, head);
            let p = if self.keep {
                &kept.probabilities[pair * elements + block.offset..][..rows * block.end]
            } else {
                let p = &mut self.probabilities[..rows * block.end];
                multiply(ViewMut::dense(p, rows, block.end), q, k.t(), Into::Set);
                softmax_again(p, block.end, block.first, group, &kept.log_sums[pair * length * group + first_row..]);
                p
            };
            let d_out = View::dense(&self.d_out[first_row * head..], rows, head);
            let d = &mut self.d_probabilities[..rows * block.end];
            let v = View::new(values, block.end, head, stride);
            multiply(ViewMut::dense(d, rows, block.end), d_out, v.t(), Into::Set);
            softmax_back(d, p, block.end, &self.sums[first_row..]);
            let d_v = ViewMut::new(d_values, block.end, head, stride);
            multiply(d_v, View::dense(p, rows, block.end).t(), d_out, into);
            let d = View::dense(d, rows, block.end);
            multiply(ViewMut::dense(&mut self.d_queries[first_row * head..], rows, head), d, k, Into::Set);
            multiply(ViewMut::dense(&mut self.d_keys, block.end, head), d.t(), q, into);
            into = Into::Add;
        }
    }

    fn rotate(
        &self,
        shape: &Shape,
        queries: &mut [f32],
        keys: &mut [f32],
        query_value: &[f32],
        key: &[f32],
        kv: usize,
    ) {
        let (head, half, group, stride) = (shape.head, shape.head / 2, shape.group(), shape.width + shape.kv_width);
        let scale = 1.0 / (head as f32).sqrt();
        let (cosines, sines) = (&self.cosines, &self.sines);
        for member in 0..group {
            let (out, from) = (&mut queries[member * head..], &query_value[(kv * group + member) * head..]);
            rotate_rows(out, group * head, from, stride, cosines, sines, half, scale, Turn::Forward);
        }
        let from = &key[kv * head..];
        rotate_rows(keys, head, from, shape.kv_width, cosines, sines, half, 1.0, Turn::Forward);
    }

    fn rotate_back(&self, shape: &Shape, d_query_value: &mut [f32], d_key: &mut [f32], kv: usize, length: usize) {
        let (head, half, group, stride) = (shape.head, shape.head / 2, shape.group(), shape.width + shape.kv_width);
        let scale = 1.0 / (head as f32).sqrt();
        let (cosines, sines) = (&self.cosines, &self.sines);
        for member in 0..group {
            let out = &mut d_query_value[(kv * group + member) * head..];
            let from = &self.d_queries[member * head..length * group * head];
            rotate_rows(out, stride, from, group * head, cosines, sines, half, scale, Turn::Back);
        }
        let from = &self.d_keys[..length * head];
        let out = &mut d_key[kv * head..];
        rotate_rows(out, shape.kv_width, from, head, cosines, sines, half, 1.0, Turn::Back);
    }
}
