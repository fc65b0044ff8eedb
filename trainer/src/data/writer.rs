//! A data set's folder comes to be: as a whole or not at all, and over nothing that is somebody's.
//!
//! It is written beside its place, synced, and renamed. What is in it, [`super::shards`] says.

use super::shards::{MANIFEST_FILE, SHARD_BYTES, TEMPLATE_FILE, TOKENIZER_FILE};
use super::tokens::Tokens;
use super::{DataError, Dataset, Manifest, ShardEntry};
use covey_proto::Digest;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a crashed process left beside the data set is removed after this time; another may be at work until then.
const STALE: Duration = Duration::from_secs(3600);

/// A data set being written beside its place.
pub(super) struct Writer {
    target: PathBuf,
    beside: PathBuf,
}

impl Writer {
    /// Makes the folder beside `target`; refuses a `target` that is somebody's.
    pub(super) fn new(target: &Path) -> Result<Writer, DataError> {
        if is_occupied(target)? {
            return Err(DataError::Occupied(target.to_path_buf()));
        }
        let name = target.file_name().ok_or_else(|| DataError::Occupied(target.to_path_buf()))?.to_string_lossy();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(DataError::write(parent))?;
        let prefix = format!(".{name}.preparing-");
        remove_stale(parent, &prefix);
        let beside = parent.join(format!("{prefix}{}", std::process::id()));
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(DataError::write(&beside))?;
        }
        fs::create_dir(&beside).map_err(DataError::write(&beside))?;
        Ok(Writer { target: target.to_path_buf(), beside })
    }

    /// Writes tokens as shards.
    pub(super) fn shards(&self, tokens: &Tokens) -> Result<Vec<ShardEntry>, DataError> {
        let width = tokens.width().bytes();
        tokens
            .chunks(SHARD_BYTES / width)
            .map(|bytes| {
                let entry = ShardEntry { digest: Digest::of(&bytes), tokens: (bytes.len() / width) as u32 };
                self.file(&entry.file(), &bytes)?;
                Ok(entry)
            })
            .collect()
    }

    /// Writes one file and syncs it.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        let path = self.beside.join(name);
        let mut file = File::create(&path).map_err(DataError::write(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(DataError::write(&path))
    }

    /// Puts the data set in its place; an older one there makes way, but the same one, whole, stays for its readers.
    pub(super) fn finish(self, manifest: &Manifest) -> Result<(), DataError> {
        manifest.named_once().map_err(DataError::Repeats)?;
        self.file(MANIFEST_FILE, &manifest.to_bytes())?;
        sync_folder(&self.beside)?;
        if Dataset::open(&self.target, Some(manifest.digest())).is_ok() {
            return Ok(());
        }
        if self.target.exists() {
            remove_dataset(&self.target)?;
        }
        fs::rename(&self.beside, &self.target).map_err(DataError::write(&self.target))?;
        sync_folder(self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for Writer {
    /// Given up half-way: leave nothing. After `finish` there is nothing to find.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.beside);
    }
}

fn sync_folder(folder: &Path) -> Result<(), DataError> {
    // Windows has no such thing, and does not need it.
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(DataError::write(folder))?;
    }
    Ok(())
}

/// Whether `target` is there and holds anything else than a data set.
fn is_occupied(target: &Path) -> Result<bool, DataError> {
    match fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_some() && !target.join(MANIFEST_FILE).is_file()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DataError::Read { path: target.to_path_buf(), source }),
    }
}

/// Removes a data set's own files, the manifest last, and the folder if nothing else is in it.
fn remove_dataset(target: &Path) -> Result<(), DataError> {
    for entry in fs::read_dir(target).map_err(DataError::read(target))? {
        let path = entry.map_err(DataError::read(target))?.path();
        let ours = path.ends_with(TOKENIZER_FILE) || path.ends_with(TEMPLATE_FILE);
        if ours || path.extension().is_some_and(|extension| extension == "tok") {
            fs::remove_file(&path).map_err(DataError::write(&path))?;
        }
    }
    let manifest = target.join(MANIFEST_FILE);
    if manifest.exists() {
        fs::remove_file(&manifest).map_err(DataError::write(&manifest))?;
    }
    fs::remove_dir(target).map_err(DataError::write(target))
}

/// Removes folders that a crashed process left; failing is harmless.
fn remove_stale(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    }

    #[test]
    fn what_is_given_up_half_way_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::new(&dir.path().join("set")).unwrap();
        writer.file(TOKENIZER_FILE, b"{}").unwrap();
        assert_eq!(names(dir.path()), [format!(".set.preparing-{}", std::process::id())]);
        drop(writer);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_a_crash_left_goes_once_nobody_can_be_at_work_there() {
        let dir = tempfile::tempdir().unwrap();
        let [old, young] = [".set.preparing-1", ".set.preparing-2"].map(|name| dir.path().join(name));
        fs::create_dir(&young).unwrap();
        fs::create_dir(&old).unwrap();
        let long_ago = std::time::SystemTime::now() - STALE - Duration::from_secs(1);
        File::open(&old).unwrap().set_modified(long_ago).unwrap();
        drop(Writer::new(&dir.path().join("set")).unwrap());
        assert_eq!(names(dir.path()), [".set.preparing-2"]);
    }

    #[test]
    fn an_empty_folder_is_nobodys_and_one_with_other_files_is_somebodys() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_occupied(&dir.path().join("none")).unwrap());
        assert!(!is_occupied(dir.path()).unwrap());
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        assert!(is_occupied(dir.path()).unwrap());
        fs::write(dir.path().join(MANIFEST_FILE), "{}").unwrap();
        assert!(!is_occupied(dir.path()).unwrap());
    }

    #[test]
    fn of_an_older_data_set_only_its_own_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("set");
        fs::create_dir(&target).unwrap();
        for name in ["00.tok", TOKENIZER_FILE, MANIFEST_FILE, "notes.txt"] {
            fs::write(target.join(name), "").unwrap();
        }
        assert!(matches!(remove_dataset(&target), Err(DataError::Write { .. })));
        assert_eq!(names(&target), ["notes.txt"]);
        fs::remove_file(target.join("notes.txt")).unwrap();
        remove_dataset(&target).unwrap();
        assert!(!target.exists());
    }
}
