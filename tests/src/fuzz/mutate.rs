//! Hostile inputs without libFuzzer: valid ones that were changed a little, and some that never were valid.
//!
//! All of it follows from a seed. It finds far less than coverage does, in a second, wherever tests run.

use covey_proto::random::SplitMix64;

/// A source of inputs.
#[derive(Clone, Debug)]
pub struct Mutator {
    numbers: SplitMix64,
}

/// Bytes of the longest input made.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Where counts, lengths and offsets break.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, i64::MAX as u64, u64::MAX];

impl Mutator {
    /// The inputs of this seed.
    pub fn seeded(seed: u64) -> Mutator {
        Mutator { numbers: SplitMix64::seeded(seed) }
    }

    fn next(&mut self) -> u64 {
        self.numbers.draw()
    }

    /// A number below `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        self.numbers.below(bound as u64) as usize
    }

    /// An input: one of the corpus with one to four changes, or, one in sixteen, any bytes.
    pub fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if corpus.is_empty() || self.below(16) == 0 {
            let length = self.below(300);
            return (0..length).map(|_| self.next() as u8).collect();
        }
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let run = at..(at + 1 + self.below(16)).min(bytes.len());
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, self.next() as u8),
            4 => drop(bytes.drain(run)),
            5 => {
                let copy = bytes[run].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, edge[..width].iter().copied());
            }
            7 => {
                // A protobuf number, in as many bytes as it takes.
                let mut number = EDGES[self.below(EDGES.len())];
                let mut varint = Vec::new();
                while number > 0x7f {
                    varint.push(number as u8 | 0x80);
                    number >>= 7;
                }
                varint.push(number as u8);
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, varint);
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}
