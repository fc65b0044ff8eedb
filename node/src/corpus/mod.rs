//! The default training text: the documentation of well-documented crates, pinned, the same for everyone.
//!
//! `node/corpus` is a manifest and a lock file of their own, so that the text does not move when Covey's dependencies
//! do. [`fetch`] has cargo download those packages; [`extract`] takes the prose out of their Markdown files and doc
//! comments ([`doc_comments`], [`markdown`], [`prose`]); the trainer's `data::prepare` makes a data set of it, whose
//! digest must be [`CORPUS_DIGEST`]. None of the text is in this repository or in the binary.

pub mod doc_comments;
mod error;
pub mod extract;
pub mod fetch;
pub mod markdown;
pub mod prose;

pub use error::CorpusError;
pub use extract::ExtractCounts;

use covey_proto::Digest;
use covey_trainer::data::{Dataset, DatasetSummary, Document, PrepareOptions, Stage, prepare};
use std::fmt;
use std::path::Path;

/// The data set that [`Corpus::fetch_and_prepare`] must give with [`VOCABULARY`] tokens. It changes with the lock file,
/// with any rule of this module and with the trainer's preparation; [`NAME`] is then counted up with it.
pub const CORPUS_DIGEST: Digest = Digest::new([
    0x20, 0x98, 0x3c, 0x59, 0xb5, 0x66, 0x08, 0x9a, 0x71, 0xf4, 0x80, 0x92, 0x24, 0x9a, 0xda, 0xee, 0x35, 0xf5, 0x2c,
    0x7b, 0x86, 0xf2, 0xec, 0x0b, 0x2e, 0xe3, 0xee, 0xb1, 0xf3, 0xab, 0xef, 0xed,
]);
/// Tokens of the default tokenizer.
pub const VOCABULARY: u32 = 2048;
/// The data set's name.
pub const NAME: &str = "crate-docs-1";
/// Share of the text that is held out, by package.
const HELDOUT_SHARE: f64 = 0.025;
/// After duplicates are gone, a few sentences of a package still make a document.
const DOCUMENT_BYTES_MIN: usize = 100;

/// What [`Corpus::fetch_and_prepare`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorpusStage {
    /// Cargo downloads what is not there yet, 60 MB at most.
    Fetch {
        /// Packages downloaded by now.
        downloaded: usize,
        /// Packages of the lock file; a few of them are for other platforms and stay away.
        packages: usize,
    },
    /// Reading documentation.
    Extract {
        /// Packages read.
        done: usize,
        /// Packages in all.
        packages: usize,
    },
    /// Making the data set.
    Prepare(Stage),
}

impl fmt::Display for CorpusStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CorpusStage::Fetch { downloaded, packages } => {
                write!(f, "fetching the documentation of {packages} crates with cargo ({downloaded} downloaded)")
            }
            CorpusStage::Extract { done, packages } => write!(f, "reading documentation ({done} of {packages} crates)"),
            CorpusStage::Prepare(stage) => stage.fmt(f),
        }
    }
}

/// The default corpus, prepared.
#[derive(Debug)]
pub struct Corpus {
    /// The data set.
    pub dataset: Dataset,
    /// How it came about; `None` if it was there already.
    pub made: Option<Preparation>,
}

/// How a corpus was prepared.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Packages read.
    pub packages: usize,
    /// What was in them.
    pub extracted: ExtractCounts,
    /// What became of it.
    pub summary: DatasetSummary,
}

impl Corpus {
    /// Opens the default corpus under `cache` or makes it: a 60 MB download, then about ten seconds. The folders
    /// `corpus-VOCABULARY` and `corpus-sources` of `cache` are its own.
    ///
    /// # Errors
    /// [`CorpusError`]: no cargo, no network, no space, or with [`VOCABULARY`] another digest than [`CORPUS_DIGEST`].
    pub fn fetch_and_prepare(
        cache: &Path,
        vocabulary: u32,
        progress: &mut dyn FnMut(CorpusStage),
    ) -> Result<Corpus, CorpusError> {
        let folder = cache.join(format!("corpus-{vocabulary}"));
        if let Some(dataset) = prepared(&folder, vocabulary) {
            return Ok(Corpus { dataset, made: None });
        }
        let (documents, packages, extracted) = documents(cache, progress)?;
        let options = PrepareOptions {
            name: NAME.to_owned(),
            vocabulary,
            heldout_share: HELDOUT_SHARE,
            document_bytes_min: DOCUMENT_BYTES_MIN,
            ..PrepareOptions::default()
        };
        let summary = prepare(documents, &options, &folder, &mut |stage| progress(CorpusStage::Prepare(stage)))?;
        if vocabulary == VOCABULARY && summary.digest != CORPUS_DIGEST {
            return Err(CorpusError::Digest { expected: CORPUS_DIGEST, got: summary.digest });
        }
        let dataset = Dataset::open(&folder, Some(summary.digest))?;
        Ok(Corpus { dataset, made: Some(Preparation { packages, extracted, summary }) })
    }
}

/// The data set in `folder` if it is whole and the right one.
fn prepared(folder: &Path, vocabulary: u32) -> Option<Dataset> {
    let expected = (vocabulary == VOCABULARY).then_some(CORPUS_DIGEST);
    let dataset = Dataset::open(folder, expected).ok()?;
    (dataset.manifest().name == NAME && dataset.vocabulary() == vocabulary).then_some(dataset)
}

/// Fetches the packages and reads their prose: the documents, the number of packages, and what was in them.
///
/// # Errors
/// [`CorpusError`]: no cargo, no network, no space.
pub fn documents(
    cache: &Path,
    progress: &mut dyn FnMut(CorpusStage),
) -> Result<(Vec<Document>, usize, ExtractCounts), CorpusError> {
    let locked = fetch::packages_locked();
    progress(CorpusStage::Fetch { downloaded: 0, packages: locked });
    let packages = fetch::fetch(&cache.join("corpus-sources"), &mut |downloaded| {
        progress(CorpusStage::Fetch { downloaded, packages: locked });
    })?;
    let mut documents = Vec::new();
    let mut extracted = ExtractCounts::default();
    for (done, package) in packages.iter().enumerate() {
        progress(CorpusStage::Extract { done, packages: packages.len() });
        extracted.add(extract::extract(&package.name, &package.root, &mut documents)?);
    }
    Ok((documents, packages.len(), extracted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pin holds: the same text for everyone.
    #[test]
    #[ignore = "downloads 60 MB with cargo"]
    fn the_default_corpus_is_the_pinned_one_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let corpus = Corpus::fetch_and_prepare(dir.path(), VOCABULARY, &mut |_| {}).unwrap();
        let made = corpus.made.expect("nothing was there");
        assert!(made.summary.manifest.train_bytes > 20_000_000, "{made:?}");
        let again = Corpus::fetch_and_prepare(dir.path(), VOCABULARY, &mut |stage| panic!("{stage}")).unwrap();
        assert!(again.made.is_none() && again.dataset.digest() == CORPUS_DIGEST);
    }
}
