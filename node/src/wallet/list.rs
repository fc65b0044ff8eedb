//! What wallets there are: names, addresses, and what keeps a key from being used. Nothing secret is opened.

use super::{Wallet, WalletError, files, public, vault};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Wallets, and hotkeys of one, that are listed: a folder of more is no folder of wallets.
const ENTRIES_MAX: usize = 1024;

/// A wallet, as `covey wallet list` shows it.
#[derive(Debug)]
pub struct WalletEntry {
    /// Its name.
    pub name: String,
    /// Its coldkey, if a file of it is there.
    pub coldkey: Option<KeyEntry>,
    /// Its hotkeys by name.
    pub hotkeys: Vec<(String, KeyEntry)>,
}

/// A key, from outside.
#[derive(Debug)]
pub struct KeyEntry {
    /// Its address, or why that is not known.
    pub address: Result<String, WalletError>,
    /// Whether its own file is here, and not only the public one.
    pub is_here: bool,
    /// Whether its file is encrypted.
    pub encrypted: bool,
    /// Its permissions, if others may read it.
    pub open_mode: Option<u32>,
}

/// The wallets in the folder `path`, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn list(path: &Path) -> Result<Vec<WalletEntry>, WalletError> {
    let mut wallets = Vec::new();
    for name in names(path)? {
        let Ok(wallet) = Wallet::open(path, &name) else { continue };
        let coldkey = key(&wallet.coldkey_path());
        let mut hotkeys = Vec::new();
        let files = names(&wallet.folder().join("hotkeys")).unwrap_or_default();
        for file in &files {
            // A public file alone stands for its key, too.
            let name = match file.strip_suffix("pub.txt") {
                Some(name) if files.iter().any(|other| other == name) => continue,
                Some(name) => name,
                None => file,
            };
            if let Ok(path) = wallet.hotkey_path(name)
                && let Some(key) = key(&path)
            {
                hotkeys.push((name.to_owned(), key));
            }
        }
        if coldkey.is_some() || !hotkeys.is_empty() {
            wallets.push(WalletEntry { name, coldkey, hotkeys });
        }
    }
    Ok(wallets)
}

fn names(folder: &Path) -> Result<Vec<String>, WalletError> {
    let fault = |error| files::FileError::Io { path: folder.to_owned(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault)?.take(ENTRIES_MAX) {
        if let Ok(name) = entry.map_err(fault)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The key at `path`, if it or its public half is there.
fn key(path: &Path) -> Option<KeyEntry> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let address = public(path).map(|key| covey_proto::Coldkey::new(key).to_string());
    if metadata.is_none() && address.is_err() {
        return None;
    }
    let encrypted = metadata.is_some() && files::read_public(path).is_ok_and(|bytes| vault::Kind::of(&bytes).is_some());
    Some(KeyEntry {
        address,
        is_here: metadata.is_some(),
        encrypted,
        open_mode: metadata.map(|metadata| metadata.mode() & 0o777).filter(|mode| mode & 0o077 != 0),
    })
}
