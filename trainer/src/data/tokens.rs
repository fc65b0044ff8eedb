//! Tokens in memory and on disk: two bytes each where that says all, four where a vocabulary is larger or some tokens are
//! only read ([`CONTEXT`]).

use crate::CONTEXT;

/// Two-byte tokens are below it.
pub const NARROW_MAX: u32 = 1 << 16;
/// Four-byte tokens are below it: as large as a run's vocabulary can be.
pub const WIDE_MAX: u32 = 1 << 20;

/// Bytes that a token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two: the token.
    Narrow,
    /// Four: the token, and [`CONTEXT`] where it is only read.
    Wide,
}

impl Width {
    /// Bytes of a token.
    pub fn bytes(self) -> usize {
        match self {
            Width::Narrow => 2,
            Width::Wide => 4,
        }
    }

    /// Vocabularies are no larger.
    pub fn vocabulary_max(self) -> u32 {
        match self {
            Width::Narrow => NARROW_MAX,
            Width::Wide => WIDE_MAX,
        }
    }
}

/// A run of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Two bytes each.
    Narrow(Vec<u16>),
    /// Four bytes each, with [`CONTEXT`] where a token is only read.
    Wide(Vec<u32>),
}

impl Tokens {
    /// No tokens.
    pub fn new(width: Width) -> Tokens {
        match width {
            Width::Narrow => Tokens::Narrow(Vec::new()),
            Width::Wide => Tokens::Wide(Vec::new()),
        }
    }

    /// These tokens in as few bytes as they can be: narrow if all are below [`NARROW_MAX`] and to be learnt.
    pub fn from_wide(tokens: Vec<u32>) -> Tokens {
        if tokens.iter().all(|token| *token < NARROW_MAX) {
            Tokens::Narrow(tokens.into_iter().map(|token| token as u16).collect())
        } else {
            Tokens::Wide(tokens)
        }
    }

    /// The same with four bytes each.
    pub fn widened(self) -> Tokens {
        match self {
            Tokens::Narrow(tokens) => Tokens::Wide(tokens.into_iter().map(u32::from).collect()),
            wide @ Tokens::Wide(_) => wide,
        }
    }

    /// Sets memory aside for so many tokens more. False if there is none.
    pub(super) fn reserve(&mut self, tokens: usize) -> bool {
        match self {
            Tokens::Narrow(all) => all.try_reserve_exact(tokens).is_ok(),
            Tokens::Wide(all) => all.try_reserve_exact(tokens).is_ok(),
        }
    }

    /// How wide they are.
    pub fn width(&self) -> Width {
        match self {
            Tokens::Narrow(_) => Width::Narrow,
            Tokens::Wide(_) => Width::Wide,
        }
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        match self {
            Tokens::Narrow(tokens) => tokens.len(),
            Tokens::Wide(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens from `from` on, as many as there are up to `count`, with their [`CONTEXT`].
    pub fn run(&self, from: usize, count: usize) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Tokens::Narrow(tokens) => Box::new(tokens.iter().skip(from).take(count).map(|token| u32::from(*token))),
            Tokens::Wide(tokens) => Box::new(tokens.iter().skip(from).take(count).copied()),
        }
    }

    /// All tokens with their [`CONTEXT`].
    pub fn iter(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        self.run(0, self.len())
    }

    /// Tokens that are learnt: all without [`CONTEXT`].
    pub fn learnt(&self) -> u64 {
        match self {
            Tokens::Narrow(tokens) => tokens.len() as u64,
            Tokens::Wide(tokens) => tokens.iter().filter(|token| **token & CONTEXT == 0).count() as u64,
        }
    }

    /// Cuts the tokens into runs of at most `count`, as bytes, little-endian.
    pub(super) fn chunks(&self, count: usize) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
        match self {
            Tokens::Narrow(tokens) => {
                Box::new(tokens.chunks(count).map(|chunk| chunk.iter().flat_map(|token| token.to_le_bytes()).collect()))
            }
            Tokens::Wide(tokens) => {
                Box::new(tokens.chunks(count).map(|chunk| chunk.iter().flat_map(|token| token.to_le_bytes()).collect()))
            }
        }
    }

    /// Adds the tokens in `bytes`, little-endian; what is left of a token is left out.
    pub(super) fn extend_from_bytes(&mut self, bytes: &[u8]) {
        match self {
            Tokens::Narrow(tokens) => {
                tokens.extend(bytes.as_chunks::<2>().0.iter().map(|token| u16::from_le_bytes(*token)));
            }
            Tokens::Wide(tokens) => {
                tokens.extend(bytes.as_chunks::<4>().0.iter().map(|token| u32::from_le_bytes(*token)));
            }
        }
    }

    /// The first token from `from` on that is not below `vocabulary`, [`CONTEXT`] apart.
    pub(super) fn beyond(&self, from: usize, vocabulary: u32) -> Option<u32> {
        self.run(from, self.len()).map(|token| token & !CONTEXT).find(|token| *token >= vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_bytes_in_either_width() {
        let wide = vec![1, 70_000, 3 | CONTEXT, 4, 5];
        for (tokens, bytes) in [(Tokens::Narrow(vec![1, 2, 3, 65_535, 5]), 10), (Tokens::Wide(wide.clone()), 20)] {
            let chunks: Vec<_> = tokens.chunks(2).collect();
            assert_eq!((chunks.len(), chunks.iter().map(Vec::len).sum::<usize>()), (3, bytes));
            let mut again = Tokens::new(tokens.width());
            chunks.iter().for_each(|chunk| again.extend_from_bytes(chunk));
            assert_eq!(again, tokens);
        }
        let wide = Tokens::Wide(wide);
        assert_eq!((wide.learnt(), wide.beyond(0, 70_000), wide.beyond(2, 6)), (4, Some(70_000), None));
        assert_eq!(wide.run(1, 2).collect::<Vec<_>>(), [70_000, 3 | CONTEXT]);
    }

    #[test]
    fn two_bytes_do_where_they_say_all() {
        assert_eq!(Tokens::from_wide(vec![1, 65_535]), Tokens::Narrow(vec![1, 65_535]));
        assert_eq!(Tokens::from_wide(vec![1, 65_536]).width(), Width::Wide);
        assert_eq!(Tokens::from_wide(vec![1, 2 | CONTEXT]).width(), Width::Wide);
        assert_eq!(Tokens::Narrow(vec![7]).widened(), Tokens::Wide(vec![7]));
    }
}
