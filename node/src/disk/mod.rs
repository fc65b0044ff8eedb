//! A node's folder: what survives a crash at any instant.
//!
//! Every file is written beside, synced and renamed; nothing is edited in place. Paths are resolved at every operation
//! and the folder is never created again after [`Disk::open`]: if it is taken away, writes fail instead of landing
//! elsewhere. Keys are not here: they are in a wallet ([`crate::wallet`]). What is as large as the model is written and
//! read as a stream: no copy of it is made on the way.
//!
//! [`states`] has the states, [`journal`] what was committed last; this file the rest, and how files are written.
//! [`folder`] is a whole swarm's, [`state_check`] holds a saved state against a root.
//!
//! ```text
//! identity.key blobs/  covey-gossip's
//! state-R.bin          the state after round R ("genesis" before round 0): the newest two; .damaged if it was none
//! feedback-R.bin       error feedback after the contribution of round R
//! moments.bin          the inner optimizer's
//! journal.json         what was committed last
//! ratings.bin          a validator's
//! ```

pub mod folder;
pub mod journal;
pub mod state_check;
pub mod states;

pub use journal::{Journal, JournalContribution, JournalFile};
pub use states::{SavedState, StateFile};

use covey_proto::{Digest, Round};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const TRAINING_MAGIC: &[u8; 8] = b"CVYTRA01";
/// What a stream is read by at most: few calls, and no matter beside a model.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes begun in this process: each has a temporary file of its own.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// The file system's refusal, with the file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct DiskError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// A node's folder.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The folder at `root` as it is, for who reads: nothing is made or removed.
    pub fn at(root: impl Into<PathBuf>) -> Disk {
        Disk { root: root.into() }
    }

    /// The folder at `root`, made if it is not there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(root: &Path) -> Result<Disk, DiskError> {
        fs::create_dir_all(root).map_err(|error| DiskError { path: root.to_owned(), error })?;
        Ok(Disk::at(root))
    }

    /// Removes what a crash left half-written: only for who holds the lock of the folder's blob store, or another node
    /// may be writing it just now.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove_leftovers(&self) -> Result<(), DiskError> {
        let fault = |error| DiskError { path: self.root.clone(), error };
        for entry in fs::read_dir(&self.root).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(&path).map_err(|error| DiskError { path, error })?;
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Replaces a file whole: beside, synced, renamed.
    ///
    /// # Errors
    /// The file system refuses; the file is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// [`write`](Disk::write) of what `content` writes, in pieces that are worth a call each.
    ///
    /// # Errors
    /// The file system or `content` refuses; the file is as it was.
    pub fn write_with(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        // Two writers of one file may be at work: a task that was given up ends when its computation does.
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let beside = self.path(&format!("{name}.{number}.part"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            content(&mut file)?;
            file.sync_data()?;
            fs::rename(&beside, self.path(name))?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| {
            // The first error is the one to tell of; what stays here goes at the next start.
            let _ = fs::remove_file(&beside);
            DiskError { path: self.path(name), error }
        })
    }

    /// A file, to be read as a stream; none if it is not there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open_file(&self, name: &str) -> Result<Option<BufReader<File>>, DiskError> {
        let open = || -> io::Result<_> {
            let file = File::open(self.path(name))?;
            let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            Ok(BufReader::with_capacity(bytes.clamp(1, BUFFER_BYTES), file))
        };
        match open() {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError { path: self.path(name), error }),
        }
    }

    /// A file's bytes; none if it is not there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError { path: self.path(name), error }),
        }
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError { path: self.path(name), error }),
            _ => Ok(()),
        }
    }

    fn damaged(&self, name: &str, what: &str) -> DiskError {
        DiskError { path: self.path(name), error: io::Error::new(io::ErrorKind::InvalidData, what) }
    }

    /// Keeps what a miner has learned by the contribution of `round` (error feedback and moments, as `save` writes them); it
    /// counts once the journal names the contribution.
    ///
    /// # Errors
    /// The file system or `save` refuses.
    pub fn write_training(
        &self,
        round: Round,
        base: Digest,
        save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        self.write_with(&training_name(round), |file| {
            file.write_all(&training_head(round, base))?;
            save(file)
        })
    }

    /// What was learned by the contribution that the journal names, to be read as a stream; none if no file says that it is
    /// that.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn training(&self, of: &JournalContribution) -> Result<Option<impl Read + use<>>, DiskError> {
        let Some(mut file) = self.open_file(&training_name(of.round))? else { return Ok(None) };
        let expected = training_head(of.round, of.base);
        let mut head = vec![0; expected.len()];
        Ok((file.read_exact(&mut head).is_ok() && head == expected).then_some(file))
    }

    /// What was learned by the newest contribution before `round` of which it is on the disk.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn training_before(&self, round: Round) -> Result<Option<impl Read + use<>>, DiskError> {
        let rounds = self.training_rounds()?.into_iter().filter(|of| *of < round);
        let Some(newest) = rounds.max() else { return Ok(None) };
        let Some(mut file) = self.open_file(&training_name(newest))? else { return Ok(None) };
        let mut head = vec![0; training_head(newest, Digest::ZERO).len()];
        Ok((file.read_exact(&mut head).is_ok() && head.starts_with(TRAINING_MAGIC)).then_some(file))
    }

    /// Forgets what a miner has learned.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_training(&self) -> Result<(), DiskError> {
        self.keep_only_training(None)
    }

    /// Forgets what was learned by the contributions of all rounds but `round`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep_only_training(&self, round: Option<Round>) -> Result<(), DiskError> {
        let others = self.training_rounds()?.into_iter().filter(|of| Some(*of) != round);
        others.map(training_name).try_for_each(|name| self.remove(&name))
    }

    fn training_rounds(&self) -> Result<Vec<Round>, DiskError> {
        let entries = fs::read_dir(&self.root).map_err(|error| DiskError { path: self.root.clone(), error })?;
        let round = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("training-")?.strip_suffix(".bin")?.parse().ok().map(Round)
        };
        Ok(entries.flatten().filter_map(round).collect())
    }
}

fn training_head(round: Round, base: Digest) -> Vec<u8> {
    [TRAINING_MAGIC.as_slice(), &round.0.to_le_bytes(), base.as_bytes()].concat()
}

fn training_name(round: Round) -> String {
    format!("training-{round}.bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_a_folder_changes_nothing_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (part, away) = (folder.path().join("journal.json.part"), folder.path().join("away"));
        fs::write(&part, b"half").unwrap();
        assert!(Disk::at(folder.path()).newest_state(2).unwrap().is_none());
        assert!(Disk::at(&away).newest_state(2).is_err() && !away.exists());
        let disk = Disk::open(folder.path()).unwrap();
        assert!(part.exists(), "who opens it may not hold its lock yet");
        disk.remove_leftovers().unwrap();
        assert!(!part.exists());
    }

    #[test]
    fn what_was_learned_counts_only_for_the_contribution_it_came_with() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let base = Digest::of(b"base");
        disk.write_training(Round(2), base, |file| file.write_all(b"older")).unwrap();
        disk.write_training(Round(3), base, |file| file.write_all(b"values")).unwrap();
        let contribution = |base| JournalContribution { round: Round(3), base, manifest: Digest::ZERO, call: None };
        let text = |file: Option<&mut dyn Read>| {
            let mut values = String::new();
            file.map(|file| file.read_to_string(&mut values).unwrap()).map(|_| values)
        };
        let exact = |base| disk.training(&contribution(base)).unwrap().and_then(|mut file| text(Some(&mut file)));
        let before = |round| disk.training_before(Round(round)).unwrap().and_then(|mut file| text(Some(&mut file)));
        assert_eq!((exact(base), exact(Digest::ZERO)), (Some("values".into()), None));
        assert_eq!([2, 3, 9].map(before), [None, Some("older".into()), Some("values".into())]);
        disk.keep_only_training(Some(Round(3))).unwrap();
        assert_eq!((exact(base), before(3)), (Some("values".into()), None));
        disk.forget_training().unwrap();
        assert_eq!(exact(base), None);
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write("file", b"old").unwrap();
        let failing = disk.write_with("file", |file| {
            file.write_all(&vec![1; 2 * BUFFER_BYTES])?;
            Err(io::Error::other("no more"))
        });
        assert!(failing.unwrap_err().to_string().ends_with("file: no more"));
        assert_eq!(disk.read("file").unwrap().unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
