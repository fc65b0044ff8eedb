//! Calls of the chain in memory as bytes: who, which nonce, what, and a signature that holds for one chain only.

use crate::{Call, LedgerError, SignedCall};
use covey_proto::chain::COMMITMENT_BYTES_MAX;
use covey_proto::{Digest, Hotkey, HotkeyPair, Uid, verify};
use prost::Message;

/// Bytes of a signed call: weights for all 256 uids are some 1,270.
const CALL_BYTES_MAX: usize = 2048;
/// A call with its author and nonce.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) hotkey: Hotkey,
    pub(super) nonce: u64,
    /// None takes a free uid: on a real chain a coldkey pays for that, so that nodes do not ask for it.
    pub(super) call: Option<Call>,
}

/// The bytes of a signed call.
#[derive(Clone, PartialEq, Message)]
struct SignedBytes {
    #[prost(bytes = "vec", tag = "1")]
    hotkey: Vec<u8>,
    #[prost(uint64, tag = "2")]
    nonce: u64,
    /// 1 register, 2 commit, 3 weights.
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(bytes = "vec", tag = "4")]
    commitment: Vec<u8>,
    #[prost(uint32, repeated, tag = "5")]
    uids: Vec<u32>,
    #[prost(uint32, repeated, tag = "6")]
    shares: Vec<u32>,
    #[prost(bytes = "vec", tag = "7")]
    signature: Vec<u8>,
}

impl Signed {
    fn unsigned(&self) -> SignedBytes {
        let mut bytes =
            SignedBytes { hotkey: self.hotkey.as_bytes().to_vec(), nonce: self.nonce, ..SignedBytes::default() };
        match &self.call {
            None => bytes.kind = 1,
            Some(Call::Commit(commitment)) => {
                bytes.kind = 2;
                bytes.commitment.clone_from(commitment);
            }
            Some(Call::SetWeights(weights)) => {
                bytes.kind = 3;
                (bytes.uids, bytes.shares) =
                    weights.iter().map(|(uid, share)| (uid.number(), u32::from(*share))).unzip();
            }
        }
        bytes
    }

    fn signed_text(unsigned: &SignedBytes, genesis: Digest) -> Vec<u8> {
        [b"covey/1/memory-call".as_slice(), genesis.as_bytes(), &unsigned.encode_to_vec()].concat()
    }

    pub(super) fn to_bytes(&self, pair: &HotkeyPair, genesis: Digest) -> SignedCall {
        let mut bytes = self.unsigned();
        bytes.signature = pair.sign(&Signed::signed_text(&bytes, genesis)).to_vec();
        SignedCall(bytes.encode_to_vec())
    }

    /// Reads what [`Signed::to_bytes`] wrote for the same chain.
    pub(super) fn from_bytes(bytes: &[u8], genesis: Digest) -> Result<Signed, LedgerError> {
        let refused = |what: &str| LedgerError::Refused(what.to_owned());
        if bytes.len() > CALL_BYTES_MAX {
            return Err(refused(&format!("a call of {} bytes; {CALL_BYTES_MAX} are taken", bytes.len())));
        }
        let mut wire = SignedBytes::decode(bytes).map_err(|error| refused(&error.to_string()))?;
        let signature = std::mem::take(&mut wire.signature);
        let hotkey = Hotkey::from_slice(&wire.hotkey).ok_or_else(|| refused("a hotkey has 32 bytes"))?;
        if !verify(&hotkey, &Signed::signed_text(&wire, genesis), &signature) {
            return Err(refused("the signature does not hold for this chain"));
        }
        let call = match wire.kind {
            1 => None,
            2 if wire.commitment.len() <= COMMITMENT_BYTES_MAX => Some(Call::Commit(wire.commitment)),
            2 => return Err(refused("a commitment has at most 128 bytes")),
            3 if wire.uids.len() == wire.shares.len() => {
                let weight = |(uid, share): (u32, u32)| Some((Uid::new(uid)?, u16::try_from(share).ok()?));
                let weights = wire.uids.into_iter().zip(wire.shares).map(weight).collect::<Option<Vec<_>>>();
                Some(Call::SetWeights(weights.ok_or_else(|| refused("a weight is out of range"))?))
            }
            _ => return Err(refused("no such call")),
        };
        Ok(Signed { hotkey, nonce: wire.nonce, call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> HotkeyPair {
        HotkeyPair::from_seed([1; 32])
    }

    fn signed(call: Option<Call>) -> Signed {
        Signed { hotkey: pair().hotkey(), nonce: 7, call }
    }

    #[test]
    fn every_call_survives_its_bytes() {
        let row = vec![(Uid::from(0), u16::MAX), (Uid::from(255), 0)];
        for call in [None, Some(Call::Commit(vec![5; COMMITMENT_BYTES_MAX])), Some(Call::SetWeights(row))] {
            let bytes = signed(call.clone()).to_bytes(&pair(), Digest::ZERO);
            let read = Signed::from_bytes(&bytes.0, Digest::ZERO).unwrap();
            assert_eq!((read.hotkey, read.nonce, read.call), (pair().hotkey(), 7, call));
        }
    }

    #[test]
    fn a_call_of_another_chain_or_with_a_changed_byte_is_refused() {
        let bytes = signed(Some(Call::Commit(b"mine".to_vec()))).to_bytes(&pair(), Digest::ZERO);
        assert!(Signed::from_bytes(&bytes.0, Digest::of(b"other")).is_err());
        for at in 0..bytes.0.len() {
            let mut changed = bytes.0.clone();
            changed[at] ^= 1;
            assert!(Signed::from_bytes(&changed, Digest::ZERO).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_no_chain_takes_is_refused_with_its_reason() {
        let wire = |change: fn(&mut SignedBytes)| {
            let mut bytes = signed(Some(Call::SetWeights(vec![(Uid::from(1), 1)]))).unsigned();
            change(&mut bytes);
            bytes.signature = pair().sign(&Signed::signed_text(&bytes, Digest::ZERO)).to_vec();
            Signed::from_bytes(&bytes.encode_to_vec(), Digest::ZERO).unwrap_err().to_string()
        };
        for (why, said) in [
            ("no such call", wire(|bytes| bytes.kind = 9)),
            ("no such call", wire(|bytes| bytes.shares.push(1))),
            ("out of range", wire(|bytes| bytes.uids = vec![256])),
            ("out of range", wire(|bytes| bytes.shares = vec![65_536])),
            ("32 bytes", wire(|bytes| bytes.hotkey.push(0))),
            ("2048 are taken", wire(|bytes| bytes.commitment = vec![0; CALL_BYTES_MAX])),
        ] {
            assert!(said.contains(why), "{said}");
        }
    }
}
