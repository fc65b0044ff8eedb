//! The model's element-wise and row-wise functions, forward and backward: loops that the compiler turns into vector
//! instructions. No libm: [`exp`] is a polynomial. Sums keep sixteen partial sums, so their order is fixed.
//!
//! What they are applied to, and in which order, is decided in `network` and `attention`.

use super::product::fma;
use covey_simd::vectorised;

/// The target of a position of which no loss is taken.
pub(super) const NOTHING: u32 = u32::MAX;

const LANES: usize = 16;

/// eˣ with a relative error below 2⁻²² (tested), x clamped to ±87: 2ⁿ·p(r), Cephes' polynomial on |r| ≤ ln 2 / 2.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5·2²³ leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_199_9e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    let p = fma::<FMA>(p, r * r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline(always)]
fn total(partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut partial = partial;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut partial = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            partial[lane] = fma::<FMA>(a[lane], b[lane], partial[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        partial[lane] = fma::<FMA>(*a, *b, partial[lane]);
    }
    total(partial)
}

#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] = if chunk[lane] > partial[lane] { chunk[lane] } else { partial[lane] };
        }
    }
    partial.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// Replaces each value by e^(value − most) and gives their sum.
#[inline(always)]
pub(super) fn exponentiate<const FMA: bool>(row: &mut [f32], most: f32) -> f32 {
    let mut partial = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp::<FMA>(chunk[lane] - most);
            partial[lane] += chunk[lane];
        }
    }
    for (lane, value) in rest.iter_mut().enumerate() {
        *value = exp::<FMA>(*value - most);
        partial[lane] += *value;
    }
    total(partial)
}

#[inline(always)]
fn scale(row: &mut [f32], factor: f32) {
    for value in row {
        *value *= factor;
    }
}

// One row each. Where two halves of a row are written, lanes are taken out and put back by value: the compiler cannot
// prove halves of one matrix's rows apart, and would otherwise go element by element (SwiGLU backwards: 5.3 ms of 68).

#[inline(always)]
fn norm_row_back<const FMA: bool>(d_x: &mut [f32], d_out: &[f32], r: f32, x: &[f32], weight: &[f32]) {
    let mut partial = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let (d_chunks, d_rest) = d_out.as_chunks::<LANES>();
    let (w_chunks, w_rest) = weight.as_chunks::<LANES>();
    for ((x, d), w) in chunks.iter().zip(d_chunks).zip(w_chunks) {
        for lane in 0..LANES {
            partial[lane] = fma::<FMA>(x[lane] * d[lane], w[lane], partial[lane]);
        }
    }
    for (lane, ((x, d), w)) in rest.iter().zip(d_rest).zip(w_rest).enumerate() {
        partial[lane] = fma::<FMA>(x * d, *w, partial[lane]);
    }
    let mean = total(partial) * r * r / x.len() as f32;
    for ((d_x, d_out), (x, weight)) in d_x.iter_mut().zip(d_out).zip(x.iter().zip(weight)) {
        *d_x = fma::<FMA>(r, fma::<FMA>(-x, mean, d_out * weight), *d_x);
    }
}

/// Result, gate's gradient, up's gradient.
#[inline(always)]
fn swiglu_one_back<const FMA: bool>(d: f32, gate: f32, up: f32) -> (f32, f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp::<FMA>(-gate));
    let silu = gate * sigmoid;
    (silu * up, d * up * fma::<FMA>(silu, 1.0 - sigmoid, sigmoid), d * silu)
}

#[inline(always)]
fn swiglu_row_back<const FMA: bool>(hidden: &mut [f32], gates: &mut [f32], ups: &mut [f32]) {
    let (hidden_chunks, hidden_rest) = hidden.as_chunks_mut::<LANES>();
    let (gate_chunks, gate_rest) = gates.as_chunks_mut::<LANES>();
    let (up_chunks, up_rest) = ups.as_chunks_mut::<LANES>();
    for ((hidden, gate), up) in hidden_chunks.iter_mut().zip(gate_chunks).zip(up_chunks) {
        let (mut h, mut g, mut u) = (*hidden, *gate, *up);
        for lane in 0..LANES {
            (h[lane], g[lane], u[lane]) = swiglu_one_back::<FMA>(h[lane], g[lane], u[lane]);
        }
        (*hidden, *gate, *up) = (h, g, u);
    }
    for ((hidden, gate), up) in hidden_rest.iter_mut().zip(gate_rest).zip(up_rest) {
        (*hidden, *gate, *up) = swiglu_one_back::<FMA>(*hidden, *gate, *up);
    }
}

#[inline(always)]
fn rotate_row(out: &mut [f32], x: &[f32], cosines: &[f32], sines: &[f32], factor: f32, direction: f32) {
    let half = cosines.len();
    let ((out_low, out_high), (low, high)) = (out.split_at_mut(half), x.split_at(half));
    rotate_halves(out_low, out_high, low, high, cosines, sines, factor, direction);
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn rotate_halves(
    out_low: &mut [f32],
    out_high: &mut [f32],
    low: &[f32],
    high: &[f32],
    cosines: &[f32],
    sines: &[f32],
    factor: f32,
    direction: f32,
) {
    let pairs = out_low.iter_mut().zip(out_high).zip(low.iter().zip(high));
    for (((out_low, out_high), (low, high)), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
        let sine = sine * direction;
        *out_low = (low * cosine - high * sine) * factor;
        *out_high = (high * cosine + low * sine) * factor;
    }
}

/// Which way [`rotate_rows`] turns.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    /// By the position's angles.
    Forward,
    /// Back: the gradient's way, by the transposed rotation.
    Back,
}

vectorised! {
    /// RMSNorm: `out = x·r·weight` a row, `r = 1/√(mean x² + epsilon)`, which is kept in `inverse`, one a row.
    pub(super) fn norm(out: &mut [f32], inverse: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
        let width = weight.len();
        for ((out, x), inverse) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse) {
            let r = 1.0 / (dot::<FMA>(x, x) / width as f32 + epsilon).sqrt();
            *inverse = r;
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * r * weight;
            }
        }
    }

    /// [`norm`] of a sum: `x` becomes `x + before` first.
    pub(super) fn norm_sum(out: &mut [f32], inverse: &mut [f32], x: &mut [f32], before: &[f32], weight: &[f32], epsilon: f32) {
        let width = weight.len();
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact_mut(width)).zip(before.chunks_exact(width));
        for (((out, x), before), inverse) in rows.zip(inverse) {
            for (x, before) in x.iter_mut().zip(before) {
                *x += before;
            }
            let r = 1.0 / (dot::<FMA>(x, x) / width as f32 + epsilon).sqrt();
            *inverse = r;
            for ((out, x), weight) in out.iter_mut().zip(x.iter()).zip(weight) {
                *out = x * r * weight;
            }
        }
    }

    /// RMSNorm again, with the factors that [`norm`] kept.
    pub(super) fn norm_again(out: &mut [f32], inverse: &[f32], x: &[f32], weight: &[f32]) {
        let width = weight.len();
        for ((out, x), &r) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse) {
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * r * weight;
            }
        }
    }

    /// RMSNorm backwards, but for its weight: from the result's gradient `d_out`, adds to `d_x`.
    /// With x̂ = x·r and g = d_out·weight: d_x += r·(g − x̂·mean(g·x̂)).
    pub(super) fn norm_back(d_x: &mut [f32], d_out: &[f32], inverse: &[f32], x: &[f32], weight: &[f32]) {
        let width = weight.len();
        let rows = d_x.chunks_exact_mut(width).zip(d_out.chunks_exact(width)).zip(x.chunks_exact(width));
        for (((d_x, d_out), x), &r) in rows.zip(inverse) {
            norm_row_back::<FMA>(d_x, d_out, r, x, weight);
        }
    }

    /// The weight's part, for the columns from `first` that `d_weight` has: d_weight += d_out·x̂, row after row.
    pub(super) fn norm_back_weight(d_weight: &mut [f32], first: usize, width: usize, d_out: &[f32], inverse: &[f32], x: &[f32]) {
        let columns = first..first + d_weight.len();
        for ((d_out, x), &r) in d_out.chunks_exact(width).zip(x.chunks_exact(width)).zip(inverse) {
            let row = d_out[columns.clone()].iter().zip(&x[columns.clone()]);
            for (d_weight, (d_out, x)) in d_weight.iter_mut().zip(row) {
                *d_weight = fma::<FMA>(*d_out, x * r, *d_weight);
            }
        }
    }

    /// SwiGLU: `out = silu(gate)·up`; a row of `gate_up` is `width` gates, then `width` ups.
    pub(super) fn swiglu(out: &mut [f32], gate_up: &[f32], width: usize) {
        for (out, row) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = row.split_at(width);
            for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp::<FMA>(-gate)) * up;
            }
        }
    }

    /// SwiGLU backwards, in place: `hidden` holds the result's gradient and becomes the result itself (which the next
    /// matrix's gradient needs); `gate_up` becomes its own gradient.
    pub(super) fn swiglu_back(hidden: &mut [f32], gate_up: &mut [f32], width: usize) {
        for (hidden, row) in hidden.chunks_exact_mut(width).zip(gate_up.chunks_exact_mut(2 * width)) {
            let (gates, ups) = row.split_at_mut(width);
            swiglu_row_back::<FMA>(hidden, gates, ups);
        }
    }

    /// Rotates one head of every token (pairs i, i + n/2) and scales it: `out = factor·R(position)·x`, or with the
    /// transposed R. Rows of `out` and `x` are strides apart; `cosines` and `sines` have `half` a position.
    pub(super) fn rotate_rows(
        out: &mut [f32],
        out_stride: usize,
        x: &[f32],
        x_stride: usize,
        cosines: &[f32],
        sines: &[f32],
        half: usize,
        factor: f32,
        turn: Turn,
    ) {
        let direction = match turn {
            Turn::Forward => 1.0,
            Turn::Back => -1.0,
        };
        let rows = out.chunks_mut(out_stride).zip(x.chunks(x_stride));
        let angles = cosines.chunks_exact(half).zip(sines.chunks_exact(half));
        for ((out, x), (cosines, sines)) in rows.zip(angles) {
            rotate_row(&mut out[..2 * half], &x[..2 * half], cosines, sines, factor, direction);
        }
    }

    /// Causal softmax of a block of scores: row i belongs to position `first + i/group` and sees the keys up to it;
    /// the others become 0. `log_sums` gets ln Σ e^score, one a row.
    pub(super) fn softmax_causal(scores: &mut [f32], keys: usize, first: usize, group: usize, log_sums: &mut [f32]) {
        for (row, (scores, log_sum)) in scores.chunks_exact_mut(keys).zip(log_sums).enumerate() {
            let (seen, hidden) = scores.split_at_mut(first + row / group + 1);
            let most = largest(seen);
            let sum = exponentiate::<FMA>(seen, most);
            scale(seen, 1.0 / sum);
            hidden.fill(0.0);
            *log_sum = most + sum.ln();
        }
    }

    /// The same from scores and the kept `log_sums`: probabilities e^(score − log sum).
    pub(super) fn softmax_again(scores: &mut [f32], keys: usize, first: usize, group: usize, log_sums: &[f32]) {
        for (row, (scores, &log_sum)) in scores.chunks_exact_mut(keys).zip(log_sums).enumerate() {
            let (seen, hidden) = scores.split_at_mut(first + row / group + 1);
            for value in seen {
                *value = exp::<FMA>(*value - log_sum);
            }
            hidden.fill(0.0);
        }
    }

    /// Softmax backwards, a row at a time: `d = p·(d − Σ p·d)`, where the sum is known as dot(d_out, out).
    pub(super) fn softmax_back(d: &mut [f32], probabilities: &[f32], keys: usize, sums: &[f32]) {
        for ((d, p), &sum) in d.chunks_exact_mut(keys).zip(probabilities.chunks_exact(keys)).zip(sums) {
            for (d, p) in d.iter_mut().zip(p) {
                *d = p * (*d - sum);
            }
        }
    }

    /// out[i] = Σ a·b of row i.
    pub(super) fn row_dots(out: &mut [f32], a: &[f32], b: &[f32], width: usize) {
        for ((out, a), b) in out.iter_mut().zip(a.chunks_exact(width)).zip(b.chunks_exact(width)) {
            *out = dot::<FMA>(a, b);
        }
    }

    /// Cross-entropy of each row of logits a target, in nats, into `losses`. The logits become the gradient of
    /// `weight·loss`: weight·(softmax − one at the target); both are 0 where the target is [`NOTHING`].
    pub(super) fn cross_entropy(losses: &mut [f64], logits: &mut [f32], targets: &[u32], vocabulary: usize, weight: f32) {
        for ((row, &target), loss) in logits.chunks_exact_mut(vocabulary).zip(targets).zip(losses) {
            if target == NOTHING {
                *loss = 0.0;
                row.fill(0.0);
                continue;
            }
            let most = largest(row);
            let wanted = row[target as usize];
            let sum = exponentiate::<FMA>(row, most);
            *loss = f64::from(sum).ln() + f64::from(most) - f64::from(wanted);
            scale(row, weight / sum);
            row[target as usize] -= weight;
        }
    }

    /// The same without the gradient; the logits are left in no useful state.
    pub(super) fn cross_entropy_only(losses: &mut [f64], logits: &mut [f32], targets: &[u32], vocabulary: usize) {
        for ((row, &target), loss) in logits.chunks_exact_mut(vocabulary).zip(targets).zip(losses) {
            if target == NOTHING {
                *loss = 0.0;
                continue;
            }
            let most = largest(row);
            let wanted = row[target as usize];
            let sum = exponentiate::<FMA>(row, most);
            *loss = f64::from(sum).ln() + f64::from(most) - f64::from(wanted);
        }
    }

    /// row += d.
    pub(super) fn add(row: &mut [f32], d: &[f32]) {
        for (row, d) in row.iter_mut().zip(d) {
            *row += d;
        }
    }

    /// Σ x² in f32.
    pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
        f64::from(dot::<FMA>(x, x))
    }

    /// One AdamW step; see [`AdamW`].
    pub(super) fn adamw(parameters: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], by: &AdamW) {
        let AdamW { scale, beta1, beta2, keep1, keep2, rate, inverse_root2, epsilon, decay } = *by;
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((parameter, (first, second)), gradient) in parameters.iter_mut().zip(moments).zip(gradient) {
            let gradient = gradient * scale;
            *first = fma::<FMA>(*first, beta1, gradient * keep1);
            *second = fma::<FMA>(*second, beta2, gradient * gradient * keep2);
            let size = fma::<FMA>(second.sqrt(), inverse_root2, epsilon);
            *parameter = *parameter * decay - rate * *first / size;
        }
    }
}

/// The numbers of one AdamW step (Loshchilov & Hutter, as PyTorch's `torch.optim.AdamW` computes it):
/// m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g², θ = θ(1−ηλ) − η/(1−β₁ᵗ) · m/(√v/√(1−β₂ᵗ) + ε).
#[derive(Clone, Copy)]
pub(super) struct AdamW {
    /// What clipping multiplies the gradient by.
    pub(super) scale: f32,
    /// β₁.
    pub(super) beta1: f32,
    /// β₂.
    pub(super) beta2: f32,
    /// 1 − β₁.
    pub(super) keep1: f32,
    /// 1 − β₂.
    pub(super) keep2: f32,
    /// η/(1 − β₁ᵗ).
    pub(super) rate: f32,
    /// 1/√(1 − β₂ᵗ).
    pub(super) inverse_root2: f32,
    /// ε.
    pub(super) epsilon: f32,
    /// 1 − ηλ.
    pub(super) decay: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst_error<const FMA: bool>() -> f64 {
        (-870_000..=870_000)
            .map(|i| i as f32 * 1e-4)
            .map(|x| (f64::from(exp::<FMA>(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_exponential_is_right_to_a_rounding_or_two() {
        let (fused, separate) = (worst_error::<true>(), worst_error::<false>());
        assert!(fused < 2.4e-7 && separate < 2.4e-7, "worst relative error {fused:e} fused, {separate:e} separate");
        assert_eq!(exp::<false>(0.0), 1.0);
        assert!(exp::<false>(-1e30) < 1e-37 && exp::<false>(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn sums_count_the_tail() {
        for length in [0, 1, 15, 16, 17, 33] {
            let row: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = row.iter().map(|x| x * x).sum();
            assert_eq!(dot::<false>(&row, &row), expected, "length {length}");
            let most = row.last().copied().unwrap_or(f32::NEG_INFINITY);
            assert_eq!(largest(&row), most, "length {length}");
        }
    }
}
