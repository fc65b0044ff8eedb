//! A small run and made-up text for it, for unit tests.

use crate::lab::resolve;
use crate::preset::Template;
use covey_proto::Digest;
use covey_proto::run::Run;
use covey_trainer::data::{Dataset, PrepareOptions, prepare, synthetic};
use tempfile::TempDir;

/// Tokens of the data and of the run.
const VOCABULARY: u32 = 512;

/// Made-up text, the same for the same seed; and the folder that it lies in.
pub(crate) fn made_up_text(seed: u64) -> (TempDir, Dataset) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let options = PrepareOptions { name: "synthetic".into(), vocabulary: VOCABULARY, ..PrepareOptions::default() };
    prepare(synthetic::documents(seed, 200_000), &options, &path, &mut |_| ()).unwrap();
    let data = Dataset::open(&path, None).unwrap();
    (folder, data)
}

/// The preset `tiny` on that data.
pub(crate) fn tiny_run(data: Digest) -> Run {
    let template = Template::load("tiny").unwrap().with(&[format!("model.vocabulary={VOCABULARY}")]).unwrap();
    resolve(&template, data).unwrap()
}
