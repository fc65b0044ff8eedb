//! The calls that this client makes, by the names that subtensor gives them and their arguments.

use super::runtime::{DynamicCall, account, numbers};
use covey_proto::Hotkey;
use std::net::{IpAddr, SocketAddr};
use subxt::ext::scale_value::Value;

const MODULE: &str = "SubtensorModule";

/// Weights as a call has them: uids and their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) uids: Vec<u16>,
    pub(super) values: Vec<u16>,
    pub(super) version_key: u64,
}

fn number(value: impl Into<u128>) -> Value<()> {
    Value::u128(value.into())
}

/// Overwrites the signer's slot: one field of raw bytes, whose length is the variant's name.
pub(super) fn set_commitment(netuid: u16, bytes: &[u8]) -> DynamicCall {
    let field = Value::unnamed_variant(format!("Raw{}", bytes.len()), [Value::from_bytes(bytes)]);
    let info = Value::named_composite([("fields", Value::unnamed_composite([field]))]);
    DynamicCall::new("Commitments", "set_commitment", [("netuid", number(netuid)), ("info", info)])
}

/// Sets weights in the open.
pub(super) fn set_weights(netuid: u16, row: &Row) -> DynamicCall {
    let arguments = [
        ("netuid", number(netuid)),
        ("dests", numbers(row.uids.iter().copied())),
        ("weights", numbers(row.values.iter().copied())),
        ("version_key", number(row.version_key)),
    ];
    DynamicCall::new(MODULE, "set_weights", arguments)
}

/// Commits to weights that the chain opens itself once a round of the beacon has come.
pub(super) fn commit_timelocked_weights(netuid: u16, sealed: &[u8], round: u64, version: u16) -> DynamicCall {
    let arguments = [
        ("netuid", number(netuid)),
        ("commit", Value::from_bytes(sealed)),
        ("reveal_round", number(round)),
        ("commit_reveal_version", number(version)),
    ];
    DynamicCall::new(MODULE, "commit_timelocked_weights", arguments)
}

/// Takes a uid for a hotkey at whatever it costs.
pub(super) fn burned_register(netuid: u16, hotkey: &Hotkey) -> DynamicCall {
    DynamicCall::new(MODULE, "burned_register", [("netuid", number(netuid)), ("hotkey", account(hotkey.as_bytes()))])
}

/// Takes a uid for a hotkey unless it costs more than `limit` rao.
pub(super) fn register_limit(netuid: u16, hotkey: &Hotkey, limit: u64) -> DynamicCall {
    let arguments =
        [("netuid", number(netuid)), ("hotkey", account(hotkey.as_bytes())), ("limit_price", number(limit))];
    DynamicCall::new(MODULE, "register_limit", arguments)
}

/// Says where the signer is reached.
pub(super) fn serve_axon(netuid: u16, address: SocketAddr) -> DynamicCall {
    let (ip, ip_type) = match address.ip() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4_u8),
        IpAddr::V6(ip) => (u128::from(ip), 6),
    };
    let arguments = [
        ("netuid", number(netuid)),
        ("version", number(1_u32)),
        ("ip", number(ip)),
        ("port", number(address.port())),
        ("ip_type", number(ip_type)),
        // Nobody reads these; Bittensor's own clients say 4 for the protocol.
        ("protocol", number(4_u8)),
        ("placeholder1", number(0_u8)),
        ("placeholder2", number(0_u8)),
    ];
    DynamicCall::new(MODULE, "serve_axon", arguments)
}

#[cfg(test)]
mod tests {
    use super::super::needs::tests::finney;
    use super::super::runtime::{Mortality, Sign};
    use super::*;
    use covey_proto::Digest;

    struct Nobody;

    impl Sign for Nobody {
        fn account(&self) -> [u8; 32] {
            [0; 32]
        }
        fn sign(&self, _: &[u8]) -> [u8; 64] {
            [0; 64]
        }
    }

    /// The bytes of records: with a contribution, a vote, both; and whatever else fits.
    #[test]
    fn a_commitment_of_any_length_is_its_bytes_on_bittensor() {
        let mortality = Mortality { period: 64, birth: 0, birth_hash: Digest::ZERO };
        let sign = |call: &DynamicCall| finney().sign(&Nobody, call, 0, mortality);
        for length in [46, 78, 114, 128] {
            let bytes: Vec<u8> = (0..length).collect();
            let extrinsic = sign(&set_commitment(1, &bytes)).unwrap();
            assert!(extrinsic.ends_with(&bytes), "{length} bytes");
        }
        assert!(sign(&set_commitment(1, &[0; 129])).is_err(), "the chain has no name for so many");
    }
}
