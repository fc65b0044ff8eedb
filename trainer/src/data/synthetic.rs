//! Test material: text from a seeded grammar, in made-up but regular English.
//!
//! It stands in for a corpus where tests must not depend on anyone's text: agreement of number, a few topics with their
//! own words, and sentences that refer back to their paragraph's subject give a model something to learn, from byte
//! frequencies up to a paragraph. It is no benchmark.

use super::Document;

/// Topics: singular nouns, verbs in the third person singular, adjectives.
const TOPICS: [[&[&str]; 3]; 4] = [
    [
        &["river", "valley", "bridge", "meadow", "stone", "boat", "mill", "ferry", "island", "harbour"],
        &["crosses", "follows", "borders", "reaches", "shelters", "floods", "joins"],
        &["quiet", "narrow", "green", "distant", "steep", "wide", "muddy"],
    ],
    [
        &["engine", "wheel", "lever", "boiler", "valve", "gear", "pump", "piston", "furnace", "gauge"],
        &["drives", "lifts", "turns", "heats", "balances", "stops", "measures"],
        &["heavy", "polished", "hot", "precise", "worn", "loud", "brass"],
    ],
    [
        &["teacher", "student", "letter", "lesson", "library", "book", "question", "answer", "desk", "poem"],
        &["explains", "remembers", "praises", "describes", "corrects", "repeats", "begins"],
        &["patient", "careful", "long", "curious", "old", "famous", "short"],
    ],
    [
        &["baker", "oven", "loaf", "market", "apple", "kitchen", "spoon", "cellar", "cook", "dinner"],
        &["warms", "fills", "offers", "sells", "prepares", "carries", "weighs"],
        &["fresh", "warm", "sweet", "busy", "round", "golden", "cheap"],
    ],
];
const PLACES: [&str; 8] = [
    "near the gate",
    "before noon",
    "in the rain",
    "after the storm",
    "without a word",
    "every winter",
    "behind the hill",
    "at once",
];
const LINKS: [&str; 6] = ["Because", "Although", "While", "Whenever", "Before", "After"];

/// Documents of about 2 KiB, `bytes` bytes in all, a function of `seed`; named `syntheticN/M`, by 16 sources.
pub fn documents(seed: u64, bytes: usize) -> Vec<Document> {
    let mut writer = Writer { random: covey_proto::derive("covey/1/synthetic-text", &[&seed.to_le_bytes()]) };
    let mut documents = Vec::new();
    let mut written = 0;
    while written < bytes {
        let text = writer.document();
        written += text.len();
        documents.push(Document::new(format!("synthetic{:02}/{:05}", documents.len() % 16, documents.len()), text));
    }
    documents
}

struct Writer {
    random: blake3::OutputReader,
}

impl Writer {
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }

    fn document(&mut self) -> String {
        let topic = TOPICS[self.below(TOPICS.len())];
        let mut paragraphs = Vec::new();
        while paragraphs.iter().map(String::len).sum::<usize>() < 2000 {
            paragraphs.push(self.paragraph(topic));
        }
        paragraphs.join("\n\n")
    }

    /// A subject is introduced, then spoken of as "it" or "they".
    fn paragraph(&mut self, [nouns, verbs, adjectives]: [&[&'static str]; 3]) -> String {
        let plural = self.below(2) == 1;
        let subject = number(self.pick(nouns), plural);
        let mut text = format!(
            "The {} {subject} {} the {} {}.",
            self.pick(adjectives),
            agree(self.pick(verbs), plural),
            self.pick(adjectives),
            self.pick(nouns)
        );
        for _ in 0..3 + self.below(5) {
            let pronoun = if plural { "they" } else { "it" };
            let other = self.below(2) == 1;
            let clause = format!(
                "the {} {} {}",
                number(self.pick(nouns), other),
                agree(self.pick(verbs), other),
                self.pick(&PLACES)
            );
            let own = format!(
                "{pronoun} {} one {} {}",
                agree(self.pick(verbs), plural),
                self.pick(adjectives),
                self.pick(nouns)
            );
            let link = self.pick(&LINKS);
            text.push_str(&match self.below(3) {
                0 => format!(" {link} {clause}, {own}."),
                1 => format!(" {link} {own}, {clause}."),
                _ => {
                    format!(" The {subject} {} {}, and {clause}.", agree(self.pick(verbs), plural), self.pick(&PLACES))
                }
            });
        }
        text
    }
}

fn number(noun: &str, plural: bool) -> String {
    match (plural, noun) {
        (false, _) => noun.to_owned(),
        (true, "loaf") => "loaves".to_owned(),
        (true, _) => match noun.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o']) => format!("{stem}ies"),
            _ => format!("{noun}s"),
        },
    }
}

fn agree(verb: &str, plural: bool) -> String {
    if !plural {
        return verb.to_owned();
    }
    match verb.strip_suffix("ies").map(|stem| format!("{stem}y")) {
        Some(plain) => plain,
        None if verb.ends_with("ches") || verb.ends_with("sses") => verb.trim_end_matches("es").to_owned(),
        None => verb.trim_end_matches('s').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_text_and_another_seed_another() {
        assert_eq!(documents(1, 10_000), documents(1, 10_000));
        assert_ne!(documents(1, 10_000)[0], documents(2, 10_000)[0]);
        assert!(documents(1, 300_000).iter().map(|d| d.text.len()).sum::<usize>() >= 300_000);
    }

    #[test]
    fn number_agrees() {
        let text = documents(7, 100_000).into_iter().map(|d| d.text).collect::<Vec<_>>().join(" ");
        for wrong in ["they crosses", "they carries", "it carry ", "valleies", "citys ", "they reache ", "they teache"]
        {
            assert!(!text.contains(wrong), "{wrong}");
        }
        assert!(text.contains("they reach ") && text.contains("they carry ") && text.contains("valleys"));
    }
}
