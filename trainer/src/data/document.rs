//! A text, where it is from, and what of it is learnt. How files become documents, [`super::documents`] decides.

use std::ops::Range;

/// A text and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `group/…`, `group#part` or just `group`: what is before the first `/` or `#` is the source that it shares with
    /// others.
    pub name: String,
    /// Paragraphs, separated by blank lines.
    pub text: String,
    /// The bytes of a conversation that are learnt, in order; the rest is only read. A text without them is learnt whole.
    pub learnt: Option<Vec<Range<usize>>>,
}

impl Document {
    /// A text that is learnt whole.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Document {
        Document { name: name.into(), text: text.into(), learnt: None }
    }

    /// Bytes that are learnt.
    pub fn bytes_learnt(&self) -> u64 {
        match &self.learnt {
            None => self.text.len() as u64,
            Some(ranges) => ranges.iter().map(|range| range.len() as u64).sum(),
        }
    }

    /// The source that the document shares with others, by its name; a conversation is its own.
    pub fn group(&self) -> &str {
        if self.learnt.is_some() {
            return &self.name;
        }
        self.name.split(['/', '#']).next().unwrap_or(&self.name)
    }
}
