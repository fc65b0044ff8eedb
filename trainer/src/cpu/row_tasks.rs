//! The row-wise and element-wise functions of `kernels` on all threads of a pool.
//!
//! Rows are independent, so any cut of them gives the same bits. Where rows are summed (a norm's weight, an embedding's row)
//! columns are shared out instead, and each is summed in the order of the rows. Sums that leave one number (losses,
//! the gradient's norm) are taken piece by piece and added up by the caller, in order.

use super::kernels::{self, AdamW};
use super::pool::Pool;
use super::product::ViewMut;

/// Elements of a task: some microseconds, several times what handing one out costs.
const TASK: usize = 1 << 14;
/// Elements of a task that waits for memory rather than computes.
const LONG_TASK: usize = 1 << 18;
/// Columns of a task that sums over rows: four vectors.
const COLUMNS: usize = 64;
/// Elements that are squared and summed in f32; above them in f64.
const SQUARES: usize = 4096;

/// Rows of a task where a row has `width` elements.
fn rows(width: usize) -> usize {
    (TASK / width).max(1)
}

/// Each token's row of the table `[vocabulary, width]`.
pub(super) fn embed(pool: &Pool, out: &mut [f32], table: &[f32], tokens: &[u32], width: usize) {
    let rows = rows(width);
    pool.each(out.chunks_mut(rows * width).zip(tokens.chunks(rows)), |(out, tokens)| {
        for (out, &token) in out.chunks_exact_mut(width).zip(tokens) {
            out.copy_from_slice(&table[token as usize * width..][..width]);
        }
    });
}

/// Adds the gradient of each token to the row that it was embedded by.
pub(super) fn embed_back(pool: &Pool, d_table: &mut [f32], tokens: &[u32], d: &[f32], width: usize) {
    let vocabulary = d_table.len() / width;
    let table = ViewMut::dense(d_table, vocabulary, width);
    let parts = table.column_parts(column_tasks(width)).into_iter().enumerate();
    pool.each(parts, |(part, mut table)| {
        let columns = part * COLUMNS..part * COLUMNS + table.width();
        for (&token, d) in tokens.iter().zip(d.chunks_exact(width)) {
            kernels::add(table.row(token as usize), &d[columns.clone()]);
        }
    });
}

/// Widths of the tasks that share out `width` columns.
fn column_tasks(width: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(COLUMNS).map(move |first| COLUMNS.min(width - first))
}

/// [`kernels::norm`].
pub(super) fn norm(pool: &Pool, out: &mut [f32], inverse: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let (width, rows) = (weight.len(), rows(weight.len()));
    let tasks = out.chunks_mut(rows * width).zip(inverse.chunks_mut(rows)).zip(x.chunks(rows * width));
    pool.each(tasks, |((out, inverse), x)| kernels::norm(out, inverse, x, weight, epsilon));
}

/// [`kernels::norm_sum`].
pub(super) fn norm_sum(
    pool: &Pool,
    out: &mut [f32],
    inverse: &mut [f32],
    x: &mut [f32],
    before: &[f32],
    weight: &[f32],
    epsilon: f32,
) {
    let (width, rows) = (weight.len(), rows(weight.len()));
    let results = out.chunks_mut(rows * width).zip(inverse.chunks_mut(rows));
    let tasks = results.zip(x.chunks_mut(rows * width)).zip(before.chunks(rows * width));
    pool.each(tasks, |(((out, inverse), x), before)| kernels::norm_sum(out, inverse, x, before, weight, epsilon));
}

/// [`kernels::norm_again`].
pub(super) fn norm_again(pool: &Pool, out: &mut [f32], inverse: &[f32], x: &[f32], weight: &[f32]) {
    let (width, rows) = (weight.len(), rows(weight.len()));
    let tasks = out.chunks_mut(rows * width).zip(inverse.chunks(rows)).zip(x.chunks(rows * width));
    pool.each(tasks, |((out, inverse), x)| kernels::norm_again(out, inverse, x, weight));
}

/// RMSNorm backwards: from the result's gradient `d_out`, adds to `d_x` and to `d_weight`; [`kernels::norm_back`] and
/// [`kernels::norm_back_weight`] say what.
pub(super) fn norm_back(
    pool: &Pool,
    d_x: &mut [f32],
    d_weight: &mut [f32],
    d_out: &[f32],
    inverse: &[f32],
    x: &[f32],
    weight: &[f32],
) {
    let (width, rows) = (weight.len(), rows(weight.len()));
    // Buffers may be longer than what is in use.
    let (d_out, x) = (&d_out[..d_x.len()], &x[..d_x.len()]);
    let by_columns = d_weight.chunks_mut(COLUMNS).enumerate();
    pool.each(by_columns, |(part, d_weight)| {
        kernels::norm_back_weight(d_weight, part * COLUMNS, width, d_out, inverse, x);
    });
    let given = d_out.chunks(rows * width).zip(inverse.chunks(rows)).zip(x.chunks(rows * width));
    pool.each(d_x.chunks_mut(rows * width).zip(given), |(d_x, ((d_out, inverse), x))| {
        kernels::norm_back(d_x, d_out, inverse, x, weight);
    });
}

/// [`kernels::swiglu`].
pub(super) fn swiglu(pool: &Pool, out: &mut [f32], gate_up: &[f32], width: usize) {
    let rows = rows(width);
    let tasks = out.chunks_mut(rows * width).zip(gate_up.chunks(2 * rows * width));
    pool.each(tasks, |(out, gate_up)| kernels::swiglu(out, gate_up, width));
}

/// [`kernels::swiglu_back`].
pub(super) fn swiglu_back(pool: &Pool, hidden: &mut [f32], gate_up: &mut [f32], width: usize) {
    let rows = rows(width);
    let tasks = hidden.chunks_mut(rows * width).zip(gate_up.chunks_mut(2 * rows * width));
    pool.each(tasks, |(hidden, gate_up)| kernels::swiglu_back(hidden, gate_up, width));
}

/// Cross-entropy of each row of logits a target, in nats, summed in order. With a weight the logits become the gradient of
/// the sum times it ([`kernels::cross_entropy`]); without one they are left in no useful state.
pub(super) fn cross_entropy(
    pool: &Pool,
    logits: &mut [f32],
    targets: &[u32],
    vocabulary: usize,
    weight: Option<f32>,
) -> f64 {
    let mut losses = vec![0.0f64; targets.len()];
    let rows = rows(vocabulary);
    let tasks = logits.chunks_mut(rows * vocabulary).zip(targets.chunks(rows)).zip(losses.chunks_mut(rows));
    pool.each(tasks, |((logits, targets), losses)| match weight {
        Some(weight) => kernels::cross_entropy(losses, logits, targets, vocabulary, weight),
        None => kernels::cross_entropy_only(losses, logits, targets, vocabulary),
    });
    losses.into_iter().fold(0.0, |sum, loss| sum + loss)
}

/// Σ x²: f32 within 4,096 elements, f64 across them, in order.
pub(super) fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let of_task = |task: &[f32]| task.chunks(SQUARES).map(kernels::sum_of_squares).collect::<Vec<f64>>();
    pool.map(x.chunks(LONG_TASK), of_task).into_iter().flatten().fold(0.0, |sum, squares| sum + squares)
}

/// [`kernels::adamw`].
pub(super) fn adamw(
    pool: &Pool,
    parameters: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradient: &[f32],
    by: &AdamW,
) {
    let moments = first.chunks_mut(LONG_TASK).zip(second.chunks_mut(LONG_TASK));
    let tasks = parameters.chunks_mut(LONG_TASK).zip(moments).zip(gradient.chunks(LONG_TASK));
    pool.each(tasks, |((parameters, (first, second)), gradient)| {
        kernels::adamw(parameters, first, second, gradient, by);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 + seed * 104_729) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn sums_over_rows_are_taken_in_the_rows_order_on_any_number_of_threads() {
        let (tokens, width, vocabulary) = (300, 72, 23);
        let ids: Vec<u32> = (0..tokens as u32).map(|at| at * at % vocabulary).collect();
        let (d_out, x, weight) = (numbers(tokens * width, 1), numbers(tokens * width, 2), numbers(width, 3));
        let inverse = numbers(tokens, 4);
        let results = [1, 2, 5].map(|threads| {
            let pool = Pool::new(threads);
            let (mut d_x, mut d_weight) = (numbers(tokens * width, 5), numbers(width, 6));
            norm_back(&pool, &mut d_x, &mut d_weight, &d_out, &inverse, &x, &weight);
            let mut d_table = numbers(vocabulary as usize * width, 7);
            embed_back(&pool, &mut d_table, &ids, &d_x, width);
            (d_x, d_weight, d_table, sum_of_squares(&pool, &numbers(600_000, 8)).to_bits())
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
        let mut expected = numbers(vocabulary as usize * width, 7);
        for (&token, d) in ids.iter().zip(results[0].0.chunks(width)) {
            kernels::add(&mut expected[token as usize * width..][..width], d);
        }
        assert!(expected == results[0].2);
    }
}
