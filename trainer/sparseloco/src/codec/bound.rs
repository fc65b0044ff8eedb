//! How long a shard can be: what receivers check before they fetch.
//!
//! The model of the gaps is nearly the uniform one over all index sets, so that *every* set, however hostile, costs about
//! log₂C(n,c) bits. The excess comes from rounding the mean to levels, from flat classes, from the slot set aside for each
//! class and from the geometric law's tail. A thirty-second, an eighth of a bit a value and 8 bits cover it: a test finds the
//! costliest set of every shape by dynamic programming. A usual shard of 64 values a chunk is 5 % below its bound.

use super::book::{book_bytes_max, runs, symbol_bits_max};
use super::rans::STATE_BYTES;
use super::{ENTRY_BYTES, GROUP_CHUNKS, assert_k};
use covey_proto::layout::Layout;
use covey_proto::run::Quantiser;
use std::ops::Range;

/// Bytes that no encoding of a shard of these chunks exceeds.
///
/// # Panics
/// If k is not 1 to 4,096, or the layout does not have these chunks.
pub fn max_shard_bytes(layout: &Layout, chunks: Range<usize>, k: usize, quantiser: Quantiser) -> usize {
    assert_k(k);
    let groups = chunks.len().div_ceil(GROUP_CHUNKS);
    // A stream is its steps' bits, the 31 that the encoder starts with, and less than a word of rounding.
    let books = match quantiser {
        Quantiser::Sign | Quantiser::TwoMagnitudes => chunks.len(),
        // A tensor has one in each group that it has chunks in.
        Quantiser::Templar => groups + runs(layout, chunks.clone(), quantiser).count(),
    };
    let fixed = groups * (ENTRY_BYTES + STATE_BYTES + 4) + books * book_bytes_max(quantiser);
    let (mut elements, mut bits_each, mut bits) = (0, 0, 0);
    for number in chunks {
        let chunk = layout.chunk(number);
        if chunk.len() != elements {
            elements = chunk.len();
            let values = chunk.values(k);
            bits_each = index_bits(elements, values) + values * symbol_bits_max(quantiser);
        }
        bits += bits_each;
    }
    fixed + bits.div_ceil(8)
}

/// Bits that no set of `values` indices of `elements` exceeds.
fn index_bits(elements: usize, values: usize) -> usize {
    if values == elements {
        return 0;
    }
    bound_of(log2_binomial(elements, values), values)
}

fn bound_of(log: usize, values: usize) -> usize {
    log + log / 32 + values / 8 + 8
}

/// log₂C(n, k), rounded up: a product kept as a mantissa of 32 bits and an exponent, each step rounded up.
fn log2_binomial(n: usize, k: usize) -> usize {
    let (mut mantissa, mut exponent) = (1u64 << 32, 0);
    for factor in 0..k.min(n - k) as u64 {
        mantissa = (mantissa * (n as u64 - factor)).div_ceil(factor + 1);
        while mantissa > 1 << 33 {
            mantissa = mantissa.div_ceil(2);
            exponent += 1;
        }
    }
    exponent + 1
}

#[cfg(test)]
mod tests {
    use super::super::gap;
    use super::super::rans::SLOTS;
    use super::*;
    use covey_proto::layout::CHUNK;

    fn cost(slots: u16) -> f64 {
        (f64::from(SLOTS) / f64::from(slots)).log2()
    }

    /// The bits of the costliest way to go on with `left` values and `positions`, given `fewer[n]` for one value fewer and
    /// `same[n]` for as many values, of n positions.
    fn worst(positions: usize, left: usize, fewer: &[f64], same: &[f64]) -> f64 {
        let level = gap::level(positions as u32, left as u32);
        let gap_max = positions - left;
        let mut most = 0.0f64;
        for class in 0..gap::ESCAPE {
            let first = class << level.shift;
            if first > gap_max {
                break;
            }
            let last = (first + (1 << level.shift) - 1).min(gap_max);
            let after =
                fewer[positions - last - 1..positions - first].iter().fold(0.0, |most: f64, &bits| most.max(bits));
            most = most.max(cost(level.slots_of(class).1) + f64::from(level.shift) + after);
        }
        let skipped = gap::ESCAPE << level.shift;
        if skipped <= gap_max {
            most = most.max(cost(level.slots_of(gap::ESCAPE).1) + same[positions - skipped]);
        }
        most
    }

    /// Dynamic programming over all index sets of all shapes.
    #[test]
    fn no_index_set_of_any_shape_exceeds_the_bound() {
        let logs: Vec<f64> = (0..=CHUNK).map(|n| (n.max(1) as f64).log2()).collect();
        let factorial: Vec<f64> = logs
            .iter()
            .scan(0.0, |sum, log| {
                *sum += log;
                Some(*sum)
            })
            .collect();
        let mut tightest = f64::MAX;
        let mut fewer = vec![0.0f64; CHUNK + 1];
        for left in 1..=CHUNK {
            let mut same = vec![0.0f64; CHUNK + 1];
            for positions in left + 1..=CHUNK {
                same[positions] = worst(positions, left, &fewer, &same);
                let log = (factorial[positions] - factorial[left] - factorial[positions - left] - 1e-6).ceil();
                let spare = bound_of(log as usize, left) as f64 - same[positions];
                tightest = tightest.min(spare);
                assert!(spare >= 0.0, "{left} of {positions}: {} bits exceed the bound by {}", same[positions], -spare);
            }
            if [1, 64, 256, 1024].contains(&left) {
                println!("{left} of 4096: worst {:.1} bits, bound {}", same[CHUNK], index_bits(CHUNK, left));
            }
            fewer = same;
        }
        println!("at least {tightest:.1} bits to spare");
    }

    #[test]
    fn the_logarithm_is_rounded_up_by_less_than_two_bits() {
        for (n, k, exact) in [(4096, 64, 471.3), (4096, 256, 1376.2), (4096, 1024, 3316.8), (6, 3, 4.33), (9, 9, 0.0)] {
            let got = log2_binomial(n, k) as f64;
            assert!(got >= exact && got < exact + 2.2, "C({n}, {k}): {got} for {exact}");
        }
    }
}
