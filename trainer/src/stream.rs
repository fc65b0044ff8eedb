//! Parameters and feedback as streams, for devices whose memory is the host's: bytes go where they lie, no copy is made.

use crate::backend::LoadError;
use covey_sparseloco::state::{ReadError, StateError, as_le_bytes, read_into};
use std::io::{self, Read, Write};

/// Bytes written at a time: what writes behind us may hash or compress, and wants to be asked in between.
pub(crate) const BLOCK: usize = 1 << 18;

/// Fills `elements` from all that `from` gives, bit for bit.
pub(crate) fn load(from: &mut dyn Read, elements: &mut [f32]) -> Result<(), LoadError> {
    let number = elements.len();
    read_into(from, elements).map_err(|error| match error {
        ReadError::Io(error) => LoadError::Io(error),
        ReadError::State(StateError::Length { got, need }) => {
            LoadError::Length { got: got as u64, elements: number, expected: need as u64 }
        }
        ReadError::State(StateError::NotFinite { index }) => LoadError::NotFinite { index },
    })
}

/// Writes `elements` in blocks.
pub(crate) fn save(to: &mut dyn Write, elements: &[f32]) -> io::Result<()> {
    as_le_bytes(elements).chunks(BLOCK).try_for_each(|block| to.write_all(block))
}
