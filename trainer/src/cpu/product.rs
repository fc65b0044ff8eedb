//! The only `unsafe` of this crate: matrix products by `gemm-f32` behind bounds-checked views. What is computed is decided
//! elsewhere: `kernels`, `attention`, `network`.

#![allow(unsafe_code)]

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;
use std::marker::PhantomData;
use std::ops::Range;

/// a·b + c; rounded once where that is one instruction, twice elsewhere (a call into libm would be far slower).
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows × columns`, rows `stride` elements apart.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> View<'a> {
        check(data.len(), rows, columns, stride);
        View { data, rows, columns, row_stride: stride, column_stride: 1 }
    }
    /// `rows × columns` without gaps.
    pub(super) fn dense(data: &'a [f32], rows: usize, columns: usize) -> View<'a> {
        View::new(data, rows, columns, columns)
    }
    /// The transposed matrix; nothing moves.
    pub(super) fn t(self) -> View<'a> {
        View {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
    /// Some of its rows.
    pub(super) fn rows(self, range: Range<usize>) -> View<'a> {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let start = if range.is_empty() { 0 } else { range.start * self.row_stride };
        View { data: &self.data[start..], rows: range.len(), ..self }
    }
    /// How many rows there are.
    pub(super) fn height(self) -> usize {
        self.rows
    }
    /// How many columns there are.
    pub(super) fn width(self) -> usize {
        self.columns
    }
    /// Whether its columns, not its rows, lie without gaps.
    pub(super) fn is_transposed(self) -> bool {
        self.column_stride != 1
    }
    /// Some of its columns.
    pub(super) fn columns(self, range: Range<usize>) -> View<'a> {
        self.t().rows(range).t()
    }
}

/// A matrix inside a slice, to be written. Parts that share no element can be written at the same time.
pub(super) struct ViewMut<'a> {
    place: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    borrows: PhantomData<&'a mut [f32]>,
}

// SAFETY: like the exclusive borrow that it is made of, it is the only way to its elements.
unsafe impl Send for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// `rows × columns`, rows `stride` elements apart.
    pub(super) fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> ViewMut<'a> {
        check(data.len(), rows, columns, stride);
        ViewMut { place: data.as_mut_ptr(), rows, columns, stride, borrows: PhantomData }
    }
    /// `rows × columns` without gaps.
    pub(super) fn dense(data: &'a mut [f32], rows: usize, columns: usize) -> ViewMut<'a> {
        ViewMut::new(data, rows, columns, columns)
    }
    /// The same matrix for a while.
    pub(super) fn again(&mut self) -> ViewMut<'_> {
        ViewMut { borrows: PhantomData, ..*self }
    }
    /// The rows before `at`, and the others.
    pub(super) fn split_rows(self, at: usize) -> (ViewMut<'a>, ViewMut<'a>) {
        assert!(at <= self.rows, "row {at} of {}", self.rows);
        let rows = self.rows - at;
        // An empty part's place is never looked at, and may lie beyond the slice.
        let place = self.place.wrapping_add(at * self.stride);
        (ViewMut { rows: at, borrows: PhantomData, ..self }, ViewMut { place, rows, borrows: PhantomData, ..self })
    }
    /// The columns before `at`, and the others.
    pub(super) fn split_columns(self, at: usize) -> (ViewMut<'a>, ViewMut<'a>) {
        assert!(at <= self.columns, "column {at} of {}", self.columns);
        let columns = self.columns - at;
        let place = self.place.wrapping_add(at);
        (
            ViewMut { columns: at, borrows: PhantomData, ..self },
            ViewMut { place, columns, borrows: PhantomData, ..self },
        )
    }
    /// All rows in parts of these sizes, in order.
    pub(super) fn row_parts(self, sizes: impl IntoIterator<Item = usize>) -> Vec<ViewMut<'a>> {
        self.parts(sizes, ViewMut::split_rows)
    }
    /// All columns in parts of these sizes, in order.
    pub(super) fn column_parts(self, sizes: impl IntoIterator<Item = usize>) -> Vec<ViewMut<'a>> {
        self.parts(sizes, ViewMut::split_columns)
    }
    fn parts(
        self,
        sizes: impl IntoIterator<Item = usize>,
        split: impl Fn(ViewMut<'a>, usize) -> (ViewMut<'a>, ViewMut<'a>),
    ) -> Vec<ViewMut<'a>> {
        let mut rest = Some(self);
        let part = |size| {
            let (part, after) = split(rest.take()?, size);
            rest = Some(after);
            Some(part)
        };
        sizes.into_iter().map_while(part).collect()
    }
    /// A row's elements.
    pub(super) fn row(&mut self, number: usize) -> &mut [f32] {
        assert!(number < self.rows, "row {number} of {}", self.rows);
        // SAFETY: the row lies inside the slice that the view was made of, and no other view has any of its elements.
        unsafe { std::slice::from_raw_parts_mut(self.place.add(number * self.stride), self.columns) }
    }
    /// How many columns there are.
    pub(super) fn width(&self) -> usize {
        self.columns
    }
    /// How many rows there are.
    pub(super) fn height(&self) -> usize {
        self.rows
    }
}

fn check(length: usize, rows: usize, columns: usize, stride: usize) {
    assert!(columns <= stride, "rows of {columns} overlap at a stride of {stride}");
    let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * stride + columns };
    assert!(needed <= length, "{rows} x {columns} at a stride of {stride} need {needed} elements of {length}");
}

/// What becomes of the values that a product's destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// Whether a product of this many rows and columns has the same bits however its factors lie. Vectors and tiny results go
/// through other kernels, which take sums along the factors' rows where these lie without gaps.
pub(super) fn takes_tiles(rows: usize, columns: usize) -> bool {
    rows >= 8 && columns >= 8 && rows * columns > 256
}

/// out = a·b or out += a·b, on the calling thread, in an order of additions that depends on the shapes alone.
pub(super) fn multiply(out: ViewMut<'_>, a: View<'_>, b: View<'_>, into: Into) {
    assert!(
        a.columns == b.rows && out.rows == a.rows && out.columns == b.columns,
        "({} x {}) = ({} x {}) ({} x {}) is no matrix product",
        out.rows,
        out.columns,
        a.rows,
        a.columns,
        b.rows,
        b.columns
    );
    let (place, stride) = (out.place, out.stride as isize);
    // The kernel prefers columns, and the destination has rows: outᵀ = bᵀ·aᵀ, but where the two are the same.
    let (strides, a, b) = if stride == 1 { ((1, 1), a, b) } else { ((stride, 1), b.t(), a.t()) };
    // SAFETY: the shapes match, as was checked just now, and so do their transposes; the views were checked to lie inside
    // their slices when made; `out` is an exclusive borrow, so nothing aliases it.
    unsafe { product(place, strides, a, b, into) }
}

/// out = aᵀ without gaps, by tiles of 16 × 16.
pub(super) fn transpose(out: &mut [f32], a: View<'_>) {
    assert_eq!(out.len(), a.rows * a.columns, "the transposed matrix has as many elements");
    if a.column_stride != 1 {
        // Its rows are columns already.
        let rows = out.chunks_exact_mut(a.rows.max(1)).enumerate();
        return rows.for_each(|(at, row)| row.copy_from_slice(&a.data[at * a.column_stride..][..a.rows]));
    }
    #[cfg(target_arch = "x86_64")]
    if covey_simd::level() == covey_simd::Level::Avx512 {
        // SAFETY: the processor has AVX-512 F, as `level` says; both matrices lie inside their slices: that of `out` as
        // was checked just now, `a` when it was made.
        return unsafe { transpose_avx512(out, a) };
    }
    transpose_plain(out, a.data, a.rows, a.columns, a.row_stride);
}

/// Side of a tile.
const TILE: usize = 16;

covey_simd::vectorised! {
    fn transpose_plain(out: &mut [f32], data: &[f32], rows: usize, columns: usize, stride: usize) {
        let (whole_rows, whole_columns) = (rows / TILE * TILE, columns / TILE * TILE);
        for row in (0..whole_rows).step_by(TILE) {
            for column in (0..whole_columns).step_by(TILE) {
                let mut tile = [[0.0f32; TILE]; TILE];
                for i in 0..TILE {
                    let from = &data[(row + i) * stride + column..][..TILE];
                    for j in 0..TILE {
                        tile[j][i] = from[j];
                    }
                }
                for (j, tile) in tile.iter().enumerate() {
                    out[(column + j) * rows + row..][..TILE].copy_from_slice(tile);
                }
            }
        }
        transpose_rest(out, data, rows, columns, stride);
    }
}

/// The rows and columns that fill no tile.
#[inline(always)]
fn transpose_rest(out: &mut [f32], data: &[f32], rows: usize, columns: usize, stride: usize) {
    let (whole_rows, whole_columns) = (rows / TILE * TILE, columns / TILE * TILE);
    for row in 0..rows {
        let first = if row < whole_rows { whole_columns } else { 0 };
        for column in first..columns {
            out[column * rows + row] = data[row * stride + column];
        }
    }
}

/// [`transpose_plain`] with a tile in registers, four exchanges of halves: twice as fast.
///
/// # Safety
/// The processor has AVX-512 F, `a` has columns next to one another, and `out` has as many elements as it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(out: &mut [f32], a: View<'_>) {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };
    let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let (whole_rows, whole_columns) = (a.rows / TILE * TILE, a.columns / TILE * TILE);
    for row in (0..whole_rows).step_by(TILE) {
        for column in (0..whole_columns).step_by(TILE) {
            let mut r: [__m512; TILE] = [_mm512_setzero_ps(); TILE];
            let mut t = r;
            for (i, r) in r.iter_mut().enumerate() {
                // SAFETY: sixteen columns of one of a's rows.
                *r = unsafe { _mm512_loadu_ps(a.data.as_ptr().add((row + i) * a.row_stride + column)) };
            }
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                (r[4 * i], r[4 * i + 1]) = (low(t[4 * i], t[4 * i + 2]), high(t[4 * i], t[4 * i + 2]));
                (r[4 * i + 2], r[4 * i + 3]) = (low(t[4 * i + 1], t[4 * i + 3]), high(t[4 * i + 1], t[4 * i + 3]));
            }
            for i in 0..4 {
                t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
                t[i + 4] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]);
                t[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
                t[i + 12] = _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]);
            }
            for i in 0..8 {
                r[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[i + 8]);
                r[i + 8] = _mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 8]);
            }
            for (j, r) in r.iter().enumerate() {
                // SAFETY: sixteen columns of one of out's `columns` rows of `rows`.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr().add((column + j) * a.rows + row), *r) };
            }
        }
    }
    transpose_rest(out, a.data, a.rows, a.columns, a.row_stride);
}

/// The f32 kernel that the crate `gemm` would call, without the crate's kernels of four other types. `strides` are those
/// between the destination's columns and rows.
///
/// # Safety
/// `out` is where a matrix of a's rows and b's columns may be read and written at these strides, and nothing else refers to
/// it; a has as many columns as b rows.
unsafe fn product(out: *mut f32, (columns, rows): (isize, isize), a: View<'_>, b: View<'_>, into: Into) {
    // SAFETY: as the caller promises; views lie inside their slices, whose strides do not exceed isize::MAX.
    unsafe {
        get_gemm_fn()(
            a.rows,
            b.columns,
            a.columns,
            out,
            columns,
            rows,
            into == Into::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_has_each_element_at_the_mirrored_place() {
        let data: Vec<f32> = (0..70 * 90).map(|at| at as f32).collect();
        for level in covey_simd::levels() {
            for (rows, columns) in [(1, 1), (16, 16), (15, 40), (33, 17), (48, 64), (70, 80)] {
                let view = View::new(&data, rows, columns, 90);
                let mut out = vec![0.0; rows * columns];
                match level {
                    covey_simd::Level::Portable => transpose_plain(&mut out, &data, rows, columns, 90),
                    _ => transpose(&mut out, view),
                }
                let mut back = vec![0.0; rows * columns];
                transpose(&mut back, view.t());
                for row in 0..rows {
                    for column in 0..columns {
                        let expected = data[row * 90 + column];
                        assert_eq!(
                            out[column * rows + row],
                            expected,
                            "{level:?}: {row}, {column} of {rows} x {columns}"
                        );
                        assert_eq!(back[row * columns + column], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_matrix_share_no_element_and_cover_it() {
        let mut data = vec![0.0f32; 7 * 9];
        let mut number = 0.0;
        for rows in ViewMut::new(&mut data, 7, 8, 9).row_parts([2, 4, 1]) {
            for mut part in rows.column_parts([3, 5]) {
                number += 1.0;
                (0..part.height()).for_each(|row| part.row(row).fill(number));
            }
        }
        let expected = |at: usize| {
            let (row, column) = (at / 9, at % 9);
            let first = if row < 2 {
                1.0
            } else if row < 6 {
                3.0
            } else {
                5.0
            };
            if column == 8 { 0.0 } else { first + if column < 3 { 0.0 } else { 1.0 } }
        };
        assert!(data.iter().enumerate().all(|(at, value)| *value == expected(at)), "{data:?}");
    }

    #[test]
    fn a_product_of_strided_and_transposed_views_is_the_sum_it_stands_for() {
        let a: Vec<f32> = (0..60).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..60).map(|i| (i % 5) as f32 - 2.0).collect();
        let mut out = vec![1.0f32; 3 * 10];
        multiply(ViewMut::new(&mut out, 3, 4, 10), View::new(&a, 3, 5, 12), View::new(&b, 4, 5, 6).t(), Into::Add);
        for row in 0..3 {
            for column in 0..10 {
                let product: f32 = (0..5).map(|i| a[row * 12 + i] * b[(column % 4) * 6 + i]).sum();
                let expected = if column < 4 { 1.0 + product } else { 1.0 };
                assert_eq!(out[row * 10 + column], expected, "row {row}, column {column}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "need 21 elements of 20")]
    fn a_view_beyond_its_slice_is_refused() {
        View::new(&[0.0; 20], 3, 5, 8);
    }
}
