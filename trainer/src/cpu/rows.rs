//! Products of a few tokens with a weight matrix, as generation needs them: every value is one dot product.
//!
//! A dot product adds in one order, whoever asks: eight partial sums, then their sum. So a token's result has the same
//! bits whether it is computed alone or among others, and whichever thread computes it. The price against `product` is
//! some speed with many tokens; with one token both wait for the weights to come from memory.

use super::product::fma;
use covey_simd::vectorised;
use std::array::from_fn;

/// Partial sums of a dot product. Eight f32 are one register of AVX2, and the eight sums of a tile of 4 × 2 are as many as
/// keep two multiply-adds a cycle busy.
const LANES: usize = 8;

/// Rows of one width inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    count: usize,
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of `width`, `stride` elements apart.
    pub(super) fn new(data: &'a [f32], count: usize, width: usize, stride: usize) -> Rows<'a> {
        let needed = if count == 0 { 0 } else { (count - 1) * stride + width };
        assert!(
            needed <= data.len(),
            "{count} rows of {width}, {stride} apart, need {needed} elements of {}",
            data.len()
        );
        Rows { data, count, width, stride }
    }

    /// All rows of `width` that `data` has, without gaps.
    pub(super) fn dense(data: &'a [f32], width: usize) -> Rows<'a> {
        Rows::new(data, data.len() / width, width, width)
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// `count` rows from `first` on.
    pub(super) fn part(self, first: usize, count: usize) -> Rows<'a> {
        assert!(first + count <= self.count, "rows {first} to {} of {}", first + count, self.count);
        let from = (first * self.stride).min(self.data.len());
        Rows::new(&self.data[from..], count, self.width, self.stride)
    }

    #[inline(always)]
    fn row(self, number: usize) -> &'a [f32] {
        &self.data[number * self.stride..][..self.width]
    }
}

#[inline(always)]
fn total(partial: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = partial;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The dot product of each row of `w` with each row of `x`; all have one length. Written by index, lanes taken out and put
/// back by value: so the compiler keeps all sums in registers (75 GFLOP/s at 4 × 2; 2.5 by iterators over the same arrays).
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn tile<const FMA: bool, const W: usize, const X: usize>(w: [&[f32]; W], x: [&[f32]; X]) -> [[f32; W]; X] {
    let chunks = w[0].len() / LANES;
    let mut w_chunks: [&[[f32; LANES]]; W] = [&[]; W];
    let mut x_chunks: [&[[f32; LANES]]; X] = [&[]; X];
    for row in 0..W {
        w_chunks[row] = &w[row].as_chunks::<LANES>().0[..chunks];
    }
    for row in 0..X {
        x_chunks[row] = &x[row].as_chunks::<LANES>().0[..chunks];
    }
    let mut partial = [[[0.0f32; LANES]; W]; X];
    for at in 0..chunks {
        for x in 0..X {
            let x_lanes = x_chunks[x][at];
            for w in 0..W {
                let (w_lanes, mut sums) = (w_chunks[w][at], partial[x][w]);
                for lane in 0..LANES {
                    sums[lane] = fma::<FMA>(w_lanes[lane], x_lanes[lane], sums[lane]);
                }
                partial[x][w] = sums;
            }
        }
    }
    let mut out = [[0.0; W]; X];
    for at in 0..X {
        for row in 0..W {
            let mut sums = partial[at][row];
            let rest = w[row][chunks * LANES..].iter().zip(&x[at][chunks * LANES..]);
            for (sum, (w, x)) in sums.iter_mut().zip(rest) {
                *sum = fma::<FMA>(*w, *x, *sum);
            }
            out[at][row] = total(sums);
        }
    }
    out
}

/// The rows `w` from `first` on, `W` of them, with all rows of `x`: columns `first..` of `out`.
#[inline(always)]
fn strip<const FMA: bool, const W: usize>(out: &mut [f32], x: Rows<'_>, w: Rows<'_>, first: usize) {
    let rows: [&[f32]; W] = from_fn(|number| w.row(first + number));
    let columns = w.count;
    let pairs = x.count / 2;
    for pair in 0..pairs {
        let [a, b] = tile::<FMA, W, 2>(rows, [x.row(2 * pair), x.row(2 * pair + 1)]);
        out[2 * pair * columns + first..][..W].copy_from_slice(&a);
        out[(2 * pair + 1) * columns + first..][..W].copy_from_slice(&b);
    }
    if x.count % 2 == 1 {
        let [a] = tile::<FMA, W, 1>(rows, [x.row(x.count - 1)]);
        out[(x.count - 1) * columns + first..][..W].copy_from_slice(&a);
    }
}

/// x·Wᵀ: `out [x rows, w rows]`, dense.
#[inline(always)]
pub(super) fn dots<const FMA: bool>(out: &mut [f32], x: Rows<'_>, w: Rows<'_>) {
    // One token's weights come from memory, and come fastest one row after the other: 18 GB/s, and 12 by fours.
    let whole = if x.count == 1 { 0 } else { w.count - w.count % 4 };
    for first in (0..whole).step_by(4) {
        strip::<FMA, 4>(out, x, w, first);
    }
    for first in whole..w.count {
        strip::<FMA, 1>(out, x, w, first);
    }
}

/// `out = Σ weights[i]·rows[i]`, added in the order of the rows, `W` columns at a time from `column` on.
#[inline(always)]
fn mix_columns<const FMA: bool, const W: usize>(out: &mut [f32], weights: &[f32], rows: Rows<'_>, column: usize) {
    let mut sums = [0.0f32; W];
    for (number, weight) in weights.iter().enumerate() {
        let row = &rows.row(number)[column..][..W];
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum = fma::<FMA>(*weight, *value, *sum);
        }
    }
    out[column..][..W].copy_from_slice(&sums);
}

/// `out = Σ weights[i]·rows[i]`; `out` is as wide as the rows, and each of its values is added in the order of the rows.
#[inline(always)]
pub(super) fn mix<const FMA: bool>(out: &mut [f32], weights: &[f32], rows: Rows<'_>) {
    let mut column = 0;
    while rows.width - column >= 64 {
        mix_columns::<FMA, 64>(out, weights, rows, column);
        column += 64;
    }
    while rows.width - column >= 8 {
        mix_columns::<FMA, 8>(out, weights, rows, column);
        column += 8;
    }
    while column < rows.width {
        mix_columns::<FMA, 1>(out, weights, rows, column);
        column += 1;
    }
}

vectorised! {
    /// y = x·Wᵀ: `y [tokens, outputs]` dense, `x [tokens, inputs]`, `w [outputs, inputs]`.
    pub(super) fn products(y: &mut [f32], x: Rows<'_>, w: Rows<'_>) {
        dots::<FMA>(y, x, w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32).map(|at| ((at.wrapping_mul(2_654_435_761) ^ seed) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn a_product_is_the_sum_it_stands_for_and_the_same_bits_alone_and_among_others() {
        for (tokens, outputs, inputs) in [(1, 1, 1), (3, 7, 13), (5, 9, 64), (2, 4, 8), (6, 21, 100)] {
            let (x, w) = (numbers(tokens * inputs, 1), numbers(outputs * inputs, 2));
            let mut y = vec![f32::NAN; tokens * outputs];
            products(&mut y, Rows::dense(&x, inputs), Rows::dense(&w, inputs));
            for token in 0..tokens {
                for output in 0..outputs {
                    let pairs = (0..inputs).map(|at| f64::from(x[token * inputs + at] * w[output * inputs + at]));
                    let (got, exact) = (f64::from(y[token * outputs + output]), pairs.sum::<f64>());
                    assert!((got - exact).abs() < 1e-4, "{got}, exactly {exact}");
                    let mut alone = [0.0];
                    let (x, w) = (Rows::dense(&x, inputs).part(token, 1), Rows::dense(&w, inputs).part(output, 1));
                    products(&mut alone, x, w);
                    assert_eq!(alone[0].to_bits(), y[token * outputs + output].to_bits());
                }
            }
        }
    }

    #[test]
    fn rows_are_mixed_by_their_weights_at_every_width() {
        for width in [1, 7, 8, 64, 75, 136] {
            let (rows, weights) = (numbers(5 * (width + 3), 3), numbers(5, 4));
            let mut out = vec![f32::NAN; width];
            mix::<false>(&mut out, &weights, Rows::new(&rows, 5, width, width + 3));
            for (column, got) in out.iter().enumerate() {
                let expected: f32 = (0..5).fold(0.0, |sum, row| sum + weights[row] * rows[row * (width + 3) + column]);
                assert_eq!(*got, expected, "column {column} of {width}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "need 23 elements of 22")]
    fn rows_beyond_their_slice_are_refused() {
        Rows::new(&[0.0; 22], 3, 5, 9);
    }
}
