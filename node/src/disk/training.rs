//! What a miner's training carries from one round to the next: error feedback and the optimizer's moments, each after a
//! round's contribution and in a file with that round's number.
//!
//! The journal says which round counts. A crash before the journal names a contribution leaves the files of the round before
//! as they were, so that the same round can be trained again from the same values. When to write, the miner decides.

use super::{Disk, DiskError, JournalContribution};
use covey_proto::{Digest, Round};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

/// Begins a file of error feedback that ends with the BLAKE3 of all before it.
const FEEDBACK_MAGIC: &[u8; 8] = b"CVYFEE02";
/// Began one without a hash, which earlier versions wrote.
const UNHASHED_FEEDBACK_MAGIC: &[u8; 8] = b"CVYFEE01";
/// Magic, round, base.
const HEAD_BYTES: usize = 8 + 4 + 32;
/// The hash at the end.
const HASH_BYTES: u64 = 32;
/// Moments of no named round, as earlier versions wrote them.
const UNNUMBERED_MOMENTS: &str = "moments.bin";

/// Hashes what passes.
struct Hashing<'w> {
    to: &'w mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Disk {
    /// Keeps the error feedback that follows the contribution of `round`, as `save` writes it; it counts once the journal
    /// names the contribution.
    ///
    /// # Errors
    /// The file system or `save` refuses.
    pub fn write_feedback(
        &self,
        round: Round,
        base: Digest,
        save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        self.write_with(&feedback_name(round), |file| {
            let mut hashing = Hashing { to: file, hasher: blake3::Hasher::new() };
            hashing.write_all(&feedback_head(FEEDBACK_MAGIC, round, base))?;
            save(&mut hashing)?;
            let hash = hashing.hasher.finalize();
            file.write_all(hash.as_bytes())
        })
    }

    /// The error feedback of the contribution that the journal names, f32 little-endian, to be read as a stream; none if no
    /// file is that. A file whose hash is another is left out, and the log says so. Reads the file once.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn feedback(&self, of: &JournalContribution) -> Result<Option<impl Read + use<>>, DiskError> {
        let name = feedback_name(of.round);
        let Some(mut file) = self.open_file(&name)? else { return Ok(None) };
        let fault = |error| DiskError { path: self.path(&name), error };
        let values = values_of_feedback(&mut file, of).map_err(fault)?;
        if values.is_none() {
            tracing::warn!(file = %self.path(&name).display(), "the error feedback is damaged or another contribution's");
        }
        Ok(values.map(|bytes| file.take(bytes)))
    }

    /// Keeps the moments after the training of `round`, as `save` writes them; they count once the journal names its
    /// contribution.
    ///
    /// # Errors
    /// The file system or `save` refuses.
    pub fn write_moments(
        &self,
        round: Round,
        save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        self.write_with(&moments_name(round), save)
    }

    /// The newest moments up to `journalled`, the round of the contribution that the journal names, to be read as a stream.
    /// They say themselves whether they are whole.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn moments(&self, journalled: Option<Round>) -> Result<Option<BufReader<File>>, DiskError> {
        let newest = self.rounds_of("moments-")?.into_iter().filter(|round| Some(*round) <= journalled).max();
        self.open_file(&newest.map_or_else(|| UNNUMBERED_MOMENTS.to_owned(), moments_name))
    }

    /// Forgets a miner's moments and error feedback.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_training(&self) -> Result<(), DiskError> {
        self.keep_training(None)?;
        self.remove(UNNUMBERED_MOMENTS)
    }

    /// Forgets what does not count where the journal names the contribution of `journalled`: the error feedback of all other
    /// rounds, and all moments but the newest up to it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep_training(&self, journalled: Option<Round>) -> Result<(), DiskError> {
        for round in self.rounds_of("feedback-")? {
            if Some(round) != journalled {
                self.remove(&feedback_name(round))?;
            }
        }
        let moments = self.rounds_of("moments-")?;
        let newest = moments.iter().copied().filter(|round| Some(*round) <= journalled).max();
        for round in moments {
            if Some(round) != newest {
                self.remove(&moments_name(round))?;
            }
        }
        if newest.is_some() { self.remove(UNNUMBERED_MOMENTS) } else { Ok(()) }
    }

    /// The rounds that files `PREFIX R .bin` are of.
    fn rounds_of(&self, prefix: &str) -> Result<Vec<Round>, DiskError> {
        let fault = |error| DiskError { path: self.root.clone(), error };
        let mut rounds = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(".bin"));
            rounds.extend(number.and_then(|number| number.parse().ok()).map(Round));
        }
        Ok(rounds)
    }
}

/// Leaves an open file of feedback at its first value, and gives the bytes of its values; none if it is not whole or does
/// not follow this contribution.
fn values_of_feedback(file: &mut BufReader<File>, of: &JournalContribution) -> io::Result<Option<u64>> {
    let bytes = file.get_ref().metadata()?.len();
    let mut head = [0; HEAD_BYTES];
    if bytes < HEAD_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact(&mut head)?;
    let values = bytes - HEAD_BYTES as u64;
    if head[..] == feedback_head(UNHASHED_FEEDBACK_MAGIC, of.round, of.base) {
        return Ok(Some(values));
    }
    if head[..] != feedback_head(FEEDBACK_MAGIC, of.round, of.base) || values < HASH_BYTES {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    hasher.update_reader(file.by_ref().take(values - HASH_BYTES))?;
    let mut hash = [0; HASH_BYTES as usize];
    file.read_exact(&mut hash)?;
    file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
    Ok((hasher.finalize() == hash).then_some(values - HASH_BYTES))
}

fn feedback_head(magic: &[u8; 8], round: Round, base: Digest) -> Vec<u8> {
    [magic.as_slice(), &round.0.to_le_bytes(), base.as_bytes()].concat()
}

fn feedback_name(round: Round) -> String {
    format!("feedback-{round}.bin")
}

fn moments_name(round: Round) -> String {
    format!("moments-{round}.bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contribution(base: &[u8]) -> JournalContribution {
        JournalContribution { round: Round(3), base: Digest::of(base), manifest: Digest::ZERO, call: None }
    }

    fn feedback(disk: &Disk, base: &[u8]) -> Option<Vec<u8>> {
        let mut values = Vec::new();
        disk.feedback(&contribution(base)).unwrap()?.read_to_end(&mut values).unwrap();
        Some(values)
    }

    fn moments(disk: &Disk, journalled: Option<u32>) -> Option<Vec<u8>> {
        let mut values = Vec::new();
        disk.moments(journalled.map(Round)).unwrap()?.read_to_end(&mut values).unwrap();
        Some(values)
    }

    #[test]
    fn feedback_counts_only_whole_and_for_the_contribution_it_follows() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write_feedback(Round(3), Digest::of(b"base"), |file| file.write_all(b"values")).unwrap();
        assert_eq!(feedback(&disk, b"base").unwrap(), b"values");
        assert_eq!(feedback(&disk, b"other"), None);
        let whole = disk.read("feedback-3.bin").unwrap().unwrap();
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            disk.write("feedback-3.bin", &torn).unwrap();
            assert_eq!(feedback(&disk, b"base"), None, "byte {at} flipped");
            disk.write("feedback-3.bin", &whole[..at]).unwrap();
            assert_eq!(feedback(&disk, b"base"), None, "cut at {at}");
        }
        let unhashed =
            [&feedback_head(UNHASHED_FEEDBACK_MAGIC, Round(3), Digest::of(b"base")), &b"values"[..]].concat();
        disk.write("feedback-3.bin", &unhashed).unwrap();
        assert_eq!(feedback(&disk, b"base").unwrap(), b"values", "an earlier version's");
        disk.keep_training(None).unwrap();
        assert_eq!(feedback(&disk, b"base"), None);
    }

    /// Killed between a round's moments and its journal, a miner must train that round from the moments before it.
    #[test]
    fn moments_of_a_round_that_the_journal_does_not_name_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write(UNNUMBERED_MOMENTS, b"old").unwrap();
        assert_eq!(moments(&disk, Some(2)).unwrap(), b"old", "an earlier version's");
        for round in [3, 4] {
            disk.write_moments(Round(round), |file| file.write_all(&[round as u8])).unwrap();
        }
        assert_eq!(moments(&disk, Some(3)).unwrap(), [3]);
        disk.keep_training(Some(Round(3))).unwrap();
        assert_eq!(moments(&disk, Some(9)).unwrap(), [3], "those of round 4 never counted");
        disk.keep_training(Some(Round(9))).unwrap();
        assert_eq!(moments(&disk, Some(9)).unwrap(), [3], "the newest there are");
        disk.forget_training().unwrap();
        assert_eq!(moments(&disk, Some(9)), None);
    }
}
