//! Says everything once: cleans white space and drops paragraphs that were already said.
//!
//! A paragraph goes when its words, in lower case and with all numbers alike, were there before (exact), or when most
//! of its runs of eight words were (near). Held-out documents are taken first and keep theirs: a training paragraph
//! that shares half of its runs with them goes too, so that nothing judged was learnt by heart. Unlike MinHash this is
//! exact containment, by paragraph: a README that appears in ten packages with one new section keeps that section. The
//! result depends on the order of the documents and on nothing else.

use super::Document;
use std::collections::HashSet;

/// Words of a shingle: long enough that two writers do not meet by chance.
pub const SHINGLE_WORDS: usize = 8;
/// Shorter paragraphs ("Yes.", "Chapter 2") may repeat.
pub const DUPLICATE_WORDS_MIN: usize = 4;
/// Share of known shingles, in tenths, from which a paragraph says nothing new.
const NEAR_TENTHS: usize = 8;
/// The same against held-out text, where a half is too much.
const HELDOUT_TENTHS: usize = 5;
/// Text from which shingles are sampled: every one of 128 MiB takes about 0.5 GiB of memory.
const SAMPLE_BYTES: u64 = 128 << 20;

/// Bytes that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Paragraphs whose words were there before.
    pub exact_bytes: u64,
    /// Paragraphs most of whose shingles were there before.
    pub near_bytes: u64,
    /// Training paragraphs that share too much with held-out ones.
    pub heldout_bytes: u64,
    /// What was left of documents that ended up too small.
    pub tiny_bytes: u64,
}

/// Drops what was already said from `heldout`, then from `train`, and documents of fewer than `document_bytes_min`
/// bytes.
pub fn deduplicate(
    heldout: Vec<Document>,
    train: Vec<Document>,
    document_bytes_min: usize,
) -> (Vec<Document>, Vec<Document>, Dropped) {
    let bytes: u64 = heldout.iter().chain(&train).map(|document| document.text.len() as u64).sum();
    let mut memory = Memory { sampling: bytes.div_ceil(SAMPLE_BYTES).max(1), ..Memory::default() };
    let heldout = memory.pass(heldout, document_bytes_min, true);
    memory.heldout = std::mem::take(&mut memory.shingles);
    let train = memory.pass(train, document_bytes_min, false);
    (heldout, train, memory.dropped)
}

/// The paragraphs of `text`, white space normalised: no carriage returns, no control characters, no spaces at line
/// ends.
pub fn paragraphs(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines().chain([""]);
    std::iter::from_fn(move || {
        let mut paragraph = String::new();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if !paragraph.is_empty() {
                    return Some(paragraph);
                }
                continue;
            }
            if !paragraph.is_empty() {
                paragraph.push('\n');
            }
            paragraph.extend(line.trim_end().chars().filter(|c| !c.is_control() || *c == '\t'));
        }
        None
    })
}

/// What has been said.
#[derive(Default)]
struct Memory {
    exact: HashSet<[u8; 16]>,
    shingles: HashSet<u64>,
    heldout: HashSet<u64>,
    /// One shingle of this many is kept.
    sampling: u64,
    dropped: Dropped,
}

impl Memory {
    fn pass(&mut self, documents: Vec<Document>, bytes_min: usize, heldout: bool) -> Vec<Document> {
        documents
            .into_iter()
            .filter_map(|document| {
                if document.learnt.is_some() {
                    // A conversation is one whole: what was asked before may be answered in another way.
                    return self.is_first(&document.text).then_some(document);
                }
                let mut text = String::with_capacity(document.text.len());
                for paragraph in paragraphs(&document.text).filter(|paragraph| self.is_new(paragraph, heldout)) {
                    if !text.is_empty() {
                        text.push_str("\n\n");
                    }
                    text.push_str(&paragraph);
                }
                if text.len() < bytes_min.max(1) {
                    self.dropped.tiny_bytes += text.len() as u64;
                    return None;
                }
                Some(Document { text, ..document })
            })
            .collect()
    }

    /// Whether a whole conversation was not there before, to the letter.
    fn is_first(&mut self, text: &str) -> bool {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        let first = self.exact.insert(key);
        if !first {
            self.dropped.exact_bytes += text.len() as u64;
        }
        first
    }

    /// Whether `paragraph` says something new; if so it is known from now on.
    fn is_new(&mut self, paragraph: &str, heldout: bool) -> bool {
        let words = word_hashes(paragraph);
        if words.len() < DUPLICATE_WORDS_MIN {
            return true;
        }
        let bytes = paragraph.len() as u64;
        let whole: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&whole).as_bytes()[..16]);
        if self.exact.contains(&key) {
            self.dropped.exact_bytes += bytes;
            return false;
        }
        let shingles: Vec<u64> = shingles(&words).filter(|hash| hash.is_multiple_of(self.sampling)).collect();
        let known_in = |set: &HashSet<u64>| shingles.iter().filter(|hash| set.contains(hash)).count() * 10;
        if !shingles.is_empty() && !heldout && known_in(&self.heldout) >= shingles.len() * HELDOUT_TENTHS {
            self.dropped.heldout_bytes += bytes;
            return false;
        }
        if !shingles.is_empty() && known_in(&self.shingles) >= shingles.len() * NEAR_TENTHS {
            self.dropped.near_bytes += bytes;
            return false;
        }
        self.exact.insert(key);
        self.shingles.extend(shingles);
        true
    }
}

/// Hashes of the words: runs of letters and digits, lower case, every number the same.
fn word_hashes(paragraph: &str) -> Vec<u64> {
    let mut word = String::new();
    paragraph
        .split(|c: char| !c.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .map(|part| {
            word.clear();
            if part.bytes().all(|byte| byte.is_ascii_digit()) {
                word.push('0');
            } else {
                word.extend(part.chars().flat_map(char::to_lowercase));
            }
            let mut prefix = [0; 8];
            prefix.copy_from_slice(&blake3::hash(word.as_bytes()).as_bytes()[..8]);
            u64::from_le_bytes(prefix)
        })
        .collect()
}

/// Hashes of every run of [`SHINGLE_WORDS`] words; of all of them where there are fewer.
fn shingles(words: &[u64]) -> impl Iterator<Item = u64> {
    words.windows(SHINGLE_WORDS.min(words.len()).max(1)).map(|window| {
        let sum = window.iter().fold(0_u64, |sum, word| sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(*word));
        // The high bits depend on every word; sampling looks at low ones.
        sum ^ (sum >> 32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, text: &str) -> Document {
        Document::new(name, text)
    }

    const A: &str = "The scheduler asks two peers for the last piece and cancels the slower one of the two at once.";
    const A_REWORDED: &str =
        "The scheduler asks two peers for the last piece and cancels the slower one of the two at the end.";
    const B: &str = "A store keeps what was verified, and forgets the rest when its space runs out, oldest first.";

    #[test]
    fn a_paragraph_is_kept_once_whatever_its_case_numbers_and_spaces() {
        let one = document("a", &format!("{A}\n\nUses 16 bits of register 3."));
        let two = document("b", &format!("{}\n\nUses 32 bits of  register 4.\n\n{B}", A.to_uppercase()));
        let (_, kept, dropped) = deduplicate(vec![], vec![one.clone(), two], 1);
        assert_eq!(kept, [one, document("b", B)]);
        assert!(dropped.exact_bytes > 100 && dropped.near_bytes == 0);
    }

    #[test]
    fn a_reworded_paragraph_goes_and_a_different_one_stays() {
        let (_, kept, dropped) =
            deduplicate(vec![], vec![document("a", A), document("b", A_REWORDED), document("c", B)], 1);
        assert_eq!(kept, [document("a", A), document("c", B)]);
        assert_eq!(dropped.near_bytes, A_REWORDED.len() as u64);
    }

    #[test]
    fn nothing_held_out_stays_in_training_even_if_half_is_new() {
        let half = "The scheduler asks two peers for the last piece and cancels the slower one, which then waits long.";
        let (heldout, kept, dropped) = deduplicate(vec![document("z", A)], vec![document("a", half)], 1);
        assert_eq!((heldout.len(), kept.len()), (1, 0));
        assert_eq!(dropped.heldout_bytes, half.len() as u64);
        let (_, kept, _) = deduplicate(vec![], vec![document("z", A), document("a", half)], 1);
        assert_eq!(kept.len(), 2, "the same overlap inside training is allowed");
    }

    #[test]
    fn short_lines_may_repeat_and_tiny_documents_go() {
        let talk = document("talk", "Yes.\n\nNo.\n\nYes.");
        let (_, kept, dropped) = deduplicate(vec![], vec![talk.clone(), document("tiny", "No.")], 10);
        assert_eq!(kept, [talk]);
        assert_eq!(dropped.tiny_bytes, 3);
    }

    #[test]
    fn white_space_is_normalised() {
        let found: Vec<_> = paragraphs("\r\n one  \r\ntwo\u{7}\r\n \r\n\r\nthree").collect();
        assert_eq!(found, [" one\ntwo", "three"]);
    }
}
