//! How a matrix product is cut into tasks for a pool, and which factor is transposed first.
//!
//! Blocks of the result follow from the shapes alone, and the sum over the inner dimension is never cut. What the matrix
//! kernel computes for an element depends on the inner dimension only (it takes sums of at most 512 products and adds these
//! up), as long as both sides of a block have some length, which [`pieces`] sees to. So an element has the same bits in
//! every cut, and no bit depends on threads.
//!
//! The kernel is fastest where it reads b's rows and a's rows as they lie: 108 to 115 of 117 GFLOP/s here. Where one of
//! them is a transposed view it goes down to 60 to 95, for it packs with strides. So a block first transposes its part of that
//! factor ([`super::product::transpose`]: 4 % of the block's time).

use super::pool::Pool;
use super::product::{Into, View, ViewMut, multiply, takes_tiles, transpose};
use std::cell::RefCell;

/// Side of a block, in elements: its part of a factor (128 × 512 floats, 256 KiB) stays in a core's L2 cache.
const SIDE: usize = 128;
/// Blocks that a product is cut into, where its sides allow: small models have matrices of one side of [`SIDE`].
const BLOCKS: usize = 8;

thread_local! {
    /// The transposed part of a factor: up to 2·SIDE rows of the inner dimension, kept between the blocks of a thread.
    static TURNED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// out = a·b or out += a·b on all threads of `pool`; the bits are those of any other number of threads.
pub(super) fn multiply_on(pool: &Pool, out: ViewMut<'_>, a: View<'_>, b: View<'_>, into: Into) {
    let (rows, columns) = (out.height(), out.width());
    let (by_rows, by_columns) = cut(rows, columns, a.is_transposed(), b.is_transposed());
    let mut tasks = Vec::with_capacity(by_rows.len() * by_columns.len());
    let mut row = 0;
    for (height, part) in by_rows.iter().zip(out.row_parts(by_rows.iter().copied())) {
        let mut column = 0;
        for (width, part) in by_columns.iter().zip(part.column_parts(by_columns.iter().copied())) {
            tasks.push((part, a.rows(row..row + height), b.columns(column..column + width)));
            column += width;
        }
        row += height;
    }
    pool.each(tasks, |(out, a, b)| block(out, a, b, into));
}

/// Heights and widths of the blocks. The factor that is transposed is transposed as often as the other's side is cut, so
/// that one is cut as little as possible.
fn cut(rows: usize, columns: usize, a_transposed: bool, b_transposed: bool) -> (Vec<usize>, Vec<usize>) {
    if !takes_tiles(rows, columns) {
        return (vec![rows], vec![columns]);
    }
    if a_transposed && !b_transposed {
        let by_rows = pieces(rows, SIDE);
        let by_columns = pieces(columns, SIDE.max(columns / BLOCKS.div_ceil(by_rows.len())));
        return (by_rows, by_columns);
    }
    let by_columns = pieces(columns, SIDE);
    let by_rows = pieces(rows, SIDE.max(rows / BLOCKS.div_ceil(by_columns.len())));
    (by_rows, by_columns)
}

/// `total` in pieces of `size`, at least [`SIDE`]; what is left over goes to the last. So a piece is as long as the kernel
/// needs to take the same sums as for the whole.
fn pieces(total: usize, size: usize) -> Vec<usize> {
    let count = (total / size).max(1);
    let mut pieces = vec![size; count];
    pieces[count - 1] = total - size * (count - 1);
    pieces
}

/// One block, on the calling thread.
fn block(out: ViewMut<'_>, a: View<'_>, b: View<'_>, into: Into) {
    let (rows, columns, inner) = (out.height(), out.width(), a.width());
    if !takes_tiles(rows, columns) || !(a.is_transposed() || b.is_transposed()) {
        return multiply(out, a, b, into);
    }
    let mut turned = TURNED.take();
    turned.resize(turned.len().max(inner * rows.max(columns)), 0.0);
    if b.is_transposed() {
        let b_rows = &mut turned[..inner * columns];
        transpose(b_rows, b.t());
        multiply(out, a, View::dense(b_rows, inner, columns), into);
    } else {
        let a_rows = &mut turned[..rows * inner];
        transpose(a_rows, a.t());
        multiply(out, View::dense(a_rows, rows, inner), b, into);
    }
    TURNED.set(turned);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|at| ((at * 2_654_435 + seed * 40_503) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    /// The product in one piece, as the kernel takes it.
    fn whole(sizes: (usize, usize, usize), turns: (bool, bool), into: Into, pool: Option<&Pool>) -> Vec<u32> {
        let (rows, columns, inner) = sizes;
        let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
        let mut out = numbers(rows * columns, 3);
        let a = if turns.0 { View::dense(&a, inner, rows).t() } else { View::dense(&a, rows, inner) };
        let b = if turns.1 { View::dense(&b, columns, inner).t() } else { View::dense(&b, inner, columns) };
        let to = ViewMut::dense(&mut out, rows, columns);
        match pool {
            Some(pool) => multiply_on(pool, to, a, b, into),
            None => multiply(to, a, b, into),
        }
        out.into_iter().map(f32::to_bits).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_product_in_blocks_has_the_bits_of_the_whole(
            rows in 1usize..400,
            columns in 1usize..700,
            inner in 1usize..1200,
            turns: (bool, bool),
            adds: bool,
        ) {
            let into = if adds { Into::Add } else { Into::Set };
            let sizes = (rows, columns, inner);
            let expected = whole(sizes, turns, into, None);
            for threads in [1, 3] {
                prop_assert!(whole(sizes, turns, into, Some(&Pool::new(threads))) == expected, "{threads} threads");
            }
        }
    }

    #[test]
    fn a_product_in_blocks_has_the_bits_of_the_whole_at_the_edges_of_cuts() {
        let pool = Pool::new(2);
        for (rows, columns, inner) in
            [(8, 256, 513), (7, 999, 600), (256, 8, 1024), (129, 255, 2), (1, 300, 70), (300, 1, 70)]
        {
            for turns in [(false, false), (true, false), (false, true), (true, true)] {
                let sizes = (rows, columns, inner);
                let expected = whole(sizes, turns, Into::Add, None);
                assert!(whole(sizes, turns, Into::Add, Some(&pool)) == expected, "{sizes:?}, {turns:?}");
            }
        }
    }

    #[test]
    fn pieces_cover_the_whole_and_none_is_short() {
        for total in [1, 127, 128, 129, 255, 256, 1000, 32_000] {
            let pieces = pieces(total, SIDE);
            assert_eq!(pieces.iter().sum::<usize>(), total);
            assert!(pieces.iter().all(|piece| *piece >= SIDE.min(total) && *piece < 2 * SIDE));
        }
    }
}
