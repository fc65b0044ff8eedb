//! One text, continued token by token: keys and values of the tokens so far are kept, so that a token costs one pass over
//! the weights instead of one over the whole text.
//!
//! Keys are kept rotated, `[position, key head, head]` a layer, values likewise. A long prompt goes through in blocks of
//! [`BLOCK`] tokens. Every value is computed in an order that depends on neither the block, nor the call that it came with,
//! nor the threads ([`super::rows`]): a text has one set of logits, to the bit, however it was cut. Those of
//! [`super::network`] come from other products and agree to rounding.
//!
//! Which token is next, and what happens at the end of the context, is decided in [`crate::generate`].

use super::angles::Angles;
use super::kernels::{Turn, exponentiate, largest, norm, norm_sum, rotate_rows, swiglu};
use super::pool::Pool;
use super::rows::{Rows, dots, mix, products};
use super::shape::{LayerShape, Shape};
use covey_simd::vectorised;
use std::ops::Range;

/// Tokens of a prompt that share one pass over the weights. At 32 the arithmetic takes longer than the weights take to
/// come from memory, and the block's activations stay in the second cache.
const BLOCK: usize = 32;
/// The cache grows by at least so many positions.
const GROWTH_MIN: usize = 256;
/// Multiply-adds below which a product is not worth waking other threads.
const SPLIT_MIN: usize = 1 << 16;

/// Parts of a token's outputs for each thread: whoever is held up leaves the rest to the others.
const PARTS: usize = 4;

/// A layer's keys and values, `[positions, kv_width]`.
#[derive(Default)]
struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Activations of a block. Nothing is allocated before the first token.
#[derive(Default)]
struct Space {
    /// The residual stream, and the same between attention and MLP, `[BLOCK, width]`.
    x: Vec<f32>,
    between: Vec<f32>,
    normed: Vec<f32>,
    inverse: Vec<f32>,
    /// `[BLOCK, heads·head + kv_width]`.
    query_value: Vec<f32>,
    key: Vec<f32>,
    /// Rotated and scaled queries, and attention's result, `[BLOCK, heads·head]`.
    queries: Vec<f32>,
    mixed: Vec<f32>,
    gate_up: Vec<f32>,
    hidden: Vec<f32>,
    /// Attention's scores, `[threads, query heads of a key head, positions]`.
    scores: Vec<f32>,
    logits: Vec<f32>,
}

/// The tokens so far, and what is kept of them; in the beginning nothing, and no memory.
#[derive(Default)]
pub(super) struct Continuation {
    tokens: Vec<u32>,
    layers: Vec<Past>,
    space: Space,
}

impl Continuation {
    /// Bytes that a text of `tokens` tokens takes if they come at once; one that grew may have twice the room.
    pub(super) fn bytes(shape: &Shape, tokens: usize, threads: usize) -> u64 {
        let positions = tokens.max(GROWTH_MIN).min(shape.sequence);
        let past = 2 * shape.layers.len() * shape.kv_width * positions;
        let query = shape.query_width;
        let token = 3 * (shape.width + query + shape.feed_forward) + 2 * shape.kv_width + 1;
        let scores = threads.max(1) * shape.group() * positions;
        4 * (past + BLOCK * token + scores + shape.vocabulary) as u64
    }

    /// The tokens that are kept.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets all but the first `length` tokens; the memory stays for those that follow.
    pub(super) fn rewind(&mut self, length: usize) {
        self.tokens.truncate(length);
    }

    /// Bytes of all buffers that there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Space { x, between, normed, inverse, query_value, key, queries, mixed, gate_up, hidden, scores, logits } =
            &self.space;
        let all = [x, between, normed, inverse, query_value, key, queries, mixed, gate_up, hidden, scores, logits];
        let past = self.layers.iter().flat_map(|past| [&past.keys, &past.values]);
        4 * all.into_iter().chain(past).map(Vec::capacity).sum::<usize>()
    }

    /// Adds `tokens`, which are in the vocabulary and not more than the sequence has room for; at least one. Gives the
    /// last one's logits, `[vocabulary]`.
    pub(super) fn extend(
        &mut self,
        pool: &Pool,
        shape: &Shape,
        parameters: &[f32],
        angles: Angles<'_>,
        tokens: &[u32],
    ) -> &[f32] {
        self.make_room(shape, self.tokens.len() + tokens.len(), pool.threads());
        let mut rows = 0;
        for block in tokens.chunks(BLOCK) {
            rows = block.len();
            let pass = Pass { pool, shape, parameters, angles, first: self.tokens.len(), count: rows };
            pass.run(&mut self.space, &mut self.layers, block);
            self.tokens.extend_from_slice(block);
        }
        let Space { normed, logits, .. } = &mut self.space;
        let last = Rows::dense(&normed[(rows - 1) * shape.width..rows * shape.width], shape.width);
        product(pool, logits, last, &parameters[shape.output.clone()]);
        logits
    }

    /// Room for `positions` tokens. The cache grows by doubling: a chat of some lines does not take what the longest text
    /// would.
    fn make_room(&mut self, shape: &Shape, positions: usize, threads: usize) {
        self.layers.resize_with(shape.layers.len(), Past::default);
        for past in &mut self.layers {
            for kept in [&mut past.keys, &mut past.values] {
                let held = kept.capacity() / shape.kv_width;
                if held < positions {
                    kept.truncate(self.tokens.len() * shape.kv_width);
                    let wanted = positions.max((2 * held).max(GROWTH_MIN)).min(shape.sequence);
                    kept.reserve_exact(wanted * shape.kv_width - kept.len());
                }
            }
        }
        let of_a_position = threads * shape.group();
        let held = self.space.scores.len() / of_a_position;
        if held < positions {
            let wanted = positions.max((2 * held).max(GROWTH_MIN)).min(shape.sequence);
            self.space.scores = vec![0.0; wanted * of_a_position];
        }
        if self.space.logits.is_empty() {
            let query = shape.query_width;
            let room = |width: usize| vec![0.0; BLOCK * width];
            self.space = Space {
                x: room(shape.width),
                between: room(shape.width),
                normed: room(shape.width),
                inverse: room(1),
                query_value: room(query + shape.kv_width),
                key: room(shape.kv_width),
                queries: room(query),
                mixed: room(query),
                gate_up: room(2 * shape.feed_forward),
                hidden: room(shape.feed_forward),
                scores: std::mem::take(&mut self.space.scores),
                logits: vec![0.0; shape.vocabulary],
            };
        }
    }
}

/// A block on its way through the layers: the model, where in the text the block begins, and how many tokens it has.
#[derive(Clone, Copy)]
struct Pass<'a> {
    pool: &'a Pool,
    shape: &'a Shape,
    parameters: &'a [f32],
    angles: Angles<'a>,
    first: usize,
    count: usize,
}

impl<'a> Pass<'a> {
    fn weights(self, at: &Range<usize>) -> &'a [f32] {
        &self.parameters[at.clone()]
    }

    /// All layers: the block's keys and values are kept in `layers`, the last norm's result is left in `normed`.
    fn run(self, space: &mut Space, layers: &mut [Past], tokens: &[u32]) {
        let (shape, width, epsilon) = (self.shape, self.shape.width, self.shape.epsilon);
        let table = self.weights(&shape.embedding);
        for (x, &token) in space.x.chunks_exact_mut(width).zip(tokens) {
            x.copy_from_slice(&table[token as usize * width..][..width]);
        }
        let used = self.count * width;
        let weight = self.weights(&shape.layers[0].attention_norm);
        norm(&mut space.normed[..used], &mut space.inverse, &space.x[..used], weight, epsilon);
        for (number, (at, past)) in shape.layers.iter().zip(layers).enumerate() {
            self.attention(space, past, at);
            let Space { x, between, normed, inverse, .. } = space;
            let (sum, before) = (&mut between[..used], &x[..used]);
            norm_sum(&mut normed[..used], inverse, sum, before, self.weights(&at.mlp_norm), epsilon);
            self.mlp(space, at);
            // The sum after the MLP and its norm belong to the next layer, or to the output.
            let next_norm = shape.layers.get(number + 1).map_or(&shape.last_norm, |next| &next.attention_norm);
            let Space { x, between, normed, inverse, .. } = space;
            let (sum, before) = (&mut x[..used], &between[..used]);
            norm_sum(&mut normed[..used], inverse, sum, before, self.weights(next_norm), epsilon);
        }
    }

    /// From `normed`, `between` becomes what attention adds to the residual stream.
    fn attention(self, space: &mut Space, past: &mut Past, at: &LayerShape) {
        let Pass { pool, shape, count, .. } = self;
        let query = shape.query_width;
        let normed = Rows::dense(&space.normed[..count * shape.width], shape.width);
        let query_value = &mut space.query_value[..count * (query + shape.kv_width)];
        product(pool, query_value, normed, self.weights(&at.query_value));
        let key = &mut space.key[..count * shape.kv_width];
        product(pool, key, normed, self.weights(&at.key));
        self.keep(past, query_value, key);
        let queries = &mut space.queries[..count * query];
        self.rotate(queries, query, query_value, query + shape.kv_width, 1.0 / (shape.head as f32).sqrt());
        let mixed = &mut space.mixed[..count * query];
        self.attend(mixed, queries, &mut space.scores, past);
        let between = &mut space.between[..count * shape.width];
        product(pool, between, Rows::dense(mixed, query), self.weights(&at.attention_out));
    }

    /// Adds the block's keys, rotated, and its values to what is kept of the layer.
    fn keep(self, past: &mut Past, query_value: &[f32], key: &[f32]) {
        let Pass { shape, first, count, .. } = self;
        let query = shape.query_width;
        past.keys.resize((first + count) * shape.kv_width, 0.0);
        self.rotate(&mut past.keys[first * shape.kv_width..], shape.kv_width, key, shape.kv_width, 1.0);
        past.values.truncate(first * shape.kv_width);
        for row in query_value.chunks_exact(query + shape.kv_width) {
            past.values.extend_from_slice(&row[query..]);
        }
    }

    /// Rotates all heads in rows of `width` by their positions' angles; rows of `x` are `stride` apart.
    fn rotate(self, out: &mut [f32], width: usize, x: &[f32], stride: usize, factor: f32) {
        let (head, half) = (self.shape.head, self.shape.head / 2);
        let Angles { cosines, sines } = self.angles;
        let (cosines, sines) = (&cosines[self.first * half..], &sines[self.first * half..]);
        for at in (0..width).step_by(head) {
            rotate_rows(&mut out[at..], width, &x[at..], stride, cosines, sines, half, factor, Turn::Forward);
        }
    }

    /// Attention of each token and key head over the positions up to the token's.
    fn attend(self, mixed: &mut [f32], queries: &[f32], scores: &mut [f32], past: &Past) {
        let Pass { pool, shape, first, count, .. } = self;
        let (head, kv_width, group) = (shape.head, shape.kv_width, shape.group());
        let pairs = count * shape.kv_heads;
        let each = pairs.div_ceil(pool.threads());
        let room = group * (first + count);
        let parts = mixed.chunks_mut(each * group * head).zip(queries.chunks(each * group * head));
        let parts = parts.zip(scores.chunks_mut(room)).enumerate();
        pool.each(parts, |(part, ((mixed, queries), scores))| {
            let heads = mixed.chunks_exact_mut(group * head).zip(queries.chunks_exact(group * head));
            for (number, (mixed, queries)) in heads.enumerate() {
                let (token, kv) = ((part * each + number) / shape.kv_heads, (part * each + number) % shape.kv_heads);
                let seen = first + token + 1;
                let keys = Rows::new(&past.keys[kv * head..], seen, head, kv_width);
                let values = Rows::new(&past.values[kv * head..], seen, head, kv_width);
                attend(mixed, queries, &mut scores[..group * seen], keys, values, head);
            }
        });
    }

    /// From `normed`, `x` becomes what the MLP adds to the residual stream.
    fn mlp(self, space: &mut Space, at: &LayerShape) {
        let Pass { pool, shape, count, .. } = self;
        let ff = shape.feed_forward;
        let normed = Rows::dense(&space.normed[..count * shape.width], shape.width);
        let gate_up = &mut space.gate_up[..count * 2 * ff];
        product(pool, gate_up, normed, self.weights(&at.gate_up));
        let hidden = &mut space.hidden[..count * ff];
        swiglu(hidden, gate_up, ff);
        product(pool, &mut space.x[..count * shape.width], Rows::dense(hidden, ff), self.weights(&at.down));
    }
}

vectorised! {
    /// `mixed = softmax(queries·keysᵀ)·values` for the query heads of one key head; `scores` is `[heads, keys]`.
    fn attend(mixed: &mut [f32], queries: &[f32], scores: &mut [f32], keys: Rows<'_>, values: Rows<'_>, head: usize) {
        dots::<FMA>(scores, Rows::dense(queries, head), keys);
        for (mixed, scores) in mixed.chunks_exact_mut(head).zip(scores.chunks_exact_mut(keys.count())) {
            let most = largest(scores);
            let inverse = 1.0 / exponentiate::<FMA>(scores, most);
            mix::<FMA>(mixed, scores, values);
            for value in mixed {
                *value *= inverse;
            }
        }
    }
}

/// y = x·Wᵀ on all threads. One token's outputs are shared out, several tokens are shared out whole.
fn product(pool: &Pool, y: &mut [f32], x: Rows<'_>, weight: &[f32]) {
    let (threads, outputs) = (pool.threads(), y.len() / x.count());
    let w = Rows::dense(weight, weight.len() / outputs);
    if threads == 1 || weight.len() * x.count() < SPLIT_MIN {
        products(y, x, w);
    } else if x.count() < 2 * threads {
        // Whole tiles of four outputs a part.
        let each = outputs.div_ceil(PARTS * threads).next_multiple_of(4);
        for (token, y) in y.chunks_exact_mut(outputs).enumerate() {
            pool.each(y.chunks_mut(each).enumerate(), |(part, y)| {
                products(y, x.part(token, 1), w.part(part * each, y.len()));
            });
        }
    } else {
        let each = x.count().div_ceil(threads);
        pool.each(y.chunks_mut(each * outputs).enumerate(), |(part, y)| {
            products(y, x.part(part * each, y.len() / outputs), w);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{small_model, tokens};
    use covey_proto::run::Model;

    /// The shape of `model`, parameters and angles of some size.
    fn given(model: &Model) -> (Shape, Vec<f32>, Vec<f32>, Vec<f32>) {
        let shape = Shape::of(model);
        let numbers = |count: usize| (0..count).map(|at| (at as f32 * 0.7).sin() * 0.5);
        let (parameters, angles) = (numbers(shape.elements).collect(), shape.sequence * shape.head / 2);
        let (cosines, sines) = numbers(angles).map(|angle| (angle.cos(), angle.sin())).unzip();
        (shape, parameters, cosines, sines)
    }

    #[test]
    fn memory_is_what_was_told_before_and_comes_with_the_first_token() {
        for (length, threads) in [(40, 1), (300, 3), (700, 2)] {
            let model = Model { sequence: 700, ..small_model() };
            let (shape, parameters, cosines, sines) = given(&model);
            let (mut continuation, pool) = (Continuation::default(), Pool::new(threads));
            assert_eq!(continuation.held(), 0);
            let text = &tokens(&model, 1, 4)[..length];
            let angles = Angles { cosines: &cosines, sines: &sines };
            continuation.extend(&pool, &shape, &parameters, angles, text);
            assert_eq!(continuation.held() as u64, Continuation::bytes(&shape, length, threads));
        }
    }

    #[test]
    fn a_text_that_grows_holds_no_more_than_the_longest_there_can_be() {
        let model = Model { sequence: 600, ..small_model() };
        let (shape, parameters, cosines, sines) = given(&model);
        let (mut continuation, pool) = (Continuation::default(), Pool::new(1));
        for token in &tokens(&model, 1, 4)[..600] {
            continuation.extend(&pool, &shape, &parameters, Angles { cosines: &cosines, sines: &sines }, &[*token]);
            let most = Continuation::bytes(&shape, 600, 1)
                .min(2 * Continuation::bytes(&shape, 1 + continuation.tokens.len(), 1));
            assert!(continuation.held() as u64 <= most);
        }
    }
}
