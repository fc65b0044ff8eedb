//! The node's key: made once, kept in a file that only its owner reads.

use libp2p::identity::Keypair;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the largest key file that is read: an ed25519 key takes 68.
const KEY_BYTES_MAX: u64 = 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no key that this node can use; restore it, or remove it to become another peer", .0.display())]
    NoKey(PathBuf),
}

/// The key in `directory`, made if there is none. Blocks on the disk.
pub(crate) fn load(directory: &Path) -> Result<Keypair, IdentityError> {
    let path = directory.join("identity.key");
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(directory, &path),
        Err(error) => Err(IdentityError::Io { what: "open", path, error }),
    }
}

fn read(path: &Path, file: File) -> Result<Keypair, IdentityError> {
    let io = |what| move |error| IdentityError::Io { what, path: path.to_owned(), error };
    let mode = file.metadata().map_err(io("look at"))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others can read this key: chmod 600 it");
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(io("read"))?;
    Keypair::from_protobuf_encoding(&bytes).map_err(|_| IdentityError::NoKey(path.to_owned()))
}

fn create(directory: &Path, path: &Path) -> Result<Keypair, IdentityError> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().map_err(|_| IdentityError::NoKey(path.to_owned()))?;
    let beside = directory.join("identity.key.new");
    write_beside(&beside, path, &bytes, 0o600).map_err(|error| IdentityError::Io {
        what: "write",
        path: path.to_owned(),
        error,
    })?;
    Ok(key)
}

/// Writes `beside`, then renames it to `path`: a crash leaves the old file or the new one.
pub(crate) fn write_beside(beside: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.key.new"), b"half").unwrap();
        let first = load(dir.path()).unwrap();
        let again = load(dir.path()).unwrap();
        assert_eq!(first.public(), again.public());
        let mode = fs::metadata(dir.path().join("identity.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_key_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.key"), b"not a key").unwrap();
        assert!(matches!(load(dir.path()), Err(IdentityError::NoKey(_))));
        assert_eq!(fs::read(dir.path().join("identity.key")).unwrap(), b"not a key");
    }
}
