//! The entropy coder: rANS with a 64-bit state and 32-bit words, one symbol and some plain bits a step.
//!
//! A step codes the symbol that owns slots `start..start+freq` of 2¹⁵, and `width` plain bits. The state x stays in
//! I = [2³¹, 2⁶³). Decoding a step is the exact inverse of encoding it, and the encoder moves a word out exactly when the
//! decoder moves one in: both thresholds are multiples of 2^width and of the slots, so each x of I has one predecessor in I
//! (the coder is "b-unique"; Duda, arXiv 1311.2540). A stream that starts in I, ends in state 2³¹ and uses
//! every word is therefore the encoding of the steps it decodes to: one sequence of steps, one stream.

/// Bits of the slot number.
pub(super) const SLOT_BITS: u32 = 15;
/// Slots shared by a table's symbols.
pub(super) const SLOTS: u32 = 1 << SLOT_BITS;
/// Plain bits that a step can carry: more could empty the state before it is refilled.
pub(super) const WIDTH_MAX: u32 = 16;
/// The least state, and the one that the encoder starts from.
const STATE_MIN: u64 = 1 << 31;
/// Bytes of a stream without words.
pub(super) const STATE_BYTES: usize = 8;

/// Whom some slots belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// The first slot.
    start: u16,
    /// Slots, 1 to 2¹⁵.
    freq: u16,
    /// s = ⌈log₂ freq⌉.
    shift: u8,
    /// ⌈2^(63+s) / freq⌉.
    inverse: u64,
}

impl Symbol {
    /// Stands for all slots: plain bits alone.
    pub(super) const ALL: Symbol = Symbol::new(0, SLOTS as u16);

    /// The owner of `start..start+freq`.
    pub(super) const fn new(start: u16, freq: u16) -> Symbol {
        let shift = 32 - (freq as u32 - 1).leading_zeros();
        Symbol { start, freq, shift: shift as u8, inverse: (1u128 << (63 + shift)).div_ceil(freq as u128) as u64 }
    }

    /// ⌊x / freq⌋ for x < 2⁶³, sooner than a division. The inverse is (2^(63+s) + ε) / freq with ε < freq ≤ 2^s, so that
    /// x·inverse / 2^(63+s) exceeds x / freq by x·ε / 2^(63+s) / freq < 1 / freq: too little to reach the next whole number.
    #[inline(always)]
    fn divide(&self, x: u64) -> u64 {
        ((u128::from(x * 2) * u128::from(self.inverse)) >> 64) as u64 >> self.shift
    }
}

/// Writes a stream, from its last step to its first.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    state: u64,
    /// Words moved out, in the order of writing, and room for more.
    words: Vec<u32>,
    used: usize,
}

impl Encoder {
    /// Begins a stream.
    pub(super) fn begin(&mut self) {
        (self.state, self.used) = (STATE_MIN, 0);
    }

    /// Makes room for so many steps more.
    pub(super) fn reserve(&mut self, steps: usize) {
        self.words.resize(self.words.len().max(self.used + steps), 0);
    }

    /// The step before those that were written. There must be room for it.
    #[inline(always)]
    pub(super) fn step(&mut self, symbol: &Symbol, width: u32, bits: u32) {
        // Without branches: which steps move a word out cannot be foreseen.
        let full = self.state >= u64::from(symbol.freq) << (63 - SLOT_BITS - width);
        self.words[self.used] = self.state as u32;
        self.used += usize::from(full);
        let state = if full { self.state >> 32 } else { self.state };
        let state = state << width | u64::from(bits);
        let quotient = symbol.divide(state);
        let rest = state - quotient * u64::from(symbol.freq);
        self.state = (quotient << SLOT_BITS) + u64::from(symbol.start) + rest;
    }

    /// Appends the stream to `out`: the final state, then words, both little-endian, in the decoder's order.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.state.to_le_bytes());
        out.extend(self.words[..self.used].iter().rev().flat_map(|word| word.to_le_bytes()));
    }
}

/// Reads a stream.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'a> {
    state: u64,
    words: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// The stream in `bytes`; none if they do not begin with a state.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Decoder<'a>> {
        let (state, words) = bytes.split_first_chunk::<STATE_BYTES>()?;
        let state = u64::from_le_bytes(*state);
        (STATE_MIN..STATE_MIN << 32).contains(&state).then_some(Decoder { state, words })
    }

    /// The slot that the next symbol owns.
    #[inline(always)]
    pub(super) fn slot(&self) -> u16 {
        (self.state as u32 & (SLOTS - 1)) as u16
    }

    /// Takes the symbol that owns the slot. Its plain bits, if any, and a [`refill`](Decoder::refill) must follow.
    #[inline(always)]
    pub(super) fn take_symbol(&mut self, start: u16, freq: u16) {
        let offset = u64::from(self.slot()) - u64::from(start);
        self.state = u64::from(freq) * (self.state >> SLOT_BITS) + offset;
    }

    /// Takes a step's plain bits. A [`refill`](Decoder::refill) must follow.
    #[inline(always)]
    pub(super) fn take_bits(&mut self, width: u32) -> u32 {
        let bits = self.state as u32 & ((1 << width) - 1);
        self.state >>= width;
        bits
    }

    /// Ends a step; whether the word was there, if it needed one. Nearly without branches: which steps need a word cannot be
    /// foreseen.
    #[inline(always)]
    #[must_use]
    pub(super) fn refill(&mut self) -> bool {
        let needed = self.state < STATE_MIN;
        let Some((word, rest)) = self.words.split_first_chunk::<4>() else { return !needed };
        let refilled = self.state << 32 | u64::from(u32::from_le_bytes(*word));
        self.state = if needed { refilled } else { self.state };
        self.words = if needed { rest } else { self.words };
        true
    }

    /// Whether the stream ended where an encoder starts, with every byte used.
    pub(super) fn is_finished(&self) -> bool {
        self.state == STATE_MIN && self.words.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn symbol() -> impl Strategy<Value = Symbol> {
        (1u32..=SLOTS, any::<u16>())
            .prop_map(|(freq, start)| Symbol::new((u32::from(start) % (SLOTS - freq + 1)) as u16, freq as u16))
    }

    fn step() -> impl Strategy<Value = (Symbol, u32, u32)> {
        (symbol(), 0u32..=WIDTH_MAX, any::<u32>())
            .prop_map(|(symbol, width, bits)| (symbol, width, bits & ((1 << width) - 1)))
    }

    proptest! {
        #[test]
        fn steps_come_back_and_use_every_byte(steps in proptest::collection::vec(step(), 0..300)) {
            let (mut bytes, mut encoder) = (Vec::new(), Encoder::default());
            encoder.begin();
            encoder.reserve(steps.len());
            steps.iter().rev().for_each(|(symbol, width, bits)| encoder.step(symbol, *width, *bits));
            encoder.finish(&mut bytes);
            let mut decoder = Decoder::new(&bytes).unwrap();
            for (symbol, width, bits) in steps {
                let slots = u32::from(symbol.start)..u32::from(symbol.start) + u32::from(symbol.freq);
                prop_assert!(slots.contains(&decoder.slot().into()));
                decoder.take_symbol(symbol.start, symbol.freq);
                prop_assert_eq!(decoder.take_bits(width), bits);
                prop_assert!(decoder.refill());
            }
            prop_assert!(decoder.is_finished());
        }

        #[test]
        fn dividing_by_the_inverse_is_dividing(symbol in symbol(), x in 0u64..1 << 63, near in 0u64..3) {
            let freq = u64::from(symbol.freq);
            prop_assert_eq!(symbol.divide(x), x / freq);
            // Where a quotient begins, and just before.
            let edge = (x / freq * freq + near).saturating_sub(1).min((1 << 63) - 1);
            prop_assert_eq!(symbol.divide(edge), edge / freq);
        }
    }

    #[test]
    fn every_symbol_divides_the_largest_states() {
        for freq in 1..=SLOTS as u16 {
            let symbol = Symbol::new(0, freq);
            for x in
                [(1 << 63) - 1, (1 << 63) - u64::from(freq), ((1 << 63) - 1) / u64::from(freq) * u64::from(freq) - 1]
            {
                assert_eq!(symbol.divide(x), x / u64::from(freq));
            }
        }
    }
}
