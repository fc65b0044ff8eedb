//! A key and where it comes from: a phrase, a seed, or an expanded secret alone.
//!
//! A phrase becomes a seed as Substrate does it: PBKDF2-HMAC-SHA512 over the phrase's *entropy*, 2,048 rounds, salt
//! `mnemonic`, the first 32 bytes (BIP39 itself stretches the phrase's text). Source: substrate-bip39.

use bip39::{Language, Mnemonic};
use covey_proto::{Coldkey, ColdkeyPair, Hotkey, HotkeyPair};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Words of a new phrase, as btcli has them: 128 bits.
const WORDS: usize = 12;
/// Characters of the longest phrase: 24 words of eight letters.
const PHRASE_MAX: usize = 24 * 9;
const ROUNDS: u32 = 2048;

/// Why a text is no phrase.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PhraseError {
    /// Not a number of words that there is.
    #[error("a phrase has 12, 15, 18, 21 or 24 words; this has {0}")]
    Count(usize),
    /// A word that no phrase has. Only its place is told: the rest is a secret.
    #[error("word {0} of the phrase is not of BIP39's English list")]
    Word(usize),
    /// The last word does not fit the others.
    #[error("the phrase's checksum does not fit: a word is wrong, or two are swapped")]
    Checksum,
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeedError {
    /// Not 32 bytes.
    #[error("a seed is 64 hexadecimal digits, with or without 0x")]
    Form,
    /// No randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

/// An sr25519 key: its secret, and what it was made from if that is known.
pub struct Secret {
    hotkey: HotkeyPair,
    coldkey: ColdkeyPair,
    public: [u8; 32],
    expanded: Zeroizing<[u8; 64]>,
    seed: Option<Zeroizing<[u8; 32]>>,
    phrase: Option<Zeroizing<String>>,
}

/// The public half only.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(of {})", Hotkey::new(self.public))
    }
}

impl Secret {
    /// A new key with a phrase of twelve words.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Secret, SeedError> {
        let mut entropy = Zeroizing::new([0; WORDS * 4 / 3]);
        getrandom::fill(&mut *entropy).map_err(|error| SeedError::Random(error.to_string()))?;
        let mnemonic = Mnemonic::from_entropy(&*entropy).map_err(|error| SeedError::Random(error.to_string()))?;
        Ok(Secret::of(&mnemonic))
    }

    /// The key of a phrase: words of BIP39's English list, in any case and with any white space between them.
    ///
    /// # Errors
    /// Not a phrase.
    pub fn from_phrase(phrase: &str) -> Result<Secret, PhraseError> {
        let mut plain = Zeroizing::new(String::with_capacity(PHRASE_MAX));
        let mut count = 0;
        for word in phrase.split_whitespace() {
            count += 1;
            // No reallocation, which would leave a copy behind.
            if plain.len() + 1 + word.len() > PHRASE_MAX {
                return Err(if count > 24 {
                    PhraseError::Count(phrase.split_whitespace().count())
                } else {
                    PhraseError::Word(count)
                });
            }
            if count > 1 {
                plain.push(' ');
            }
            word.chars().for_each(|letter| plain.push(letter.to_ascii_lowercase()));
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &plain).map_err(|error| match error {
            bip39::Error::UnknownWord(at) => PhraseError::Word(at + 1),
            bip39::Error::BadWordCount(count) => PhraseError::Count(count),
            _ => PhraseError::Checksum,
        })?;
        Ok(Secret::of(&mnemonic))
    }

    fn of(mnemonic: &Mnemonic) -> Secret {
        let entropy = Zeroizing::new(mnemonic.to_entropy());
        let mut stretched = Zeroizing::new([0; 64]);
        pbkdf2::pbkdf2_hmac::<sha2::Sha512>(&entropy, b"mnemonic", ROUNDS, &mut *stretched);
        let mut seed = Zeroizing::new([0; 32]);
        seed.iter_mut().zip(stretched.iter()).for_each(|(seed, byte)| *seed = *byte);
        let mut phrase = Zeroizing::new(String::with_capacity(PHRASE_MAX));
        for word in mnemonic.words() {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        Secret { phrase: Some(phrase), ..Secret::from_seed(*seed) }
    }

    /// The key of a 32-byte seed.
    pub fn from_seed(mut seed: [u8; 32]) -> Secret {
        let secret = Secret {
            seed: Some(Zeroizing::new(seed)),
            ..Secret::with(HotkeyPair::from_seed(seed), ColdkeyPair::from_seed(seed))
        };
        seed.zeroize();
        secret
    }

    /// The key of a seed in hexadecimal digits.
    ///
    /// # Errors
    /// Not 64 of them.
    pub fn from_seed_hex(text: &str) -> Result<Secret, SeedError> {
        let text = text.trim();
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut *seed).map_err(|_| SeedError::Form)?;
        Ok(Secret::from_seed(*seed))
    }

    /// The key of an expanded secret: schnorrkel's scalar and nonce. None for bytes that are no scalar.
    pub fn from_expanded(expanded: &[u8; 64]) -> Option<Secret> {
        Some(Secret::with(HotkeyPair::from_secret(expanded)?, ColdkeyPair::from_secret(expanded)?))
    }

    /// One key in its two parts.
    fn with(hotkey: HotkeyPair, coldkey: ColdkeyPair) -> Secret {
        let (public, expanded) = (*hotkey.hotkey().as_bytes(), Zeroizing::new(hotkey.to_secret()));
        Secret { hotkey, coldkey, public, expanded, seed: None, phrase: None }
    }

    /// The public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// As a hotkey.
    pub fn hotkey(&self) -> Hotkey {
        Hotkey::new(self.public)
    }

    /// As a coldkey.
    pub fn coldkey(&self) -> Coldkey {
        Coldkey::new(self.public)
    }

    /// Signs as a hotkey.
    pub fn hotkey_pair(self) -> HotkeyPair {
        self.hotkey
    }

    /// Signs as a coldkey.
    pub fn coldkey_pair(self) -> ColdkeyPair {
        self.coldkey
    }

    /// The phrase it was made from: to be shown once, when it is new.
    pub fn phrase(&self) -> Option<&str> {
        self.phrase.as_deref().map(String::as_str)
    }

    pub(super) fn expanded(&self) -> &[u8; 64] {
        &self.expanded
    }

    pub(super) fn seed(&self) -> Option<&[u8; 32]> {
        self.seed.as_deref()
    }
}
