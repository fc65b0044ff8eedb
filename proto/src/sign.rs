//! sr25519 signatures, as Substrate makes them: schnorrkel under the context `substrate`.

use crate::{Coldkey, Hotkey};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

const CONTEXT: &[u8] = b"substrate";

macro_rules! pair {
    ($(#[$doc:meta])* $name:ident, $public:ident, $half:ident) => {
        $(#[$doc])*
        pub struct $name(schnorrkel::Keypair);

        impl $name {
            /// The pair that follows from a 32-byte seed, expanded as Substrate does.
            pub fn from_seed(seed: [u8; 32]) -> $name {
                // `from_bytes` fails only for another length.
                let secret = schnorrkel::MiniSecretKey::from_bytes(&seed).expect("a mini secret has 32 bytes");
                $name(secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519))
            }

            /// The pair of an expanded secret: schnorrkel's scalar and nonce, as keyfiles have it. None for bytes that
            /// are no scalar.
            pub fn from_secret(secret: &[u8; 64]) -> Option<$name> {
                Some($name(schnorrkel::SecretKey::from_bytes(secret).ok()?.to_keypair()))
            }

            /// The expanded secret: schnorrkel's scalar and nonce, for a keyfile. Whoever asks wipes it.
            pub fn to_secret(&self) -> [u8; 64] {
                self.0.secret.to_bytes()
            }

            /// The public half.
            pub fn $half(&self) -> $public {
                $public::new(self.0.public.to_bytes())
            }

            /// Signs `message`. Two signatures of one message differ.
            pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
                self.0.sign_simple(CONTEXT, message).to_bytes()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.$half())
            }
        }
    };
}

pair!(
    /// A hotkey with its secret. Neither printed nor logged.
    HotkeyPair,
    Hotkey,
    hotkey
);
pair!(
    /// A coldkey with its secret: it pays. Neither printed nor logged, and needed for few moments.
    ColdkeyPair,
    Coldkey,
    coldkey
);

/// Whether `signature` is `hotkey`'s over `message`.
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = schnorrkel::PublicKey::from_bytes(hotkey.as_bytes()) else {
        return false;
    };
    let Ok(signature) = schnorrkel::Signature::from_bytes(signature) else {
        return false;
    };
    key.verify_simple(CONTEXT, message, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let pair = HotkeyPair::from_seed([7; 32]);
        let other = HotkeyPair::from_seed([8; 32]);
        let signature = pair.sign(b"hello");
        assert!(verify(&pair.hotkey(), b"hello", &signature));
        assert!(!verify(&pair.hotkey(), b"hullo", &signature));
        assert!(!verify(&other.hotkey(), b"hello", &signature));
        assert!(!verify(&pair.hotkey(), b"hello", &signature[..63]));
        assert!(!verify(&Hotkey::new([0xff; 32]), b"hello", &signature));
    }
}
