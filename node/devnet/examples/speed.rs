//! How fast a devnet is, as a table: `cargo run -p covey-devnet --example speed`.
//!
//! In the dev profile, because that is what swarms and tests run in. A subnet of 256 members; what one transaction and
//! one empty block take inside, what a view of the subnet takes, and how many blocks a second are made on demand over a
//! socket while 8 clients read a view of every third block.

#![allow(clippy::unwrap_used)] // A measurement that fails says where.

#[path = "../tests/common/mod.rs"]
mod common;

use codec::Encode;
use common::*;
use covey_devnet::pallets::subtensor::types::{GenesisMember, GenesisSubnet};
use covey_devnet::{ChainSpec, Config, Devnet, Durability};
use serde_json::json;
use sp_runtime::generic::Era;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MEMBERS: u16 = 256;
const CLIENTS: usize = 8;
/// Blocks between two views of a client.
const VIEW_EVERY: u32 = 3;
const BLOCKS: u32 = 1_000;

fn member(uid: u16) -> String {
    format!("//member{uid}")
}

fn chain() -> ChainSpec {
    let members = (0..MEMBERS).map(|uid| GenesisMember {
        hotkey: account(&member(uid)),
        coldkey: account("//Alice"),
        stake: if uid < 64 { FUNDS } else { 0 },
    });
    let subnet = GenesisSubnet { members: members.collect(), commit_reveal: false, ..GenesisSubnet::default() };
    ChainSpec { subnets: vec![subnet], ..spec() }
}

fn line(what: &str, took: Duration, times: u32) {
    println!("{what:<58}{:>10.3} ms", took.as_secs_f64() * 1e3 / f64::from(times.max(1)));
}

fn timed<R>(what: &str, times: u32, mut run: impl FnMut() -> R) -> R {
    let from = Instant::now();
    let mut last = run();
    for _ in 1..times {
        last = run();
    }
    line(what, from.elapsed(), times);
    last
}

fn view() -> Vec<u8> {
    (1_u16, vec![7_u16, 8, 9, 27, 46, 47, 52, 53, 55, 57, 59, 62, 69, 73]).encode()
}

async fn inside(dir: Option<&std::path::Path>, durability: Durability) {
    let config = Config { chain: chain(), dir: dir.map(Into::into), durability, ..Config::default() };
    let world = World { devnet: Devnet::start(config).await.unwrap(), client: None };
    let devnet = &world.devnet;
    let calls: Vec<Vec<u8>> =
        (0..MEMBERS).map(|uid| world.sign(&member(uid), commit(1, &[7; 114]), 0, Era::Immortal)).collect();
    let mut signed = calls.iter();
    timed("submit a commitment", u32::from(MEMBERS), || devnet.chain().submit(signed.next().unwrap(), false).unwrap());
    let from = Instant::now();
    assert_eq!(devnet.make_block().unwrap().transactions, usize::from(MEMBERS));
    line("apply a commitment, in a block of 256", from.elapsed(), u32::from(MEMBERS));
    timed("an empty block", BLOCKS, || devnet.make_block().unwrap());
    let state = devnet.chain().best_state();
    let api = "SubnetInfoRuntimeApi_get_selective_metagraph";
    timed("a view of 256 members with commitments, a new state", 1, || state.call(api, &view()).unwrap());
    timed("the same, states known", 20, || state.call(api, &view()).unwrap());
}

async fn outside(dir: Option<&std::path::Path>, durability: Durability) {
    let config = Config { chain: chain(), dir: dir.map(Into::into), durability, ..Config::default() };
    let devnet = Devnet::start(config).await.unwrap();
    let views = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        let (client, views) = (connect(&devnet.url()).await, views.clone());
        readers.push(tokio::spawn(async move {
            let method = "chain_subscribeNewHeads";
            let mut heads = subscribe(&client, method, json!([]), "chain_unsubscribeNewHeads").await;
            while let Some(Ok(head)) = heads.next().await {
                let number = u32::from_str_radix(&head["number"].as_str().unwrap()[2..], 16).unwrap();
                if number.is_multiple_of(VIEW_EVERY) {
                    let hash = ask(&client, "chain_getBlockHash", json!([number])).await;
                    let args = hexed(view());
                    let api = "SubnetInfoRuntimeApi_get_selective_metagraph";
                    ask(&client, "state_call", json!([api, args, hash])).await;
                    views.fetch_add(1, Ordering::Relaxed);
                }
                if number >= BLOCKS {
                    return;
                }
            }
        }));
    }
    let client = connect(&devnet.url()).await;
    let from = Instant::now();
    for _ in 0..BLOCKS {
        ask(&client, "covey_makeBlock", json!([])).await;
    }
    let made = from.elapsed();
    for reader in readers {
        reader.await.unwrap();
    }
    let read = from.elapsed();
    let rate = |took: Duration| f64::from(BLOCKS) / took.as_secs_f64();
    println!("{:<58}{:>10.0} /s", "blocks on demand, one a request, 8 clients reading", rate(made));
    let label = format!("until the clients had read their {} views as well", views.load(Ordering::Relaxed));
    println!("{label:<58}{:>10.0} /s", rate(read));
}

#[tokio::main]
async fn main() {
    for (durability, name) in [
        (None, "in memory"),
        (Some(Durability::Process), "on disk, safe from kill -9"),
        (Some(Durability::Machine), "on disk, safe from a power cut"),
    ] {
        println!("\n{name}");
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = |dir: &tempfile::TempDir| durability.map(|_| dir.path().to_owned());
        inside(dir(&one).as_deref(), durability.unwrap_or_default()).await;
        outside(dir(&two).as_deref(), durability.unwrap_or_default()).await;
    }
}
