//! A saved state that is opened and not read: for who wants its parameters one block after the other, and never all of
//! them in memory.
//!
//! An open file stays readable after its name is gone. A node forgets a state two rounds later; whoever opened it in time
//! may take as long as it likes, and the disk has its bytes back when it is closed.

use super::{Disk, DiskError, state_name};
use covey_proto::Round;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of a state file before its parameters: the magic, the round, the head, the root.
const HEAD_BYTES: u64 = 8 + 4 + 32 + 32;

/// A state's file, open. As a reader it gives the parameters, f32 little-endian.
#[derive(Debug)]
pub struct StateFile {
    file: File,
}

impl Read for StateFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Disk {
    /// Opens the state after `round`; none if its file is not there, or has not the length of one of `elements`
    /// parameters. What is in it is not looked at.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open_state(&self, round: Option<Round>, elements: usize) -> Result<Option<StateFile>, DiskError> {
        let path = self.path(&state_name(round));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError { path, error }),
        };
        let placed = file.metadata().and_then(|data| file.seek(SeekFrom::Start(HEAD_BYTES)).map(|_| data.len()));
        let bytes = placed.map_err(|error| DiskError { path, error })?;
        Ok((bytes == HEAD_BYTES + 4 * elements as u64).then_some(StateFile { file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::Digest;
    use covey_round::engine::Tip;

    /// The file is removed while it waits for its reader, as a node does two rounds later.
    #[test]
    fn an_opened_state_outlives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let tip = Tip { round: Some(Round(4)), head: Digest::of(b"head") };
        disk.write_state(&tip, Digest::of(b"root"), &[1.5, -2.0]).unwrap();
        let mut opened = disk.open_state(Some(Round(4)), 2).unwrap().unwrap();
        std::fs::remove_file(folder.path().join("state-4.bin")).unwrap();
        let mut bytes = Vec::new();
        opened.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
        assert!(disk.open_state(Some(Round(4)), 2).unwrap().is_none(), "it is gone by its name");
    }

    #[test]
    fn a_state_of_another_length_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write_state(&Tip { round: None, head: Digest::ZERO }, Digest::ZERO, &[1.0; 3]).unwrap();
        assert!(disk.open_state(None, 3).unwrap().is_some());
        assert!(disk.open_state(None, 4).unwrap().is_none());
    }
}
