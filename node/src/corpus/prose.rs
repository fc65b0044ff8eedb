//! Tells English prose from what only looks like text: signatures, lists of names, tables, other languages.

/// Fewer words are a label.
const WORDS_MIN: usize = 6;
/// A longer "word" is a path, a hash or encoded data.
const WORD_BYTES_MAX: usize = 48;
/// Letters and spaces, in hundredths of all characters.
const LETTERS_MIN: usize = 82;
/// Words that carry English sentences, in hundredths of all words.
const COMMON_MIN: usize = 18;

/// The words that hold English sentences together: more than a third of any prose.
const COMMON: [&str; 84] = [
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because", "been", "before",
    "but", "by", "can", "could", "do", "does", "each", "for", "from", "given", "has", "have", "how", "if", "in",
    "into", "is", "it", "its", "may", "more", "most", "must", "no", "not", "of", "on", "once", "one", "only", "or",
    "other", "our", "out", "over", "same", "should", "so", "some", "such", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "two", "until", "up", "use", "used", "was", "we", "were",
    "when", "where", "which", "while", "will", "with", "would", "you", "your",
];

/// Whether `paragraph` reads as English prose.
pub fn is_prose(paragraph: &str) -> bool {
    let (mut words, mut common) = (0, 0);
    for word in paragraph.split_ascii_whitespace() {
        if word.len() > WORD_BYTES_MAX {
            return false;
        }
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        words += usize::from(!bare.is_empty());
        common += usize::from(COMMON.binary_search(&bare.to_ascii_lowercase().as_str()).is_ok());
    }
    let (mut characters, mut letters) = (0, 0);
    for c in paragraph.chars() {
        characters += 1;
        letters += usize::from(c.is_ascii_alphabetic() || c == ' ');
    }
    words >= WORDS_MIN && common * 100 >= words * COMMON_MIN && letters * 100 >= characters * LETTERS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_prose() {
        for text in [
            "Returns the first element of the slice, or None if it is empty.",
            "A store keeps what was verified and forgets the rest when its space runs out.",
            "Calling read_to_end on a closed socket will return an error.",
        ] {
            assert!(is_prose(text), "{text}");
        }
    }

    #[test]
    fn labels_code_and_other_languages_are_not() {
        for text in [
            "See the documentation.",
            "fn main() { let x: Vec<u8> = Vec::new(); x.push(1) }",
            "MIT Apache BSD ISC Zlib Unlicense MPL GPL LGPL AGPL",
            "Diese Funktion gibt das erste Element der Liste oder nichts zurueck, wenn sie leer ist.",
            "这个函数返回列表的第一个元素",
            "The key is aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQ and it is used for the test.",
        ] {
            assert!(!is_prose(text), "{text}");
        }
    }

    #[test]
    fn the_list_is_sorted_for_searching() {
        assert!(COMMON.is_sorted());
    }
}
