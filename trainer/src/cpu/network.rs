//! The model's forward and backward passes over one group of sequences that fits the buffers.
//!
//! Residual stream x: x ← x + O·attention(norm x), x ← x + D·swiglu(norm x), a layer; then the last norm and the output
//! matrix. What is cheap to compute again (norms, SwiGLU) is not kept. Which sequences form a group, and what becomes of
//! the gradient, is decided in [`super`].

use super::angles::Angles;
use super::attention::{Attention, Kept};
use super::blocks::multiply_on;
use super::kernels::NOTHING;
use super::passes::Passes;
use super::pool::Pool;
use super::product::{Into, View, ViewMut};
use super::row_tasks::{cross_entropy, embed, embed_back, norm, norm_again, norm_back, norm_sum, swiglu, swiglu_back};
use super::shape::Shape;
use covey_proto::run::Model;

/// Tokens that go through the model together, at least one sequence: enough for products to be efficient, few enough
/// for a layer's activations to stay in cache.
const TOKENS: usize = 512;
/// Logits that live at once, in elements (2 MiB): they stay in a core's cache between their product, softmax and gradient.
const LOGITS: usize = 512 * 1024;
/// Rows of logits that live at once where the vocabulary is large: the output matrix passes by once for all of them. With
/// 16 rows of a vocabulary of 32,000 its product runs at 14 GFLOP/s, with 256 at 105.
const LOGIT_ROWS: usize = 256;
/// Elements that these rows may have (32 MiB).
const LOGITS_MAX: usize = 8 << 20;

/// What one layer keeps for its backward pass; without one, all layers use the same.
struct LayerSpace {
    /// The residual stream before the layer, `[tokens, width]`.
    before: Vec<f32>,
    /// The residual stream between attention and MLP.
    between: Vec<f32>,
    /// 1/rms of each token of `before`.
    inverse_before: Vec<f32>,
    /// 1/rms of each token of `between`.
    inverse_between: Vec<f32>,
    /// `[tokens, query width + kv_width]`.
    query_value: Vec<f32>,
    /// Attention's result before its output matrix, `[tokens, query width]`.
    mixed: Vec<f32>,
    /// `[tokens, 2·feed_forward]`.
    gate_up: Vec<f32>,
    attention: Kept,
}

/// The model without its parameters: shapes, angles, buffers.
pub(super) struct Network {
    pub(super) shape: Shape,
    attention: Attention,
    layers: Vec<LayerSpace>,
    /// The residual stream after the layer at hand, in the end after the last.
    last: Vec<f32>,
    inverse_last: Vec<f32>,
    normed: Vec<f32>,
    key: Vec<f32>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
    /// Gradient of the residual stream. This and what follows is empty without a backward pass.
    d_x: Vec<f32>,
    d_normed: Vec<f32>,
    d_query_value: Vec<f32>,
    d_key: Vec<f32>,
    tokens_max: usize,
}

/// A group of sequences: `inputs` and `targets` are `[sequences, length]`.
pub(super) struct Group<'a> {
    pub(super) inputs: &'a [u32],
    pub(super) targets: &'a [u32],
    /// Tokens of a sequence.
    pub(super) length: usize,
}

impl Network {
    /// Buffers for `model`; pools of up to `threads` threads may work on it.
    pub(super) fn new(model: &Model, passes: Passes, threads: usize) -> Network {
        let shape = Shape::of(model);
        let tokens = tokens_max(&shape);
        let (layers, backward) = match passes {
            Passes::Forward => (1, 0),
            Passes::Both { .. } => (shape.layers.len(), tokens),
        };
        let attention = Attention::new(&shape, model, tokens, passes, threads);
        let room = |width: usize| vec![0.0; tokens * width];
        let room_back = |width: usize| vec![0.0; backward * width];
        let layer = |_| LayerSpace {
            before: room(shape.width),
            between: room(shape.width),
            inverse_before: room(1),
            inverse_between: room(1),
            query_value: room(shape.query_width + shape.kv_width),
            mixed: room(shape.query_width),
            gate_up: room(2 * shape.feed_forward),
            attention: attention.kept(&shape, tokens),
        };
        Network {
            layers: (0..layers).map(layer).collect(),
            last: room(shape.width),
            inverse_last: room(1),
            normed: room(shape.width),
            key: room(shape.kv_width),
            hidden: room(shape.feed_forward),
            logits: vec![0.0; logits_rows(&shape) * shape.vocabulary],
            d_x: room_back(shape.width),
            d_normed: room_back(shape.width.max(shape.query_width)),
            d_query_value: room_back(shape.query_width + shape.kv_width),
            d_key: room_back(shape.kv_width),
            tokens_max: tokens,
            attention,
            shape,
        }
    }

    /// Elements of all buffers that [`Network::new`] would make.
    pub(super) fn elements(shape: &Shape, passes: Passes, threads: usize) -> usize {
        let tokens = tokens_max(shape);
        let (layers, backward) = match passes {
            Passes::Forward => (1, 0),
            Passes::Both { .. } => (shape.layers.len(), tokens),
        };
        let query_value = shape.query_width + shape.kv_width;
        let layer = 2 * shape.width + shape.query_width + 2 + query_value + 2 * shape.feed_forward;
        let common = 2 * shape.width + 1 + shape.kv_width + shape.feed_forward;
        let back = shape.width + shape.width.max(shape.query_width) + query_value + shape.kv_width;
        let logits = logits_rows(shape) * shape.vocabulary;
        tokens * (layers * layer + common)
            + backward * back
            + logits
            + Attention::elements(shape, tokens, layers, passes, threads)
    }

    /// Elements of all buffers that there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let of_layer = |space: &LayerSpace| {
            let LayerSpace { before, between, inverse_before, inverse_between, query_value, mixed, gate_up, attention } =
                space;
            let all = [before, between, inverse_before, inverse_between, query_value, mixed, gate_up];
            all.into_iter().map(Vec::len).sum::<usize>() + attention.held()
        };
        let Network { last, inverse_last, normed, key, hidden, logits, d_x, d_normed, d_query_value, d_key, .. } = self;
        let all = [last, inverse_last, normed, key, hidden, logits, d_x, d_normed, d_query_value, d_key];
        let layers: usize = self.layers.iter().map(of_layer).sum();
        all.into_iter().map(Vec::len).sum::<usize>() + layers + self.attention.held()
    }

    /// The rotary angles of all positions.
    pub(super) fn angles(&self) -> Angles<'_> {
        self.attention.angles()
    }

    /// Sequences of a group.
    pub(super) fn sequences_max(&self) -> usize {
        self.tokens_max / self.shape.sequence
    }

    /// Runs the layers over `inputs`; the last norm's result is left in `normed`.
    fn forward(&mut self, pool: &Pool, parameters: &[f32], inputs: &[u32], length: usize) {
        let Network { shape, attention, layers, last, inverse_last, normed, key, hidden, .. } = self;
        let (tokens, width, ff, epsilon) = (inputs.len(), shape.width, shape.feed_forward, shape.epsilon);
        let (normed, key, hidden) =
            (&mut normed[..tokens * width], &mut key[..tokens * shape.kv_width], &mut hidden[..tokens * ff]);
        let qv_width = shape.query_width + shape.kv_width;
        let first = &mut layers[0];
        embed(pool, &mut first.before, &parameters[shape.embedding.clone()], inputs, width);
        let weight = &parameters[shape.layers[0].attention_norm.clone()];
        norm(pool, normed, &mut first.inverse_before, &first.before, weight, epsilon);
        let spaces = layers.len();
        for (number, at) in shape.layers.iter().enumerate() {
            // Without a backward pass one space serves all layers.
            let layer = &mut layers[number.min(spaces - 1)];
            let query_value = &mut layer.query_value[..tokens * qv_width];
            linear(pool, query_value, normed, &parameters[at.query_value.clone()], tokens);
            linear(pool, key, normed, &parameters[at.key.clone()], tokens);
            let mixed = &mut layer.mixed[..tokens * shape.query_width];
            attention.forward(pool, shape, &mut layer.attention, mixed, query_value, key, length);
            let between = &mut layer.between[..tokens * width];
            linear(pool, between, mixed, &parameters[at.attention_out.clone()], tokens);
            let mlp_norm = &parameters[at.mlp_norm.clone()];
            norm_sum(pool, normed, &mut layer.inverse_between, between, &layer.before, mlp_norm, epsilon);
            let gate_up = &mut layer.gate_up[..tokens * 2 * ff];
            linear(pool, gate_up, normed, &parameters[at.gate_up.clone()], tokens);
            swiglu(pool, hidden, gate_up, ff);
            // The sum after the MLP and its norm belong to the next layer, or to the output.
            let after = shape.layers.get(number + 1);
            let next_norm = after.map_or(&shape.last_norm, |next| &next.attention_norm);
            let next = &mut last[..tokens * width];
            linear(pool, next, hidden, &parameters[at.down.clone()], tokens);
            norm_sum(pool, normed, inverse_last, next, between, &parameters[next_norm.clone()], epsilon);
            if after.is_some() {
                let next = &mut layers[(number + 1).min(spaces - 1)];
                std::mem::swap(&mut next.before, last);
                std::mem::swap(&mut next.inverse_before, inverse_last);
            }
        }
    }

    /// Summed cross-entropy of the group, in nats.
    pub(super) fn loss(&mut self, pool: &Pool, parameters: &[f32], group: &Group<'_>) -> f64 {
        self.forward(pool, parameters, group.inputs, group.length);
        let Network { shape, normed, logits, .. } = self;
        let output = &parameters[shape.output.clone()];
        let rows = logits_rows(shape);
        let mut loss = 0.0;
        for (normed, targets) in normed.chunks(rows * shape.width).zip(group.targets.chunks(rows)) {
            // Of what is only read nothing is predicted.
            if targets.iter().all(|target| *target == NOTHING) {
                continue;
            }
            let logits = &mut logits[..targets.len() * shape.vocabulary];
            linear(pool, logits, &normed[..targets.len() * shape.width], output, targets.len());
            loss += cross_entropy(pool, logits, targets, shape.vocabulary, None);
        }
        loss
    }

    /// Logits `[tokens, vocabulary]` of one sequence.
    pub(super) fn logits(&mut self, pool: &Pool, parameters: &[f32], tokens: &[u32]) -> Vec<f32> {
        self.forward(pool, parameters, tokens, tokens.len());
        let mut logits = vec![0.0; tokens.len() * self.shape.vocabulary];
        let normed = &self.normed[..tokens.len() * self.shape.width];
        linear(pool, &mut logits, normed, &parameters[self.shape.output.clone()], tokens.len());
        logits
    }

    /// Summed cross-entropy of the group in nats, and the gradient of `weight` times it: set in `gradient` (`Set`) or added.
    pub(super) fn gradient(
        &mut self,
        pool: &Pool,
        parameters: &[f32],
        gradient: &mut [f32],
        group: &Group<'_>,
        weight: f32,
        into: Into,
    ) -> f64 {
        if into == Into::Set {
            self.clear(gradient);
        }
        self.forward(pool, parameters, group.inputs, group.length);
        let loss = self.output_back(pool, parameters, gradient, group.targets, weight, into);
        for number in (0..self.layers.len()).rev() {
            self.mlp_back(pool, parameters, gradient, number, group.inputs.len(), into);
            self.attention_back(pool, parameters, gradient, number, group.inputs.len(), group.length, into);
        }
        let d_table = &mut gradient[self.shape.embedding.clone()];
        embed_back(pool, d_table, group.inputs, &self.d_x, self.shape.width);
        loss
    }

    /// Zeroes what is only ever added to: norms, and the embedding unless the output matrix's product sets it.
    fn clear(&self, gradient: &mut [f32]) {
        let norms = self.shape.layers.iter().flat_map(|layer| [&layer.attention_norm, &layer.mlp_norm]);
        for range in norms.chain([&self.shape.last_norm]) {
            gradient[range.clone()].fill(0.0);
        }
        if !self.shape.tied {
            gradient[self.shape.embedding.clone()].fill(0.0);
        }
    }

    /// Loss, the output matrix's and the last norm's gradients; leaves the residual stream's in `d_x`.
    fn output_back(
        &mut self,
        pool: &Pool,
        parameters: &[f32],
        gradient: &mut [f32],
        targets: &[u32],
        weight: f32,
        mut into: Into,
    ) -> f64 {
        let Network { shape, normed, logits, d_normed, d_x, .. } = self;
        let (width, vocabulary, tokens) = (shape.width, shape.vocabulary, targets.len());
        let output = View::dense(&parameters[shape.output.clone()], vocabulary, width);
        let d_output = &mut gradient[shape.output.clone()];
        let rows = logits_rows(shape);
        let mut loss = 0.0;
        let chunks = normed.chunks(rows * width).zip(d_normed.chunks_mut(rows * width)).zip(targets.chunks(rows));
        for ((normed, d_normed), targets) in chunks {
            let rows = targets.len();
            let logits = &mut logits[..rows * vocabulary];
            let normed = View::dense(normed, rows, width);
            multiply_on(pool, ViewMut::dense(logits, rows, vocabulary), normed, output.t(), Into::Set);
            loss += cross_entropy(pool, logits, targets, vocabulary, Some(weight));
            let d_logits = View::dense(logits, rows, vocabulary);
            multiply_on(pool, ViewMut::dense(d_normed, rows, width), d_logits, output, Into::Set);
            multiply_on(pool, ViewMut::dense(d_output, vocabulary, width), d_logits.t(), normed, into);
            into = Into::Add;
        }
        let d_x = &mut d_x[..tokens * width];
        d_x.fill(0.0);
        let at = shape.last_norm.clone();
        norm_back(pool, d_x, &mut gradient[at.clone()], d_normed, &self.inverse_last, &self.last, &parameters[at]);
        loss
    }

    fn mlp_back(
        &mut self,
        pool: &Pool,
        parameters: &[f32],
        gradient: &mut [f32],
        number: usize,
        tokens: usize,
        into: Into,
    ) {
        let Network { shape, normed, hidden, d_x, d_normed, layers, .. } = self;
        let (at, layer) = (&shape.layers[number], &mut layers[number]);
        let (width, ff) = (shape.width, shape.feed_forward);
        let hidden = &mut hidden[..tokens * ff];
        let gate_up = &mut layer.gate_up[..tokens * 2 * ff];
        let (normed, d_normed) = (&mut normed[..tokens * width], &mut d_normed[..tokens * width]);
        let d_x = &mut d_x[..tokens * width];
        linear_back(pool, hidden, d_x, &parameters[at.down.clone()], tokens, Into::Set);
        swiglu_back(pool, hidden, gate_up, ff);
        weight_back(pool, &mut gradient[at.down.clone()], d_x, hidden, tokens, into);
        let norm_weight = &parameters[at.mlp_norm.clone()];
        norm_again(pool, normed, &layer.inverse_between, &layer.between, norm_weight);
        weight_back(pool, &mut gradient[at.gate_up.clone()], gate_up, normed, tokens, into);
        linear_back(pool, d_normed, gate_up, &parameters[at.gate_up.clone()], tokens, Into::Set);
        let d_weight = &mut gradient[at.mlp_norm.clone()];
        norm_back(pool, d_x, d_weight, d_normed, &layer.inverse_between, &layer.between, norm_weight);
    }

    #[allow(clippy::too_many_arguments)]
    fn attention_back(
        &mut self,
        pool: &Pool,
        parameters: &[f32],
        gradient: &mut [f32],
        number: usize,
        tokens: usize,
        length: usize,
        into: Into,
    ) {
        let Network { shape, attention, normed, d_x, d_normed, d_query_value, d_key, layers, .. } = self;
        let (at, layer, width) = (&shape.layers[number], &mut layers[number], shape.width);
        let (normed, d_x) = (&mut normed[..tokens * width], &mut d_x[..tokens * width]);
        let d_query_value = &mut d_query_value[..tokens * (shape.query_width + shape.kv_width)];
        let d_key = &mut d_key[..tokens * shape.kv_width];
        let LayerSpace { attention: kept, mixed, query_value, .. } = layer;
        let mixed = &mixed[..tokens * shape.query_width];
        weight_back(pool, &mut gradient[at.attention_out.clone()], d_x, mixed, tokens, into);
        // `d_normed` holds the gradient of attention's result until that of the norm's takes its place.
        let d_mixed = &mut d_normed[..tokens * shape.query_width];
        linear_back(pool, d_mixed, d_x, &parameters[at.attention_out.clone()], tokens, Into::Set);
        attention.backward(pool, shape, kept, d_query_value, d_key, d_mixed, mixed, query_value, length);
        let d_normed = &mut d_normed[..tokens * width];
        let norm_weight = &parameters[at.attention_norm.clone()];
        norm_again(pool, normed, &layer.inverse_before, &layer.before, norm_weight);
        weight_back(pool, &mut gradient[at.query_value.clone()], d_query_value, normed, tokens, into);
        weight_back(pool, &mut gradient[at.key.clone()], d_key, normed, tokens, into);
        linear_back(pool, d_normed, d_query_value, &parameters[at.query_value.clone()], tokens, Into::Set);
        linear_back(pool, d_normed, d_key, &parameters[at.key.clone()], tokens, Into::Add);
        let d_weight = &mut gradient[at.attention_norm.clone()];
        norm_back(pool, d_x, d_weight, d_normed, &layer.inverse_before, &layer.before, norm_weight);
    }
}

/// Tokens of the largest group.
fn tokens_max(shape: &Shape) -> usize {
    (TOKENS / shape.sequence).max(1) * shape.sequence
}

/// Rows of logits that live at once.
fn logits_rows(shape: &Shape) -> usize {
    let many = LOGIT_ROWS.min(LOGITS_MAX / shape.vocabulary);
    (LOGITS / shape.vocabulary).max(many).max(16)
}

/// y = x·Wᵀ: `y [tokens, out]`, `x [tokens, in]`, `W [out, in]`.
fn linear(pool: &Pool, y: &mut [f32], x: &[f32], weight: &[f32], tokens: usize) {
    let (outputs, inputs) = (y.len() / tokens, x.len() / tokens);
    let weight = View::dense(weight, outputs, inputs);
    multiply_on(pool, ViewMut::dense(y, tokens, outputs), View::dense(x, tokens, inputs), weight.t(), Into::Set);
}

/// dx = dy·W or dx += dy·W.
fn linear_back(pool: &Pool, d_x: &mut [f32], d_y: &[f32], weight: &[f32], tokens: usize, into: Into) {
    let (outputs, inputs) = (d_y.len() / tokens, d_x.len() / tokens);
    let weight = View::dense(weight, outputs, inputs);
    multiply_on(pool, ViewMut::dense(d_x, tokens, inputs), View::dense(d_y, tokens, outputs), weight, into);
}

/// dW = dyᵀ·x or dW += dyᵀ·x.
fn weight_back(pool: &Pool, d_weight: &mut [f32], d_y: &[f32], x: &[f32], tokens: usize, into: Into) {
    let (outputs, inputs) = (d_y.len() / tokens, x.len() / tokens);
    let d_y = View::dense(d_y, tokens, outputs);
    multiply_on(pool, ViewMut::dense(d_weight, outputs, inputs), d_y.t(), View::dense(x, tokens, inputs), into);
}
