//! The only `unsafe` of this crate: matrix products by `gemm-f32` behind bounds-checked views. What is computed is decided
//! elsewhere: `kernels`, `attention`, `network`.

#![allow(unsafe_code)]

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

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
}

/// A matrix inside a slice, to be written.
pub(super) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// `rows × columns`, rows `stride` elements apart.
    pub(super) fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> ViewMut<'a> {
        check(data.len(), rows, columns, stride);
        ViewMut { data, rows, columns, stride }
    }
    /// `rows × columns` without gaps.
    pub(super) fn dense(data: &'a mut [f32], rows: usize, columns: usize) -> ViewMut<'a> {
        ViewMut::new(data, rows, columns, columns)
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
    let (place, stride) = (out.data.as_mut_ptr(), out.stride as isize);
    // The kernel prefers columns, and the destination has rows: outᵀ = bᵀ·aᵀ, but where the two are the same.
    let (strides, a, b) = if stride == 1 { ((1, 1), a, b) } else { ((stride, 1), b.t(), a.t()) };
    // SAFETY: the shapes match, as was checked just now, and so do their transposes; the views were checked to lie inside
    // their slices when made; `out` is an exclusive borrow, so nothing aliases it.
    unsafe { product(place, strides, a, b, into) }
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
