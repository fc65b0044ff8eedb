//! Locking to a round of a beacon, as drand's quicknet and subtensor do it: Boneh and Franklin's encryption to an
//! identity, which is a round's number, over BLS12-381; the round's signature opens it.
//!
//! Formats are those of the Python package `bittensor-core`, with which tests compare.

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use ark_bls12_381::{Bls12_381, Fr, G1Affine, G1Projective, G2Affine, g1};
use ark_ec::hashing::HashToCurve;
use ark_ec::hashing::curve_maps::wb::WBMap;
use ark_ec::hashing::map_to_curve_hasher::MapToCurveBasedHasher;
use ark_ec::pairing::Pairing;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::field_hashers::DefaultFieldHasher;
use ark_ff::{PrimeField, Zero};
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use sha2::{Digest, Sha256};

/// Where round numbers are hashed to the curve: RFC 9380, as quicknet has it.
const DOMAIN: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// The cipher, as its name stands in what is locked.
const SUITE: &[u8] = b"AES_GCM_";

/// A secret scalar of any text, little-endian.
pub fn secret(seed: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let scalar = Fr::from_le_bytes_mod_order(&blake3::derive_key("covey/1/devnet-beacon", seed.as_bytes()));
    // 32 bytes always hold a scalar of 255 bits.
    let _ = scalar.serialize_compressed(&mut bytes[..]);
    bytes
}

/// The public key of a secret: a point of G2, compressed.
pub fn public_key(secret: &[u8; 32]) -> Vec<u8> {
    compressed(&(G2Affine::generator() * Fr::from_le_bytes_mod_order(secret)).into_affine())
}

/// The signature of a round by a secret scalar; none for the scalar zero.
pub fn sign_round(secret: &[u8; 32], round: u64) -> Option<Vec<u8>> {
    let secret = Fr::from_le_bytes_mod_order(secret);
    if secret.is_zero() {
        return None;
    }
    Some(compressed(&(identity(round)? * secret).into_affine()))
}

/// A round's point: the hash to G1 of the SHA-256 of its number, big-endian.
fn identity(round: u64) -> Option<G1Affine> {
    type Hasher = MapToCurveBasedHasher<G1Projective, DefaultFieldHasher<Sha256, 128>, WBMap<g1::Config>>;
    Hasher::new(DOMAIN).ok()?.hash(&Sha256::digest(round.to_be_bytes())).ok()
}

/// What is locked: a key to the round, and a message to the key.
#[derive(CanonicalDeserialize, CanonicalSerialize)]
struct SealedMessage {
    u: G2Affine,
    v: Vec<u8>,
    w: Vec<u8>,
    body: Vec<u8>,
    suite: Vec<u8>,
}

/// A message to a key.
#[derive(CanonicalDeserialize, CanonicalSerialize)]
struct Body {
    ciphertext: Vec<u8>,
    nonce: Vec<u8>,
}

/// What was locked, if the signature opens it.
pub fn open(sealed: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let sealed = SealedMessage::deserialize_compressed(sealed).ok()?;
    let signature = G1Affine::deserialize_compressed(signature).ok()?;
    let mut shared = Vec::new();
    Bls12_381::pairing(signature, sealed.u).0.serialize_compressed(&mut shared).ok()?;
    let sigma = xor(&sealed.v, &Sha256::digest(&shared))?;
    let key = xor(&sealed.w, &Sha256::digest(sigma))?;
    // Whoever locked it used the one scalar that both name, or could have had another open it differently.
    if (G2Affine::generator() * blinding(&sigma, &key)).into_affine() != sealed.u {
        return None;
    }
    let body = Body::deserialize_compressed(&sealed.body[..]).ok()?;
    let nonce: [u8; 12] = body.nonce.try_into().ok()?;
    Aes256Gcm::new(&key.into()).decrypt(Nonce::from_slice(&nonce), &body.ciphertext[..]).ok()
}

/// Locks a message to a round of the beacon with this public key. `entropy` is 32 random bytes, never used again; none
/// if the key is none.
pub fn lock(public: &[u8], round: u64, message: &[u8], entropy: &[u8; 32]) -> Option<Vec<u8>> {
    let public = G2Affine::deserialize_compressed(public).ok()?;
    let mut random = [0; 76];
    blake3::Hasher::new_derive_key("covey/1/timelock").update(entropy).finalize_xof().fill(&mut random);
    let (sigma, rest) = random.split_first_chunk::<32>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let nonce: [u8; 12] = rest.try_into().ok()?;
    let ciphertext = Aes256Gcm::new(key.into()).encrypt(Nonce::from_slice(&nonce), message).ok()?;
    let scalar = blinding(sigma, key);
    let mut shared = Vec::new();
    let point = (identity(round)? * scalar).into_affine();
    Bls12_381::pairing(point, public).0.serialize_compressed(&mut shared).ok()?;
    let sealed = SealedMessage {
        u: (G2Affine::generator() * scalar).into_affine(),
        v: xor(sigma, &Sha256::digest(&shared))?.to_vec(),
        w: xor(key, &Sha256::digest(sigma))?.to_vec(),
        body: compressed(&Body { ciphertext, nonce: nonce.to_vec() }),
        suite: SUITE.to_vec(),
    };
    Some(compressed(&sealed))
}

/// The scalar that a key is locked with: it follows from the key, so that who opens can check it.
fn blinding(sigma: &[u8; 32], key: &[u8; 32]) -> Fr {
    Fr::from_be_bytes_mod_order(&Sha256::new().chain_update(sigma).chain_update(key).finalize())
}

fn xor(a: &[u8], b: &[u8]) -> Option<[u8; 32]> {
    let (a, b) = (<[u8; 32]>::try_from(a).ok()?, <[u8; 32]>::try_from(b).ok()?);
    Some(std::array::from_fn(|at| a[at] ^ b[at]))
}

fn compressed(point: &impl CanonicalSerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = point.serialize_compressed(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of quicknet's round 1000.
    const SIGNATURE: &str =
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
    /// Quicknet's public key.
    const PUBLIC: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
    /// `bittensor_core.inner_ciphertext(encrypt_at_round(b"the bytes we meant", 1000)[0])`, version 0.1.5.
    const SEALED: &str = "b10e437f73374de9c183ad728c0449621bd760dda675d5c5274830d7413dbebcd04a6dfe5d21ee9f0eca74476f52c0be0d083b4bf24b0c607c6821c527d3286d205de9d370f5fb2668a564fa2239084acd4daacc1eb0dfeff2a64e2ec4d440ba2000000000000000d5b8a4dd7a097681140ff6f7f55f3f09764ca3a712e19a8d68e59e96d988fa152000000000000000f0928c34cdd4fa7200fdd37c0441021bd0c819738f2b9fa5719630d83354c5a33e0000000000000022000000000000004c387168774dc77c11fb5f0ff7f657ae0736d851091f189e67ebf977c0f3b8bc8a520c0000000000000009de7aa87ff1fc9dd3ad197008000000000000004145535f47434d5f";

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn a_round_is_the_point_that_drand_signs() {
        let signature = G1Affine::deserialize_compressed(&unhex(SIGNATURE)[..]).unwrap();
        let public = G2Affine::deserialize_compressed(&unhex(PUBLIC)[..]).unwrap();
        let left = Bls12_381::pairing(signature, G2Affine::generator());
        assert_eq!(left, Bls12_381::pairing(identity(1_000).unwrap(), public));
    }

    #[test]
    fn what_another_program_locked_is_opened() {
        let opened = open(&unhex(SEALED), &unhex(SIGNATURE));
        assert_eq!(opened.as_deref(), Some(&b"the bytes we meant"[..]));
    }

    #[test]
    fn what_is_locked_opens_at_its_round_and_no_other() {
        let secret = secret("a test");
        let sealed = lock(&public_key(&secret), 77, b"weights", &[5; 32]).unwrap();
        let opened = |round| open(&sealed, &sign_round(&secret, round).unwrap());
        assert_eq!(opened(77).as_deref(), Some(&b"weights"[..]));
        assert_eq!(opened(78), None);
    }

    #[test]
    fn a_changed_byte_opens_nothing() {
        let secret = secret("a test");
        let sealed = lock(&public_key(&secret), 3, b"weights", &[6; 32]).unwrap();
        let signature = sign_round(&secret, 3).unwrap();
        for at in (0..sealed.len() - 16).step_by(7) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&changed, &signature), None, "byte {at}");
        }
    }
}
