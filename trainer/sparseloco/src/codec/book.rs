//! A book: the values that some chunks may send, by symbol. What stands before a group's stream.
//!
//! With a sign and magnitudes each chunk has a book; Templar's quantiser has one for the chunks of a tensor in the group.

use super::CodecError;
use crate::quantise::{MAGNITUDE_MAX, MAGNITUDE_MIN, bf16_to_f32};
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use std::ops::Range;

/// Values of Templar's book: four bins.
pub(super) const BINS: usize = 4;

/// The chunks that share a book, one after the other.
pub(super) fn runs(layout: &Layout, chunks: Range<usize>, quantiser: Quantiser) -> impl Iterator<Item = Range<usize>> {
    let mut next = chunks.start;
    std::iter::from_fn(move || {
        let start = next;
        (start < chunks.end).then(|| {
            next = match quantiser {
                Quantiser::Sign | Quantiser::TwoMagnitudes => start + 1,
                Quantiser::Templar => {
                    let tensor = layout.tensor_of_chunk(start);
                    (tensor.first_chunk + tensor.chunks).min(chunks.end)
                }
            };
            start..next
        })
    })
}

/// The most bytes of a book.
pub(super) fn book_bytes_max(quantiser: Quantiser) -> usize {
    match quantiser {
        Quantiser::Sign => 2,
        Quantiser::TwoMagnitudes => 4,
        Quantiser::Templar => 1 + 4 * BINS,
    }
}

/// The most bits of a symbol.
pub(super) fn symbol_bits_max(quantiser: Quantiser) -> usize {
    match quantiser {
        Quantiser::Sign => 1,
        Quantiser::TwoMagnitudes | Quantiser::Templar => 2,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// lo, −lo, hi, −hi.
    Magnitudes,
    /// Rising; infinity where there is none.
    Rising,
}

/// Values by symbol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Book {
    pub(super) values: [f32; BINS],
    order: Order,
    /// Bits of a symbol.
    pub(super) bits: u32,
    /// Sets of symbols, as masks, of each of which the book's chunks must use one: what no value has is not sent.
    needed: [u8; BINS],
    /// Symbols that stand for a value, as a mask.
    known: u8,
}

impl Book {
    /// Stands where there is none.
    pub(super) const NONE: Book =
        Book { values: [0.0; BINS], order: Order::Rising, bits: 0, needed: [0; BINS], known: 0 };

    /// Two values of opposite sign, or four. `low` and `high` are magnitudes as bfloat16.
    fn of_magnitudes(low: u16, high: u16) -> Book {
        let (bits, needed) = if low == high { (1, [0b11; BINS]) } else { (2, [0b0011, 0b1100, 0b1111, 0b1111]) };
        let (low, high) = (bf16_to_f32(low), bf16_to_f32(high));
        Book { values: [low, -low, high, -high], order: Order::Magnitudes, bits, needed, known: 0b1111 }
    }

    /// One to four values, rising.
    fn of_values(sent: &[f32]) -> Book {
        let bits = sent.len().next_power_of_two().ilog2();
        let values = [f32::INFINITY; BINS];
        let mut book = Book { values, order: Order::Rising, bits, needed: [0; BINS], known: 0 };
        for (symbol, value) in sent.iter().enumerate() {
            book.values[symbol] = *value;
            book.known |= 1 << symbol;
        }
        for (symbol, needed) in book.needed.iter_mut().enumerate() {
            *needed = if symbol < sent.len() { 1 << symbol } else { book.known };
        }
        book
    }

    /// Whether chunks that use these symbols (a mask) are what a writer would give this book.
    pub(super) fn fits(&self, used: u8) -> bool {
        used & !self.known == 0 && self.needed.iter().all(|needed| used & needed != 0)
    }

    /// The symbol of a value that the book has. Without branches: signs cannot be foreseen.
    #[inline]
    pub(super) fn symbol(&self, value: f32) -> u32 {
        match self.order {
            Order::Magnitudes => {
                let high = self.bits == 2 && value.abs() == self.values[2];
                u32::from(value.is_sign_negative()) | u32::from(high) << 1
            }
            Order::Rising => self.values.iter().map(|below| u32::from(value > *below)).sum(),
        }
    }
}

/// Takes the book of a run of chunks from the front of `bytes`; none in it if they send nothing.
///
/// # Errors
/// A book that no writer makes; `chunk`, the first it is for, is named.
pub(super) fn read(quantiser: Quantiser, chunk: usize, bytes: &mut &[u8]) -> Result<Option<Book>, CodecError> {
    let mut take = |count: usize| {
        let (front, rest) = bytes.split_at_checked(count).ok_or(CodecError::Head { chunk })?;
        *bytes = rest;
        Ok(front)
    };
    let magnitude = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let (low, high) = match quantiser {
        Quantiser::Sign => {
            let scale = magnitude(take(2)?);
            (scale, scale)
        }
        Quantiser::TwoMagnitudes => {
            let scales = take(4)?;
            (magnitude(scales), magnitude(&scales[2..]))
        }
        Quantiser::Templar => {
            let count = usize::from(take(1)?[0]);
            if count > BINS {
                return Err(CodecError::Values { chunk });
            }
            let values: Vec<f32> = take(4 * count)?.chunks_exact(4).map(f32_of).collect();
            return match check_values(&values) {
                true => Ok((count > 0).then(|| Book::of_values(&values))),
                false => Err(CodecError::Values { chunk }),
            };
        }
    };
    match check_magnitudes(low, high) {
        true => Ok((high > 0).then(|| Book::of_magnitudes(low, high))),
        false => Err(CodecError::Scales { chunk, low, high }),
    }
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn check_magnitudes(low: u16, high: u16) -> bool {
    (low, high) == (0, 0) || MAGNITUDE_MIN <= low && low <= high && high <= MAGNITUDE_MAX
}

/// Rising, each +0 or of a magnitude that is sent.
fn check_values(values: &[f32]) -> bool {
    let (least, most) = (bf16_to_f32(MAGNITUDE_MIN), bf16_to_f32(MAGNITUDE_MAX));
    let sendable = |value: &f32| value.to_bits() == 0 || (least..=most).contains(&value.abs());
    values.iter().all(sendable) && values.windows(2).all(|pair| pair[0] < pair[1])
}

/// Appends the book of chunks that send `values` (all of them together; none: nothing is sent) and returns it.
///
/// # Errors
/// None if the quantiser does not make such values.
pub(super) fn write<'v>(
    quantiser: Quantiser,
    values: impl Iterator<Item = &'v f32> + Clone,
    out: &mut Vec<u8>,
) -> Option<Option<Book>> {
    match quantiser {
        Quantiser::Sign | Quantiser::TwoMagnitudes => {
            let magnitudes = values.map(|value| value.abs().to_bits());
            let (low, high) = (magnitudes.clone().min().unwrap_or(0), magnitudes.clone().max().unwrap_or(0));
            let exact = low & 0xffff == 0 && high & 0xffff == 0;
            if !exact || !magnitudes.clone().all(|bits| bits == low || bits == high) {
                return None;
            }
            let (silent, (low, high)) =
                (magnitudes.clone().next().is_none(), ((low >> 16) as u16, (high >> 16) as u16));
            if !check_magnitudes(low, high) || !silent && high == 0 || quantiser == Quantiser::Sign && low != high {
                return None;
            }
            out.extend_from_slice(&low.to_le_bytes());
            if quantiser == Quantiser::TwoMagnitudes {
                out.extend_from_slice(&high.to_le_bytes());
            }
            Some((!silent).then(|| Book::of_magnitudes(low, high)))
        }
        Quantiser::Templar => {
            let mut sent: Vec<f32> = Vec::with_capacity(BINS);
            for value in values {
                if !sent.iter().any(|other| other.to_bits() == value.to_bits()) {
                    if sent.len() == BINS {
                        return None;
                    }
                    sent.push(*value);
                }
            }
            sent.sort_by(f32::total_cmp);
            if !check_values(&sent) {
                return None;
            }
            out.push(sent.len() as u8);
            sent.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            Some((!sent.is_empty()).then(|| Book::of_values(&sent)))
        }
    }
}
