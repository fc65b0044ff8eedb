//! Wallets as Bittensor's users have them: `btcli`'s folders and files, read and written.
//!
//! ```text
//! <path>/<wallet>/coldkey              the key that pays: JSON, most often encrypted
//!                 coldkeypub.txt       its public half
//!                 hotkeys/<name>       a key that a node signs with: JSON, most often plain
//!                 hotkeys/<name>pub.txt
//! ```
//!
//! [`Wallet`] names the files and is what others use. `secret` is a key and where it comes from (seed, phrase), `keyfile`
//! its JSON, `vault` the three kinds of encryption, `files` how a file that holds a secret is read and written, `password`
//! where a password comes from. Secrets are wiped when they go, and have no text form.

mod base64;
mod files;
mod keyfile;
mod list;
mod password;
mod secret;
mod vault;

pub use files::FileError;
pub use keyfile::KeyfileError;
pub use list::{KeyEntry, WalletEntry, list};
pub use password::{Password, PasswordError, Unlock, variable};
pub use secret::{PhraseError, Secret, SeedError};
pub use vault::VaultError;

use crate::config::is_name;
use covey_proto::{Coldkey, ColdkeyPair, Hotkey, HotkeyPair};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a wallet does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// Not a name of a wallet or key.
    #[error("{0:?} is no name: it has 1 to 64 letters, digits and . - _, and does not begin with a dot")]
    Name(String),
    /// No such wallet.
    #[error("there is no wallet {} (`covey wallet list` shows what is there, `covey wallet new` makes one)", .0.display())]
    NoWallet(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no key.
    #[error("{}: {error}", .path.display())]
    Keyfile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyfileError,
    },
    /// A file cannot be decrypted, or encrypted.
    #[error("{}: {error}", .path.display())]
    Vault {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: VaultError,
    },
    /// An encrypted file, and no password.
    #[error("{} is encrypted: {error}", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Why there is no password.
        error: PasswordError,
    },
}

/// A wallet's folder. Its keys stay in their files until they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    folder: PathBuf,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Write<'a> {
    /// Encrypts the file. Takes seconds and half a gigabyte for a moment.
    pub password: Option<&'a Password>,
    /// Replaces a key that is there, which is then gone.
    pub force: bool,
}

impl Wallet {
    /// The wallet `name` in the folder of all wallets, whether it is there or not.
    ///
    /// # Errors
    /// Not a name.
    pub fn at(path: &Path, name: &str) -> Result<Wallet, WalletError> {
        Ok(Wallet { folder: path.join(checked(name)?) })
    }

    /// The wallet `name`, which is there.
    ///
    /// # Errors
    /// Not a name, or no such wallet.
    pub fn open(path: &Path, name: &str) -> Result<Wallet, WalletError> {
        let wallet = Wallet::at(path, name)?;
        if wallet.folder.is_dir() { Ok(wallet) } else { Err(WalletError::NoWallet(wallet.folder)) }
    }

    /// Makes a wallet of these keys, all of them or, unless the disk refuses, none: nothing is written if one of the files
    /// is there already and `write` does not force it. The password is the coldkey's; hotkeys stay plain.
    ///
    /// # Errors
    /// Not a name, a key that is there, or what the disk refuses.
    pub fn create(
        path: &Path,
        name: &str,
        coldkey: &Secret,
        hotkeys: &[(&str, &Secret)],
        write: Write<'_>,
    ) -> Result<Wallet, WalletError> {
        let wallet = Wallet::at(path, name)?;
        let names: Vec<&str> = hotkeys.iter().map(|(name, _)| *name).collect();
        if !write.force {
            wallet.check_free(true, &names)?;
        }
        wallet.write_coldkey(coldkey, write)?;
        for (hotkey, secret) in hotkeys {
            wallet.write_hotkey(hotkey, secret, Write { password: None, ..write })?;
        }
        Ok(wallet)
    }

    /// Refuses if one of these keys is there.
    ///
    /// # Errors
    /// Not a name, or the first file that is there.
    pub fn check_free(&self, coldkey: bool, hotkeys: &[&str]) -> Result<(), WalletError> {
        if coldkey {
            files::must_be_free(&self.coldkey_path())?;
        }
        for hotkey in hotkeys {
            files::must_be_free(&self.hotkey_path(hotkey)?)?;
        }
        Ok(())
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The coldkey's file.
    pub fn coldkey_path(&self) -> PathBuf {
        self.folder.join("coldkey")
    }

    /// A hotkey's file.
    ///
    /// # Errors
    /// Not a name.
    pub fn hotkey_path(&self, name: &str) -> Result<PathBuf, WalletError> {
        Ok(self.folder.join("hotkeys").join(checked(name)?))
    }

    /// The hotkey `name`. Blocks for seconds if it is encrypted.
    ///
    /// # Errors
    /// No such file, one that others may read, an encrypted one without its password, or no key.
    pub fn hotkey(&self, name: &str, unlock: &Unlock) -> Result<HotkeyPair, WalletError> {
        Ok(read(&self.hotkey_path(name)?, unlock)?.hotkey_pair())
    }

    /// The coldkey. Blocks for seconds if it is encrypted, and takes half a gigabyte meanwhile.
    ///
    /// # Errors
    /// As [`hotkey`](Wallet::hotkey).
    pub fn coldkey(&self, unlock: &Unlock) -> Result<ColdkeyPair, WalletError> {
        Ok(read(&self.coldkey_path(), unlock)?.coldkey_pair())
    }

    /// A hotkey's public half: from its public file, or from its own if that is plain.
    ///
    /// # Errors
    /// Neither file can be read.
    pub fn hotkey_public(&self, name: &str) -> Result<Hotkey, WalletError> {
        Ok(Hotkey::new(public(&self.hotkey_path(name)?)?))
    }

    /// The coldkey's public half: from its public file, or from its own if that is plain.
    ///
    /// # Errors
    /// Neither file can be read.
    pub fn coldkey_public(&self) -> Result<Coldkey, WalletError> {
        Ok(Coldkey::new(public(&self.coldkey_path())?))
    }

    /// Writes a coldkey and its public file.
    ///
    /// # Errors
    /// A key is there and `write` does not force it, or what the disk refuses.
    pub fn write_coldkey(&self, secret: &Secret, write: Write<'_>) -> Result<(), WalletError> {
        self.write(&self.coldkey_path(), secret, write)
    }

    /// Writes a hotkey and its public file.
    ///
    /// # Errors
    /// Not a name, a key is there and `write` does not force it, or what the disk refuses.
    pub fn write_hotkey(&self, name: &str, secret: &Secret, write: Write<'_>) -> Result<(), WalletError> {
        self.write(&self.hotkey_path(name)?, secret, write)
    }

    /// Writes the coldkey's public file alone: for a machine that must not have the coldkey.
    ///
    /// # Errors
    /// One is there and `force` is not given, or what the disk refuses.
    pub fn write_coldkey_public(&self, coldkey: &Coldkey, force: bool) -> Result<(), WalletError> {
        let path = public_path(&self.coldkey_path());
        Ok(files::write(&path, &keyfile::public_json(coldkey.as_bytes()), force)?)
    }

    fn write(&self, path: &Path, secret: &Secret, write: Write<'_>) -> Result<(), WalletError> {
        if !write.force {
            // Before the password is stretched, which takes seconds.
            files::must_be_free(path)?;
            let public_path = public_path(path);
            let is_ours = public(path).is_ok_and(|public| public == *secret.public());
            if !is_ours {
                files::must_be_free(&public_path)?;
            }
        }
        let plain = keyfile::json(secret);
        let bytes = match write.password {
            None => plain,
            Some(password) => {
                let sealed = vault::seal(&plain, password);
                Zeroizing::new(sealed.map_err(|error| WalletError::Vault { path: path.to_owned(), error })?)
            }
        };
        files::write(path, &bytes, write.force)?;
        // It says nothing that the key does not.
        Ok(files::write(&public_path(path), &keyfile::public_json(secret.public()), true)?)
    }
}

fn checked(name: &str) -> Result<&str, WalletError> {
    if is_name(name) { Ok(name) } else { Err(WalletError::Name(name.chars().take(100).collect())) }
}

/// `coldkey` has `coldkeypub.txt` beside it.
fn public_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("pub.txt");
    path.with_file_name(name)
}

fn read(path: &Path, unlock: &Unlock) -> Result<Secret, WalletError> {
    let bytes = files::read_secret(path)?;
    let plain = match vault::Kind::of(&bytes) {
        None => bytes,
        Some(kind) => open(path, kind, &bytes, unlock)?,
    };
    keyfile::secret(&plain).map_err(|error| WalletError::Keyfile { path: path.to_owned(), error })
}

/// Tries every password that there is; a wrong one costs as much as the right one.
fn open(path: &Path, kind: vault::Kind, bytes: &[u8], unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let locked = |error| WalletError::Locked { path: path.to_owned(), error };
    let mut last = VaultError::Wrong;
    for password in unlock.passwords(path).map_err(locked)? {
        match vault::open(kind, bytes, &password) {
            Ok(plain) => return Ok(plain),
            Err(error) => last = error,
        }
    }
    Err(WalletError::Vault { path: path.to_owned(), error: last })
}

fn public(path: &Path) -> Result<[u8; 32], WalletError> {
    let beside = public_path(path);
    // Older wallets have no public files of hotkeys.
    let (path, bytes) = match files::read_public(&beside) {
        Ok(bytes) => (beside, bytes),
        Err(error) if error.is_missing() => match files::read_public(path) {
            Ok(bytes) => (path.to_owned(), bytes),
            Err(_) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    if vault::Kind::of(&bytes).is_some() {
        let error = KeyfileError::NoPublicFile;
        return Err(WalletError::Keyfile { path, error });
    }
    keyfile::public(&bytes).map_err(|error| WalletError::Keyfile { path, error })
}

#[cfg(test)]
mod tests;
