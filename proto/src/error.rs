//! Why bytes are refused: the one error of everything here that reads bytes of others.
//!
//! Which bytes these are, and who is to blame for them, is for whoever asked to have them read.

/// Why bytes are not the value they claim to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// More bytes than the kind may have.
    #[error("{got} bytes; the limit is {max}")]
    TooLarge {
        /// Bytes that came.
        got: usize,
        /// Bytes that may.
        max: usize,
    },
    /// The first eight bytes are another kind's.
    #[error("does not start with {0}")]
    Kind(&'static str),
    /// Not protobuf.
    #[error("not a message: {0}")]
    Protobuf(String),
    /// Protobuf, but not the one form.
    #[error("not in canonical form: encoded again it gives other bytes")]
    NotCanonical,
    /// More entries than there may be.
    #[error("more than {max} entries of {name}")]
    Count {
        /// The repeated field.
        name: &'static str,
        /// Entries that may be.
        max: usize,
    },
    /// An entry that cannot be whole.
    #[error("an entry of {name} of {got} bytes; none has less than {min}")]
    Short {
        /// The repeated field.
        name: &'static str,
        /// Bytes of the entry.
        got: usize,
        /// Bytes of the shortest.
        min: usize,
    },
    /// A field that is missing or cannot be.
    #[error("field {0} is missing or out of range")]
    Field(&'static str),
}
