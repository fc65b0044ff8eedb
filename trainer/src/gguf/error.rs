//! Why a state does not become a GGUF file, and what would do.

use crate::hf::HfError;
use std::io;
use std::path::PathBuf;

/// Why a state does not become a GGUF file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A model folder or the tokenizer cannot be read, or does not fit.
    #[error(transparent)]
    Folder(#[from] HfError),
    /// A state of another model.
    #[error("{got} parameters; the model has {expected}")]
    Elements {
        /// Parameters that came.
        got: usize,
        /// Parameters of the model.
        expected: usize,
    },
    /// A state that must not be written.
    #[error("parameter {at} is {value}; only a finite state is written")]
    NotFinite {
        /// The parameter.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// A tokenizer.json that does not parse.
    #[error("tokenizer.json does not parse: {0}")]
    Tokenizer(String),
    /// A tokenizer that llama.cpp would not take for what it is.
    #[error(
        "the tokenizer is {0}: as GGUF only byte-level BPE that cuts words as GPT-2, SmolLM or LLaMA 3 is written, since \
         llama.cpp knows others by names of their own; export in Hugging Face's layout, and convert that with llama.cpp's \
         convert_hf_to_gguf.py"
    )]
    TokenizerKind(String),
    /// A token beyond the model's.
    #[error("the tokenizer has a token {id}; the model has {vocabulary}")]
    Token {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocabulary: u32,
    },
}
