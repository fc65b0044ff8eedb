//! How fast a devnet is, as a table: `cargo run -p covey-devnet --example speed`.
//!
//! In the dev profile, because that is what swarms and tests run in. A subnet of 16 members and one of 256; what one
//! transaction and one empty block take inside, what a view of the subnet takes, and how many blocks a second are made on
//! demand over a socket while 8 clients read a view of every third block. The first figure is the clock's; the second the
//! processors', all threads together, which other programs on the machine hardly change.

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
use std::time::Instant;

const SIZES: [u16; 2] = [16, 256];
const CLIENTS: usize = 8;
/// Blocks between two views of a client.
const VIEW_EVERY: u32 = 3;
const BLOCKS: u32 = 1_000;

fn member(uid: u16) -> String {
    format!("seed:member {uid}")
}

fn chain(members: u16) -> ChainSpec {
    let member = |uid| GenesisMember {
        hotkey: account(&member(uid)),
        coldkey: account("//Alice"),
        stake: if uid < 64 { FUNDS } else { 0 },
    };
    let members = (0..members).map(member).collect();
    let subnet = GenesisSubnet { members, commit_reveal: false, ..GenesisSubnet::default() };
    ChainSpec { subnets: vec![subnet], ..spec() }
}

/// Seconds that all threads of this process have run, those that ended among them, in steps of 10 ms.
fn processors() -> f64 {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = line.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Both clocks.
struct Since(Instant, f64);

impl Since {
    fn now() -> Self {
        Self(Instant::now(), processors())
    }

    fn line(&self, what: &str, times: u32) {
        let per = |seconds: f64| seconds * 1e3 / f64::from(times.max(1));
        let (clock, run) = (per(self.0.elapsed().as_secs_f64()), per(processors() - self.1));
        println!("  {what:<52}{clock:>9.3} ms {run:>9.3} ms");
    }
}

fn timed<R>(what: &str, times: u32, mut run: impl FnMut() -> R) -> R {
    let since = Since::now();
    let mut last = run();
    for _ in 1..times {
        last = run();
    }
    since.line(what, times);
    last
}

fn view() -> Vec<u8> {
    (1_u16, vec![7_u16, 8, 9, 27, 46, 47, 52, 53, 55, 57, 59, 62, 69, 73]).encode()
}

async fn inside(config: Config, members: u16) {
    let world = World { devnet: Devnet::start(config).await.unwrap(), client: None };
    let devnet = &world.devnet;
    let calls: Vec<Vec<u8>> =
        (0..members).map(|uid| world.sign(&member(uid), commit(1, &[7; 114]), 0, Era::Immortal)).collect();
    let mut signed = calls.iter();
    timed("submit a commitment", members.into(), || devnet.chain().submit(signed.next().unwrap(), false).unwrap());
    let since = Since::now();
    assert_eq!(devnet.make_block().unwrap().transactions, usize::from(members));
    since.line("apply a commitment, in one block with the others", members.into());
    timed("an empty block", BLOCKS, || devnet.make_block().unwrap());
    let state = devnet.chain().best_state();
    let api = "SubnetInfoRuntimeApi_get_selective_metagraph";
    timed("a view of all members and commitments", 10, || state.call(api, &view()).unwrap());
}

async fn outside(config: Config) {
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
    let since = Since::now();
    for _ in 0..BLOCKS {
        ask(&client, "covey_makeBlock", json!([])).await;
    }
    let made = since.0.elapsed();
    for reader in readers {
        reader.await.unwrap();
    }
    let views = views.load(Ordering::Relaxed);
    since.line(&format!("a block on demand, 8 clients reading {views} views"), BLOCKS);
    println!("  {:<52}{:>9.0} /s", "that is", f64::from(BLOCKS) / made.as_secs_f64());
}

#[tokio::main]
async fn main() {
    for members in SIZES {
        for (durability, name) in [
            (None, "in memory"),
            (Some(Durability::Process), "on disk, safe from kill -9"),
            (Some(Durability::Machine), "on disk, safe from a power cut"),
        ] {
            println!("\n{members} members, {name}");
            let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let config = |dir: &tempfile::TempDir| Config {
                chain: chain(members),
                dir: durability.map(|_| dir.path().to_owned()),
                durability: durability.unwrap_or_default(),
                // A reader that is late still finds its block's state.
                states_kept: BLOCKS,
                ..Config::default()
            };
            inside(config(&one), members).await;
            outside(config(&two)).await;
        }
    }
}
