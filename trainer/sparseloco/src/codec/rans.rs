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

/// One step: a symbol and plain bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) start: u16,
    pub(super) freq: u16,
    pub(super) width: u8,
    pub(super) bits: u16,
}

impl Step {
    /// Plain bits alone: the symbol that owns all slots.
    pub(super) fn plain(width: u32, bits: u16) -> Step {
        Step { start: 0, freq: SLOTS as u16, width: width as u8, bits }
    }
}

/// Appends the stream of `steps` to `out`: the final state, then words, both little-endian, in the decoder's order.
pub(super) fn encode(steps: &[Step], words: &mut Vec<u32>, out: &mut Vec<u8>) {
    let mut state = STATE_MIN;
    words.clear();
    for step in steps.iter().rev() {
        let freq = u64::from(step.freq);
        if state >= freq << (63 - SLOT_BITS - u32::from(step.width)) {
            words.push(state as u32);
            state >>= 32;
        }
        state = state << step.width | u64::from(step.bits);
        state = (state / freq) << SLOT_BITS | (u64::from(step.start) + state % freq);
    }
    out.extend_from_slice(&state.to_le_bytes());
    out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
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

    fn step() -> impl Strategy<Value = Step> {
        (1u32..=SLOTS, 0u32..=WIDTH_MAX, any::<u16>(), any::<u16>()).prop_map(|(freq, width, start, bits)| Step {
            start: (u32::from(start) % (SLOTS - freq + 1)) as u16,
            freq: freq as u16,
            width: width as u8,
            bits: (u32::from(bits) & ((1 << width) - 1)) as u16,
        })
    }

    proptest! {
        #[test]
        fn steps_come_back_and_use_every_byte(steps in proptest::collection::vec(step(), 0..300)) {
            let mut bytes = Vec::new();
            encode(&steps, &mut Vec::new(), &mut bytes);
            let mut decoder = Decoder::new(&bytes).unwrap();
            for step in &steps {
                prop_assert!((u32::from(step.start)..u32::from(step.start) + u32::from(step.freq)).contains(&decoder.slot().into()));
                decoder.take_symbol(step.start, step.freq);
                prop_assert_eq!(decoder.take_bits(step.width.into()), u32::from(step.bits));
                prop_assert!(decoder.refill());
            }
            prop_assert!(decoder.is_finished());
        }
    }
}
