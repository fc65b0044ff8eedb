//! A signed call as this client keeps it: the transaction's bytes, and beside them account, nonce, era and runtime version:
//! by these one can tell, without decoding the transaction, from which block on it cannot be in a block any more.

use super::runtime::Mortality;
use crate::{LedgerError, SignedCall};
use codec::{Decode, Encode};
use covey_proto::{BlockNumber, Digest};

/// Bytes of a signed call: weights for 256 uids are 1.3 KB in the open, 2 KB locked.
const BYTES_MAX: usize = 16 << 10;

/// The layout of these bytes: journals of other versions of this client are not misread.
const VERSION: u8 = 1;

/// A final block, and the version of the runtime that made it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Final {
    pub(super) block: BlockNumber,
    pub(super) spec_version: u32,
}

/// A signed call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Signed {
    version: u8,
    /// Who signed.
    pub(super) account: [u8; 32],
    /// With which nonce.
    pub(super) nonce: u64,
    /// The final block from which on it may be in one.
    pub(super) birth: u32,
    /// The first block that cannot hold it.
    pub(super) dies: u32,
    /// The version of the runtime that it was signed for: another takes it for a forgery.
    spec_version: u32,
    /// What is submitted.
    pub(super) extrinsic: Vec<u8>,
}

impl Signed {
    pub(super) fn new(
        account: [u8; 32],
        nonce: u64,
        mortality: Mortality,
        spec_version: u32,
        extrinsic: Vec<u8>,
    ) -> Signed {
        let Mortality { period, birth, .. } = mortality;
        let dies = birth.saturating_add(period);
        Signed { version: VERSION, account, nonce, birth, dies, spec_version, extrinsic }
    }

    pub(super) fn to_call(&self) -> SignedCall {
        SignedCall(self.encode())
    }

    /// Reads what [`Signed::to_call`] wrote.
    pub(super) fn from_call(call: &SignedCall) -> Result<Signed, LedgerError> {
        let bytes = &mut &call.0[..];
        let len = call.0.len();
        if len > BYTES_MAX {
            return Err(LedgerError::Refused(format!("a call of {len} bytes; {BYTES_MAX} are taken")));
        }
        match Signed::decode(bytes) {
            Ok(signed) if signed.version == VERSION && bytes.is_empty() => Ok(signed),
            _ => Err(LedgerError::Refused(format!("{len} bytes that are no signed call of this client"))),
        }
    }

    /// The hash by which its fate is remembered.
    pub(super) fn name(&self) -> Digest {
        Digest::of(&self.extrinsic)
    }

    /// Whether no block after a final one can hold it, whatever its nonce: its era is over, or the chain was upgraded after
    /// it was signed. An older runtime says nothing: calls are signed for the newest block's runtime, and the final block
    /// may lie before the upgrade.
    pub(super) fn is_over(&self, at: Final) -> bool {
        at.block.0.saturating_add(1) >= self.dies || at.spec_version > self.spec_version
    }
}

/// The era of a call that is signed now: a power of two of blocks from the newest final one, of which `needed` are left
/// after the newest.
pub(super) fn period(best: BlockNumber, finalised: BlockNumber, needed: u32) -> u32 {
    // A chain keeps the hashes of some 2,400 blocks, and an era must lie within.
    const PERIOD_MAX: u32 = 2_048;
    let behind = best.0.saturating_sub(finalised.0);
    behind.saturating_add(needed).clamp(8, PERIOD_MAX).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Signed {
        let mortality = Mortality { period: 64, birth: 100, birth_hash: Digest::ZERO };
        Signed::new([3; 32], 9, mortality, 365, vec![1, 2, 3])
    }

    #[test]
    fn what_was_kept_is_read_again_and_nothing_else() {
        let call = signed().to_call();
        assert_eq!(Signed::from_call(&call).unwrap(), signed());
        for cut in 0..call.0.len() {
            assert!(Signed::from_call(&SignedCall(call.0[..cut].to_vec())).is_err(), "{cut} bytes");
        }
        assert!(Signed::from_call(&SignedCall([call.0, vec![0]].concat())).is_err());
        assert!(Signed::from_call(&SignedCall(vec![1; BYTES_MAX + 1])).is_err());
    }

    #[test]
    fn a_call_is_over_once_the_last_block_of_its_era_is_final() {
        let call = signed();
        let at = |block, spec_version| Final { block: BlockNumber(block), spec_version };
        assert!(!call.is_over(at(162, 365)));
        assert!(call.is_over(at(163, 365)), "block 164 would be of another era");
        assert!(call.is_over(at(101, 366)), "an upgraded runtime takes it for a forgery");
        assert!(!call.is_over(at(101, 364)), "it was signed for an upgrade that is not final yet");
    }

    #[test]
    fn an_era_outlasts_what_is_needed_even_where_finality_is_far_behind() {
        assert_eq!(period(BlockNumber(10), BlockNumber(8), 64), 128);
        assert_eq!(period(BlockNumber(8), BlockNumber(8), 64), 64);
        assert_eq!(period(BlockNumber(1_000), BlockNumber(0), 64), 2_048);
        assert_eq!(period(BlockNumber(100_000), BlockNumber(0), 64), 2_048);
    }
}
