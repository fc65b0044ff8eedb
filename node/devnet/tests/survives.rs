//! A devnet in a process of its own is killed without notice, and goes on from where it was; what it kept can be
//! executed again from the beginning.

#![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

mod common;

use common::*;
use covey_devnet::chain::{Chain, ChainError, StoreError};
use covey_devnet::{ChainSpec, Config, Devnet, Replay, ReplayError};
use jsonrpsee::ws_client::WsClient;
use serde_json::{Value, json};
use sp_core::H256;
use sp_runtime::generic::Era;
use sp_runtime::traits::Header as _;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the child, which is this test's own program, finds its folder.
const FOLDER: &str = "COVEY_DEVNET_FOLDER";
/// How often a devnet is killed, unless COVEY_KILLS says otherwise.
const KILLS: u64 = 8;

/// Not a test of itself: the process that is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config { dir: Some(dir.into()), chain: spec(), ..Config::default() };
        let devnet = Devnet::start(config).await.unwrap();
        println!("\nserving {}", devnet.url());
        std::future::pending::<()>().await;
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> (Killed, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("serving ")?.to_owned()));
    (Killed(child), url.expect("the child serves"))
}

fn config(dir: &Path) -> Config {
    Config { dir: Some(dir.to_owned()), chain: spec(), ..Config::default() }
}

/// What a client was told before the devnet was gone: blocks by number, the newest final one.
#[derive(Default)]
struct Told {
    blocks: BTreeMap<u64, Value>,
    finalised: u64,
}

/// Uses a devnet until it is gone: blocks, transactions, now and then a reorganisation. It is killed so long after a
/// step, which is in the middle of the next one, or of one soon after.
async fn use_up(child: Killed, client: &WsClient, (last, after): (u64, Duration), told: &mut Told) {
    let genesis = ask(client, "chain_getBlockHash", json!([0])).await;
    let genesis = H256::from_slice(&hex::decode(&genesis.as_str().unwrap()[2..]).unwrap());
    let mut child = Some(child);
    let mut nonce = {
        let address = sp_core::crypto::Ss58Codec::to_ss58check(&account("//Alice"));
        ask(client, "system_accountNextIndex", json!([address])).await.as_u64().unwrap() as u32
    };
    for step in 1_u64.. {
        if step == last
            && let Some(child) = child.take()
        {
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                drop(child);
            });
        }
        let bytes = sign("//Alice", transfer("//Eve", 1_000_000), nonce, Era::Immortal, genesis, genesis);
        if try_ask(client, "author_submitExtrinsic", json!([hexed(bytes)])).await.is_none() {
            return;
        }
        nonce += 1;
        let made = if step.is_multiple_of(7) {
            try_ask(client, "covey_faultReorganise", json!([1 + step % 2])).await
        } else {
            try_ask(client, "covey_makeBlock", json!([])).await.map(|made| json!([made]))
        };
        let Some(Value::Array(made)) = made else { return };
        let first = made[0]["number"].as_u64().unwrap();
        told.blocks.split_off(&first);
        told.blocks.extend(made.iter().map(|block| (block["number"].as_u64().unwrap(), block["hash"].clone())));
        let Some(heads) = try_ask(client, "covey_heads", json!([])).await else { return };
        told.finalised = heads["finalised"]["number"].as_u64().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devnet_that_is_killed_at_any_instant_has_all_that_it_told() {
    let number = |name, or| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (seed, kills) = (number("COVEY_SEED", 1), number("COVEY_KILLS", KILLS));
    println!("seed {seed}: COVEY_SEED chooses another, COVEY_KILLS how often");
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for kill in 0..kills {
        let (child, url) = start(dir.path());
        let client = connect(&url).await;
        let heads = ask(&client, "covey_heads", json!([])).await;
        let (best, finalised) = (heads["best"]["number"].as_u64().unwrap(), &heads["finalised"]["number"]);
        let newest = told.blocks.last_key_value().map_or(0, |(number, _)| *number);
        assert!(best >= newest, "kill {kill}: {newest} was told, {best} is there");
        assert!(finalised.as_u64().unwrap() >= told.finalised, "kill {kill}: {} is not final", told.finalised);
        // A reorganisation that was under way may have changed what is not final; nothing else may.
        for (number, hash) in told.blocks.range(..=told.finalised) {
            let there = ask(&client, "chain_getBlockHash", json!([number])).await;
            assert_eq!(&there, hash, "kill {kill}: block {number}");
        }
        let number = hexed(frame_support::storage::storage_prefix(b"System", b"Number"));
        let at = ask(&client, "state_getStorage", json!([number])).await;
        let is = if best == 0 { Value::Null } else { hexed((best as u32).to_le_bytes()).into() };
        assert_eq!(at, is, "kill {kill}: the state is the block's");
        let mut random = [0; 16];
        blake3::Hasher::new().update(&seed.to_le_bytes()).update(&kill.to_le_bytes()).finalize_xof().fill(&mut random);
        let [step, micros] = [0, 8].map(|at| u64::from_le_bytes(random[at..at + 8].try_into().unwrap()));
        let instant = (1 + step % 40, Duration::from_micros(micros % 6_000));
        use_up(child, &client, instant, &mut told).await;
    }
    println!("{} blocks were told of", told.blocks.len());
    let replay = Replay::open(dir.path()).unwrap();
    let (newest, mut seen) = (replay.newest(), 0);
    for replayed in replay {
        let replayed = replayed.unwrap();
        let number = *replayed.block.header.number();
        if let Some(hash) = told.blocks.range(..=told.finalised).find(|(told, _)| **told == u64::from(number)) {
            assert_eq!(hash.1, &hexed(replayed.block.hash.0));
        }
        let key = frame_support::storage::storage_prefix(b"System", b"Number");
        assert!(number == 0 || replayed.state.get(&key).unwrap() == Some(number.to_le_bytes().to_vec()));
        seen = number;
    }
    assert_eq!(seen, newest);
}

#[test]
fn a_chain_executed_again_is_the_chain_and_another_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::open(&config(dir.path())).unwrap();
    for nonce in 0..300 {
        let bytes =
            sign("//Alice", transfer("//Eve", 1_000_000), nonce, Era::Immortal, chain.genesis(), chain.genesis());
        chain.submit(&bytes, false).unwrap();
        chain.make_block().unwrap();
    }
    let best = chain.best().hash;
    assert!(matches!(Replay::open(dir.path()), Err(ChainError::Store(StoreError::InUse(_)))));
    drop(chain);
    let all: Result<Vec<_>, ReplayError> = Replay::open(dir.path()).unwrap().collect();
    let all = all.unwrap();
    assert_eq!((all.len(), all[300].block.hash), (301, best));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Replay::open(empty.path()), Err(ChainError::Store(StoreError::Nothing(_)))));
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "looking makes nothing");
}

#[test]
fn states_are_there_again_as_far_back_as_they_were_kept() {
    let dir = tempfile::tempdir().unwrap();
    let kept = |states_kept| Config { states_kept, ..config(dir.path()) };
    let mut chain = Chain::open(&kept(20)).unwrap();
    let hashes: Vec<H256> = (0..100).map(|_| chain.make_block().unwrap().hash).collect();
    let there = |chain: &Chain| hashes.iter().filter(|hash| chain.state(hash).is_ok()).count();
    assert_eq!(there(&chain), 21);
    drop(chain);
    // More are asked for: those that were not kept do not come back.
    let chain = Chain::open(&kept(90)).unwrap();
    assert!(there(&chain) >= 21 && there(&chain) < 90, "{}", there(&chain));
    assert!(chain.state(&hashes[99]).unwrap().get(b"nothing").unwrap().is_none());
}

#[test]
fn a_folder_keeps_its_own_chain() {
    let dir = tempfile::tempdir().unwrap();
    let other = |slot_ms| Config { chain: ChainSpec { slot_ms, ..spec() }, ..config(dir.path()) };
    drop(Chain::open(&other(500)).unwrap());
    let error = Chain::open(&other(501)).err().unwrap().to_string();
    assert!(error.contains("another slot_ms:"), "{error}");
    let _open = Chain::open(&other(500)).unwrap();
    let error = Chain::open(&other(500)).err().unwrap().to_string();
    assert!(error.contains("another devnet runs in this folder"), "{error}");
}
