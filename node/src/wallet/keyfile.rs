//! A key as JSON, as btcli writes it: which fields there are, which of them count, and whether they fit together.
//!
//! Read are files of any order of keys, with more keys than these or fewer. The public key tells which of the secrets
//! counts: some versions wrote a `secretSeed` that is none.

use super::Secret;
use covey_proto::Coldkey;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

/// `cryptoType` of sr25519.
const SR25519: u8 = 1;
/// Characters of the longest phrase, seed or secret that is looked at.
const FIELD_MAX: usize = 1024;

/// Why a file holds no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyfileError {
    /// Not JSON, or not of keys and texts.
    #[error("it is no keyfile: not JSON of the kind that btcli writes (line {line}, column {column})")]
    Json {
        /// Where it stops being one.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// Another curve.
    #[error(
        "it is a key of cryptoType {0}; Covey signs with sr25519, which is 1: make a hotkey with `covey wallet new`"
    )]
    Curve(u8),
    /// A public file where a key should be.
    #[error("it holds only a public key; the secret is needed here")]
    PublicOnly,
    /// Secrets, of which none gives the public key that the file names.
    #[error("it says that it is the key of {public}, but its secret is another key's: the file was damaged or edited")]
    Mismatch {
        /// What the file says.
        public: Coldkey,
    },
    /// Nothing that gives a key.
    #[error("it has neither privateKey, secretSeed nor secretPhrase that is a key")]
    NoKey,
    /// No public key in any of its forms.
    #[error("it names no public key")]
    NoPublicKey,
    /// An encrypted file, which does not tell its public key.
    #[error(
        "its public file, which ends in pub.txt, is missing and the key is encrypted: `covey wallet import` writes it again"
    )]
    NoPublicFile,
}

/// The fields that are looked at; others are let be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    account_id: Option<String>,
    public_key: Option<String>,
    ss58_address: Option<String>,
    crypto_type: Option<u8>,
    private_key: Option<String>,
    secret_seed: Option<String>,
    secret_phrase: Option<String>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        for secret in [&mut self.private_key, &mut self.secret_seed, &mut self.secret_phrase] {
            secret.zeroize();
        }
    }
}

impl Fields {
    fn of(bytes: &[u8]) -> Result<Fields, KeyfileError> {
        // The error's own text quotes the file: only the place is told.
        serde_json::from_slice(bytes).map_err(|error| KeyfileError::Json { line: error.line(), column: error.column() })
    }

    fn public(&self) -> Option<[u8; 32]> {
        let hex = [&self.public_key, &self.account_id].into_iter().flatten().find_map(|text| digits(text));
        hex.or_else(|| Some(*self.ss58_address.as_ref()?.parse::<Coldkey>().ok()?.as_bytes()))
    }

    /// Every secret that is one; what tells most first.
    fn secrets(&self) -> impl Iterator<Item = Secret> + '_ {
        (0..3).filter_map(|at| match at {
            0 => Secret::from_phrase(field(&self.secret_phrase)?).ok(),
            1 => Secret::from_seed_hex(field(&self.secret_seed)?).ok(),
            _ => Secret::from_expanded(&Zeroizing::new(digits(field(&self.private_key)?)?)),
        })
    }
}

fn field(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| text.len() <= FIELD_MAX)
}

/// The key that a plain file holds.
pub(super) fn secret(bytes: &[u8]) -> Result<Secret, KeyfileError> {
    // The oldest files are a seed and nothing else.
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(secret) = Secret::from_seed_hex(text)
    {
        return Ok(secret);
    }
    let fields = Fields::of(bytes)?;
    match fields.crypto_type {
        None | Some(SR25519) => {}
        Some(other) => return Err(KeyfileError::Curve(other)),
    }
    if [&fields.private_key, &fields.secret_seed, &fields.secret_phrase].iter().all(|field| field.is_none()) {
        return Err(if fields.public().is_some() { KeyfileError::PublicOnly } else { KeyfileError::NoKey });
    }
    let mut secrets = fields.secrets();
    match fields.public() {
        None => secrets.next().ok_or(KeyfileError::NoKey),
        Some(public) => {
            let mismatch = KeyfileError::Mismatch { public: Coldkey::new(public) };
            secrets.find(|secret| *secret.public() == public).ok_or(mismatch)
        }
    }
}

/// The public key of a public file, or of a plain one.
pub(super) fn public(bytes: &[u8]) -> Result<[u8; 32], KeyfileError> {
    if let Some(public) = Fields::of(bytes)?.public() {
        return Ok(public);
    }
    secret(bytes).map(|secret| *secret.public()).map_err(|_| KeyfileError::NoPublicKey)
}

/// A key's file.
pub(super) fn json(secret: &Secret) -> Zeroizing<Vec<u8>> {
    // Longer than any: no reallocation leaves a copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(1024));
    json.extend_from_slice(b"{");
    push_public(&mut json, secret.public());
    push(&mut json, "privateKey", &hexadecimal(secret.expanded()));
    if let Some(phrase) = secret.phrase() {
        push(&mut json, "secretPhrase", phrase);
    }
    if let Some(seed) = secret.seed() {
        push(&mut json, "secretSeed", &hexadecimal(seed));
    }
    push(&mut json, "ss58Address", &secret.coldkey().to_string());
    json.extend_from_slice(b"\"cryptoType\":1}");
    json
}

/// A public file.
pub(super) fn public_json(public: &[u8; 32]) -> Vec<u8> {
    let mut json = b"{".to_vec();
    push_public(&mut json, public);
    push(&mut json, "ss58Address", &Coldkey::new(*public).to_string());
    json.extend_from_slice(b"\"cryptoType\":1}");
    json
}

fn push_public(json: &mut Vec<u8>, public: &[u8; 32]) {
    let digits = hexadecimal(public);
    push(json, "accountId", &digits);
    push(json, "publicKey", &digits);
}

/// Values are digits, letters and spaces: nothing in them needs an escape.
fn push(json: &mut Vec<u8>, key: &str, value: &str) {
    for part in ["\"", key, "\":\"", value, "\","] {
        json.extend_from_slice(part.as_bytes());
    }
}

fn hexadecimal(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 + 2 * bytes.len()));
    text.push_str("0x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }));
        }
    }
    text
}

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).ok()?;
    Some(bytes)
}
