//! Encrypted keyfiles: the kind that btcli writes today, read and written; the one before it, read; the oldest, named.
//!
//! | begins with | cipher | key |
//! |---|---|---|
//! | `$NACL` | XSalsa20-Poly1305: nonce 24, tag 16, text | Argon2i 1.3, 8 passes over 512 MiB, one lane, one salt for all |
//! | `$ANSIBLE_VAULT;1.1;AES256` | AES-256-CTR, HMAC-SHA256, in hexadecimal twice | PBKDF2-HMAC-SHA256, 10,000 rounds |
//! | `gAAAA` (Fernet) | not read: its key is made again from its phrase | |
//!
//! The first takes its time with every password, on purpose: seconds, and half a gigabyte of memory.

use super::Password;
use super::files::KEYFILE_BYTES_MAX;
use aes::cipher::{BlockEncrypt, KeyInit};
use argon2::{Algorithm, Argon2, Params, Version};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::Aead;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

const NACL: &[u8] = b"$NACL";
const ANSIBLE: &[u8] = b"$ANSIBLE_VAULT;";
const FERNET: &[u8] = b"gAAAA";
const NONCE_BYTES: usize = 24;
/// libsodium's "sensitive" cost, as btcli asks for.
const COST: Cost = Cost { passes: 8, kib: 512 * 1024 };
const SALT: [u8; 16] = [0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1];
const ANSIBLE_ROUNDS: u32 = 10_000;

/// What a password costs whoever tries it.
#[derive(Clone, Copy, Debug)]
struct Cost {
    passes: u32,
    kib: u32,
}

/// Why a file cannot be decrypted, or encrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VaultError {
    /// The password, or a byte of the file.
    #[error("the password is wrong, or the file is damaged")]
    Wrong,
    /// Not the layout that its beginning says.
    #[error("it begins as an encrypted file of {0}, but is none; restore it from a copy or from its phrase")]
    Form(&'static str),
    /// Fernet, which no wallet of today writes.
    #[error(
        "it is encrypted in the way of bittensor before 4.0 (Fernet), which is not read here: make the key again from its \
         phrase with `covey wallet import`, under another --wallet"
    )]
    Old,
    /// No memory for the key.
    #[error("the password needs {0} MiB of memory for some seconds, which this machine does not give")]
    Memory(u32),
    /// No randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

/// How a file is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `$NACL`.
    Nacl,
    /// `$ANSIBLE_VAULT`.
    Ansible,
    /// `gAAAA`.
    Fernet,
}

impl Kind {
    /// How it is, if it is.
    pub(super) fn of(bytes: &[u8]) -> Option<Kind> {
        let kinds = [(NACL, Kind::Nacl), (ANSIBLE, Kind::Ansible), (FERNET, Kind::Fernet)];
        kinds.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| kind)
    }
}

/// The plain text of an encrypted file.
pub(super) fn open(kind: Kind, bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    match kind {
        Kind::Nacl => open_nacl(bytes, password, COST),
        Kind::Ansible => open_ansible(bytes, password),
        Kind::Fernet => Err(VaultError::Old),
    }
}

/// Encrypts as btcli does today.
pub(super) fn seal(plain: &[u8], password: &Password) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| VaultError::Random(error.to_string()))?;
    seal_nacl(plain, password, nonce, COST)
}

fn open_nacl(bytes: &[u8], password: &Password, cost: Cost) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let body = bytes.strip_prefix(NACL).unwrap_or_default();
    let (nonce, sealed) = body.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Form("NaCl"))?;
    let plain = secretbox(password, cost)?.decrypt(nonce.into(), sealed).map_err(|_| VaultError::Wrong)?;
    Ok(Zeroizing::new(plain))
}

fn seal_nacl(plain: &[u8], password: &Password, nonce: [u8; NONCE_BYTES], cost: Cost) -> Result<Vec<u8>, VaultError> {
    debug_assert!(plain.len() < KEYFILE_BYTES_MAX, "a keyfile is short");
    // The cipher fails for texts of 256 GiB alone.
    let sealed = secretbox(password, cost)?.encrypt((&nonce).into(), plain).map_err(|_| VaultError::Form("NaCl"))?;
    Ok([NACL, &nonce, &sealed].concat())
}

fn secretbox(password: &Password, cost: Cost) -> Result<XSalsa20Poly1305, VaultError> {
    let memory = || VaultError::Memory(cost.kib / 1024);
    let params = Params::new(cost.kib, cost.passes, 1, Some(32)).map_err(|_| memory())?;
    let count = params.block_count();
    let mut blocks = Vec::new();
    blocks.try_reserve_exact(count).map_err(|_| memory())?;
    blocks.resize(count, argon2::Block::default());
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2i, Version::V0x13, params);
    let hashed = argon.hash_password_into_with_memory(password.bytes(), &SALT, &mut *key, &mut blocks);
    // It refuses lengths that these are not.
    hashed.map_err(|_| memory())?;
    Ok(XSalsa20Poly1305::new((&*key).into()))
}

fn open_ansible(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    const FORM: VaultError = VaultError::Form("Ansible");
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if lines.next().map(|head| head.trim_ascii()) != Some(b"$ANSIBLE_VAULT;1.1;AES256") {
        return Err(FORM);
    }
    let inner = hex::decode(lines.map(|line| line.trim_ascii()).collect::<Vec<_>>().concat()).map_err(|_| FORM)?;
    let mut parts = inner.split(|byte| *byte == b'\n').map(hex::decode);
    let mut part = || parts.next()?.ok();
    let (salt, tag, sealed) = (part().ok_or(FORM)?, part().ok_or(FORM)?, part().ok_or(FORM)?);
    let mut keys = Zeroizing::new([0; 80]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.bytes(), &salt, ANSIBLE_ROUNDS, &mut *keys);
    let (cipher_key, rest) = keys.split_at(32);
    let (tag_key, counter) = rest.split_at(32);
    check_tag(tag_key, &sealed, &tag)?;
    let mut plain = Zeroizing::new(sealed);
    let cipher = aes::Aes256::new_from_slice(cipher_key).map_err(|_| FORM)?;
    let mut counter = u128::from_be_bytes(counter.try_into().map_err(|_| FORM)?);
    for chunk in plain.chunks_mut(16) {
        let mut block = counter.to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        chunk.iter_mut().zip(block).for_each(|(byte, mask)| *byte ^= mask);
        counter = counter.wrapping_add(1);
    }
    unpad(&mut plain).ok_or(FORM)?;
    Ok(plain)
}

/// In constant time, before anything is decrypted.
fn check_tag(key: &[u8], sealed: &[u8], tag: &[u8]) -> Result<(), VaultError> {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(|_| VaultError::Wrong)?;
    mac.chain_update(sealed).verify_slice(tag).map_err(|_| VaultError::Wrong)
}

/// Takes PKCS #7's padding off: n bytes of n, 1 to 16.
fn unpad(plain: &mut Vec<u8>) -> Option<()> {
    let pad = usize::from(*plain.last()?);
    let text = plain.len().checked_sub(pad)?;
    let padded = (1..=16).contains(&pad) && plain.get(text..)?.iter().all(|byte| usize::from(*byte) == pad);
    padded.then(|| plain.truncate(text))
}

#[cfg(test)]
mod tests;
