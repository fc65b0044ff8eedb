//! A state as bytes: f32, little-endian, which is how it lies in memory. As blobs, it is cut into runs, each named by its
//! BLAKE3; the list of them is the state root. As a file or a stream, it is read and written where it lies: no copy is made.
//!
//! The run's `state_elements` says how long a run is. Bits are kept as they are; what a state may hold is decided by the
//! outer step.

use crate::split;
use covey_proto::Digest;
use covey_proto::blob::{BlobRef, StateManifest};
use std::convert::Infallible;
use std::io::{self, Read};

// Bytes of states are hashed, read and written where they lie.
const _: () = assert!(cfg!(target_endian = "little"), "states are little-endian, and so must the machine be");

/// Why bytes are no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another length than the layout's.
    #[error("{got} bytes; {need} are needed")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that the layout needs.
        need: usize,
    },
    /// A NaN or an infinity.
    #[error("element {index} is not finite")]
    NotFinite {
        /// The element, in the state's order.
        index: usize,
    },
}

/// The state's shards in order: runs of `state_elements` as f32, little-endian, the last shorter.
///
/// # Panics
/// If `state_elements` is 0.
pub fn state_shards(theta: &[f32], state_elements: usize) -> impl ExactSizeIterator<Item = Vec<u8>> + '_ {
    theta.chunks(state_elements).map(|run| as_le_bytes(run).to_vec())
}

/// The state's manifest; its root names the state. One thread; see [`state_manifest_on`].
///
/// # Panics
/// If `state_elements` is 0.
pub fn state_manifest(theta: &[f32], state_elements: usize) -> StateManifest {
    state_manifest_on(1, theta, state_elements)
}

/// [`state_manifest`] on as many threads, each hashing whole runs where they lie: no copy is made, and memory's speed is the
/// limit.
///
/// # Panics
/// If `state_elements` is 0.
pub fn state_manifest_on(threads: usize, theta: &[f32], state_elements: usize) -> StateManifest {
    let runs = theta.chunks(state_elements).collect();
    let name = |(): &mut (), run: &[f32]| Ok::<_, Infallible>(BlobRef::of(bytemuck::cast_slice(run)));
    let Ok(shards) = split::on_threads(threads, runs, || (), name);
    StateManifest { elements: theta.len() as u64, shards }
}

/// The state root.
///
/// # Panics
/// If `state_elements` is 0.
pub fn state_root(theta: &[f32], state_elements: usize) -> Digest {
    state_manifest(theta, state_elements).root()
}

/// A state that is put together shard by shard, in order, so that no more than one of them need be in memory beside it.
/// Whether they are the right ones, their names have said.
#[derive(Debug)]
pub struct Assembly {
    theta: Vec<f32>,
    elements: usize,
    bytes_seen: usize,
}

impl Assembly {
    /// Of a state of `elements`, whose memory is taken now.
    pub fn new(elements: usize) -> Assembly {
        Assembly { theta: Vec::with_capacity(elements), elements, bytes_seen: 0 }
    }

    /// Adds the next shard.
    ///
    /// # Errors
    /// More bytes than the state has (nothing of them is kept), or an element that is not finite.
    pub fn push(&mut self, shard: &[u8]) -> Result<(), StateError> {
        let need = self.elements * 4;
        self.bytes_seen = self.bytes_seen.saturating_add(shard.len());
        if self.bytes_seen > need || !shard.len().is_multiple_of(4) {
            return Err(StateError::Length { got: self.bytes_seen, need });
        }
        extend_from_le_bytes(&mut self.theta, shard)
    }

    /// The state, f32 `[elements]`.
    ///
    /// # Errors
    /// Too few bytes came.
    pub fn finish(self) -> Result<Vec<f32>, StateError> {
        let (got, need) = (self.bytes_seen, self.elements * 4);
        if got == need { Ok(self.theta) } else { Err(StateError::Length { got, need }) }
    }
}

/// The state of `elements` that these shards, in order, make up: an [`Assembly`] of what is all there.
///
/// # Errors
/// Too many or too few bytes (nothing beyond `elements` is kept), or an element that is not finite.
pub fn state_from_shards<B: AsRef<[u8]>>(
    shards: impl IntoIterator<Item = B>,
    elements: usize,
) -> Result<Vec<f32>, StateError> {
    let mut assembly = Assembly::new(elements);
    for shard in shards {
        assembly.push(shard.as_ref())?;
    }
    assembly.finish()
}

/// Values as they are stored everywhere: f32, little-endian, four bytes each, bits as they are. No copy.
pub fn as_le_bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// As [`as_le_bytes`], to be written: any bytes are f32s.
pub fn as_le_bytes_mut(values: &mut [f32]) -> &mut [u8] {
    bytemuck::cast_slice_mut(values)
}

/// Why a stream is no state.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It gives other bytes.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Fills `theta` from `from`, which must end with it. Bits are kept, whatever they are; the reader's pieces go where the
/// state lies.
///
/// # Errors
/// The reader fails, or gives too few bytes or too many (one of those is counted). `theta` may be filled in part.
pub fn read_into(from: &mut dyn Read, theta: &mut [f32]) -> Result<(), ReadError> {
    let bytes = as_le_bytes_mut(theta);
    let (mut got, need) = (0, bytes.len());
    let mut spare = [0];
    loop {
        let room = if got < need { &mut bytes[got..] } else { &mut spare[..] };
        match from.read(room) {
            Ok(0) if got == need => return Ok(()),
            Ok(0) => return Err(StateError::Length { got, need }.into()),
            Ok(_) if got == need => return Err(StateError::Length { got: got + 1, need }.into()),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The state of `elements` that `from` gives before its end, each of them finite. Takes 4 bytes an element.
///
/// # Errors
/// The reader fails, gives too few bytes or too many, or an element that is not finite.
pub fn read(from: &mut dyn Read, elements: usize) -> Result<Vec<f32>, ReadError> {
    let mut theta = vec![0.0; elements];
    read_into(from, &mut theta)?;
    finite(&theta)?;
    Ok(theta)
}

/// Whether all elements are finite.
///
/// # Errors
/// The first that is not.
pub fn finite(theta: &[f32]) -> Result<(), StateError> {
    match theta.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(StateError::NotFinite { index }),
    }
}

fn extend_from_le_bytes(values: &mut Vec<f32>, bytes: &[u8]) -> Result<(), StateError> {
    let first = values.len();
    values.extend(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])));
    match finite(&values[first..]) {
        Err(StateError::NotFinite { index }) => Err(StateError::NotFinite { index: first + index }),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_from_its_shards() {
        let theta: Vec<f32> = (0..2500).map(|at| at as f32 - 1000.5).collect();
        let shards: Vec<Vec<u8>> = state_shards(&theta, 1024).collect();
        assert_eq!(shards.iter().map(Vec::len).collect::<Vec<_>>(), [4096, 4096, 1808]);
        assert_eq!(state_from_shards(&shards, 2500).unwrap(), theta);
        let manifest = state_manifest(&theta, 1024);
        assert_eq!(StateManifest::from_bytes(&manifest.to_bytes(), 2500, 1024).unwrap(), manifest);
        assert_eq!(state_root(&theta, 1024), manifest.root());
        for threads in [2, 3, 16] {
            assert_eq!(state_manifest_on(threads, &theta, 1024), manifest);
        }
        assert_ne!(state_root(&theta, 2048), manifest.root());
    }

    #[test]
    fn shards_of_another_state_are_refused() {
        let shards: Vec<Vec<u8>> = state_shards(&[1.0; 100], 30).collect();
        assert_eq!(state_from_shards(&shards, 99), Err(StateError::Length { got: 400, need: 396 }));
        assert_eq!(state_from_shards(&shards, 101), Err(StateError::Length { got: 400, need: 404 }));
        assert_eq!(state_from_shards([[0u8; 3]], 1), Err(StateError::Length { got: 3, need: 4 }));
        let bad = f32::INFINITY.to_le_bytes();
        assert_eq!(state_from_shards([[0; 4], bad], 2), Err(StateError::NotFinite { index: 1 }));
    }
    /// Gives at most `most` bytes at a time, and is interrupted before each.
    struct Dripping<'a>(&'a [u8], usize, bool);

    impl Read for Dripping<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let most = self.1.min(room.len());
            self.0.read(&mut room[..most])
        }
    }

    #[test]
    fn a_state_comes_back_from_a_stream_however_it_drips() {
        let theta: Vec<f32> = (0..100).map(|at| at as f32 - 7.25).collect();
        for most in [1, 3, 4, 399, 1000] {
            assert_eq!(read(&mut Dripping(as_le_bytes(&theta), most, false), 100).unwrap(), theta);
        }
    }

    #[test]
    fn a_stream_of_another_length_or_not_finite_is_no_state() {
        let theta = [1.0, f32::NAN, 2.0];
        let length = |elements| match read(&mut as_le_bytes(&theta), elements) {
            Err(ReadError::State(StateError::Length { got, need })) => (got, need),
            other => panic!("{other:?}"),
        };
        assert_eq!((length(4), length(2), length(0)), ((12, 16), (9, 8), (1, 0)));
        let error = read(&mut as_le_bytes(&theta), 3).unwrap_err();
        assert!(matches!(error, ReadError::State(StateError::NotFinite { index: 1 })));
        let mut same = [0.0; 3];
        read_into(&mut as_le_bytes(&theta), &mut same).unwrap();
        assert_eq!(same.map(f32::to_bits), theta.map(f32::to_bits));
    }
}
