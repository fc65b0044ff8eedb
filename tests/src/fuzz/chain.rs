//! The decoders of a devnet: what its clients send. A node of a run sends through one that it trusts, but others share it.

use super::take;
use codec::{DecodeAll, Encode};
use covey_devnet::chain::{Chain, SubmitError};
use covey_devnet::pallets::commitments::CommitmentInfo;
use covey_devnet::{Config, Devnet, Handle};
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio::runtime::Runtime;

/// A commitment's fields: raw bytes of two kinds, a digest, a locked one.
pub(super) fn commitment(data: &[u8]) -> bool {
    let Ok(info) = CommitmentInfo::decode_all(&mut &data[..]) else { return false };
    assert_eq!(info.encode(), data);
    assert!(info.fields.len() <= 3);
    true
}

pub(super) fn commitments() -> Vec<Vec<u8>> {
    let raw = |n: u8| [vec![4, n + 1], vec![7; usize::from(n)]].concat();
    let big = [vec![4, 136], vec![0x05, 0x02], vec![1; 129]].concat();
    let hash = [vec![8, 0, 130], vec![9; 32]].concat();
    let locked = [vec![12, 135, 0, 134, 8, 1, 2], 77_u64.encode()].concat();
    vec![raw(0), raw(46), raw(128), big, hash, locked]
}

/// A transaction's bytes, up to the runtime's word on it. Valid is what is one, whether it is taken or not.
pub(super) fn extrinsic(data: &[u8]) -> bool {
    static CHAIN: OnceLock<Mutex<Chain>> = OnceLock::new();
    let chain = CHAIN.get_or_init(|| Mutex::new(Chain::open(&Config::default()).expect("a chain begins in memory")));
    let chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
    !matches!(chain.validate(data), Err(SubmitError::Format(_)))
}

pub(super) fn extrinsics() -> Vec<Vec<u8>> {
    let with_length = |body: Vec<u8>| body.encode();
    // Version 5, bare: Timestamp.set of a compact 7; System.remark of bytes.
    let bare = vec![vec![5, 2, 0, 28], [vec![5, 0, 0], vec![3_u8; 40].encode()].concat()];
    // Version 4, signed: sender, signature, era, nonce, tip, metadata mode, and a commitment by an unknown hotkey.
    let signed = |call: &[u8]| {
        let head = [vec![0x84, 0], vec![1; 32], vec![1], vec![2; 64], vec![0, 0, 0, 0]].concat();
        [head, call.to_vec()].concat()
    };
    let commit = [vec![18, 0, 1, 0, 4, 6], b"hello".to_vec()].concat();
    let weights = [vec![7, 0, 1, 0], vec![1_u16, 2].encode(), vec![3_u16, 4].encode(), 0_u64.encode()].concat();
    let locked = [vec![7, 113, 1, 0], vec![5_u8; 300].encode(), 9_u64.encode(), 4_u16.encode()].concat();
    bare.into_iter().chain([signed(&commit), signed(&weights), signed(&locked)]).map(with_length).collect()
}

/// Methods that read or take a transaction.
const METHODS: [&str; 16] = [
    "state_call",
    "state_getStorage",
    "state_getKeysPaged",
    "state_queryStorageAt",
    "state_queryStorage",
    "state_getMetadata",
    "chain_getBlockHash",
    "chain_getBlock",
    "chain_getHeader",
    "system_accountNextIndex",
    "author_submitExtrinsic",
    "payment_queryInfo",
    "archive_v1_call",
    "archive_v1_hashByHeight",
    "chainHead_v1_storage",
    "transaction_v1_broadcast",
];

/// A method's arguments: the first byte names the method, the rest is JSON, or is not. Valid is what gets a result.
pub(super) fn rpc(data: &[u8]) -> bool {
    static DEVNET: OnceLock<(Runtime, Handle)> = OnceLock::new();
    let (runtime, devnet) = DEVNET.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime starts");
        let devnet = runtime.block_on(Devnet::start(Config::default())).expect("a devnet starts in memory");
        (runtime, devnet)
    });
    let mut rest = data;
    let [method] = take::<1>(&mut rest);
    let method = METHODS[usize::from(method) % METHODS.len()];
    let params = String::from_utf8_lossy(rest);
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let answer = runtime.block_on(devnet.answer(&request));
    answer.is_some_and(|answer| answer.contains("\"result\":"))
}

pub(super) fn rpcs() -> Vec<Vec<u8>> {
    let bare = format!("\"0x{}\"", hex_of(&extrinsics()[0]));
    let all = [
        (0, r#"["SubnetInfoRuntimeApi_get_selective_metagraph","0x01000c0700340049 00"]"#.replace(' ', "")),
        (
            0,
            r#"["AccountNonceApi_account_nonce","0x0101010101010101010101010101010101010101010101010101010101010101"]"#
                .into(),
        ),
        (1, r#"["0x26aa394eea5630e07c48ae0c9558cef7"]"#.into()),
        (2, r#"["0x26aa394e",10,"0x"]"#.into()),
        (3, r#"[["0x26aa","0x"]]"#.into()),
        (6, "[[0,1,\"0x2\"]]".into()),
        (7, "[]".into()),
        (8, "[null]".into()),
        (9, r#"["5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"]"#.into()),
        (13, "[0]".into()),
        (15, format!("[{bare}]")),
    ];
    all.into_iter().map(|(method, params)| [&[method], params.as_bytes()].concat()).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What somebody locked to a round: valid is what the round's signature opens.
pub(super) fn timelock(data: &[u8]) -> bool {
    static SIGNATURE: OnceLock<Vec<u8>> = OnceLock::new();
    let secret = covey_timelock::secret("a fuzz target");
    let signature = SIGNATURE.get_or_init(|| covey_timelock::sign_round(&secret, 9).expect("the secret is not zero"));
    covey_timelock::open(data, signature).is_some()
}

pub(super) fn timelocks() -> Vec<Vec<u8>> {
    let public = covey_timelock::public_key(&covey_timelock::secret("a fuzz target"));
    let lock = |message: &[u8]| covey_timelock::lock(&public, 9, message, &[4; 32]).expect("the key is one");
    vec![lock(b""), lock(&[8; 700])]
}
