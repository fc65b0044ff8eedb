//! The journal: what a node committed last. It is on the disk before the chain hears of it, so that a node which was killed
//! sends the same bytes again instead of others.

use super::{Disk, DiskError};
use covey_proto::{Digest, Round};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

const JOURNAL: &str = "journal.json";

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
        self.disk.write(JOURNAL, &bytes)?;
        *journal = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // The value is replaced whole: a panic inside the lock leaves the old one.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_on_the_disk_and_one_that_cannot_be_written_did_not_happen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        let disk = Disk::open(&path).unwrap();
        let journal = disk.journal().unwrap();
        journal.change(|journal| journal.record = Some("00".into())).unwrap();
        assert_eq!(disk.journal().unwrap().read(), journal.read());
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        assert!(journal.change(|journal| journal.record = None).is_err());
        assert_eq!(journal.read().record.as_deref(), Some("00"));
    }

    #[test]
    fn a_file_that_is_no_journal_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        for text in [&b"{"[..], br#"{"contribution":null,"record":null,"other":1}"#] {
            disk.write(JOURNAL, text).unwrap();
            assert!(disk.journal().unwrap_err().to_string().contains("journal.json: "));
        }
    }
}
