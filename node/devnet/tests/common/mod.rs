//! What the tests of a running devnet share: a client that speaks raw JSON-RPC, accounts, and signing by hand.

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use codec::{Decode, Encode};
use covey_devnet::pallets::commitments::{self, CommitmentInfo, Data};
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::runtime::{
    CheckNonce, Runtime, RuntimeCall, SubtensorTransactionExtension, UncheckedExtrinsic, VERSION,
};
use covey_devnet::{ChainSpec, Config, Devnet, Handle};
use frame_support::BoundedVec;
use jsonrpsee::core::client::{ClientT, Error, Subscription, SubscriptionClientT};
use jsonrpsee::core::traits::ToRpcParams;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};
use sp_core::{H256, Pair, sr25519};
use sp_runtime::generic::Era;
use sp_runtime::{AccountId32, MultiAddress, MultiSignature};

/// Rao of each coldkey.
pub const FUNDS: u64 = 1_000_000_000_000;
/// A subnet whose weights are hidden, and one whose are not.
pub const HIDDEN: u16 = 1;
pub const OPEN: u16 = 2;

/// A pair of a URI like `//Alice`, or of `seed:` and any text, which is found a hundred times as fast.
pub fn pair(uri: &str) -> sr25519::Pair {
    match uri.strip_prefix("seed:") {
        Some(text) => sr25519::Pair::from_seed(&sp_io::hashing::blake2_256(text.as_bytes())),
        None => sr25519::Pair::from_string(uri, None).unwrap(),
    }
}

pub fn account(uri: &str) -> AccountId32 {
    AccountId32::new(pair(uri).public().0)
}

/// Three members: Alice and Bob have stake, Charlie has none.
pub fn spec() -> ChainSpec {
    let member = |name: &str, stake| GenesisMember {
        hotkey: account(&format!("//{name}//hotkey")),
        coldkey: account(&format!("//{name}")),
        stake,
    };
    let subnet = |netuid, commit_reveal| GenesisSubnet {
        netuid,
        owner: account("//Alice"),
        tempo: 10,
        weights_rate_limit: 3,
        commit_reveal,
        members: vec![member("Alice", FUNDS), member("Bob", FUNDS / 2), member("Charlie", 0)],
        ..GenesisSubnet::default()
    };
    ChainSpec {
        accounts: ["//Alice", "//Bob", "//Dave"].map(|uri| (account(uri), FUNDS)).to_vec(),
        subnets: vec![subnet(HIDDEN, true), subnet(OPEN, false)],
        ..ChainSpec::default()
    }
}

/// A devnet and a client of it.
pub struct World {
    pub devnet: Handle,
    /// None where only the inside is looked at.
    pub client: Option<WsClient>,
}

pub async fn world() -> World {
    world_of(Config { chain: spec(), ..Config::default() }).await
}

pub async fn world_of(config: Config) -> World {
    let devnet = Devnet::start(config).await.unwrap();
    let client = Some(connect(&devnet.url()).await);
    World { devnet, client }
}

pub async fn connect(url: &str) -> WsClient {
    WsClientBuilder::default().build(url).await.unwrap()
}

/// A call's arguments.
pub struct Params(pub Value);

impl ToRpcParams for Params {
    fn to_rpc_params(self) -> Result<Option<Box<serde_json::value::RawValue>>, serde_json::Error> {
        serde_json::value::to_raw_value(&self.0).map(Some)
    }
}

pub async fn ask(client: &WsClient, method: &str, params: Value) -> Value {
    client.request(method, Params(params)).await.unwrap_or_else(|error| panic!("{method}: {error}"))
}

/// The same, of a devnet that may be gone meanwhile.
pub async fn try_ask(client: &WsClient, method: &str, params: Value) -> Option<Value> {
    match client.request(method, Params(params)).await {
        Ok(answer) => Some(answer),
        Err(Error::Call(error)) => panic!("{method}: {error}"),
        Err(_) => None,
    }
}

/// Number, and data if there are any, of the error that a request gets.
pub async fn refused(client: &WsClient, method: &str, params: Value) -> (i32, String) {
    match client.request::<Value, _>(method, Params(params)).await {
        Err(Error::Call(error)) => {
            let data = error.data().map_or(error.message().to_owned(), |data| data.get().trim_matches('"').to_owned());
            (error.code(), data)
        }
        other => panic!("{method} was not refused: {other:?}"),
    }
}

pub async fn subscribe(client: &WsClient, method: &str, params: Value, end: &str) -> Subscription<Value> {
    client.subscribe(method, Params(params), end).await.unwrap()
}

impl World {
    pub fn client(&self) -> &WsClient {
        self.client.as_ref().unwrap()
    }

    pub async fn ask(&self, method: &str, params: Value) -> Value {
        ask(self.client(), method, params).await
    }

    pub async fn submit(&self, bytes: &[u8]) -> Value {
        self.ask("author_submitExtrinsic", json!([hexed(bytes)])).await
    }

    pub async fn refused(&self, bytes: &[u8]) -> (i32, String) {
        refused(self.client(), "author_submitExtrinsic", json!([hexed(bytes)])).await
    }

    /// A transaction of an account with its nonce in the newest block, immortal.
    pub fn signed(&self, uri: &str, call: impl Into<RuntimeCall>) -> Vec<u8> {
        let nonce = self.devnet.chain().next_nonce(&account(uri)).unwrap();
        self.sign(uri, call.into(), nonce, Era::Immortal)
    }

    pub fn sign(&self, uri: &str, call: RuntimeCall, nonce: u32, era: Era) -> Vec<u8> {
        let (genesis, best) = {
            let chain = self.devnet.chain();
            (chain.genesis(), *chain.best().header.number_ref())
        };
        let birth = era.birth(u64::from(best)) as u32;
        let checkpoint = if era == Era::Immortal { genesis } else { self.devnet.chain().hash(birth).unwrap().unwrap() };
        sign(uri, call, nonce, era, genesis, checkpoint)
    }

    /// The newest block's value of a key.
    pub fn read<V: Decode>(&self, key: &[u8]) -> Option<V> {
        self.devnet.chain().best_state().get(key).unwrap().map(|bytes| V::decode(&mut &bytes[..]).unwrap())
    }

    /// Events of the newest block, as text.
    pub fn events(&self) -> String {
        let key = frame_support::storage::storage_prefix(b"System", b"Events");
        let records: Vec<frame_system::EventRecord<covey_devnet::runtime::RuntimeEvent, H256>> =
            self.read(&key).unwrap_or_default();
        records.iter().map(|record| format!("{:?}\n", record.event)).collect()
    }
}

trait NumberRef {
    fn number_ref(&self) -> &u32;
}

impl NumberRef for covey_devnet::runtime::Header {
    fn number_ref(&self) -> &u32 {
        sp_runtime::traits::Header::number(self)
    }
}

/// Signs as any client does: the call, what the extensions add, and what both sides know.
pub fn sign(uri: &str, call: RuntimeCall, nonce: u32, era: Era, genesis: H256, checkpoint: H256) -> Vec<u8> {
    let extension = (
        frame_system::CheckNonZeroSender::<Runtime>::new(),
        frame_system::CheckSpecVersion::<Runtime>::new(),
        frame_system::CheckTxVersion::<Runtime>::new(),
        frame_system::CheckGenesis::<Runtime>::new(),
        frame_system::CheckEra::<Runtime>::from(era),
        CheckNonce(nonce),
        frame_system::CheckWeight::<Runtime>::new(),
        pallet_transaction_payment::ChargeTransactionPayment::<Runtime>::from(0),
        SubtensorTransactionExtension,
        frame_metadata_hash_extension::CheckMetadataHash::<Runtime>::new(false),
    );
    let versions = (VERSION.spec_version, VERSION.transaction_version);
    let payload = (&call, &extension, versions, genesis, checkpoint, None::<[u8; 32]>).encode();
    let pair = pair(uri);
    // A payload of more than 256 bytes is signed by its hash.
    let message = if payload.len() > 256 { sp_io::hashing::blake2_256(&payload).to_vec() } else { payload };
    let signature = MultiSignature::Sr25519(pair.sign(&message));
    let sender = MultiAddress::Id(AccountId32::new(pair.public().0));
    UncheckedExtrinsic::new_signed(call, sender, signature, extension).encode()
}

pub fn commit(netuid: u16, bytes: &[u8]) -> RuntimeCall {
    let raw = Data::Raw(BoundedVec::truncate_from(bytes.to_vec()));
    let info = Box::new(CommitmentInfo { fields: BoundedVec::truncate_from(vec![raw]) });
    RuntimeCall::Commitments(commitments::Call::set_commitment { netuid, info })
}

pub fn transfer(to: &str, value: u64) -> RuntimeCall {
    let dest = MultiAddress::Id(account(to));
    RuntimeCall::Balances(pallet_balances::Call::transfer_keep_alive { dest, value })
}

pub fn hexed(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}
