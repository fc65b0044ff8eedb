//! Locking to a round of a beacon, as drand's quicknet and subtensor do it: Boneh and Franklin's encryption to an
//! identity, which is a round's number, over BLS12-381; the round's signature opens it.
//!
//! Only what a chain does is here: signing a round, opening what was locked. Formats are those of the Python package
//! `bittensor-core`, with which tests compare.

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
struct Sealed {
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
    let sealed = Sealed::deserialize_compressed(sealed).ok()?;
    let signature = G1Affine::deserialize_compressed(signature).ok()?;
    let mut shared = Vec::new();
    Bls12_381::pairing(signature, sealed.u).0.serialize_compressed(&mut shared).ok()?;
    let sigma = xor(&sealed.v, &Sha256::digest(&shared))?;
    let key = xor(&sealed.w, &Sha256::digest(sigma))?;
    let body = Body::deserialize_compressed(&sealed.body[..]).ok()?;
    let nonce: [u8; 12] = body.nonce.try_into().ok()?;
    Aes256Gcm::new(&key.into()).decrypt(Nonce::from_slice(&nonce), &body.ciphertext[..]).ok()
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
