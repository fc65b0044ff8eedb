//! Memory that will be needed soon, asked for while the processor is busy with something else.

#![allow(unsafe_code)]

use super::{LANES, Tiles};

/// The rows of three states that come next, cache line by cache line, in the order in which they lie in memory.
///
/// A processor foresees long runs by itself; rows of a few chunks, far apart, it does not. Asking changes no value, and
/// any address may be asked for.
#[derive(Debug)]
pub(crate) struct Ahead {
    states: [*const f32; 3],
    of: Tiles,
    row: usize,
    column: usize,
}

impl Ahead {
    /// The chunks with whose first element `states` begin.
    pub(crate) fn new(states: [&[f32]; 3], of: Tiles) -> Ahead {
        Ahead { states: states.map(<[f32]>::as_ptr), of, row: 0, column: 0 }
    }

    /// No memory.
    pub(crate) fn nothing() -> Ahead {
        Ahead::new([&[]; 3], Tiles { rows: 0, width: 0, columns: 1, stride: 0 })
    }

    /// Asks for so many lines more of each, as far as there are any.
    #[inline(always)]
    pub(crate) fn fetch(&mut self, lines: usize) {
        for _ in 0..lines {
            if self.row == self.of.rows {
                return;
            }
            // The last element of a line's worth: where a row begins within a line, the row's left neighbour has brought it.
            let at = self.row * self.of.stride + self.column + LANES - 1;
            self.states.iter().for_each(|state| prefetch(state.wrapping_add(at)));
            self.column += LANES;
            if self.column >= self.of.width {
                (self.row, self.column) = (self.row + 1, 0);
            }
        }
    }
}

#[inline(always)]
fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program sees and faults at no address; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
