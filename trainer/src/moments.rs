//! An optimizer's moments as a file, written and read by ranges: eight bytes of kind, steps u64, elements u64, first moments
//! f32, second ones (all little-endian), BLAKE3 of all before it. AdamW's, `CVYMOM01`, have a second moment for every element;
//! Muon's, `CVYMUO01`, for those that AdamW moves ([`crate::cpu`] says which), in their order.
//!
//! For devices, whose moments they are, and for whoever reads the file without one. When moments are written and where the
//! file lies, others decide.

use crate::backend::LoadError;
use crate::stream::BLOCK;
use covey_sparseloco::state::{as_le_bytes, as_le_bytes_mut};
use std::io::{self, Read, Write};

/// Whose moments they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AdamW's.
    AdamW,
    /// Muon's.
    Muon {
        /// Elements that have a second moment.
        second: usize,
    },
}

impl Kind {
    /// What the file starts with.
    fn magic(self) -> &'static str {
        match self {
            Kind::AdamW => "CVYMOM01",
            Kind::Muon { .. } => "CVYMUO01",
        }
    }

    /// f32s of a file of a model of `elements` parameters.
    fn values(self, elements: usize) -> usize {
        match self {
            Kind::AdamW => 2 * elements,
            Kind::Muon { second } => elements + second,
        }
    }
}

/// Bytes of kind, steps and elements.
const HEAD: usize = 24;
/// Bytes of the hash at the end.
const HASH: usize = 32;

/// Bytes of the file of a model of `elements` parameters.
pub fn file_bytes(kind: Kind, elements: usize) -> u64 {
    4 * kind.values(elements) as u64 + (HEAD + HASH) as u64
}

/// Writes the file: first all first moments, then all second ones, in as many ranges as one likes.
pub struct MomentsWriter<'w> {
    to: &'w mut dyn Write,
    hasher: blake3::Hasher,
    /// f32s that are still to come.
    left: usize,
}

impl<'w> MomentsWriter<'w> {
    /// Begins the file of `elements` parameters, `steps` after their moments were zero.
    ///
    /// # Errors
    /// The writer fails.
    pub fn begin(to: &'w mut dyn Write, kind: Kind, steps: u64, elements: usize) -> io::Result<MomentsWriter<'w>> {
        let mut writer = MomentsWriter { to, hasher: blake3::Hasher::new(), left: kind.values(elements) };
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(kind.magic().as_bytes());
        head[8..16].copy_from_slice(&steps.to_le_bytes());
        head[16..].copy_from_slice(&(elements as u64).to_le_bytes());
        writer.put(&head)?;
        Ok(writer)
    }

    /// Writes the moments that come next.
    ///
    /// # Errors
    /// The writer fails.
    ///
    /// # Panics
    /// If more come than the file has.
    pub fn write(&mut self, values: &[f32]) -> io::Result<()> {
        assert!(values.len() <= self.left, "a file of moments has no room for {} more", values.len());
        self.left -= values.len();
        as_le_bytes(values).chunks(BLOCK).try_for_each(|block| self.put(block))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The writer fails.
    ///
    /// # Panics
    /// If moments are missing.
    pub fn finish(self) -> io::Result<()> {
        assert_eq!(self.left, 0, "moments that were not written");
        self.to.write_all(self.hasher.finalize().as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads the file, as [`MomentsWriter`] writes it. What was read counts only once [`finish`](MomentsReader::finish) says so.
pub struct MomentsReader<'r> {
    from: &'r mut dyn Read,
    hasher: blake3::Hasher,
    kind: Kind,
    elements: usize,
    got: u64,
}

impl<'r> MomentsReader<'r> {
    /// Begins to read a file of `elements` parameters.
    ///
    /// # Errors
    /// The reader fails or ends, or the file is of another kind or another model's.
    pub fn begin(from: &'r mut dyn Read, kind: Kind, elements: usize) -> Result<(MomentsReader<'r>, u64), LoadError> {
        let mut reader = MomentsReader { from, hasher: blake3::Hasher::new(), kind, elements, got: 0 };
        let mut head = [0; HEAD];
        reader.fill(&mut head)?;
        reader.hasher.update(&head);
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        if head[..8] != *kind.magic().as_bytes() || number(16) != elements as u64 {
            return Err(LoadError::Kind { magic: kind.magic(), elements });
        }
        Ok((reader, number(8)))
    }

    /// Reads the moments that come next.
    ///
    /// # Errors
    /// The reader fails or ends.
    pub fn read(&mut self, values: &mut [f32]) -> Result<(), LoadError> {
        for block in as_le_bytes_mut(values).chunks_mut(BLOCK) {
            self.fill(block)?;
            self.hasher.update(block);
        }
        Ok(())
    }

    /// Whether the file ends here, with the right hash.
    ///
    /// # Errors
    /// The reader fails, the hash is another's, or there is more or less.
    pub fn finish(mut self) -> Result<(), LoadError> {
        let mut hash = [0; HASH];
        self.fill(&mut hash)?;
        if self.from.take(1).read_to_end(&mut Vec::with_capacity(1))? > 0 {
            return Err(self.length(self.got + 1));
        }
        if self.hasher.finalize() == hash { Ok(()) } else { Err(LoadError::Hash) }
    }

    /// Fills `room`, and knows how much came if not enough did.
    fn fill(&mut self, room: &mut [u8]) -> Result<(), LoadError> {
        let mut filled = 0;
        while filled < room.len() {
            match self.from.read(&mut room[filled..]) {
                Ok(0) => return Err(self.length(self.got)),
                Ok(more) => {
                    filled += more;
                    self.got += more as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn length(&self, got: u64) -> LoadError {
        LoadError::Length { got, elements: self.elements, expected: file_bytes(self.kind, self.elements) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(first: &[f32], second: &[f32], steps: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MomentsWriter::begin(&mut bytes, Kind::AdamW, steps, first.len()).unwrap();
        writer.write(first).unwrap();
        writer.write(&second[..1]).unwrap();
        writer.write(&second[1..]).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn read(mut bytes: &[u8], elements: usize) -> Result<(Vec<f32>, Vec<f32>, u64), LoadError> {
        let (mut first, mut second) = (vec![0.0; elements], vec![0.0; elements]);
        let (mut reader, steps) = MomentsReader::begin(&mut bytes, Kind::AdamW, elements)?;
        reader.read(&mut first)?;
        reader.read(&mut second)?;
        reader.finish()?;
        Ok((first, second, steps))
    }

    #[test]
    fn moments_survive_their_bytes_and_torn_ones_do_not_pass() {
        let moments = (vec![1.5, -2.0, 0.0], vec![0.25, 3.0, 1e-30], 7);
        let bytes = written(&moments.0, &moments.1, moments.2);
        assert_eq!(bytes.len() as u64, file_bytes(Kind::AdamW, 3));
        assert_eq!(read(&bytes, 3).unwrap(), moments);
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(read(&torn, 3).is_err(), "byte {at} flipped");
            let cut = read(&bytes[..at], 3).unwrap_err();
            assert!(matches!(cut, LoadError::Length { got, .. } if got == at as u64), "cut at {at}: {cut}");
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(matches!(read(&more, 3), Err(LoadError::Length { got: 81, expected: 80, .. })));
        assert!(matches!(read(&bytes, 4), Err(LoadError::Kind { elements: 4, .. })));
    }

    #[test]
    fn the_file_never_changes() {
        let bytes = written(&[1.0, -2.5], &[0.5, 3.0], 9);
        let body = [
            &b"CVYMOM01"[..],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0],
            &[0, 0, 0, 0x3f, 0, 0, 0x40, 0x40],
        ]
        .concat();
        assert_eq!(bytes, [&body[..], blake3::hash(&body).as_bytes()].concat());
    }

    #[test]
    fn muons_file_has_fewer_second_moments() {
        let kind = Kind::Muon { second: 1 };
        let mut bytes = Vec::new();
        let mut writer = MomentsWriter::begin(&mut bytes, kind, 9, 2).unwrap();
        writer.write(&[1.0, -2.5]).unwrap();
        writer.write(&[0.5]).unwrap();
        writer.finish().unwrap();
        let body = [
            &b"CVYMUO01"[..],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0],
            &[0, 0, 0, 0x3f],
        ]
        .concat();
        assert_eq!(bytes, [&body[..], blake3::hash(&body).as_bytes()].concat());
        assert_eq!(bytes.len() as u64, file_bytes(kind, 2));
        assert!(matches!(
            MomentsReader::begin(&mut &bytes[..], Kind::AdamW, 2).map(|_| ()),
            Err(LoadError::Kind { magic: "CVYMOM01", .. })
        ));
    }
}
