//! From documents to a data set on disk: the order of the steps, and their bounds.

use super::dedup::{Dropped, deduplicate};
use super::given::Given;
use super::shards::{FORMAT, FORMAT_WIDE, TEMPLATE_FILE, TOKENIZER_FILE};
use super::tokenizer::{END_OF_TEXT_ID, Encoded, Trained, VOCABULARY_MAX, VOCABULARY_MIN, Words};
use super::tokens::{Tokens, WIDE_MAX, Width};
use super::writer::Writer;
use super::{DataError, Document, Manifest, split};
use covey_proto::Digest;
use std::fmt;
use std::path::Path;

/// How documents become a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct PrepareOptions {
    /// What people call it; part of the digest.
    pub name: String,
    /// Tokens at most; fewer if the text has no more pairs that repeat. From 257 to 65,536. Not looked at where a tokenizer
    /// is given.
    pub vocabulary: u32,
    /// A tokenizer.json to encode with; without one, a tokenizer is trained on the text.
    pub tokenizer: Option<Vec<u8>>,
    /// By what conversations became text; it goes with the data set if there are any.
    pub chat_template: Option<String>,
    /// Tokens that a tokenizer which is trained has beside those of the text: the chat template's.
    pub marks: &'static [&'static str],
    /// Share of the text that is held out, over 0 and at most 0.5. Whole sources or documents, so only about.
    pub heldout_share: f64,
    /// Documents of fewer bytes are dropped.
    pub document_bytes_min: usize,
    /// The longest sequence that both parts must hold at least once.
    pub sequence: u32,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            name: "text".to_owned(),
            vocabulary: 2048,
            tokenizer: None,
            chat_template: None,
            marks: &[],
            heldout_share: 0.025,
            document_bytes_min: 200,
            sequence: 128,
        }
    }
}

/// What [`prepare`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Splitting, and removing what was already said.
    Deduplicate {
        /// Documents given.
        documents: usize,
        /// Their text.
        bytes: u64,
    },
    /// Cutting text into words.
    Words {
        /// Documents kept.
        documents: usize,
        /// Their text.
        bytes: u64,
    },
    /// Training the tokenizer.
    Tokenizer {
        /// Tokens wanted.
        vocabulary: u32,
    },
    /// Encoding and writing shards.
    Write,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match *self {
            Stage::Deduplicate { documents, bytes } => {
                write!(f, "removing duplicates from {documents} documents ({:.1} MB)", megabytes(bytes))
            }
            Stage::Words { documents, bytes } => {
                write!(f, "reading {documents} documents ({:.1} MB)", megabytes(bytes))
            }
            Stage::Tokenizer { vocabulary } => write!(f, "training a tokenizer of {vocabulary} tokens"),
            Stage::Write => write!(f, "writing token shards"),
        }
    }
}

/// What came of [`prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSummary {
    /// The data set's name: BLAKE3 of its manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Documents given.
    pub documents: u64,
    /// Their text, in bytes.
    pub bytes: u64,
    /// What was dropped of it.
    pub dropped: Dropped,
    /// Training tokens.
    pub train_tokens: u64,
    /// Held-out tokens.
    pub heldout_tokens: u64,
}

impl DatasetSummary {
    /// Bytes of text a token, over both parts.
    pub fn bytes_per_token(&self) -> f64 {
        (self.manifest.train_bytes + self.manifest.heldout_bytes) as f64
            / (self.train_tokens + self.heldout_tokens).max(1) as f64
    }
}

/// Turns documents into a data set in `folder`, which must be new, empty, or a data set that is then replaced. The same
/// documents, in any order, with the same options give the same digest on every machine.
///
/// # Errors
/// [`DataError::TooLittle`] says how much text would do; [`DataError::Occupied`], [`DataError::Write`] concern
/// `folder`. On an error `folder` is as it was.
pub fn prepare(
    mut documents: Vec<Document>,
    options: &PrepareOptions,
    folder: &Path,
    progress: &mut dyn FnMut(Stage),
) -> Result<DatasetSummary, DataError> {
    check(options)?;
    let writer = Writer::new(folder)?;
    documents.sort_by(|a, b| (&a.name, &a.text).cmp(&(&b.name, &b.text)));
    let (given, given_bytes) = (documents.len() as u64, bytes(&documents));
    progress(Stage::Deduplicate { documents: documents.len(), bytes: given_bytes });
    let least = 8 * (u64::from(options.sequence) + 1) * BYTES_PER_TOKEN;
    let wanted = ((given_bytes as f64 * options.heldout_share) as u64).max(least.min(given_bytes / 4));
    let (heldout, train) = split::hold_out(documents, wanted);
    let (mut heldout, mut train, dropped) = deduplicate(heldout, train, options.document_bytes_min);
    shuffle(&mut heldout);
    shuffle(&mut train);

    progress(Stage::Words { documents: heldout.len() + train.len(), bytes: bytes(&heldout) + bytes(&train) });
    let tokenised = match &options.tokenizer {
        None => train_and_encode(&train, &heldout, options, progress)?,
        Some(json) => encode_with(json, &train, &heldout, progress)?,
    };
    let Tokenised { json, vocabulary, end_of_text, train: train_tokens, heldout: heldout_tokens } = tokenised;
    enough("training", &train_tokens, &train, &heldout, options)?;
    enough("held-out", &heldout_tokens, &train, &heldout, options)?;
    writer.file(TOKENIZER_FILE, &json)?;
    let is_chat = train.iter().chain(&heldout).any(|document| document.learnt.is_some());
    let template = options.chat_template.as_ref().filter(|_| is_chat);
    if let Some(template) = template {
        writer.file(TEMPLATE_FILE, template.as_bytes())?;
    }
    let (train_tokens, heldout_tokens) = match (train_tokens.width(), heldout_tokens.width()) {
        (Width::Narrow, Width::Narrow) => (train_tokens, heldout_tokens),
        _ => (train_tokens.widened(), heldout_tokens.widened()),
    };
    let manifest = Manifest {
        format: if train_tokens.width() == Width::Narrow { FORMAT } else { FORMAT_WIDE },
        name: options.name.clone(),
        tokenizer: Digest::of(&json),
        vocabulary,
        end_of_text,
        train_documents: train.len() as u64,
        train_bytes: bytes_learnt(&train),
        heldout_documents: heldout.len() as u64,
        heldout_bytes: bytes_learnt(&heldout),
        train: writer.shards(&train_tokens)?,
        heldout: writer.shards(&heldout_tokens)?,
        chat_template: template.map(|template| Digest::of(template.as_bytes())),
    };
    writer.finish(&manifest)?;
    Ok(DatasetSummary {
        digest: manifest.digest(),
        documents: given,
        bytes: given_bytes,
        dropped,
        train_tokens: train_tokens.len() as u64,
        heldout_tokens: heldout_tokens.len() as u64,
        manifest,
    })
}

/// Both parts as tokens, and what made them so.
struct Tokenised {
    /// tokenizer.json.
    json: Vec<u8>,
    vocabulary: u32,
    end_of_text: u32,
    train: Tokens,
    heldout: Tokens,
}

/// Trains a tokenizer of up to `options.vocabulary` tokens on what is trained on, and encodes both parts with it.
fn train_and_encode(
    train: &[Document],
    heldout: &[Document],
    options: &PrepareOptions,
    progress: &mut dyn FnMut(Stage),
) -> Result<Tokenised, DataError> {
    let PrepareOptions { vocabulary, marks, .. } = *options;
    if train.iter().chain(heldout).any(|document| document.learnt.is_some()) {
        // Conversations are encoded by the `tokenizers` crate, which knows where each token begins.
        let parts: Vec<Document> = train.iter().flat_map(|document| without(document, marks)).collect();
        let mut words = Words::new();
        let lists = parts.iter().map(|part| words.read(part)).collect::<Result<Vec<_>, _>>()?;
        progress(Stage::Tokenizer { vocabulary });
        return encode_with(&words.train(&lists, vocabulary, marks).json, train, heldout, progress);
    }
    let mut words = Words::new();
    let train_lists = train.iter().map(|document| words.read(document)).collect::<Result<Vec<_>, _>>()?;
    let heldout_lists = heldout.iter().map(|document| words.read(document)).collect::<Result<Vec<_>, _>>()?;
    progress(Stage::Tokenizer { vocabulary });
    let trained = words.train(&train_lists, vocabulary, marks);
    progress(Stage::Write);
    let encoded = words.encode(&trained.json)?;
    let (train, heldout) = (encode(&encoded, &train_lists), encode(&encoded, &heldout_lists));
    let Trained { json, vocabulary } = trained;
    Ok(Tokenised { json, vocabulary, end_of_text: END_OF_TEXT_ID.into(), train, heldout })
}

/// A document's text between `marks`, which are no words.
fn without(document: &Document, marks: &[&str]) -> Vec<Document> {
    let mut parts = vec![document.text.as_str()];
    for mark in marks {
        parts = parts.into_iter().flat_map(|part| part.split(mark)).collect();
    }
    parts.into_iter().map(|part| Document::new(document.name.as_str(), part)).collect()
}

/// Encodes both parts with the tokenizer in `json`.
fn encode_with(
    json: &[u8],
    train: &[Document],
    heldout: &[Document],
    progress: &mut dyn FnMut(Stage),
) -> Result<Tokenised, DataError> {
    let given = Given::load(json, WIDE_MAX)?;
    progress(Stage::Write);
    let encode = |part: &[Document]| given.encode(part).map(Tokens::from_wide);
    Ok(Tokenised {
        json: json.to_vec(),
        vocabulary: given.vocabulary,
        end_of_text: given.end_of_text,
        train: encode(train)?,
        heldout: encode(heldout)?,
    })
}

/// English text in a small vocabulary has about three bytes a token, rounded up to be on the safe side.
const BYTES_PER_TOKEN: u64 = 4;

fn check(options: &PrepareOptions) -> Result<(), DataError> {
    if options.tokenizer.is_none() && !(VOCABULARY_MIN..=VOCABULARY_MAX).contains(&options.vocabulary) {
        return Err(DataError::Vocabulary { got: options.vocabulary, min: VOCABULARY_MIN, max: VOCABULARY_MAX });
    }
    if !(options.heldout_share > 0.0 && options.heldout_share <= 0.5) {
        return Err(DataError::HeldoutShare(options.heldout_share));
    }
    Ok(())
}

fn bytes(documents: &[Document]) -> u64 {
    documents.iter().map(|document| document.text.len() as u64).sum()
}

fn bytes_learnt(documents: &[Document]) -> u64 {
    documents.iter().map(Document::bytes_learnt).sum()
}

/// Orders documents by a hash of their names and text, so that any run of tokens is a mixture of sources.
fn shuffle(documents: &mut [Document]) {
    documents.sort_by_cached_key(split::digest);
}

fn encode(encoded: &Encoded, lists: &[Vec<u32>]) -> Tokens {
    let mut tokens = Vec::new();
    for list in lists {
        encoded.append(list, &mut tokens);
    }
    Tokens::Narrow(tokens)
}

/// Refuses a part that does not hold one sequence.
fn enough(
    part: &'static str,
    tokens: &Tokens,
    train: &[Document],
    heldout: &[Document],
    options: &PrepareOptions,
) -> Result<(), DataError> {
    let needed = u64::from(options.sequence) + 1;
    if tokens.len() as u64 >= needed {
        return Ok(());
    }
    Err(DataError::TooLittle {
        part,
        bytes: bytes(train) + bytes(heldout),
        tokens: tokens.len() as u64,
        needed,
        // Held out is then an eighth of the text, in whole documents of up to twice a piece's least size.
        needed_bytes: needed * BYTES_PER_TOKEN * 16 + 4 * super::documents::PIECE_BYTES_MIN as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, baseline, read_documents, shards, synthetic};
    use super::*;
    use crate::CONTEXT;
    use crate::chat::ChatTemplate;
    use crate::testing::small_model;
    use covey_proto::run::Model;
    use std::fs;

    fn options() -> PrepareOptions {
        PrepareOptions { name: "synthetic".into(), vocabulary: 512, ..PrepareOptions::default() }
    }

    fn prepared(seed: u64, bytes: usize) -> (tempfile::TempDir, DatasetSummary) {
        let dir = tempfile::tempdir().unwrap();
        let documents = synthetic::documents(seed, bytes);
        let summary = prepare(documents, &options(), &dir.path().join("set"), &mut |_| {}).unwrap();
        (dir, summary)
    }

    #[test]
    fn what_was_prepared_opens_and_its_sequences_cover_every_token() {
        let (dir, summary) = prepared(1, 300_000);
        let set = Dataset::open(&dir.path().join("set"), Some(summary.digest)).unwrap();
        assert_eq!((set.digest(), set.vocabulary()), (summary.digest, 512));
        assert_eq!((set.train_tokens(), set.heldout_tokens()), (summary.train_tokens, summary.heldout_tokens));
        let model = Model { sequence: 64, vocabulary: 512, ..small_model() };
        let mut tokens = Vec::new();
        for index in 0..set.samples(64) {
            let batch = set.batch(&model, [index]).unwrap();
            assert_eq!(batch.tokens().len(), 65);
            tokens.pop();
            tokens.extend_from_slice(batch.tokens());
        }
        let expected: Vec<u32> = set.train().iter().collect();
        assert_eq!(tokens, expected[..tokens.len()]);
        assert!(expected.len() - tokens.len() <= 64);
        assert!(set.heldout_samples(64) > 20);
        assert_eq!(set.heldout_batch(&model, [set.heldout_samples(64) - 1]).unwrap().sequences(), 1);
    }

    #[test]
    fn tokens_decode_to_the_documents_text() {
        let (dir, summary) = prepared(2, 100_000);
        let set = Dataset::open(&dir.path().join("set"), None).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_file(set.tokenizer_path()).unwrap();
        let texts: Vec<String> = synthetic::documents(2, 100_000).into_iter().map(|d| d.text).collect();
        let all: Vec<u32> = set.heldout().iter().collect();
        let heldout: Vec<&[u32]> = all.split(|token| *token == u32::from(END_OF_TEXT_ID)).collect();
        assert_eq!(heldout.len() as u64, summary.manifest.heldout_documents + 1, "nothing follows the last end");
        for tokens in &heldout[..heldout.len() - 1] {
            assert!(texts.contains(&tokenizer.decode(tokens, false).unwrap()));
        }
    }

    #[test]
    fn the_order_of_the_documents_does_not_matter_but_their_text_does() {
        let dir = tempfile::tempdir().unwrap();
        let digest =
            |documents, name: &str| prepare(documents, &options(), &dir.path().join(name), &mut |_| {}).unwrap().digest;
        let documents = synthetic::documents(3, 100_000);
        let reversed: Vec<_> = documents.iter().rev().cloned().collect();
        let mut changed = documents.clone();
        changed[0].text.push_str("\n\nOne more sentence, which was not there before.");
        let first = digest(documents, "a");
        assert_eq!(first, digest(reversed, "b"));
        assert_ne!(first, digest(changed, "c"));
    }

    #[test]
    fn a_data_set_is_replaced_and_anything_else_is_left_alone() {
        let (dir, first) = prepared(4, 60_000);
        let folder = dir.path().join("set");
        let second = prepare(synthetic::documents(5, 60_000), &options(), &folder, &mut |_| {}).unwrap();
        assert_ne!(first.digest, second.digest);
        assert!(Dataset::open(&folder, Some(second.digest)).is_ok());
        assert!(matches!(Dataset::open(&folder, Some(first.digest)), Err(DataError::WrongDataset { .. })));
        let other = dir.path().join("mine");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis.txt"), "years of work").unwrap();
        let refused = prepare(synthetic::documents(5, 60_000), &options(), &other, &mut |_| {});
        assert!(matches!(refused, Err(DataError::Occupied(_))));
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn too_little_text_is_refused_and_as_much_as_the_message_says_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let book = |bytes: usize| {
            let text = synthetic::documents(6, bytes).into_iter().map(|d| d.text).collect::<Vec<_>>().join("\n\n");
            let path = dir.path().join("book.txt");
            fs::write(&path, &text[..bytes]).unwrap();
            prepare(read_documents(&path, None).unwrap(), &options(), &dir.path().join("set"), &mut |_| {})
        };
        let Err(DataError::TooLittle { needed_bytes, .. }) = book(900) else { panic!("900 bytes are too few") };
        assert!(book(needed_bytes as usize).is_ok(), "{needed_bytes} bytes");
    }

    #[test]
    fn damage_is_found_and_named() {
        let (dir, summary) = prepared(7, 60_000);
        let folder = dir.path().join("set");
        let fault = || Dataset::open(&folder, None).unwrap_err().to_string();
        let shard = folder.join(summary.manifest.train[0].file());
        let good = fs::read(&shard).unwrap();
        fs::write(&shard, &good[..100]).unwrap();
        assert!(fault().contains("truncated shard") && fault().contains("covey data prepare"), "{}", fault());
        let mut bad = good.clone();
        bad[10] ^= 1;
        fs::write(&shard, &bad).unwrap();
        assert!(fault().contains("do not hash"), "{}", fault());
        fs::remove_file(&shard).unwrap();
        assert!(fault().contains(&summary.manifest.train[0].file()));
        fs::write(&shard, &good).unwrap();
        let tokenizer = folder.join(shards::TOKENIZER_FILE);
        let json = fs::read(&tokenizer).unwrap();
        fs::write(&tokenizer, b"{}").unwrap();
        assert!(fault().contains("tokenizer.json: its hash is not"), "{}", fault());
        fs::write(&tokenizer, json).unwrap();
        assert!(Dataset::open(&folder, None).is_ok());
        #[cfg(unix)]
        for file in [&shard, &tokenizer] {
            // What is no regular file would be waited for, or read, without end.
            let aside = file.with_extension("aside");
            fs::rename(file, &aside).unwrap();
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            assert!(fault().contains("no regular file"), "{}", fault());
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/dev/zero", file).unwrap();
            assert!(fault().contains("no regular file"), "{}", fault());
            fs::rename(&aside, file).unwrap();
        }
        let manifest = folder.join(shards::MANIFEST_FILE);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("{\"format", "{ \"format")).unwrap();
        assert!(fault().contains("dataset.json: not written as"), "{}", fault());
        assert!(matches!(Dataset::open(dir.path(), None), Err(DataError::Unprepared(_))));
    }

    #[test]
    fn a_token_past_the_vocabulary_is_refused() {
        let (dir, summary) = prepared(8, 60_000);
        let folder = dir.path().join("set");
        let mut manifest = summary.manifest.clone();
        manifest.vocabulary = 300;
        fs::write(folder.join(shards::MANIFEST_FILE), manifest.to_bytes()).unwrap();
        assert!(Dataset::open(&folder, None).unwrap_err().to_string().contains("but the vocabulary is 300"));
    }

    #[test]
    fn options_out_of_range_are_refused_with_their_range() {
        let dir = tempfile::tempdir().unwrap();
        let with = |options: PrepareOptions| {
            prepare(synthetic::documents(9, 10_000), &options, &dir.path().join("set"), &mut |_| {})
                .unwrap_err()
                .to_string()
        };
        assert!(with(PrepareOptions { vocabulary: 100, ..options() }).contains("from 257"));
        assert!(with(PrepareOptions { heldout_share: f64::NAN, ..options() }).contains("NaN"));
    }

    #[test]
    fn counting_beats_chance_and_pairs_beat_single_tokens() {
        let (dir, _) = prepared(10, 200_000);
        let set = Dataset::open(&dir.path().join("set"), None).unwrap();
        let bars = baseline::baseline(&set);
        assert!(bars.bigram_nats < bars.unigram_nats && bars.unigram_nats < bars.uniform_nats, "{bars:?}");
        assert!(bars.bigram_bits_per_byte < 2.0, "{bars:?}");
    }

    /// Two hundred short conversations and some text between them.
    fn chats(dir: &Path) -> Vec<Document> {
        let line = |n: u32| {
            format!(
                r#"{{"messages":[{{"role":"user","content":"What is {n} and {n}?"}},{{"role":"assistant","content":"It is {}."}}]}}"#,
                2 * n
            )
        };
        let path = dir.join("chats.jsonl");
        fs::write(&path, (0..200).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let template = ChatTemplate::named("chatml");
        let mut documents = read_documents(&path, template.as_ref()).unwrap();
        documents.extend(synthetic::documents(4, 40_000));
        documents
    }

    #[test]
    fn conversations_and_text_make_one_data_set_whose_answers_alone_are_learnt() {
        let dir = tempfile::tempdir().unwrap();
        let chatml = ChatTemplate::named("chatml").unwrap();
        let options = PrepareOptions {
            chat_template: Some(chatml.source().to_owned()),
            marks: chatml.marks(),
            heldout_share: 0.2,
            ..options()
        };
        let summary = prepare(chats(dir.path()), &options, &dir.path().join("set"), &mut |_| {}).unwrap();
        let set = Dataset::open(&dir.path().join("set"), Some(summary.digest)).unwrap();
        assert_eq!((set.manifest().format, set.vocabulary()), (FORMAT_WIDE, 512));
        let template = set.chat_template_path().unwrap();
        assert_eq!(fs::read_to_string(&template).unwrap(), chatml.source());
        let tokenizer = tokenizers::Tokenizer::from_file(set.tokenizer_path()).unwrap();
        let ends = [tokenizer.token_to_id("<|im_end|>").unwrap(), set.end_of_text()];
        let learnt: Vec<u32> = set.train().iter().filter(|token| token & CONTEXT == 0).collect();
        assert_eq!(learnt.len() as u64, set.train_tokens_learnt());
        let texts: Vec<String> = learnt
            .split(|token| ends.contains(token))
            .map(|tokens| tokenizer.decode(tokens, false).unwrap().trim().to_owned())
            .filter(|text| text.starts_with("It is "))
            .collect();
        assert!(texts.len() > 100, "{}", texts.len());
        let heldout = set.heldout().iter().filter(|token| *token == ends[0]).count();
        assert!((10..100).contains(&heldout), "of the conversations a share is held out as of the text: {heldout}");
        assert!(texts.iter().all(|text| text.ends_with('.') && !text.contains("What")), "{texts:?}");
        let bars = baseline::baseline(&set);
        assert!(bars.bigram_nats < bars.unigram_nats, "{bars:?}");
        fs::write(&template, "another").unwrap();
        let fault = Dataset::open(&dir.path().join("set"), None).unwrap_err().to_string();
        assert!(fault.contains("chat_template.jinja: its hash is not"), "{fault}");
    }
}
