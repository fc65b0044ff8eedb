//! Has cargo fetch the corpus's packages, which checks every one against the lock file's checksums.
//!
//! The manifest and its lock are in the binary, so an installed `covey` needs no checkout. Nothing of the packages is
//! built or run: `cargo metadata` downloads and unpacks them, and says where.

use super::error::CorpusError;
use serde::Deserialize;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MANIFEST: &str = include_str!("../../corpus/Cargo.toml");
const LOCK: &str = include_str!("../../corpus/Cargo.lock");
/// Cargo wants something to build, although nothing is.
const LIBRARY: &str = include_str!("../../corpus/src/lib.rs");
/// One platform for everyone: what is needed on others is not fetched, and the text is the same everywhere.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Lines of cargo's complaint that are passed on.
const COMPLAINT_LINES: usize = 12;

/// An unpacked package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it is unpacked.
    pub root: PathBuf,
}

/// Packages in the lock file, this one's own entry left out: what is fetched, and a little that other platforms need.
pub fn packages_locked() -> usize {
    LOCK.matches("[[package]]").count().saturating_sub(1)
}

/// Fetches all packages of the lock file and says where they are, by name and version. `folder` is where the manifest
/// is written; the packages go where cargo keeps such things. `downloaded` is told how many were, each time one was.
///
/// # Errors
/// [`CorpusError::NoCargo`] if there is no cargo, [`CorpusError::Cargo`] with cargo's words if it fails.
pub fn fetch(folder: &Path, downloaded: &mut dyn FnMut(usize)) -> Result<Vec<Package>, CorpusError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    fetch_with(&cargo, folder, downloaded)
}

fn fetch_with(cargo: &OsStr, folder: &Path, downloaded: &mut dyn FnMut(usize)) -> Result<Vec<Package>, CorpusError> {
    let sources = folder.join("src");
    fs::create_dir_all(&sources).map_err(CorpusError::write(&sources))?;
    let manifest = folder.join("Cargo.toml");
    for (path, text) in [(&manifest, MANIFEST), (&folder.join("Cargo.lock"), LOCK), (&sources.join("lib.rs"), LIBRARY)]
    {
        fs::write(path, text).map_err(CorpusError::write(path))?;
    }
    let failed = |source: io::Error| CorpusError::Cargo { complaint: source.to_string() };
    let mut child = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", PLATFORM, "--manifest-path"])
        .arg(&manifest)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CorpusError::NoCargo { cargo: cargo.to_string_lossy().into_owned() },
            _ => failed(source),
        })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both pipes must be emptied at once, or cargo waits for us for ever.
    let (answer, complaint) = std::thread::scope(|scope| {
        let answer = scope.spawn(|| read_all(stdout));
        let complaint = read_progress(stderr, downloaded);
        (answer.join().unwrap_or_else(|_| Err(io::Error::other("reading its answer failed"))), complaint)
    });
    if !child.wait().map_err(failed)?.success() {
        return Err(CorpusError::Cargo { complaint });
    }
    read_metadata(&answer.map_err(failed)?)
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Counts the packages that cargo says it downloaded, and returns the last of what else it says.
fn read_progress(pipe: Option<impl Read>, downloaded: &mut dyn FnMut(usize)) -> String {
    let mut complaint = VecDeque::new();
    let mut done = 0;
    for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok)) {
        if line.trim_start().starts_with("Downloaded ") {
            done += 1;
            downloaded(done);
        } else if !line.trim_start().starts_with("Downloading ") {
            complaint.push_back(line);
            if complaint.len() > COMPLAINT_LINES {
                complaint.pop_front();
            }
        }
    }
    Vec::from(complaint).join("\n")
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    version: String,
    source: Option<String>,
    manifest_path: PathBuf,
}

fn read_metadata(json: &[u8]) -> Result<Vec<Package>, CorpusError> {
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|e| CorpusError::Cargo { complaint: format!("its answer does not parse: {e}") })?;
    let mut packages: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_some())
        .filter_map(|package| {
            let root = package.manifest_path.parent()?.to_path_buf();
            Some(Package { name: package.name, version: package.version, root })
        })
        .collect();
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_pins_every_version_and_the_lock_every_checksum() {
        let dependencies = MANIFEST.lines().skip_while(|line| *line != "[dependencies]").skip(1);
        for line in dependencies.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(line.contains("version = \"=") && line.contains("default-features = false"), "{line}");
        }
        assert_eq!(LOCK.matches("checksum = ").count(), packages_locked());
    }

    #[test]
    fn without_cargo_the_message_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_with("/nowhere/cargo".as_ref(), dir.path(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("/nowhere/cargo") && error.contains("--data PATH"), "{error}");
        assert!(dir.path().join("Cargo.lock").is_file());
    }

    #[test]
    fn downloads_are_counted_and_the_last_complaints_kept() {
        let words = "  Downloading crates ...\n  Downloaded a v1.0.0\n  Downloaded b v1.0.0\nerror: no network\n"
            .to_owned()
            + &"more\n".repeat(COMPLAINT_LINES - 1);
        let mut counts = Vec::new();
        let complaint = read_progress(Some(words.as_bytes()), &mut |done| counts.push(done));
        assert_eq!(counts, [1, 2]);
        assert!(complaint.starts_with("error: no network\nmore") && complaint.lines().count() == COMPLAINT_LINES);
    }

    #[test]
    fn packages_are_sorted_and_our_own_is_left_out() {
        let json = br#"{"packages":[
            {"name":"b","version":"1.0.0","source":"registry","manifest_path":"/r/b-1.0.0/Cargo.toml"},
            {"name":"covey-corpus","version":"0.0.0","source":null,"manifest_path":"/here/Cargo.toml"},
            {"name":"a","version":"2.0.0","source":"registry","manifest_path":"/r/a-2.0.0/Cargo.toml"}],"version":1}"#;
        let names: Vec<_> =
            read_metadata(json).unwrap().into_iter().map(|package| (package.name, package.root)).collect();
        assert_eq!(names, [("a".into(), PathBuf::from("/r/a-2.0.0")), ("b".into(), PathBuf::from("/r/b-1.0.0"))]);
        assert!(matches!(read_metadata(b"oops"), Err(CorpusError::Cargo { .. })));
    }
}
