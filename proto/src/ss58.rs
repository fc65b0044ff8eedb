//! SS58: an account as people write it. Base58 of the network's prefix, the 32 bytes, and two bytes of a checksum.
//!
//! Source: Substrate's `sp_core::crypto::Ss58Codec`; the checksum is BLAKE2b-512 of `SS58PRE`, prefix and account.

use blake2::{Blake2b512, Digest};

/// Bittensor's network prefix, which is Substrate's generic one.
const PREFIX: u8 = 42;
/// Prefix, account, checksum.
const BYTES: usize = 1 + 32 + 2;
/// Characters of the longest text that can be an account.
const CHARACTERS_MAX: usize = 49;

/// Why a text is no account.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Ss58Error {
    /// Not 35 bytes in base58.
    #[error("it is no SS58 address: those are 47 to {CHARACTERS_MAX} letters and digits, like 5GrwvaEF…")]
    Form,
    /// Another network's.
    #[error("it is an address of network {0}; Bittensor's is {PREFIX}, and its addresses begin with 5")]
    Network(u8),
    /// A mistyped one.
    #[error("its checksum does not fit: a character of it is wrong")]
    Checksum,
}

pub(crate) fn encode(account: &[u8; 32]) -> String {
    let mut bytes = [0; BYTES];
    let (body, check) = bytes.split_at_mut(33);
    let (prefix, rest) = body.split_at_mut(1);
    prefix.copy_from_slice(&[PREFIX]);
    rest.copy_from_slice(account);
    check.copy_from_slice(&checksum(body));
    bs58::encode(bytes).into_string()
}

pub(crate) fn decode(text: &str) -> Result<[u8; 32], Ss58Error> {
    if text.len() > CHARACTERS_MAX {
        return Err(Ss58Error::Form);
    }
    let bytes = bs58::decode(text).into_vec().map_err(|_| Ss58Error::Form)?;
    let (body, check) = bytes.split_last_chunk::<2>().ok_or(Ss58Error::Form)?;
    let (prefix, account) = body.split_first().ok_or(Ss58Error::Form)?;
    let account = account.try_into().map_err(|_| Ss58Error::Form)?;
    if checksum(body) != *check {
        return Err(Ss58Error::Checksum);
    }
    match *prefix {
        PREFIX => Ok(account),
        other => Err(Ss58Error::Network(other)),
    }
}

fn checksum(body: &[u8]) -> [u8; 2] {
    let hash = Blake2b512::new_with_prefix(b"SS58PRE").chain_update(body).finalize();
    [hash[0], hash[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Coldkey, Hotkey, HotkeyPair};

    /// Substrate's `//Alice`.
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const ALICE_KEY: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";

    #[test]
    fn a_well_known_account_has_its_well_known_address() {
        let key: [u8; 32] = hex::decode(ALICE_KEY).unwrap().try_into().unwrap();
        assert_eq!(Hotkey::new(key).to_string(), ALICE);
        assert_eq!(ALICE.parse(), Ok(Coldkey::new(key)));
        let pair = HotkeyPair::from_seed([3; 32]);
        assert_eq!(pair.hotkey().to_string().parse(), Ok(pair.hotkey()));
    }

    #[test]
    fn what_is_mistyped_or_another_network_s_says_so() {
        assert_eq!(decode(""), Err(Ss58Error::Form));
        assert_eq!(decode("0"), Err(Ss58Error::Form));
        assert_eq!(decode(&"5".repeat(1000)), Err(Ss58Error::Form));
        assert_eq!(decode(&ALICE.replace("aEF", "aFE")), Err(Ss58Error::Checksum));
        // Alice on Polkadot.
        assert_eq!(decode("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"), Err(Ss58Error::Network(0)));
    }
}
