//! A node's folder: what survives a crash at any instant.
//!
//! Every file is written beside, synced and renamed; nothing is edited in place. Paths are resolved at every operation
//! and the folder is never created again after [`Disk::open`]: if it is taken away, writes fail instead of landing
//! elsewhere. Keys are not here: they are in a wallet ([`crate::wallet`]).
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
mod opened;
pub mod state_check;

pub use opened::StateFile;

use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use covey_sparseloco::state::{as_le_bytes, read};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const JOURNAL: &str = "journal.json";
const STATE_MAGIC: &[u8; 8] = b"CVYFST01";
const FEEDBACK_MAGIC: &[u8; 8] = b"CVYFEE01";
/// "Before round 0", where a file has room for a round.
const NO_ROUND: u32 = u32::MAX;
/// States kept: the newest, and the one before it to recompute from when a majority disagrees.
const STATES_KEPT: usize = 2;

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

/// A state as the folder holds it.
pub struct SavedState {
    /// After which round, with which head.
    pub tip: Tip,
    /// The state root it had.
    pub root: Digest,
    /// The parameters, `[elements]`.
    pub parameters: Vec<f32>,
}

/// What was committed last: written before it is submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// As a miner.
    pub contribution: Option<JournalContribution>,
    /// The last record, hexadecimal: with both roles, a commit repeats the last vote.
    pub record: Option<String>,
}

/// A contribution that is on its way to the chain, or there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalContribution {
    /// The round.
    pub round: Round,
    /// head(round − 1).
    pub base: Digest,
    /// The manifest's digest.
    pub manifest: Digest,
    /// The signed call, hexadecimal, once its turn for a nonce has come: the same bytes are sent again after a crash.
    pub call: Option<String>,
}

/// The journal and its file, which never disagree.
#[derive(Debug)]
pub struct JournalFile {
    disk: Disk,
    journal: Mutex<Journal>,
}

impl JournalFile {
    /// What it says.
    pub fn read(&self) -> Journal {
        self.lock().clone()
    }

    /// Changes it: on the disk when this returns.
    ///
    /// # Errors
    /// The file system refuses; nothing has changed then.
    pub fn change(&self, change: impl FnOnce(&mut Journal)) -> Result<(), DiskError> {
        let mut journal = self.lock();
        let mut changed = journal.clone();
        change(&mut changed);
        let bytes = serde_json::to_vec(&changed).expect("numbers and texts have a JSON form");
        self.disk.write(JOURNAL, &[&bytes])?;
        *journal = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // The value is replaced whole: a panic inside the lock leaves the old one.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> Result<(), DiskError> {
        // Two writers of one file may be at work: a task that was given up ends when its computation does.
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let beside = self.path(&format!("{name}.{number}.part"));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&beside)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_data()?;
            fs::rename(&beside, self.path(name))?;
            fs::File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| {
            // The first error is the one to tell of; what stays here goes at the next start.
            let _ = fs::remove_file(&beside);
            DiskError { path: self.path(name), error }
        })
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

    /// The journal; empty on the first start.
    ///
    /// # Errors
    /// The file system refuses, or the file is no journal.
    pub fn journal(&self) -> Result<JournalFile, DiskError> {
        let journal = match self.read(JOURNAL)? {
            None => Journal::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.damaged(JOURNAL, &error.to_string()))?,
        };
        Ok(JournalFile { disk: self.clone(), journal: Mutex::new(journal) })
    }

    /// Keeps a state, and forgets all but the newest two.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_state(&self, tip: &Tip, root: Digest, parameters: &[f32]) -> Result<(), DiskError> {
        let round = tip.round.map_or(NO_ROUND, |round| round.0);
        let head = [STATE_MAGIC.as_slice(), &round.to_le_bytes(), tip.head.as_bytes(), root.as_bytes()].concat();
        self.write(&state_name(tip.round), &[&head, as_le_bytes(parameters)])?;
        let mut kept = self.saved_rounds()?;
        // A resynchronised node may go back: the state just written stays, whatever its round.
        kept.retain(|round| *round != tip.round);
        while kept.len() >= STATES_KEPT {
            self.remove(&state_name(kept.remove(0)))?;
        }
        Ok(())
    }

    /// The newest state whose file is whole and whose parameters number `elements`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn newest_state(&self, elements: usize) -> Result<Option<SavedState>, DiskError> {
        for round in self.saved_rounds()?.into_iter().rev() {
            match self.state(round, elements)? {
                Some(state) => return Ok(Some(state)),
                None => tracing::warn!(file = %self.path(&state_name(round)).display(), "not a state: passed over"),
            }
        }
        Ok(None)
    }

    /// The newest state that is whole and sound. Newer ones are damaged: they get out of the way as `NAME.damaged`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn restore_state(
        &self,
        elements: usize,
        is_sound: impl Fn(&SavedState) -> bool,
    ) -> Result<Option<SavedState>, DiskError> {
        for round in self.saved_rounds()?.into_iter().rev() {
            if let Some(state) = self.state(round, elements)?.filter(&is_sound) {
                return Ok(Some(state));
            }
            let name = state_name(round);
            let aside = self.path(&format!("{name}.damaged"));
            tracing::error!(file = %self.path(&name).display(), aside = %aside.display(), "a saved state is damaged");
            fs::rename(self.path(&name), &aside).map_err(|error| DiskError { path: aside, error })?;
        }
        Ok(None)
    }

    /// The state after `round`, if its file is there and whole.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn state(&self, round: Option<Round>, elements: usize) -> Result<Option<SavedState>, DiskError> {
        let bytes = self.read(&state_name(round))?;
        let state = bytes.and_then(|bytes| parse_state(&bytes, elements));
        Ok(state.filter(|state| state.tip.round == round))
    }

    /// Forgets every state of a round after `tip`'s.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_states_after(&self, tip: &Tip) -> Result<(), DiskError> {
        for round in self.saved_rounds()? {
            if round > tip.round {
                self.remove(&state_name(round))?;
            }
        }
        Ok(())
    }

    fn saved_rounds(&self) -> Result<Vec<Option<Round>>, DiskError> {
        let fault = |error| DiskError { path: self.root.clone(), error };
        let mut rounds = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let middle = name.to_str().and_then(|name| name.strip_prefix("state-")?.strip_suffix(".bin"));
            let round = match middle {
                Some("genesis") => Some(None),
                Some(number) => number.parse().ok().map(|number| Some(Round(number))),
                None => None,
            };
            // "state-07.bin" is not ours.
            rounds.extend(round.filter(|round| name.to_str() == Some(&state_name(*round))));
        }
        rounds.sort();
        Ok(rounds)
    }

    /// Keeps the error feedback that follows the contribution of `round`, as bytes; it counts once the journal names it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_feedback(&self, round: Round, base: Digest, feedback: &[u8]) -> Result<(), DiskError> {
        let head = [FEEDBACK_MAGIC.as_slice(), &round.0.to_le_bytes(), base.as_bytes()].concat();
        self.write(&feedback_name(round), &[&head, feedback])
    }

    /// The bytes of the error feedback of the contribution that the journal names; none if they are another's. Whether they
    /// are whole, who reads them finds out.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn feedback(&self, of: &JournalContribution) -> Result<Option<Vec<u8>>, DiskError> {
        let Some(bytes) = self.read(&feedback_name(of.round))? else { return Ok(None) };
        let head = [FEEDBACK_MAGIC.as_slice(), &of.round.0.to_le_bytes(), of.base.as_bytes()].concat();
        Ok(bytes.strip_prefix(head.as_slice()).map(<[u8]>::to_vec))
    }

    /// Forgets the error feedback of all rounds but `round`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep_only_feedback(&self, round: Option<Round>) -> Result<(), DiskError> {
        let fault = |error| DiskError { path: self.root.clone(), error };
        let kept = round.map(feedback_name);
        for entry in fs::read_dir(&self.root).map_err(fault)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("feedback-") && name.ends_with(".bin") && Some(&name) != kept.as_ref() {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

fn state_name(round: Option<Round>) -> String {
    round.map_or_else(|| "state-genesis.bin".to_owned(), |round| format!("state-{round}.bin"))
}

fn feedback_name(round: Round) -> String {
    format!("feedback-{round}.bin")
}

fn parse_state(bytes: &[u8], elements: usize) -> Option<SavedState> {
    let mut rest = bytes.strip_prefix(STATE_MAGIC.as_slice())?;
    let mut field = [0; 68];
    rest.read_exact(&mut field).ok()?;
    let round = u32::from_le_bytes(field[..4].try_into().ok()?);
    let round = (round != NO_ROUND).then_some(Round(round));
    let head = Digest::from_slice(&field[4..36])?;
    let root = Digest::from_slice(&field[36..])?;
    Some(SavedState { tip: Tip { round, head }, root, parameters: read(&mut rest, elements).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(round: Option<u32>) -> Tip {
        Tip { round: round.map(Round), head: Digest::of(b"head") }
    }

    #[test]
    fn the_newest_whole_state_is_found_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        for round in [None, Some(8), Some(9), Some(10)] {
            disk.write_state(&tip(round), Digest::of(b"root"), &[1.5, -2.0]).unwrap();
        }
        assert_eq!(disk.saved_rounds().unwrap(), [Some(Round(9)), Some(Round(10))]);
        fs::write(folder.path().join("state-10.bin"), b"CVYFST01 torn").unwrap();
        let state = disk.newest_state(2).unwrap().unwrap();
        assert_eq!((state.tip, state.parameters), (tip(Some(9)), vec![1.5, -2.0]));
    }

    #[test]
    fn a_damaged_state_gets_out_of_the_way_and_the_one_before_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let there = |name: &str| folder.path().join(name).exists();
        for round in [8, 9] {
            disk.write_state(&tip(Some(round)), Digest::of(&[round as u8]), &[1.5, -2.0]).unwrap();
        }
        let is_sound = |state: &SavedState| state.root == Digest::of(&[8]);
        let state = disk.restore_state(2, is_sound).unwrap().unwrap();
        assert_eq!(state.tip, tip(Some(8)));
        assert!(there("state-9.bin.damaged") && !there("state-9.bin"));
        // A copy under another round's name is not that round's state.
        fs::copy(folder.path().join("state-8.bin"), folder.path().join("state-10.bin")).unwrap();
        assert_eq!(disk.restore_state(2, is_sound).unwrap().unwrap().tip, tip(Some(8)));
        assert!(there("state-10.bin.damaged"));
        fs::write(folder.path().join("state-8.bin"), b"torn").unwrap();
        assert!(disk.restore_state(2, is_sound).unwrap().is_none(), "nothing is left but the beginning");
        assert!(there("state-8.bin.damaged"));
    }

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
    fn feedback_counts_only_for_the_contribution_it_follows() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let base = Digest::of(b"base");
        let feedback = as_le_bytes(&[0.25; 4]).to_vec();
        disk.write_feedback(Round(3), base, &feedback).unwrap();
        let contribution = |base| JournalContribution { round: Round(3), base, manifest: Digest::ZERO, call: None };
        assert_eq!(disk.feedback(&contribution(base)).unwrap(), Some(feedback));
        assert_eq!(disk.feedback(&contribution(Digest::ZERO)).unwrap(), None);
        disk.keep_only_feedback(None).unwrap();
        assert_eq!(disk.feedback(&contribution(base)).unwrap(), None);
    }
}
