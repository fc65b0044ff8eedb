//! What can be wrong with text, or with a prepared data set; each message names the file and the way out.

use super::conversations::ConversationFault;
use covey_proto::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why documents could not be read, prepared or opened.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Nothing is there.
    #[error("{} does not exist: give a .txt, .md or .jsonl file, or a folder of them", .0.display())]
    Missing(PathBuf),
    /// Neither of the kinds that can be read.
    #[error("{} is no .txt, .md or .jsonl file, nor a folder of them", .0.display())]
    Kind(PathBuf),
    /// The file has no text.
    #[error("{} holds no text", .0.display())]
    Empty(PathBuf),
    /// Bytes that are no UTF-8.
    #[error("{} is not UTF-8: the first bad byte is at offset {offset}; convert it first (iconv -t utf-8)", .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Bytes before the first bad one.
        offset: usize,
    },
    /// A line of a JSONL file is not what it must be.
    #[error("{}, line {line}: {fault}; every line must be a JSON object with a string \"text\" or a list \"messages\"", .path.display())]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A conversation, and no chat template to write it by.
    #[error(
        "{}, line {line} is a conversation: say how it is written (--chat-template chatml, a file, or a model's folder)",
        .path.display()
    )]
    NoTemplate {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A conversation that cannot be learnt from.
    #[error("{}, line {line}: {fault}", .path.display())]
    Conversation {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Box<ConversationFault>,
    },
    /// More than is read into memory.
    #[error("{} brings the text to {bytes} bytes; the limit is {max}: give a part of it", .path.display())]
    TooLarge {
        /// The file that passed the limit.
        path: PathBuf,
        /// Bytes with it.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A whole shard's worth of it comes twice.
    #[error("the text repeats itself over a whole shard: {0}")]
    Repeats(super::ManifestFault),
    /// Its tokens do not fit the memory that is free.
    #[error("{} holds {bytes} bytes of tokens, more than the memory that is free: prepare a part of it", .path.display())]
    Memory {
        /// The data set's folder.
        path: PathBuf,
        /// Bytes of its tokens.
        bytes: u64,
    },
    /// More files, or deeper folders, than are read.
    #[error("{} holds more than {max} {what}: give a part of it", .path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Not enough text for one sequence.
    #[error(
        "{bytes} bytes of text (after removing duplicates) give {tokens} {part} tokens, but one sequence needs {needed}: \
         about {} bytes of different text would do",
        .needed_bytes
    )]
    TooLittle {
        /// "training" or "held-out".
        part: &'static str,
        /// All text there is, in bytes.
        bytes: u64,
        /// Tokens of that part.
        tokens: u64,
        /// Tokens that one sequence takes.
        needed: u64,
        /// Text that would be enough, in bytes.
        needed_bytes: u64,
    },
    /// A vocabulary that cannot be.
    #[error("a vocabulary of {got} tokens; it must be from {min} (the bytes and one special token) to {max}")]
    Vocabulary {
        /// As asked.
        got: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A tokenizer that was given is none.
    #[error("the given tokenizer does not load: {0}; give the tokenizer.json of a model's folder")]
    GivenTokenizer(String),
    /// A tokenizer that was given has more tokens than shards hold.
    #[error("the given tokenizer has {got} tokens; at most {max} are supported")]
    GivenVocabulary {
        /// Its tokens.
        got: u32,
        /// The most.
        max: u32,
    },
    /// A tokenizer that was given ends no text.
    #[error("the given tokenizer has no token that ends a text: one of {0}")]
    NoEnd(String),
    /// A share that is none.
    #[error("a held-out share of {0}; it must be over 0 and at most 0.5")]
    HeldoutShare(f64),
    /// Reading failed.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is somebody's, not a data set.
    #[error("{} exists and is no data set of ours: name a new or empty folder", .0.display())]
    Occupied(PathBuf),
    /// There is no prepared data set.
    #[error("{} holds no prepared data set (no dataset.json): run `covey data prepare`", .0.display())]
    Unprepared(PathBuf),
    /// The data set is another one.
    #[error("{} holds data set {got}, but {expected} is needed: prepare or fetch that one", .path.display())]
    WrongDataset {
        /// The folder.
        path: PathBuf,
        /// As asked for.
        expected: Digest,
        /// As found.
        got: Digest,
    },
    /// A file of a prepared data set is damaged.
    #[error("{}: {fault}: run `covey data prepare` again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The trained tokenizer is refused by the tokenizers crate: a fault of ours.
    #[error("the tokenizer that was trained does not load: {0}")]
    Tokenizer(String),
}

impl DataError {
    /// For `map_err` on reads: says that nothing is there where that is so.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> DataError {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => DataError::Missing(path),
            _ => DataError::Read { path, source },
        }
    }

    /// For `map_err` on writes.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> DataError {
        let path = path.to_path_buf();
        move |source| DataError::Write { path, source }
    }

    /// A damaged file of a data set.
    pub(crate) fn damaged(path: &Path, fault: impl Into<String>) -> DataError {
        DataError::Damaged { path: path.to_path_buf(), fault: fault.into() }
    }
}
