//! Learns byte-pair merges, the same from the same word counts whatever the machine.
//!
//! The `tokenizers` crate has a trainer too, but the order of its equal candidates follows randomly seeded hash maps;
//! here every choice has one winner: the highest count, then the lowest pair of ids. Ids are bytes first (offset by
//! [`BYTES_FIRST`]), then merges in the order in which they were learnt.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Id of the byte 0: before it is only the end-of-text token.
pub const BYTES_FIRST: u16 = 1;
/// Ids that are there before any merge.
pub const BASE: u32 = 257;
/// Longer words (hashes, base64) teach nothing and would cost time quadratic in their length.
pub const WORD_BYTES_MAX: usize = 64;
/// A pair must occur this often to become a token.
const COUNT_MIN: u64 = 2;

/// Two neighbouring ids.
pub type Pair = (u16, u16);

/// Learnt merges and the tokens they make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merges {
    /// Pairs in the order in which an encoder must try them.
    pub pairs: Vec<Pair>,
    /// Bytes of every token by id; the end-of-text token's are empty.
    pub tokens: Vec<Vec<u8>>,
}

/// Learns merges from `words` (bytes and how often they occur) until there are `vocabulary` tokens or no pair is left
/// that occurs twice.
pub fn learn(words: &[(&[u8], u64)], vocabulary: u32) -> Merges {
    let mut learner = Learner::new(words);
    while (learner.merges.tokens.len() as u32) < vocabulary.min(1 << 16) {
        let Some(pair) = learner.best() else { break };
        learner.merge(pair);
    }
    learner.merges
}

struct Learner {
    merges: Merges,
    ids: HashMap<Vec<u8>, u16>,
    words: Vec<Word>,
    /// How often a pair occurs now, and the words that have held it at some time.
    pairs: HashMap<Pair, Occurrences>,
    /// Candidates; an entry whose count is no longer true is pushed again with the true one when it comes up.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

struct Word {
    ids: Vec<u16>,
    count: u64,
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    words: Vec<u32>,
}

impl Learner {
    fn new(words: &[(&[u8], u64)]) -> Learner {
        let tokens: Vec<Vec<u8>> = std::iter::once(Vec::new()).chain((0..=255).map(|byte| vec![byte])).collect();
        let ids = (BYTES_FIRST..).zip(&tokens[1..]).map(|(id, bytes)| (bytes.clone(), id)).collect();
        let words: Vec<Word> = words
            .iter()
            .filter(|(bytes, count)| *count > 0 && (2..=WORD_BYTES_MAX).contains(&bytes.len()))
            .map(|(bytes, count)| Word {
                ids: bytes.iter().map(|byte| u16::from(*byte) + BYTES_FIRST).collect(),
                count: *count,
            })
            .collect();
        let mut learner = Learner {
            merges: Merges { pairs: Vec::new(), tokens },
            ids,
            words,
            pairs: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for index in 0..learner.words.len() as u32 {
            learner.add(index);
        }
        learner.queue = learner.pairs.iter().map(|(pair, o)| (o.count, Reverse(*pair))).collect();
        learner
    }

    /// Counts a word's pairs.
    fn add(&mut self, index: u32) {
        let word = &self.words[index as usize];
        for pair in word.ids.windows(2) {
            let occurrences = self.pairs.entry((pair[0], pair[1])).or_default();
            occurrences.count += word.count;
            // A word's pairs are counted together, so a repeat is always the last entry.
            if occurrences.words.last() != Some(&index) {
                occurrences.words.push(index);
            }
        }
    }

    /// Takes a word's pairs out of the counts; where they occurred is left, and checked when it is used.
    fn subtract(&mut self, index: u32) {
        let word = &self.words[index as usize];
        for pair in word.ids.windows(2) {
            if let Some(occurrences) = self.pairs.get_mut(&(pair[0], pair[1])) {
                occurrences.count -= word.count;
            }
        }
    }

    /// The pair that occurs most often, the lowest of several.
    fn best(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |occurrences| occurrences.count);
            if now == count && now >= COUNT_MIN {
                return Some(pair);
            }
            if now < count && now >= COUNT_MIN {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Makes `pair` one token in all words.
    fn merge(&mut self, pair: Pair) {
        let token =
            [self.merges.tokens[usize::from(pair.0)].as_slice(), &self.merges.tokens[usize::from(pair.1)]].concat();
        // Two pairs can spell the same token; as in every reader of such files it then keeps its first id.
        let new = *self.ids.entry(token).or_insert_with_key(|token| {
            self.merges.tokens.push(token.clone());
            (self.merges.tokens.len() - 1) as u16
        });
        self.merges.pairs.push(pair);
        let mut touched: HashSet<Pair> = HashSet::new();
        let mut words = self.pairs.get_mut(&pair).map(|o| std::mem::take(&mut o.words)).unwrap_or_default();
        words.sort_unstable();
        words.dedup();
        for index in words {
            if !self.words[index as usize].ids.windows(2).any(|p| (p[0], p[1]) == pair) {
                continue;
            }
            self.subtract(index);
            let word = &mut self.words[index as usize];
            replace(&mut word.ids, pair, new);
            touched.extend(word.ids.windows(2).filter(|p| p[0] == new || p[1] == new).map(|p| (p[0], p[1])));
            self.add(index);
        }
        // Only pairs with the new token can have grown: all others' entries in the queue are still upper bounds.
        for pair in touched {
            let count = self.pairs.get(&pair).map_or(0, |occurrences| occurrences.count);
            self.queue.push((count, Reverse(pair)));
        }
    }
}

/// Replaces `pair` in `ids` by `new`, from the left, without overlap.
fn replace(ids: &mut Vec<u16>, pair: Pair, new: u16) {
    let (mut read, mut write) = (0, 0);
    while read < ids.len() {
        if read + 1 < ids.len() && (ids[read], ids[read + 1]) == pair {
            ids[write] = new;
            read += 2;
        } else {
            ids[write] = ids[read];
            read += 1;
        }
        write += 1;
    }
    ids.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(merges: &Merges) -> Vec<String> {
        merges.tokens[BASE as usize..].iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    #[test]
    fn the_most_frequent_pair_comes_first() {
        let merges = learn(&[(b"low", 5), (b"lower", 2), (b"newest", 6), (b"widest", 3)], BASE + 4);
        assert_eq!(spell(&merges), ["es", "est", "lo", "low"]);
    }

    #[test]
    fn equal_counts_go_to_the_lowest_pair_and_the_order_of_words_does_not_matter() {
        let mut words: Vec<(&[u8], u64)> = vec![(b"zz", 3), (b"ab", 3), (b"ba", 3), (b"aaaa", 1), (b"abab", 2)];
        let first = learn(&words, BASE + 10);
        words.reverse();
        assert_eq!(first, learn(&words, BASE + 10));
        assert_eq!(spell(&first)[0], "ab");
    }

    #[test]
    fn learning_stops_when_nothing_repeats() {
        let merges = learn(&[(b"abcdef", 1), (b"gh", 2)], BASE + 100);
        assert_eq!(spell(&merges), ["gh"]);
    }

    #[test]
    fn counts_after_many_merges_are_those_of_the_words() {
        let text = crate::data::synthetic::documents(3, 20_000);
        let words: Vec<(&[u8], u64)> =
            text.iter().flat_map(|d| d.text.split(' ')).map(|word| (word.as_bytes(), 1)).collect();
        let mut learner = Learner::new(&words);
        for _ in 0..200 {
            let pair = learner.best().unwrap();
            let brute = recount(&learner);
            let most = brute.values().max().unwrap();
            assert_eq!(brute[&pair], *most);
            assert_eq!(brute.iter().filter(|(_, count)| *count == most).map(|(pair, _)| *pair).min(), Some(pair));
            learner.merge(pair);
        }
    }

    fn recount(learner: &Learner) -> HashMap<Pair, u64> {
        let mut counts = HashMap::new();
        for word in &learner.words {
            for pair in word.ids.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += word.count;
            }
        }
        counts
    }
}
