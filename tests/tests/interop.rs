//! Clients of a chain that we did not write, against a devnet that a node of ours uses too: each reads what the other
//! wrote. Bittensor's own client and polkadot-js; py-substrate-interface by hand (`tests/interop/chain/`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use codec::DecodeAll;
use covey::chain::substrate::{Settings, SubstrateLedger};
use covey::chain::{Call, Fate, Ledger};
use covey_devnet::pallets::subtensor;
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::runtime::{RuntimeCall, UncheckedExtrinsic};
use covey_devnet::{AccountId32, Blocks, ChainSpec, Config, Devnet, Handle};
use covey_proto::{BlockNumber, ColdkeyPair, HotkeyPair, Uid};
use covey_tests::foreign::{bittensor_env, polkadot_env};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A subnet whose weights are set in the open, and one whose are hidden first.
const OPEN: u16 = 1;
const HIDDEN: u16 = 2;
/// Rao of each coldkey, and of the first validator's stake.
const FUNDS: u64 = 1_000_000_000_000_000;
/// For everything that is awaited: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn hotkey(number: u8) -> HotkeyPair {
    HotkeyPair::from_seed([number; 32])
}

fn account(number: u8, cold: bool) -> AccountId32 {
    AccountId32::new(match cold {
        true => *ColdkeyPair::from_seed([100 + number; 32]).coldkey().as_bytes(),
        false => *hotkey(number).hotkey().as_bytes(),
    })
}

/// A devnet that makes blocks by itself: a validator, another, a miner; a fourth coldkey that has funds.
async fn devnet() -> Handle {
    let member =
        |(number, stake)| GenesisMember { hotkey: account(number, false), coldkey: account(number, true), stake };
    let subnet = |netuid| GenesisSubnet {
        netuid,
        owner: account(0, true),
        tempo: 10,
        weights_rate_limit: 2,
        commit_reveal: netuid == HIDDEN,
        members: (0..).zip([FUNDS / 1_000, FUNDS / 2_000, 0]).map(member).collect(),
        ..GenesisSubnet::default()
    };
    let chain = ChainSpec {
        accounts: (0..4).map(|number| (account(number, true), FUNDS)).collect(),
        subnets: vec![subnet(OPEN), subnet(HIDDEN)],
        ..ChainSpec::default()
    };
    let blocks = Blocks::Every(Duration::from_millis(250));
    Devnet::start(Config { chain, blocks, ..Config::default() }).await.unwrap()
}

/// Has a node do something on the chain, and waits until it is final.
async fn do_it(ledger: &SubstrateLedger, number: u8, call: Call) -> BlockNumber {
    let signed = ledger.sign(&hotkey(number), call).await.unwrap();
    ledger.submit(&signed).await.unwrap();
    let mut heads = ledger.heads();
    let done = async {
        loop {
            let at = heads.borrow_and_update().finalised;
            if ledger.fate(&signed, at).await.unwrap() != Fate::Open {
                return at;
            }
            heads.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("it is final in the end")
}

/// Runs a script to its end and gives what it says; a failure is what it says too.
async fn run(mut command: Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bittensors_client_and_a_node_read_what_the_other_wrote() {
    let Some(env) = bittensor_env() else { return };
    let devnet = devnet().await;
    let ledger = SubstrateLedger::connect(Settings::new(vec![devnet.url()], OPEN)).await.unwrap();
    let committed = [0xc5; 46];
    do_it(&ledger, 2, Call::Commit(committed.to_vec())).await;
    do_it(&ledger, 1, Call::SetWeights(vec![(Uid::from(0), 20_000), (Uid::from(2), u16::MAX)])).await;
    let mut client = env.command("bittensor_client.py");
    client.args(["use", &devnet.url(), &hex::encode(committed)]);
    println!("{}", run(client).await);
    // All that it did is final by now, but for the last blocks.
    let mut heads = ledger.heads();
    let enough = heads.borrow().best;
    tokio::time::timeout(PATIENCE, heads.wait_for(|heads| heads.finalised >= enough)).await.unwrap().unwrap();
    let now = ledger.heads().borrow().finalised;
    let view = ledger.view(now).await.unwrap();
    assert_eq!(view.slots[&hotkey(3).hotkey()].bytes, b"hello");
    assert_eq!(view.members[&Uid::from(3)].hotkey, hotkey(3).hotkey());
    let rows = ledger.weights().await.unwrap();
    assert_eq!(rows[&hotkey(0).hotkey()], [(Uid::from(0), u16::MAX), (Uid::from(2), u16::MAX / 2 + 1)]);
    devnet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polkadot_js_and_a_node_read_what_the_other_wrote() {
    let Some(env) = polkadot_env() else { return };
    let devnet = devnet().await;
    let ledger = SubstrateLedger::connect(Settings::new(vec![devnet.url()], OPEN)).await.unwrap();
    let committed = [0x9d; 78];
    do_it(&ledger, 2, Call::Commit(committed.to_vec())).await;
    let mut client = env.command("polkadot_client.js");
    client.args([&devnet.url(), &hex::encode(committed)]);
    println!("{}", run(client).await);
    let view = ledger.view(ledger.heads().borrow().finalised).await.unwrap();
    assert_eq!(view.slots[&hotkey(0).hotkey()].bytes, b"polkadot");
    devnet.stop().await;
}

/// Of drand's quicknet, round 1000.
const SIGNATURE: &str =
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bittensors_library_locks_is_opened_and_the_other_way_round() {
    let Some(env) = bittensor_env() else { return };
    let message = hex::encode("weights, or what else there is");
    let mut theirs = env.command("bittensor_client.py");
    theirs.args(["lock", "1000", &message]);
    let sealed = hex::decode(run(theirs).await.trim()).unwrap();
    let opened = covey_timelock::open(&sealed, &hex::decode(SIGNATURE).unwrap());
    assert_eq!(opened.map(hex::encode), Some(message.clone()));
    // What a node locks to the devnet's beacon, as it is in the transaction that waits.
    let devnet = devnet().await;
    let ledger = SubstrateLedger::connect(Settings::new(vec![devnet.url()], HIDDEN)).await.unwrap();
    let weights = vec![(Uid::from(0), 20_000), (Uid::from(2), u16::MAX)];
    let signed = ledger.sign(&hotkey(1), Call::SetWeights(weights)).await.unwrap();
    devnet.stall_blocks(true);
    ledger.submit(&signed).await.unwrap();
    let waiting = devnet.chain().pending();
    let call = UncheckedExtrinsic::decode_all(&mut &waiting[0][..]).unwrap().function;
    let RuntimeCall::SubtensorModule(subtensor::Call::commit_timelocked_weights { commit, reveal_round, .. }) = call
    else {
        panic!("{call:?}")
    };
    let secret = covey_timelock::secret(&ChainSpec::default().beacon_seed);
    let signature = covey_timelock::sign_round(&secret, reveal_round).unwrap();
    let mut ours = env.command("bittensor_client.py");
    ours.args(["open", &hex::encode(commit), &hex::encode(signature)]);
    let opened = hex::decode(run(ours).await.trim()).unwrap();
    let payload = subtensor::WeightsPayload::decode_all(&mut &opened[..]).unwrap();
    assert_eq!((payload.hotkey, payload.version_key), (hotkey(1).hotkey().as_bytes().to_vec(), 0));
    assert_eq!((payload.uids, payload.values), (vec![0, 2], vec![20_000, u16::MAX]));
    devnet.stop().await;
}
