//! The model of the gaps between a chunk's indices: geometric, with the mean that the values and positions left imply.
//!
//! With `n` positions and `k` values left, the mean of one gap is m = (n+1)/(k+1) positions, the value's own included. m is
//! rounded to one of 89 levels, eight an octave; each has a table of 31 classes of `2^shift` gaps and an escape, whose
//! shares of 2¹⁵ slots are computed at compile time from integers alone. Measured against log₂C(n,k) this loses 0.013 bits
//! an index at 64 of 4,096 (the positions themselves are as good as random: no context would win that back).

use super::rans::{SLOTS, Symbol, WIDTH_MAX};
use covey_proto::layout::CHUNK;

/// The class that says "no value in the next `31 << shift` positions".
pub(super) const ESCAPE: usize = 31;
const CLASSES: usize = ESCAPE + 1;
/// Octaves of 16·m: from 16 (n = k) to 16·4097/2.
const LEVELS: usize = (16 - 4) * 8;

/// The widest class is 2⁸ gaps: the largest 16·m is 32,776, of octave 15.
const SHIFT_MAX: u32 = 8;
// A step carries a gap's place in its class, a sign and a choice of magnitude.
const _: () = assert!(SHIFT_MAX + 2 <= WIDTH_MAX);

/// One mean's table.
pub(super) struct Level {
    /// A class holds `2^shift` gaps: a sixteenth to an eighth of the mean, within which geometric is as good as flat.
    pub(super) shift: u32,
    /// The first slot of each class, and the end of the last.
    start: [u16; CLASSES + 1],
    /// The last slot of each class, signed so that machines without unsigned compares search as fast.
    last: [i16; CLASSES],
    /// The classes as an encoder takes them.
    symbols: [Symbol; CLASSES],
}

impl Level {
    /// A table yet to be filled.
    const NONE: Level =
        Level { shift: 0, start: [0; CLASSES + 1], last: [0; CLASSES], symbols: [Symbol::ALL; CLASSES] };

    /// The class that owns `slot`.
    #[inline(always)]
    pub(super) fn class_of(&self, slot: u16) -> usize {
        // Branch-free: 32 compares are a few instructions where the guesses of a search would miss. The sign of a difference
        // rather than a comparison, whose 32 results some compilers take apart again.
        let below = self.last.iter().map(|&last| (last - slot as i16) >> 15).sum::<i16>();
        (-below as usize).min(ESCAPE)
    }

    /// First slot and slots of `class`.
    #[inline(always)]
    pub(super) fn slots_of(&self, class: usize) -> (u16, u16) {
        (self.start[class], self.start[class + 1] - self.start[class])
    }

    /// `class` for an encoder.
    #[inline(always)]
    pub(super) fn symbol(&self, class: usize) -> &Symbol {
        &self.symbols[class]
    }
}

static TABLES: [Level; LEVELS] = tables();
/// ⌈2³² / (k + 1)⌉ by k < 4,096 (for k = 0, never asked, one less): the product with 16·(n + 1) < 2¹⁷ exceeds the quotient by less than 2¹⁷ / 2³², which no
/// fraction of k + 1 ≤ 2¹² makes up for. A division would be the longest step from one gap to the next.
static RECIPROCALS: [u32; CHUNK] = reciprocals();

const fn reciprocals() -> [u32; CHUNK] {
    let mut table = [u32::MAX; CHUNK];
    let mut k = 1;
    while k < CHUNK {
        table[k] = (1u64 << 32).div_ceil(k as u64 + 1) as u32;
        k += 1;
    }
    table
}

/// The table for `n` positions and `k` values left, 0 < k < n ≤ 4,096.
#[inline(always)]
pub(super) fn level(n: u32, k: u32) -> &'static Level {
    let mean = ((u64::from(16 * (n + 1)) * u64::from(RECIPROCALS[(k & 0xfff) as usize])) >> 32) as u32;
    let octave = mean.ilog2();
    &TABLES[((octave - 4) * 8 + (mean >> (octave - 3) & 7)) as usize]
}

const fn tables() -> [Level; LEVELS] {
    let mut tables = [const { Level::NONE }; LEVELS];
    let mut number = 0;
    while number < LEVELS {
        tables[number] = table(number as u32);
        number += 1;
    }
    tables
}

/// Shares in 32-bit fixed point, rounded down: the chance q = 1 − 1/m that a position has no value, q to the power of the
/// class's width, and its powers.
const fn table(number: u32) -> Level {
    let octave = number / 8 + 4;
    // 32·m in the middle of the level.
    let mean = ((2 * (8 + number % 8) + 1) << (octave - 3)) as u64;
    let shift = octave.saturating_sub(7);
    let mut ratio = ((mean - 32) << 32) / mean;
    let mut squarings = 0;
    while squarings < shift {
        ratio = (ratio * ratio) >> 32;
        squarings += 1;
    }
    let mut level = Level { shift, ..Level::NONE };
    let mut beyond = 1u64 << 32;
    let mut class = 0;
    while class < CLASSES {
        // A slot is set aside for each class, so that none is without.
        let spread = (((1 << 32) - beyond) * (SLOTS as u64 - CLASSES as u64)) >> 32;
        level.start[class] = (spread + class as u64) as u16;
        if class > 0 {
            level.last[class - 1] = level.start[class] as i16 - 1;
        }
        beyond = (beyond * ratio) >> 32;
        class += 1;
    }
    level.start[CLASSES] = SLOTS as u16;
    level.last[CLASSES - 1] = (SLOTS - 1) as i16;
    let mut class = 0;
    while class < CLASSES {
        level.symbols[class] = Symbol::new(level.start[class], level.start[class + 1] - level.start[class]);
        class += 1;
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_table_whose_classes_own_every_slot_once() {
        for n in 1..=4096 {
            for k in 1..n {
                assert!(level(n, k).shift <= SHIFT_MAX);
                let exact = 16 * (n + 1) / (k + 1);
                assert_eq!((u64::from(16 * (n + 1)) * u64::from(RECIPROCALS[k as usize])) >> 32, u64::from(exact));
            }
        }
        for table in &TABLES {
            for slot in 0..SLOTS as u16 {
                let (start, slots) = table.slots_of(table.class_of(slot));
                assert!((start..start + slots).contains(&slot));
            }
            assert!(table.start.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
